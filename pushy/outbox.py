"""Receipts on their way to the log: the last value of each wins while an append is under way. Pure but for `run`."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

import msgspec
import structlog

from stagecast.log import LogError, MessageLog, Topic
from stagecast.receipts import LEFT_AFTER, Receipt, encode_receipt

PENDING_MAX = 20_000
BATCH = 64
"""Appends under way at once."""
PAUSE = 1.0
"""Seconds after a failed append."""
Key = tuple[int, str, str, int, int]
"""(worker, boot, event, gen, seq): what a receipt's last value is of."""

_log = structlog.get_logger()


def key_of(receipt: Receipt) -> Key:
    return receipt.worker, receipt.boot, receipt.e, receipt.gen, receipt.seq


class Outbox:
    """Bounded by PENDING_MAX receipts: beyond it the oldest goes (`shed` counts), which costs figures and no device anything."""

    def __init__(self, pending_max: int = PENDING_MAX) -> None:
        self._pending: OrderedDict[Key, Receipt] = OrderedDict()
        self._pending_max = pending_max
        self._news = asyncio.Event()
        self.shed = 0
        self.appended = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, receipts: Iterable[Receipt]) -> None:
        for receipt in receipts:
            self._pending[key_of(receipt)] = receipt
            if len(self._pending) > self._pending_max:
                self._pending.popitem(last=False)
                self.shed += 1
        if self._pending:
            self._news.set()

    def take(self) -> list[Receipt]:
        """Up to BATCH receipts, the oldest first; they are the caller's now."""
        return [self._pending.popitem(last=False)[1] for _ in range(min(BATCH, len(self._pending)))]

    def put_back(self, receipts: Iterable[Receipt]) -> None:
        """What could not be appended, unless a newer value came meanwhile."""
        for receipt in receipts:
            if key_of(receipt) not in self._pending:
                self.put([receipt])

    async def flush(self, log: MessageLog) -> bool:
        """Appends one batch; False when some of it failed (and is back in the box)."""
        batch = self.take()
        try:
            errors = await asyncio.gather(*(_append(log, receipt) for receipt in batch))
        except asyncio.CancelledError:
            self.put_back(batch)  # for the flush at the end; repeats are free
            raise
        lost = [receipt for receipt, error in zip(batch, errors, strict=True) if error]
        self.put_back(lost)
        if lost:
            _log.warning("receipts not appended", receipts=len(lost), error=next(filter(None, errors)))
        self.appended += len(batch) - len(lost)
        self.failed += len(lost)
        return not lost

    async def run(self, log: MessageLog) -> None:
        """Appends for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                if not await self.flush(log):
                    await asyncio.sleep(PAUSE)


async def _append(log: MessageLog, receipt: Receipt) -> str | None:
    """Why it could not be appended, or None."""
    try:
        await log.append(Topic.RECEIPTS, receipt.e, encode_receipt(receipt))
    except LogError as error:
        return str(error) or type(error).__name__
    return None


class Counted:
    """The last receipts of one worker's boot, so that a goodbye can be said for it if it dies."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[Receipt, float]] = {}

    def put(self, receipts: Iterable[Receipt], now: float) -> None:
        for receipt in receipts:
            if receipt.left:
                self._last.pop(key_of(receipt), None)
            else:
                self._last[key_of(receipt)] = receipt, now
        # What it has not repeated for so long has left the sums by itself.
        for key in [key for key, (_, at) in self._last.items() if now - at > LEFT_AFTER]:
            del self._last[key]

    def goodbyes(self) -> list[Receipt]:
        """For every receipt still in the sums one that takes it out: the worker is gone."""
        return [msgspec.structs.replace(receipt, left=True) for receipt, _ in self._last.values()]
