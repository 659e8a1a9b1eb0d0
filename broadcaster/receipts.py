"""The receipts log, read and kept: the last receipt of every worker about every event's newest states.

The ledger starts from the receipts of the last LEFT_AFTER seconds, which is all that counts; so any number of instances, however
often restarted, come to the same sums. Ages are by the log's stamps.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

import msgspec
import structlog

from broadcaster.tail import PAUSE, follow
from stagecast.clock import Clock
from stagecast.log import MessageLog, Positions, Record, Topic
from stagecast.receipts import LEFT_AFTER, HostBeat, Progress, Receipt, decode_counted, progress

STATES_KEPT = 4
"""States per worker and event: the newest, and what it may be compared with while a broadcast is under way."""
RECEIPTS_MAX = 400_000
"""Over it (5,000 workers with 20 events are 100,000 × STATES_KEPT) receipts are not taken (`refused`)."""
RECEIPTS_PER_MS = 20
"""A sum over n receipts is given again for n / 20 ms: 10,000 take 0.1 s to add, so that adding never takes more than a fifth of
the process, however many watch; fewer than 20 are added anew each time."""
EXPIRE_EVERY_MS = 10_000
KEEP_MS = int(LEFT_AFTER * 1000)
HOSTS_MAX = 10_000
"""Hosts whose beats are kept; over it beats are not taken (`refused`)."""

Worker = tuple[str, int, str]
"""Host, worker, boot."""
_log = structlog.get_logger()


class HostLife(NamedTuple):
    """What a host last said of itself."""

    beat: HostBeat
    ts: int
    """When the log took it, wall ms."""
    ahead: int
    """By how many ms the host's clock is ahead of the log's, at most: the way to the log makes it look slower."""


class Ledger:
    """Receipts in memory. Pure: the log's stamps and `now` (wall ms) are arguments."""

    def __init__(self, limit: int = RECEIPTS_MAX) -> None:
        self._limit = limit
        self._events: dict[str, dict[Worker, dict[tuple[int, int], tuple[Receipt, int]]]] = {}
        self._sums: dict[str, tuple[int, int, Progress | None]] = {}
        """Event → when it was summed last, over how many receipts, the sum."""
        self._expired_at = 0
        self.hosts: dict[str, HostLife] = {}
        """Of the last KEEP_MS."""
        self.before: Callable[[Receipt, int], None] | None = None
        """Told of every receipt and its stamp before it is taken."""
        self.lag = 0
        """ms from the log's stamp of the last record until it was read here: the way, and what the clocks differ."""
        self.kept = 0
        self.refused = 0
        self.unreadable = 0

    def take(self, receipt: Receipt, ts: int) -> None:
        """Takes note of a receipt that the log stamped `ts`."""
        worker = (receipt.host, receipt.worker, receipt.boot)
        states = self._events.setdefault(receipt.e, {}).setdefault(worker, {})
        order = (receipt.gen, receipt.seq)
        if order not in states:
            if self.kept >= self._limit:
                self.refused += 1
                return
            self.kept += 1
        states[order] = (receipt, ts)
        if len(states) > STATES_KEPT:
            del states[min(states)]
            self.kept -= 1

    def read(self, records: Iterable[Record], now: int) -> None:
        """Takes a batch of the log; what is no receipt is counted and passed over."""
        for record in records:
            try:
                counted = decode_counted(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.unreadable += 1
                continue
            match counted:
                case Receipt():
                    if self.before is not None:
                        self.before(counted, record.ts)
                    self.take(counted, record.ts)
                case HostBeat():
                    self.beat(counted, record.ts)
                case never:
                    assert_never(never)
            self.lag = now - record.ts
        if now - self._expired_at >= EXPIRE_EVERY_MS:
            self._expire(now)

    def beat(self, beat: HostBeat, ts: int) -> None:
        """Takes note of a host's sign of life that the log stamped `ts`."""
        if beat.host in self.hosts or len(self.hosts) < HOSTS_MAX:
            self.hosts[beat.host] = HostLife(beat, ts, beat.ts - ts)
        else:
            self.refused += 1

    def admins(self) -> dict[str, str]:
        """Host → its admin URL, of those that have said it."""
        return {name: life.beat.admin for name, life in self.hosts.items() if life.beat.admin}

    def count(self, event: str) -> int:
        """Workers with receipts of this event: what a sum over them costs."""
        return len(self._events.get(event, {}))

    def progress(self, event: str, gen: int, seq: int, now: int) -> Progress:
        """How far (gen, seq) of this event has come. Of a large fleet it may be as old as RECEIPTS_PER_MS allows."""
        at, size, last = self._sums.get(event, (0, 0, None))
        if last is not None and (last.gen, last.seq) == (gen, seq) and 0 <= now - at < size // RECEIPTS_PER_MS:
            return last
        workers = self._events.get(event, {}).values()
        kept = [(r, max(now - ts, 0) / 1000) for states in workers for r, ts in states.values() if now - ts <= KEEP_MS]
        made = progress(event, kept, gen, seq)
        if event in self._events:
            self._sums[event] = (now, len(kept), made)
        return made

    def settled(self, event: str, gen: int, seq: int) -> Progress:
        """How far a state had come that is no longer the newest: by the last receipts about itself alone."""
        workers = self._events.get(event, {}).values()
        return progress(event, [(states[gen, seq][0], 0.0) for states in workers if (gen, seq) in states], gen, seq)

    def _expire(self, now: int) -> None:
        self._expired_at = now
        self.hosts = {name: life for name, life in self.hosts.items() if now - life.ts <= KEEP_MS}
        for event, workers in list(self._events.items()):
            for worker, states in list(workers.items()):
                for order in [order for order, (_, ts) in states.items() if now - ts > KEEP_MS]:
                    del states[order]
                    self.kept -= 1
                if not states:
                    del workers[worker]
            if not workers:
                del self._events[event]
                self._sums.pop(event, None)


async def keep_ledger(
    ledger: Ledger, log: MessageLog, clock: Clock, pause: float = PAUSE, reach: int = KEEP_MS
) -> None:
    """Reads the receipts log into the ledger, from `reach` ms before now, for ever."""

    async def start() -> Positions:
        return await log.since(Topic.RECEIPTS, clock.now() - reach)

    async for batch in follow(log, Topic.RECEIPTS, start, pause):
        ledger.read(batch, clock.now())
