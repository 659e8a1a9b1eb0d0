"""How a transition came over the devices, second by second: points for curves, from receipts. Pure: the log's stamps and `now`
are arguments.

A point is the sum of all receipts that the log took before a full second. So it depends on the log alone, and instances that read
the same log make the same points and may all write them: repeats are free. A state that another one followed gets points as long
as its counts change: it tells how it ended. While a state is young there is one a second, later
fewer, and none where nothing changed; a large fleet's sums cost more and come less often.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from broadcaster.receipts import STATES_KEPT, Ledger
from stagecast.event import Head
from stagecast.receipts import Progress, Receipt

SHARES = (("50", 0.5), ("95", 0.95), ("99", 0.99), ("99.9", 0.999))
"""Names and shares of the audience whose times are told."""
CURVES_MAX = 10_000
"""Curves in memory; over it the one longest without a point is dropped, and goes on from the store."""
FIRST_WITHIN_MS = 3000
"""A curve whose first point here is no later than so after its state surely has none in the store."""
GRACE_MS = 1500
"""After a second is over by the wall clock, how long until its point is made though the log has said nothing since."""
WORKERS_PER_STEP = 1000
"""So many workers more make the time between two points a step longer: 5,000 take 0.1 s to add, so a curve costs 2 % of the
process."""
_MINUTE = 60_000
_GRAIN = (
    (2 * _MINUTE, 1000, 0, 30_000),
    (15 * _MINUTE, 5000, 4, 5 * _MINUTE),
    (120 * _MINUTE, _MINUTE, 100, 60 * _MINUTE),
)
"""While a state is younger than the first (ms): ms between points, and number of the first chunk, ms of a chunk."""
_OLD = (10 * _MINUTE, 10_000, 600 * _MINUTE)

Order = tuple[int, int]


class Point(Struct, frozen=True, array_like=True):
    """The sums at one moment."""

    ts: int
    """Wall ms by the log's clock."""
    subscribed: int
    at_or_past: int
    holding: int
    audience: int
    written: int
    pending: int
    superseded: int
    closed: int
    asked: int
    switched: int
    missing: int
    ignored: int
    drops: dict[str, int] = {}
    """As `Progress` has them."""


def point_of(progress: Progress, ts: int) -> Point:
    return Point(ts, *(getattr(progress, name) for name in Point.__struct_fields__[1:]))


def grain(age: int) -> tuple[int, int]:
    """For a state of this age in ms: ms between points, number of the chunk that a point then belongs to."""
    for until, step, first, length in _GRAIN:
        if age < until:
            return step, first + max(age, 0) // length
    step, first, length = _OLD
    return step, first + age // length


def times_of(head: Head) -> dict[Order, int]:
    """(gen, seq) → ts of the states that this head remembers."""
    return {(head.gen, entry.seq): entry.ts for entry in head.accepted}


def reached(points: Iterable[Point], since: int) -> dict[str, int | None]:
    """Share → ms from `since` until the census had so many at it, as of the first point that says so; None: not yet."""
    found: dict[str, int | None] = {name: None for name, _ in SHARES}
    for point in points:
        for name, share in SHARES:
            if found[name] is None and point.subscribed and point.at_or_past / point.subscribed >= share:
                found[name] = max(point.ts - since, 0)
    return found


