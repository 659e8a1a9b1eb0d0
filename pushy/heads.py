"""What a feed knows of the events: the greatest head that log and store have told, who follows it, and when to ask the store.
Pure: it says which heads to read and what to tell which worker; the feed does so.

A head is *verified* once it was read from the store after the log's end had been resolved: from then on the log can't have passed
it by. Whatever breaks that (a gap, a silent or unreachable log) takes the verification away, and followed heads are read again.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from stagecast.broadcast import Broadcast
from stagecast.wire.frames import Hint

REMEMBERED = 4096
"""Events nobody follows that are remembered: what the log said last, so that they can be told when the store is down."""
HINT_REPEAT = 30.0
"""Seconds before the same hint goes out again: its repeats are for the devices that came since."""
LOG_SILENT = 15.0
"""Seconds without a record of any kind after which the log counts as silent, and between two rounds of reading the store then."""
BOTH_SILENT = 30.0
"""Seconds of silence of both roads after which the host accepts no more devices."""
KV_RETRY = 5.0
"""Seconds before a store that just failed is asked again for an event that can be told from memory."""


@dataclass(frozen=True, slots=True)
class Tell:
    """The head goes to these workers."""

    workers: frozenset[int]
    head: Broadcast


@dataclass(frozen=True, slots=True)
class Refuse:
    """These workers hear that the event can't be followed; they do not follow it."""

    workers: frozenset[int]
    event: str
    code: Literal["unknown_event", "unavailable"]


@dataclass(frozen=True, slots=True)
class Read:
    """Ask the store for this event's head, and hand the answer to `found`, `absent` or `failed` with this `Read`."""

    event: str
    epoch: int
    known: tuple[int, int]
    """The order of what was known when the question was asked."""


Action = Tell | Refuse | Read


@dataclass(slots=True)
class _Event:
    head: Broadcast | None = None
    verified: bool = False
    reading: bool = False
    failed: float | None = None
    """When the store last failed to say (monotonic), if it has not answered since."""
    followers: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    """Workers that have asked and are not answered yet."""

    @property
    def order(self) -> tuple[int, int]:
        return self.head.order if self.head else (0, 0)

    @property
    def wanted(self) -> bool:
        return bool(self.followers or self.waiting)


