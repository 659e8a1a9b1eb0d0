"""The events that this process knows, with their heads in memory: what the cadence repeats and the schedule looks at.

A head here may be behind the store by a moment, never ahead of it: whoever acts on it does so by compare-and-set, and the log
takes an old broadcast without harm (rule 5). It is brought up to date by this process's own changes, by the records of all
producers in the log, and by the cadence's reads; so reads are about one per event and second at the very most.

Only what is active stays here. An event that rests has nothing to repeat and nothing due: the cadence forgets it, and a record of
the log or a newer entry of the index brings it back.
"""

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from broadcaster.heads import Damaged, Heads, Kept
from broadcaster.tail import follow
from broadcaster.together import together
from kv import StoreError
from stagecast.broadcast import Broadcast
from stagecast.clock import Clock
from stagecast.event import Head, active
from stagecast.log import MessageLog, Positions, Topic
from stagecast.plan import Plan
from stagecast.records import RecordError, decode_record

EVENTS_MAX = 100_000
"""Events in memory; over it new ones are left out (`left_out`) until others rest and are forgotten."""
FRESH = 1.0
"""Seconds in which a record of the log, if no newer than our head, is no reason to read the head again."""

_log = structlog.get_logger()


@dataclass(slots=True)
class Known:
    """One event in memory."""

    kept: Kept
    plan: Plan
    read_at: float
    """Monotonic seconds."""
    in_history: tuple[int, int] = (0, 0)
    """(gen, seq) up to which this process knows history to be complete."""

    @property
    def head(self) -> Head:
        return self.kept.head

    @property
    def history_complete(self) -> bool:
        return self.in_history == self.kept.order


class Roster:
    """Event id → what is known. `changed` is set whenever a head is new here."""

    def __init__(self, heads: Heads, clock: Clock, limit: int = EVENTS_MAX) -> None:
        self._heads = heads
        self._clock = clock
        self._limit = limit
        self._events: dict[str, Known] = {}
        self.changed = asyncio.Event()
        self.left_out = 0

    def __len__(self) -> int:
        return len(self._events)

    def get(self, event: str) -> Known | None:
        return self._events.get(event)

    def all(self) -> list[Known]:
        return list(self._events.values())

    def active(self) -> list[Known]:
        """Those that the cadence repeats now."""
        return [known for known in self._events.values() if self.is_active(known)]

    def is_active(self, known: Known) -> bool:
        return active(known.head, known.plan, self._clock.now())

    def forget(self, known: Known) -> None:
        """Drops an event that rests; nothing if it has come to life meanwhile."""
        if self._events.get(known.head.event) is known and not self.is_active(known):
            del self._events[known.head.event]

    def saw(self, kept: Kept, plan: Plan) -> Known:
        """Takes note of a head just read or made. One that is older than the one known changes nothing; "newer" is a later
        version, or a greater (gen, seq): a store restored from a backup counts versions anew, but a regen's gen is greater.
        One that is not known and rests, or is one too many, is returned and not kept."""
        event = kept.head.event
        known = self._events.get(event)
        if known is None:
            known = Known(kept, plan, self._clock.monotonic())
            if not self.is_active(known):
                return known
            if len(self._events) >= self._limit:
                self.left_out += 1
                return known
            self._events[event] = known
            self.changed.set()
        elif kept.version > known.kept.version or kept.order > known.kept.order:
            known.kept, known.plan = kept, plan
            self.changed.set()
        known.read_at = self._clock.monotonic()
        return known

    async def refresh(self, event: str) -> Known | None:
        """Reads the head from the store. Raises StoreUnavailable. None for an event that never was."""
        kept = await self._heads.read(event)
        return None if kept is None else self.saw(kept, await self._heads.plan(kept.head))

    def wants(self, record: Broadcast) -> bool:
        """Whether this record of the log is a reason to read its event's head: it is newer, or it may tell of a change at the
        same seq (plan, hold) and our copy is not of this second."""
        known = self._events.get(record.e)
        if known is None or record.order > known.kept.order:
            return True
        return self._clock.monotonic() - known.read_at >= FRESH


async def watch_log(roster: Roster, log: MessageLog, positions: Positions) -> None:
    """Reads the events log from `positions` (or over a gap from its end) and the heads that its broadcasts tell to be new, for
    ever. What is missed here (kv down, a gap) the cadence reads."""

    async def start() -> Positions:
        return await log.end(Topic.EVENTS) if gaps else positions

    async def refresh(event: str) -> None:
        with contextlib.suppress(StoreError, Damaged):
            await roster.refresh(event)

    gaps = False
    async for batch in follow(log, Topic.EVENTS, start):
        gaps = True
        told: dict[str, None] = {}
        for record in batch:
            try:
                said = decode_record(record.value)
            except RecordError as error:
                _log.warning("strange record in the log", key=record.key, error=str(error))
                continue
            if isinstance(said, Broadcast) and roster.wants(said):
                told[said.e] = None
        await together(refresh, told)
