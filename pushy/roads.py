"""The two roads by which a host learns: it reads the log from an explicitly resolved end, and heads from the store. The decisions
are `Heads`' and `Silence`'s; here they are carried out."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, assert_never

import msgspec
import structlog

from kv import Item, KeyValue, StoreError
from pushy.heads import Action, Heads, Read, Refuse, Silence, Tell
from stagecast.broadcast import Broadcast
from stagecast.clock import Clock
from stagecast.event import Head
from stagecast.log import LogError, MessageLog, Record, Topic
from stagecast.records import HEADS, REVOKED, Beat, EventsRecord, RecordError, Revocation, decode_record
from stagecast.wire.frames import Hint

TICK = 0.25
"""Seconds between two looks at the rules of silence."""
READS_MAX = 16
"""Heads read from the store at once."""
READ_TIMEOUT = 4.0
PAUSE_FIRST, PAUSE_MAX = 0.25, 5.0
"""Seconds between two tries to resolve the log's end, doubling."""

_log = structlog.get_logger()
_head = msgspec.json.Decoder(Head)
_revocation = msgspec.json.Decoder(Revocation)


class Listener(Protocol):
    """Who passes on what the roads bring. Nothing here may block."""

    def told(self, tell: Tell) -> None: ...

    def refused(self, refuse: Refuse) -> None: ...

    def hinted(self, hint: Hint, links: frozenset[int]) -> None: ...

    def revoked(self, revocations: Sequence[Revocation]) -> None: ...

    def readiness(self, ready: bool) -> None: ...


@dataclass(slots=True)
class Counts:
    """What a feed counts of its roads."""

    records: int = 0
    dropped: int = 0
    """Records that are none of the log's."""
    resolved: int = 0
    """How often the log's end was resolved: more than once is a gap or an outage."""
    kv_reads: int = 0
    kv_failures: int = 0
    lag_ms: int = 0
    """From the log's taking of the last record until it was read here."""


