"""The receipts log, read and kept: the last receipt of every worker about every event's newest states.

The ledger starts from the receipts of the last LEFT_AFTER seconds, which is all that counts; so any number of instances, however
often restarted, come to the same sums. Ages are by the log's stamps.
"""

from collections.abc import Iterable

import msgspec
import structlog

from broadcaster.tail import PAUSE, follow
from stagecast.clock import Clock
from stagecast.log import MessageLog, Positions, Record, Topic
from stagecast.receipts import LEFT_AFTER, Progress, Receipt, decode_receipt, progress

STATES_KEPT = 4
"""States per worker and event: the newest, and what it may be compared with while a broadcast is under way."""
RECEIPTS_MAX = 400_000
"""Over it (5,000 workers with 20 events are 100,000 × STATES_KEPT) receipts are not taken (`refused`)."""
RECEIPTS_PER_MS = 20
"""A sum over n receipts is given again for n / 20 ms: 10,000 take 0.1 s to add, so that adding never takes more than a fifth of
the process, however many watch; fewer than 20 are added anew each time."""
EXPIRE_EVERY_MS = 10_000
KEEP_MS = int(LEFT_AFTER * 1000)

Worker = tuple[str, int, str]
"""Host, worker, boot."""
_log = structlog.get_logger()


class Ledger:
    """Receipts in memory. Pure: the log's stamps and `now` (wall ms) are arguments."""

    def __init__(self, limit: int = RECEIPTS_MAX) -> None:
        self._limit = limit
        self._events: dict[str, dict[Worker, dict[tuple[int, int], tuple[Receipt, int]]]] = {}
        self._sums: dict[str, tuple[int, int, Progress | None]] = {}
        """Event → when it was summed last, over how many receipts, the sum."""
        self._expired_at = 0
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
                self.take(decode_receipt(record.value), record.ts)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.unreadable += 1
        if now - self._expired_at >= EXPIRE_EVERY_MS:
            self._expire(now)

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

    def _expire(self, now: int) -> None:
        self._expired_at = now
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


async def keep_ledger(ledger: Ledger, log: MessageLog, clock: Clock, pause: float = PAUSE) -> None:
    """Reads the receipts log into the ledger, for ever."""

    async def start() -> Positions:
        return await log.since(Topic.RECEIPTS, clock.now() - KEEP_MS)

    async for batch in follow(log, Topic.RECEIPTS, start, pause):
        ledger.read(batch, clock.now())