class Heads:
    """The events of one host. Workers are named by an int of the caller's choice."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._events: dict[str, _Event] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        """Events nobody follows, the longest unheard first."""
        self._remembered = remembered
        self._hints: OrderedDict[str, tuple[Hint, float]] = OrderedDict()
        self._epoch = 0
        self._resolved: bool | None = None
        """None until the log's end was resolved for the first time; False while the log is out of reach."""
        self.behind = 0
        """Heads that the store told and that were less than what devices already had: it was restored from a backup."""

    def follow(self, worker: int, events: Iterable[str], now: float) -> list[Action]:
        """The worker wants these heads, now and from now on."""
        actions: list[Action] = []
        for event in events:
            one = self._events.setdefault(event, _Event())
            self._idle.pop(event, None)
            if one.head is not None and self._tellable(one, now):
                one.followers.add(worker)
                actions.append(Tell(frozenset({worker}), one.head))
            else:
                one.waiting.add(worker)
                actions += self._read(event, one)
        return actions

    def unfollow(self, worker: int, events: Iterable[str]) -> None:
        for event in events:
            one = self._events.get(event)
            if one is not None:
                one.followers.discard(worker)
                one.waiting.discard(worker)
                self._retire(event, one)

    def left(self, worker: int) -> None:
        """The worker is gone: it follows nothing."""
        self.unfollow(worker, list(self._events))

    def said(self, head: Broadcast) -> list[Action]:
        """The log said this head. It goes to the followers if it is greater than what they have."""
        one = self._events.setdefault(head.e, _Event())
        newer = one.head is None or head.order > one.order
        if newer:
            one.head = head
        self._retire(head.e, one)
        return [Tell(frozenset(one.followers), head)] if newer and one.followers else []

    def hinted(self, hint: Hint, now: float) -> frozenset[int]:
        """The log said this hint: whom it goes to. An older one goes to nobody, the same one again only after HINT_REPEAT."""
        known = self._hints.get(hint.e)
        if known is not None:
            newest, at = known
            if (hint.gen, hint.map) < (newest.gen, newest.map):
                return frozenset()
            if (hint.gen, hint.map) == (newest.gen, newest.map) and now - at < HINT_REPEAT:
                return frozenset()
        self._hints[hint.e] = hint, now
        self._hints.move_to_end(hint.e)
        if len(self._hints) > self._remembered:
            self._hints.popitem(last=False)
        one = self._events.get(hint.e)
        return frozenset(one.followers) if one else frozenset()

    def found(self, read: Read, head: Broadcast) -> list[Action]:
        """The store's answer: the greater of it and the log's goes to who waits, and to the followers if it is news."""
        one = self._answered(read)
        if head.order < read.known:
            self.behind += 1
        newer = one.head is None or head.order > one.order
        if newer:
            one.head = head
        assert one.head is not None
        to = one.waiting | one.followers if newer else set(one.waiting)
        one.followers |= one.waiting
        one.waiting.clear()
        actions: list[Action] = [Tell(frozenset(to), one.head)] if to else []
        return actions + self._settle(read, one)

    def absent(self, read: Read) -> list[Action]:
        """The store's answer: it has no such event. What the log said of it still counts: a mirrored log may be ahead of the
        store of another region."""
        one = self._answered(read)
        if one.head is not None:
            return self.found(read, one.head)
        actions: list[Action] = [Refuse(frozenset(one.waiting), read.event, "unknown_event")] if one.waiting else []
        one.waiting.clear()
        self._retire(read.event, one)
        return actions

    def failed(self, read: Read, now: float) -> list[Action]:
        """The store gave no answer: what is known is told, or `unavailable`."""
        one = self._answered(read)
        one.failed = now
        actions: list[Action] = []
        if one.waiting and one.head is not None:
            actions.append(Tell(frozenset(one.waiting), one.head))
            one.followers |= one.waiting
        elif one.waiting:
            actions.append(Refuse(frozenset(one.waiting), read.event, "unavailable"))
        one.waiting.clear()
        self._retire(read.event, one)
        return actions

    def resolved(self) -> list[Action]:
        """The log's end was resolved just now, and it is read from there on: read all heads that somebody wants."""
        self._resolved = True
        return self._doubt()

    def lost(self) -> None:
        """The log is out of reach, or has a gap: nothing is verified until `resolved`."""
        self._resolved = False if self._resolved is not None else None
        self._epoch += 1
        for one in self._events.values():
            one.verified = False

    def reread(self) -> list[Action]:
        """Read the heads of all followed events again: the log is silent. Those nobody follows are not trusted any more."""
        return self._doubt()

    def unverified(self, now: float) -> list[Action]:
        """Heads that somebody wants and the store failed to say: asked again after KV_RETRY."""
        return [
            action
            for event, one in self._events.items()
            if one.wanted and one.failed is not None and now - one.failed >= KV_RETRY
            for action in self._read(event, one)
        ]

    @property
    def followed(self) -> int:
        return sum(bool(one.followers) for one in self._events.values())

    @property
    def known(self) -> int:
        return len(self._events)

    def _tellable(self, one: _Event, now: float) -> bool:
        return one.verified or (bool(one.followers) and one.failed is not None and now - one.failed < KV_RETRY)

    def _read(self, event: str, one: _Event) -> list[Action]:
        """One question at a time for each event, and none before the log's end is known (rule 3)."""
        if one.reading or self._resolved is None:
            return []
        one.reading = True
        return [Read(event, self._epoch, one.order)]

    def _answered(self, read: Read) -> _Event:
        one = self._events.setdefault(read.event, _Event())
        one.reading = False
        one.failed = None
        return one

    def _settle(self, read: Read, one: _Event) -> list[Action]:
        """A head read before the log's end was resolved (anew) is asked for once more."""
        one.verified = read.epoch == self._epoch and self._resolved is True
        self._retire(read.event, one)
        return self._read(read.event, one) if one.wanted and read.epoch != self._epoch else []

    def _doubt(self) -> list[Action]:
        self._epoch += 1
        actions: list[Action] = []
        for event, one in self._events.items():
            one.verified = False
            if one.wanted:
                actions += self._read(event, one)
        return actions

    def _retire(self, event: str, one: _Event) -> None:
        """An event nobody wants is the newest of the idle ones; the oldest of too many is forgotten."""
        if one.wanted or one.reading:
            return
        if one.head is None:
            del self._events[event]
            return
        self._idle[event] = None
        self._idle.move_to_end(event)
        if len(self._idle) > self._remembered:
            forgotten, _ = self._idle.popitem(last=False)
            del self._events[forgotten]


class Silence:
    """When each road last said anything, and what follows from its silence. Pure; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._log = self._kv = self._round = now

    def log_spoke(self, now: float) -> None:
        self._log = now

    def kv_spoke(self, now: float) -> None:
        self._kv = now

    def log_age(self, now: float) -> float:
        return now - self._log

    def kv_age(self, now: float) -> float:
        return now - self._kv

    def log_silent(self, now: float) -> bool:
        return now - self._log >= LOG_SILENT

    def both_silent(self, now: float) -> bool:
        return now - self._log >= BOTH_SILENT and now - self._kv >= BOTH_SILENT

    def round_due(self, now: float) -> bool:
        """Whether to read the store now, since the log is silent: every 15 s. Saying True begins the next interval."""
        if not self.log_silent(now) or now - self._round < LOG_SILENT:
            return False
        self._round = now
        return True