class Roads:
    """The log and the store as one source of heads, hints and revocations."""

    def __init__(self, log: MessageLog, store: KeyValue, listener: Listener, clock: Clock) -> None:
        self._message_log = log
        self._store = store
        self._listener = listener
        self._clock = clock
        self._limit = asyncio.Semaphore(READS_MAX)
        self._group: asyncio.TaskGroup | None = None
        self._standing_loaded = self._loading = self._again = False
        self._ready = False
        self._revocations: dict[str, Revocation] = {}
        self.heads = Heads()
        self.silence = Silence(clock.monotonic())
        self.counts = Counts()

    async def run(self) -> None:
        """Reads for ever. Raises only what is a defect: both roads may be down for as long as they like."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._follow_log())
            group.create_task(self._watch())

    @property
    def ready(self) -> bool:
        """Whether devices may come, as the listener was last told."""
        return self._ready

    def reasons(self) -> list[str]:
        """Why devices may not come now: none once the end is resolved and the revocations are known, until both roads fall
        silent."""
        reasons = []
        if not self.counts.resolved:
            reasons.append("the log's end is not resolved yet")
        if not self._standing_loaded:
            reasons.append("the standing revocations are not read yet")
        if self.silence.both_silent(self._clock.monotonic()):
            reasons.append("log and store are silent")
        return reasons

    @property
    def revocations(self) -> list[Revocation]:
        """All that stand."""
        return list(self._revocations.values())

    def follow(self, link: int, events: Iterable[str]) -> None:
        self.perform(self.heads.follow(link, events, self._clock.monotonic()))

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Tell():
                    self._listener.told(action)
                case Refuse():
                    self._listener.refused(action)
                case Read():
                    assert self._group is not None
                    self._group.create_task(self._read(action))
                case _:
                    assert_never(action)

    async def _follow_log(self) -> None:
        pause = PAUSE_FIRST
        while True:
            try:
                # Rule 3: the end is resolved first; what is read from the store after it can't have been passed by.
                positions = await self._message_log.end(Topic.EVENTS)
                self._resolved()
                async with aclosing(self._message_log.read(Topic.EVENTS, positions)) as batches:
                    async for batch in batches:
                        pause = PAUSE_FIRST
                        self._take(batch)
            except LogError as error:
                _log.warning("log lost", error=f"{type(error).__name__}: {error}", again_in=pause)
            self.heads.lost()
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)

    def _resolved(self) -> None:
        self.counts.resolved += 1
        self.perform(self.heads.resolved())
        assert self._group is not None
        self._group.create_task(self._load_standing())

    def _take(self, batch: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        self.silence.log_spoke(now)
        self.counts.records += len(batch)
        self.counts.lag_ms = max(0, self._clock.now() - batch[-1].ts)
        dropped = self.counts.dropped
        for record in batch:
            try:
                said = decode_record(record.value)
            except RecordError as error:
                if (
                    self.counts.dropped == dropped
                ):  # one line a batch: who writes junk must not fill the disk with lines
                    _log.warning(
                        "not a record", partition=record.partition, offset=record.offset, error=str(error)[:200]
                    )
                self.counts.dropped += 1
            else:
                self._pass_on(said, now)

    def _pass_on(self, said: EventsRecord, now: float) -> None:
        match said:
            case Broadcast():
                self.perform(self.heads.said(said))
            case Hint():
                if links := self.heads.hinted(said, now):
                    self._listener.hinted(said, links)
            case Revocation():
                self._revoke([said])
            case Beat():
                pass
            case _:
                assert_never(said)

    async def _read(self, read: Read) -> None:
        async with self._limit:
            self.counts.kv_reads += 1
            try:
                async with asyncio.timeout(READ_TIMEOUT):
                    kept = await self._store.read(HEADS, read.event)
                head = _head.decode(kept.value).broadcast() if kept else None
            except (StoreError, TimeoutError, msgspec.DecodeError) as error:
                self.counts.kv_failures += 1
                _log.warning("head not read", event_id=read.event, error=f"{type(error).__name__}: {error}"[:200])
                self.perform(self.heads.failed(read, self._clock.monotonic()))
                return
        self.silence.kv_spoke(self._clock.monotonic())
        behind = self.heads.behind
        self.perform(self.heads.found(read, head) if head else self.heads.absent(read))
        if self.heads.behind > behind:
            _log.error(
                "the store is behind the devices: was it restored? see `stagecast event regen`", event_id=read.event
            )

    async def _watch(self) -> None:
        while True:
            now = self._clock.monotonic()
            if self.silence.round_due(now):
                self.perform(self.heads.reread())
                # Nobody else tells of a revocation now; and it shows that the store answers where devices follow nothing.
                assert self._group is not None
                self._group.create_task(self._load_standing())
            self.perform(self.heads.unverified(now))
            self._judge()
            await asyncio.sleep(TICK)

    def _judge(self) -> None:
        """Tells the listener if readiness has changed."""
        if self._ready == bool(self.reasons()):
            self._ready = not self._ready
            self._listener.readiness(self._ready)

    async def _load_standing(self) -> None:
        """The revocations of before the log's end, for as long as it takes; later ones come by the log, and while that is silent
        by another load every 15 s. One at a time: whoever wants them meanwhile makes the one under way read once more."""
        if self._loading:
            self._again = True
            return
        self._loading, pause = True, PAUSE_FIRST
        while not await self._read_standing_once():
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)
        self._loading = False
        self._standing_loaded = True
        self.silence.kv_spoke(self._clock.monotonic())
        self._judge()

    async def _read_standing_once(self) -> bool:
        """Whether all were read, and no end was resolved meanwhile."""
        self._again = False
        try:
            await self._read_standing()
        except (StoreError, TimeoutError) as error:
            _log.warning("revocations not read", error=f"{type(error).__name__}: {error}"[:200])
            return False
        return not self._again

    async def _read_standing(self) -> None:
        after = None
        while True:
            async with asyncio.timeout(READ_TIMEOUT):
                page = await self._store.page(REVOKED, after)
            self._revoke(filter(None, map(_revocation_of, page.items)))
            after = page.after
            if after is None:
                return

    def _revoke(self, revocations: Iterable[Revocation]) -> None:
        """Passes on what is news: of each subject the latest."""
        news = []
        for revocation in revocations:
            known = self._revocations.get(revocation.subject)
            if known is None or known.ts < revocation.ts:
                self._revocations[revocation.subject] = revocation
                news.append(revocation)
        if news:
            self._listener.revoked(news)


def _revocation_of(item: Item) -> Revocation | None:
    try:
        return _revocation.decode(item.value)
    except msgspec.DecodeError as error:  # one bad item must not keep a fleet from starting
        _log.error("not a revocation", subject=item.key[:200], error=str(error)[:200])
        return None
