"""A store, a log and a clock that several broadcasters share, and faults to be had on purpose."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from broadcaster.cadence import Cadence
from broadcaster.firing import Firing
from broadcaster.parts import Parts
from broadcaster.service import compose
from kv import KeyValue, OutcomeUnknown, Page, Put, Removal, StoreUnavailable, Version
from kv.embedded import SqliteStore
from stagecast.broadcast import Broadcast
from stagecast.clock import ManualClock
from stagecast.event import Head, Request
from stagecast.log import LogUnavailable, MessageLog, Positions, Record, Topic
from stagecast.log.embedded import EmbeddedLog
from stagecast.plan import Plan, PlannedStage, plan_of
from stagecast.records import HEADS, EventsRecord, decode_record

STAGES = ("upcoming", "live", "half", "ended")


def by_hand(*stages: str) -> Plan:
    """A plan without times."""
    return plan_of([PlannedStage(stage) for stage in stages or STAGES])


def paced(*stages: tuple[str, float]) -> Plan:
    """A plan whose stages follow each other after so many seconds; the first one's figure is of no account."""
    first, *rest = stages
    return plan_of(
        [PlannedStage(first[0]), *(PlannedStage(name, after=timedelta(seconds=after)) for name, after in rest)]
    )


async def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; fails after 10 s."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is many parts' doing, none of which has an event for it
            await asyncio.sleep(0.002)


Fate = Literal["applied", "dropped", "applied, then down"]


class FaultyStore:
    """A real store that can be down, and that can lose the answer of a compare-and-set of a head."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self.down = False
        self.answers_lost: deque[Fate] = deque()
        """What becomes of the next compare-and-sets of heads."""
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What somebody else does once, just after an answer was lost."""
        self.before_delete: Callable[[], Awaitable[object]] | None = None
        """What somebody else does once, just before a deletion."""
        self.reads: Counter[str] = Counter()
        self.page_bytes = 1 << 20
        self.puts_fail = False

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")

    async def get(self, record: str, key: str) -> bytes | None:
        self._check()
        return await self._store.get(record, key)

    async def put(self, items: Sequence[Put]) -> None:
        self._check()
        if self.puts_fail:
            raise StoreUnavailable("writes fail")
        await self._store.put(items)

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        self._check()
        before, self.before_delete = self.before_delete, None
        if before is not None:
            await before()
        await self._store.delete(record, keys)

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        self._check()
        return await self._store.remove(items)

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        self._check()
        return await self._store.page(record, after, min(max_bytes, self.page_bytes))

    async def read(self, record: str, key: str) -> Version | None:
        self._check()
        self.reads[record] += 1
        return await self._store.read(record, key)

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        self._check()
        if record != HEADS or not self.answers_lost:
            return await self._store.compare_and_set(record, key, value, expected)
        fate = self.answers_lost.popleft()
        if fate != "dropped":
            await self._store.compare_and_set(record, key, value, expected)
        self.down = fate == "applied, then down"
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        raise OutcomeUnknown("the answer was lost")

    async def close(self) -> None:
        await self._store.close()


class FaultyLog:
    """A real log that can be down for appends."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log
        self.down = False

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        if self.down:
            raise LogUnavailable("down")
        await self._log.append(topic, key, value)

    async def end(self, topic: Topic) -> Positions:
        return await self._log.end(topic)

    async def since(self, topic: Topic, ts: int) -> Positions:
        return await self._log.since(topic, ts)

    def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        return self._log.read(topic, positions)

    async def close(self) -> None:
        await self._log.close()


@dataclass
class Broadcaster:
    """One instance: its parts, driven by hand."""

    parts: Parts
    cadence: Cadence
    firing: Firing

    async def create(self, event: str = "final", plan: Plan | None = None, key: str = "create") -> Head:
        chosen = plan or by_hand()
        return await self.parts.producer.create(event, "The final", chosen, Request(key, chosen.first, "ann"))

    async def go(
        self, stage: str, key: str = "", *, urgent: bool = True, if_seq: int | None = None, if_gen: int | None = None
    ) -> int:
        """Transition of `final`; the seq it was accepted as."""
        request = Request(key or f"to-{stage}", stage, "ann", "", if_gen, if_seq, urgent)
        return (await self.parts.producer.transition("final", request)).seq

    async def head(self, event: str = "final") -> Head:
        kept = await self.parts.heads.read(event)
        assert kept is not None
        return kept.head


@dataclass
class World:
    """What all instances share."""

    clock: ManualClock
    store: FaultyStore
    log: FaultyLog
    instances: list[Broadcaster] = field(default_factory=list)

    def broadcaster(self) -> Broadcaster:
        made = Broadcaster(*compose(self.store, self.log, self.clock))
        self.instances.append(made)
        return made

    async def said(self) -> list[EventsRecord]:
        """Every record of the log `events`, once what is under way has arrived."""
        for one in self.instances:
            await one.parts.publisher.drain(5)
        start, end = await self.log.since(Topic.EVENTS, 0), await self.log.end(Topic.EVENTS)
        found: list[EventsRecord] = []
        if start == end:
            return found
        reader = self.log.read(Topic.EVENTS, start)
        async for batch in reader:
            found += [decode_record(record.value) for record in batch]
            if batch[-1].offset + 1 >= end[batch[-1].partition]:
                break
        await reader.aclose()
        return found

    async def broadcasts(self) -> list[tuple[int, str]]:
        """(seq, stage) of every broadcast in the log."""
        return [(one.seq, one.stage) for one in await self.said() if isinstance(one, Broadcast)]


@asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[World]:
    """A world on embedded parts in `folder`."""
    clock = ManualClock()
    store = await SqliteStore.open(f"sqlite:///{folder / 'kv.sqlite'}", clock)
    log = await EmbeddedLog.open(f"sqlite:///{folder / 'log.sqlite'}", clock)
    world = World(clock, FaultyStore(store), FaultyLog(log))
    try:
        yield world
    finally:
        for one in world.instances:
            await one.parts.publisher.drain(5)
        await log.close()
        await store.close()
