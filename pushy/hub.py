"""Which connections of a worker follow which event, and what each is still owed. Pure: no socket, no clock.

State is no queue (latest wins): a connection that falls behind is owed each event's newest state, then its newest hint, never
more. A fan-out goes in chunks over an event's places; a newer state swaps the frame under it and the cursor goes on, once around.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pushy.followed import ACK_ALL, HINT, IN_FLIGHT, NOWHERE, STATE, TALLIES_MAX, Followed, Order, Outlet, Place, Tally
from pushy.link import Hinted, Update
from stagecast.receipts import APPS_MAX, MAPS_MAX, OTHER_APP, AppCensus, Receipt, latency_bucket
from stagecast.wire.frames import Ack, Position
from stagecast.wire.sampling import ack_hash

CHUNK = 256
"""Connections written to before the loop gets its turn: 1.5 ms."""
EVENTS_FOLLOWED_MAX = 10_000
"""Events one worker follows: a token of `*` must not make it remember every name that a device can think of."""

WriteAll = Callable[[bytes, list[Place]], list[Place]]
"""Writes a frame to places none of whose outlets has anything unsent; gives back those for which not all of it went out."""


class Loops(Protocol):
    """What is done for very many places at once, in C or in Python (pushy/fanout.py)."""

    @property
    def write_all(self) -> WriteAll: ...

    def give(self, frame: bytes, places: list[Place], order: Order, owed: int) -> tuple[int, list[Place]]:
        """`write_all` to those that have not been given this order and have nothing unsent; those who have get the bits `owed`
        into `owes`. Gives (how many it wrote to, for whom not all of it went out)."""
        ...

    def asked(self, devices: list[str], gen: int, seq: int, p: int) -> int:
        """How many of these devices are asked for an ack of this state."""
        ...


@dataclass(frozen=True, slots=True)
class PythonLoops:
    """`Loops` around this `write_all`."""

    write_all: WriteAll

    def give(self, frame: bytes, places: list[Place], order: Order, owed: int) -> tuple[int, list[Place]]:
        ready = [place for place in places if place.sent is not order and not place.outlet.unsent]
        if len(ready) != len(places):
            for place in places:
                if place.sent is not order and place.outlet.unsent:
                    place.sent = order
                    place.owes |= owed
        for place in ready:
            place.sent = order
        return len(ready), self.write_all(frame, ready)

    def asked(self, devices: list[str], gen: int, seq: int, p: int) -> int:
        return sum(ack_hash(device, gen, seq) < p for device in devices)


class Hub:
    def __init__(self, loops: Loops) -> None:
        self._loops = loops
        self.followed: dict[str, Followed] = {}
        self._busy: deque[Followed] = deque()
        """Events with a lane under way, each taking its turn."""
        self._hashing: deque[Tally] = deque()
        self.apps: dict[str, str] = {}
        """What devices of an app are counted under."""
        self.deliveries = self.superseded = self.stale = self.hinted = self.refused_busy = self.sent = 0
        self.ahead = 0
        """Positions that were past their event's head: something went back, such as a store restored from a backup."""

    # interest

    def head(self, event: str) -> bytes | None:
        """The event's head as a welcome's `state` object, if it is known."""
        followed = self.followed.get(event)
        return followed.welcome if followed and followed.order else None

    @property
    def events(self) -> list[str]:
        return list(self.followed)

    def want(self, outlet: Outlet, events: list[str], now: float) -> tuple[list[str], list[str]]:
        """`outlet` waits for these events' heads. Gives (events to ask the feed for: nobody waited for them before, events that
        are too many for this worker)."""
        new, over = [], []
        for e in events:
            followed = self.followed.get(e)
            if followed is None:
                if len(self.followed) >= EVENTS_FOLLOWED_MAX:
                    over.append(e)
                    continue
                followed = self.followed[e] = Followed(e, now)
                new.append(e)
            followed.idle = None
            followed.waiters[outlet] = None
        return new, over

    def refused(self, event: str) -> list[Outlet]:
        """The event's head can't be had: who waited for it. An event whose head is known stays as it is."""
        followed = self.followed.get(event)
        if followed is None:
            return []
        waiters, followed.waiters = list(followed.waiters), {}
        if followed.order is None:
            del self.followed[event]
        return waiters

    def overdue(self, before: float) -> list[str]:
        """Events whose head was asked for before `before` and is not known."""
        return [f.e for f in self.followed.values() if f.order is None and f.wanted < before]

    def abandoned(self, before: float) -> list[str]:
        """Forgets events that nobody has followed since `before`, and gives them."""
        gone = [f.e for f in self.followed.values() if f.idle is not None and f.idle < before]
        for e in gone:
            del self.followed[e]
        return gone

    # places

    def join(self, outlet: Outlet, at: list[Position], now: float) -> None:
        """`outlet` has just been given these events' heads and follows them; a seat it has already gets the position."""
        for position in at:
            followed = self.followed.get(position.e)
            if followed is None or followed.order is None:
                continue
            followed.waiters.pop(outlet, None)
            followed.idle = None
            if (place := self._place(outlet, position.e)) is None:
                place = Place(outlet, followed, followed.order, self._label(outlet.app))
                self._seat(place)
            else:
                self._unmark(place)
            self._mark(place, position)

    def moved(self, outlet: Outlet, at: list[Position]) -> None:
        """Where the device says it stands."""
        for position in at:
            if place := self._place(outlet, position.e):
                self._unmark(place)
                self._mark(place, position)

    def leave(self, outlet: Outlet, events: list[str] | None, now: float, why: str | None = None) -> None:
        """`outlet` follows `events` no more (None: it is gone, and `why` is the label that its end is counted under)."""
        for e in events if events is not None else []:
            if followed := self.followed.get(e):
                followed.waiters.pop(outlet, None)
                self._maybe_idle(followed, now)
        gone = [place for place in outlet.places if events is None or place.event.e in events]
        outlet.places = tuple(place for place in outlet.places if place not in gone)
        for place in gone:
            self._unseat(place)
            if why is not None:
                drops = place.event.tallies[-1].drops
                drops[why] = drops.get(why, 0) + 1
            self._maybe_idle(place.event, now)

    def _place(self, outlet: Outlet, e: str) -> Place | None:
        for place in outlet.places:
            if place.event.e == e:
                return place
        return None

    def _seat(self, place: Place) -> None:
        followed = place.event
        place.index = len(followed.places)
        followed.places.append(place)
        place.outlet.places = (*place.outlet.places, place)
        for lane in (followed.states, followed.hints):
            if lane.left:
                lane.left += 1  # the circle has grown by one, and so has what is left of it

    def _unseat(self, place: Place) -> None:
        followed = place.event
        self._unmark(place)
        if self._is_pending(place):
            tally = followed.tallies[-1]
            tally.pending -= 1
            tally.closed += 1
        place.owes = 0
        last = followed.places.pop()
        if last is place:
            return
        followed.places[place.index] = last
        last.index = place.index
        # `last` may have moved from the part still to come into the part already passed: it gets its turn now.
        if followed.states.left:
            self._give_state(last)
        if followed.hints.left:
            self._give_hint(last)

    def _maybe_idle(self, followed: Followed, now: float) -> None:
        if not followed.places and not followed.waiters:
            followed.idle = now

    def _label(self, app: str) -> str:
        """What devices of this app are counted under: the first APPS_MAX apps by name, so that no device makes receipts grow."""
        if len(self.apps) < APPS_MAX:
            return self.apps.setdefault(app, app or OTHER_APP)
        return self.apps.get(app, OTHER_APP)

    def _is_pending(self, place: Place) -> bool:
        return place.sent is not place.event.order or place.owes & (STATE | IN_FLIGHT) != 0

    def _mark(self, place: Place, position: Position) -> None:
        followed = place.event
        at = (position.gen, position.seq)
        assert followed.order is not None
        if at == followed.order:
            at = followed.order  # one object for all who are at the head
        elif at > followed.order:
            self.ahead += 1
        place.at = at if at != NOWHERE else NOWHERE
        place.map = sys.intern(position.map) if position.map is not None else None  # one string for all who hold it
        followed.orders[place.app, place.at] += 1
        followed.maps[place.map] += 1

    def _unmark(self, place: Place) -> None:
        followed = place.event
        pairs: tuple[tuple[Counter[Any], Any], ...] = (
            (followed.orders, (place.app, place.at)),
            (followed.maps, place.map),
        )
        for counter, key in pairs:
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    # states and hints

    def update(self, update: Update, now: float) -> list[Outlet]:
        """A head from the feed. Gives who waited for it; one that is not newer changes nothing (duplicates are free)."""
        followed = self.followed.get(update.e)
        order = (update.gen, update.seq)
        if followed is None or (followed.order is not None and order <= followed.order):
            self.stale += 1
            return []
        if followed.tallies:
            last = followed.tallies[-1]
            last.superseded += last.pending
            self.superseded += last.pending
            last.pending = 0
        followed.order, followed.frame, followed.welcome, followed.map = order, update.frame, update.welcome, update.map
        tally = Tally(order, update.ack, followed.places)
        followed.tallies.append(tally)
        if tally.unhashed:
            self._hashing.append(tally)
        if followed.places:
            followed.began = now
            followed.states.start(len(followed.places))
            self._begin(followed)
        waiters, followed.waiters = list(followed.waiters), {}
        if not followed.places and not waiters:
            followed.idle = now
        return waiters

    def hint(self, hinted: Hinted) -> None:
        """A hint from the feed, for all who follow its event."""
        followed = self.followed.get(hinted.e)
        if followed is not None and followed.places:
            followed.hint = hinted.frame
            followed.hints.start(len(followed.places))
            self._begin(followed)

    def _begin(self, followed: Followed) -> None:
        if followed not in self._busy:
            self._busy.append(followed)

    @property
    def working(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._busy or self._hashing)

    def step(self, limit: int = CHUNK) -> Followed | None:
        """One chunk of one event's fan-out; gives the event when its states have just been through."""
        if not self._busy:
            self._hash(limit)
            return None
        followed = self._busy.popleft()
        done = None
        if followed.states.left:
            self._fan_out_state(followed, limit)
            done = None if followed.states.left else followed
        elif followed.hints.left:
            self._fan_out_hint(followed, limit)
        if followed.states.left or followed.hints.left:
            self._busy.append(followed)
        return done

    def _fan_out_state(self, followed: Followed, limit: int) -> None:
        order, tally = followed.order, followed.tallies[-1]
        assert order is not None
        part = followed.states.take(followed.places, limit)
        ready, stuck = self._loops.give(followed.frame, part, order, STATE)
        self.sent += ready * len(followed.frame)
        for place in stuck:
            place.owes = place.owes & ~STATE | IN_FLIGHT
        sent = ready - len(stuck)
        tally.written += sent
        tally.pending -= sent
        self.deliveries += sent

    def _fan_out_hint(self, followed: Followed, limit: int) -> None:
        assert followed.hint is not None
        part = followed.hints.take(followed.places, limit)
        for place in part:
            if place.outlet.unsent:
                place.owes |= HINT
        ready = [place for place in part if not place.outlet.unsent]
        self._loops.write_all(followed.hint, ready)
        self.sent += len(ready) * len(followed.hint)
        self.hinted += len(ready)

    def _give_state(self, place: Place) -> None:
        """The newest state for one place that has not been given it, now or as soon as its outlet is drained."""
        followed = place.event
        assert followed.order is not None
        if place.sent is followed.order and not place.owes & STATE:
            return
        place.sent = followed.order
        if place.outlet.unsent:
            place.owes |= STATE
            return
        place.owes &= ~STATE
        if place.outlet.write(followed.frame):
            self._written(followed.tallies[-1])
        else:
            place.owes |= IN_FLIGHT

    def _give_hint(self, place: Place) -> None:
        """The newest hint; one too many does no harm."""
        if place.outlet.unsent:
            place.owes |= HINT
        elif place.event.hint is not None:
            place.owes &= ~HINT
            place.outlet.write(place.event.hint)
            self.hinted += 1

    def _written(self, tally: Tally) -> None:
        tally.pending -= 1
        tally.written += 1
        self.deliveries += 1

    def drained(self, outlet: Outlet) -> None:
        """All that was written to `outlet` is with the kernel: what it is owed follows, states first."""
        for place in outlet.places:
            if place.owes & IN_FLIGHT:
                place.owes &= ~IN_FLIGHT
                if place.sent is place.event.order and not place.owes & STATE:
                    self._written(place.event.tallies[-1])
        for place in outlet.places:
            if outlet.unsent:
                return
            if place.owes & STATE:
                self._give_state(place)
        for place in outlet.places:
            if outlet.unsent:
                return
            if place.owes & HINT:
                self._give_hint(place)

    def deliver(self, outlet: Outlet, frame: bytes) -> int:
        """A `map` or `msg` for one connection: 200, or 503 while it has unsent bytes, for these are not kept."""
        if outlet.unsent:
            self.refused_busy += 1
            return 503
        outlet.write(frame)
        return 200

    # receipts

    def ack(self, outlet: Outlet, ack: Ack) -> bool:
        """Counts an ack. False if nobody asked this device for it, or it has come before."""
        place = self._place(outlet, ack.e)
        order = (ack.gen, ack.seq)
        if place is None or order <= place.acked:
            return False
        tally = next((one for one in place.event.tallies if one.order == order), None)
        if tally is None or (place.owes & STATE and order == place.event.order):
            return False
        if tally.p < ACK_ALL and ack_hash(outlet.device, *order) >= tally.p:
            return False
        place.acked = tally.order
        match ack.r:
            case "switched":
                tally.switched += 1
            case "missing":
                tally.missing += 1
            case "ignored":
                tally.ignored += 1
        bucket = latency_bucket(ack.ms)
        tally.latency[bucket] = tally.latency.get(bucket, 0) + 1
        if order > place.at:
            self._unmark(place)
            self._mark(place, Position(ack.e, ack.gen, ack.seq, place.map))
        return True

    def _hash(self, limit: int) -> None:
        """Counts whom the policy of a state asks, a chunk at a time."""
        if not self._hashing:
            return
        tally = self._hashing[0]
        part, tally.unhashed = tally.unhashed[:limit], tally.unhashed[limit:]
        tally.asked += self._loops.asked(part, *tally.order, tally.p)
        if not tally.unhashed:
            self._hashing.popleft()

    def receipts(self, blank: Receipt, now: float, alive: float) -> list[Receipt]:
        """The receipts that changed since they were last given, and of each event's newest state at least every `alive` seconds.
        `blank` holds who counts, and when."""
        out: list[Receipt] = []
        for followed in self.followed.values():
            told = followed.told
            for tally in followed.tallies:
                receipt = self._receipt(blank, followed, tally)
                before = told.get(tally.order)
                newest = tally.order == followed.order
                if before is not None and (not newest or now - before[0] < alive) and _same(before[1], receipt):
                    continue
                told[tally.order] = (now, receipt)
                out.append(receipt)
            if len(told) > TALLIES_MAX:
                kept = {tally.order for tally in followed.tallies}
                followed.told = {order: one for order, one in told.items() if order in kept}
        return out

    def _receipt(self, blank: Receipt, followed: Followed, tally: Tally) -> Receipt:
        apps: dict[str, list[int]] = {}
        for (app, order), count in followed.orders.items():
            sums = apps.setdefault(app, [0, 0])
            sums[0] += count
            sums[1] += count if order >= tally.order else 0
        holding = len(followed.places)
        if (wanted := followed.map) is not None:
            holding = sum(
                count for version, count in followed.maps.items() if version is not None and version >= wanted
            )
        gen, seq = tally.order
        return Receipt(
            host=blank.host, boot=blank.boot, worker=blank.worker, ts=blank.ts, left=blank.left,
            e=followed.e, gen=gen, seq=seq,
            audience=tally.audience, written=tally.written, pending=tally.pending,
            superseded=tally.superseded, closed=tally.closed,
            asked=tally.asked, switched=tally.switched, missing=tally.missing, ignored=tally.ignored,
            latency=dict(tally.latency), drops=dict(tally.drops),
            subscribed=len(followed.places), at_or_past=sum(at for _, at in apps.values()), holding=holding,
            maps=_newest(followed.maps), apps={app: AppCensus(*sums) for app, sums in apps.items()},
        )  # fmt: skip


def _newest(maps: Counter[str | None]) -> dict[str, int]:
    versions = sorted((version for version in maps if version is not None), reverse=True)
    return {version: maps[version] for version in versions[:MAPS_MAX]}


def _same(one: Receipt, other: Receipt) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in Receipt.__struct_fields__ if name != "ts")


__all__ = ["CHUNK", "Followed", "Hub", "Outlet", "Place", "Tally"]