@dataclass(slots=True)
class Curve:
    """One state's points that are not all in the store."""

    order: Order
    since: int
    """The state's ts."""
    loaded: bool
    """Whether what the store has of it is known here, so that writing a chunk loses nothing."""
    points: list[Point] = field(default_factory=list)
    """Of the chunks not finished or not saved, by ts."""
    reached: dict[str, int | None] = field(default_factory=lambda: reached((), 0))
    saved: int = 0
    """Up to which ts."""

    def add(self, point: Point) -> None:
        last = self.points[-1] if self.points else None
        if last is not None and (point.ts <= last.ts or msgspec.structs.replace(point, ts=last.ts) == last):
            return
        self.points.append(point)
        self._learn([point])

    def load(self, stored: list[Point]) -> None:
        """Takes what the store has: older points than ours are prepended."""
        first = self.points[0].ts if self.points else None
        before = [point for point in stored if first is None or point.ts < first]
        self.points = before + self.points
        self.saved = max((point.ts for point in before), default=0) if not self.saved else self.saved
        self._learn(self.points)
        self.loaded = True

    def _learn(self, points: list[Point]) -> None:
        for name, at in reached(points, self.since).items():
            known = self.reached[name]
            if at is not None and (known is None or at < known):
                self.reached[name] = at

    def chunks(self) -> dict[int, list[Point]]:
        """Chunk → its points, of those that have any not saved."""
        found: dict[int, list[Point]] = {}
        for point in self.points:
            found.setdefault(grain(point.ts - self.since)[1], []).append(point)
        return {number: points for number, points in found.items() if points[-1].ts > self.saved}

    def keep_from(self, chunk: int) -> None:
        """Forgets the points of chunks before `chunk`: they are in the store for good."""
        self.points = [point for point in self.points if grain(point.ts - self.since)[1] >= chunk]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Points to be written under (event, gen, seq, number)."""

    event: str
    order: Order
    number: int
    points: list[Point]


class Recorder:
    """Makes points while a ledger is filled. `since` tells a state's ts, None while that is not known here."""

    def __init__(self, ledger: Ledger, since: Callable[[str, Order], int | None], complete_from: int = 0) -> None:
        self._ledger = ledger
        self._since = since
        self.complete_from = complete_from
        """Before this moment (wall ms) the ledger lacks receipts: no points."""
        self._curves: dict[tuple[str, Order], Curve] = {}
        self._newest: dict[str, Order] = {}
        self._last: dict[str, dict[Order, int]] = {}
        """Event → state → stamp of the last receipt taken that no point covers; the newest few states of each."""
        self.points = 0
        ledger.before = self.before

    def before(self, receipt: Receipt, stamp: int) -> None:
        """A receipt is about to be taken: the seconds before it are complete."""
        event, order = receipt.e, (receipt.gen, receipt.seq)
        self._look(event, stamp)
        self._newest[event] = max(self._newest.get(event, (0, 0)), order)
        last = self._last.setdefault(event, {})
        last[order] = max(last.get(order, 0), stamp)
        if len(last) > STATES_KEPT:
            del last[min(last)]

    def pass_time(self, now: int) -> None:
        """The wall clock says so: seconds over for GRACE_MS are complete though nothing came after them."""
        for event in list(self._last):
            self._look(event, now - GRACE_MS)
        for (event, order), curve in list(self._curves.items()):
            over = order != self._newest.get(event) or not self._ledger.count(event)
            if over and curve.loaded and not curve.chunks():
                del self._curves[event, order]
        for event in [event for event in self._newest if not self._ledger.count(event)]:
            self._newest.pop(event)
            self._last.pop(event, None)

    def curve(self, event: str, order: Order) -> Curve | None:
        """What is in memory of this state's curve."""
        return self._curves.get((event, order))

    def unloaded(self) -> list[tuple[str, Order]]:
        """Curves that began before this process could know: what has the store of them?"""
        return [key for key, curve in self._curves.items() if not curve.loaded]

    def unsaved(self) -> list[Chunk]:
        """What the store should have; tell `saved` once it has."""
        return [
            Chunk(event, order, number, points)
            for (event, order), curve in self._curves.items()
            if curve.loaded
            for number, points in curve.chunks().items()
        ]

    def saved(self, chunk: Chunk) -> None:
        curve = self.curve(chunk.event, chunk.order)
        if curve is not None:
            curve.saved = max(curve.saved, chunk.points[-1].ts)
            curve.keep_from(chunk.number)

    def _look(self, event: str, upto: int) -> None:
        for order, last in list(self._last.get(event, {}).items()):
            self._look_at(event, order, last, upto)

    def _look_at(self, event: str, order: Order, last: int, upto: int) -> None:
        """Makes the point of the second that the last receipts of a state fell into, if that second was over at `upto`."""
        since = self._since(event, order)
        if since is None:
            return
        step = grain(last - since)[0] * (1 + self._ledger.count(event) // WORKERS_PER_STEP)
        at = (last // step + 1) * step
        if at > upto:
            return
        del self._last[event][order]
        if at < self.complete_from:
            return
        newest = order == self._newest[event]
        sums = self._ledger.progress(event, *order, at) if newest else self._ledger.settled(event, *order)
        self._curve(event, order, since, at).add(point_of(sums, at))
        self.points += 1

    def _curve(self, event: str, order: Order, since: int, at: int) -> Curve:
        found = self._curves.pop((event, order), None)
        if found is None:  # an older one may have been here, saved and forgotten: its chunk is in the store
            found = Curve(order, since, loaded=since >= self.complete_from and at - since <= FIRST_WITHIN_MS)
        self._curves[event, order] = found  # the last in line to be dropped
        if len(self._curves) > CURVES_MAX:
            del self._curves[next(iter(self._curves))]
        return found
