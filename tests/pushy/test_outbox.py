"""Receipts on their way to the log."""

import asyncio
from pathlib import Path

import msgspec

from pushy.outbox import BATCH, Counted, Outbox
from stagecast.log import MessageLog, Topic
from stagecast.receipts import LEFT_AFTER, Receipt, decode_receipt
from tests.pushy.hosting import GEN, FaultyLog, roads


def receipt(seq: int = 1, written: int = 0, event: str = "final", worker: int = 0) -> Receipt:
    return Receipt("h1", "b1", worker, GEN, event, GEN, seq, audience=10, written=written, pending=10 - written)


async def appended(log: MessageLog) -> list[Receipt]:
    start, end = await log.since(Topic.RECEIPTS, 0), await log.end(Topic.RECEIPTS)
    found: list[Receipt] = []
    if start == end:
        return found
    batches = log.read(Topic.RECEIPTS, start)
    async for batch in batches:
        found += [decode_receipt(record.value) for record in batch]
        if batch[-1].offset + 1 >= max(end.values()):
            break
    await batches.aclose()
    return found


async def test_the_last_value_wins_while_one_waits(tmp_path: Path) -> None:
    """Receipts are cumulative: of those about one (worker, boot, event, gen, seq) only the newest is appended."""
    outbox = Outbox()
    outbox.put([receipt(1, written) for written in range(11)])
    outbox.put([receipt(2), receipt(1, event="other"), receipt(1, worker=1)])
    assert len(outbox) == 4
    async with roads(tmp_path) as (log, _):
        assert await outbox.flush(log)
        found = await appended(log)
    assert len(found) == 4
    assert receipt(1, 10) in found


async def test_a_failed_append_does_not_undo_a_newer_value(tmp_path: Path) -> None:
    """What could not be appended waits again, behind what came meanwhile."""
    outbox = Outbox()
    async with roads(tmp_path) as (real, _):
        log = FaultyLog(real)
        log.down = True
        outbox.put([receipt(1, 5), receipt(2, 5)])
        assert not await outbox.flush(log)
        assert (len(outbox), outbox.failed) == (2, 2)
        outbox.put([receipt(1, 6)])
        log.down = False
        assert await outbox.flush(log)
        assert sorted(await appended(real), key=lambda one: one.seq) == [receipt(1, 6), receipt(2, 5)]


async def test_a_flush_cut_short_loses_nothing(tmp_path: Path) -> None:
    """Stopping in the middle of an append leaves the receipts for the last flush."""
    outbox = Outbox()
    outbox.put([receipt(1), receipt(2)])
    async with roads(tmp_path) as (log, _):
        flushing = asyncio.create_task(outbox.flush(log))
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        assert len(outbox) == 2


def test_put_back_keeps_the_newer_value() -> None:
    """A value that came while the older was under way stays."""
    outbox = Outbox()
    outbox.put([receipt(1, 5)])
    under_way = outbox.take()
    outbox.put([receipt(1, 6)])
    outbox.put_back(under_way)
    assert outbox.take() == [receipt(1, 6)]


def test_beyond_its_bound_the_oldest_goes() -> None:
    """And is counted."""
    outbox = Outbox(pending_max=2)
    outbox.put([receipt(seq) for seq in (1, 2, 3)])
    assert outbox.shed == 1
    assert [one.seq for one in outbox.take()] == [2, 3]


def test_a_batch_is_bounded() -> None:
    outbox = Outbox()
    outbox.put([receipt(seq) for seq in range(BATCH + 1)])
    assert (len(outbox.take()), len(outbox.take())) == (BATCH, 1)


def test_goodbyes_are_for_what_is_still_in_the_sums() -> None:
    """Not for receipts that said goodbye themselves, nor for those silent for so long that they have left."""
    counted = Counted()
    counted.put([receipt(1), receipt(2)], 0.0)
    counted.put([receipt(3), msgspec.structs.replace(receipt(2), left=True)], LEFT_AFTER + 1)
    assert counted.goodbyes() == [msgspec.structs.replace(receipt(3), left=True)]
