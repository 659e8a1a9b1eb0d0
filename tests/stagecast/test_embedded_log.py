"""What is the embedded log's own; what it has in common with others is in `tests/contracts`."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from stagecast.clock import ManualClock
from stagecast.log import LogGap, LogUnavailable, Positions, Topic
from stagecast.log.embedded import PARTITION, TIDY_ROWS, EmbeddedLog
from tests.stagecast.faulty_disk import FaultyDisk

WITHIN = 10.0
NEVER = 3600.0
HOUR = 3600


@pytest.fixture
def file() -> Iterator[Path]:
    """In a folder whose path is short enough for sockets, wherever tests keep their data."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "log.sqlite"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def log(file: Path, clock: ManualClock) -> AsyncIterator[EmbeddedLog]:
    opened = await EmbeddedLog.open(f"sqlite:///{file}", clock)
    yield opened
    await opened.close()


async def values(log: EmbeddedLog, positions: Positions, count: int, topic: Topic = Topic.EVENTS) -> list[bytes]:
    found: list[bytes] = []
    async with aclosing(log.read(topic, positions)) as batches, asyncio.timeout(WITHIN):
        while len(found) < count:
            found += [record.value for record in await anext(batches)]
    return found


async def test_a_ring_wakes_a_reader(file: Path) -> None:
    """Without any poll: a commit over one connection is seen over another."""
    reader = await EmbeddedLog.open(f"sqlite:///{file}", poll=NEVER)
    writer = await EmbeddedLog.open(f"sqlite:///{file}")
    async with aclosing(reader.read(Topic.EVENTS, await reader.end(Topic.EVENTS))) as batches:
        for n in range(10):
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.01)  # lets it go to sleep; were it late, it would see the record all the same
            await writer.append(Topic.EVENTS, "key", f"{n}".encode())
            async with asyncio.timeout(WITHIN):
                assert [record.value for record in await waiting] == [f"{n}".encode()]
    await writer.close()
    await reader.close()


async def test_the_poll_sees_what_no_ring_told_of(file: Path) -> None:
    """With the folder of sockets gone, records come all the same."""
    reader = await EmbeddedLog.open(f"sqlite:///{file}")
    writer = await EmbeddedLog.open(f"sqlite:///{file}")
    async with aclosing(reader.read(Topic.EVENTS, await reader.end(Topic.EVENTS))) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        shutil.rmtree(file.parent / "notify")
        await writer.append(Topic.EVENTS, "key", b"silent")
        async with asyncio.timeout(WITHIN):
            assert [record.value for record in await waiting] == [b"silent"]
    await writer.close()
    await reader.close()


async def test_only_readers_have_sockets(log: EmbeddedLog, file: Path) -> None:
    """The first reader binds one for its process, the last takes it away."""
    end = await log.end(Topic.EVENTS)
    await log.append(Topic.EVENTS, "key", b"1")
    assert "notify" not in os.listdir(file.parent)
    first, second = log.read(Topic.EVENTS, end), log.read(Topic.EVENTS, end)
    await anext(first)
    await anext(second)
    assert len(os.listdir(file.parent / "notify")) == 1
    await first.aclose()
    assert len(os.listdir(file.parent / "notify")) == 1
    await second.aclose()
    assert "notify" not in os.listdir(file.parent)


async def test_offsets_are_consecutive(log: EmbeddedLog) -> None:
    """In the order of acknowledgement, whatever the key; topics count each for themselves."""
    [start] = (await log.end(Topic.EVENTS)).values()
    for n in range(5):
        await log.append(Topic.EVENTS, f"key {n % 2}", f"{n}".encode())
        await log.append(Topic.RECEIPTS, "key", b"")
    assert await log.end(Topic.EVENTS) == {PARTITION: start + 5}
    assert await values(log, {PARTITION: start}, 5) == [b"0", b"1", b"2", b"3", b"4"]


async def test_large_logs_come_in_batches(log: EmbeddedLog) -> None:
    """Bounded by count and by bytes: no reader holds the event loop, or the memory, for long."""
    start = await log.end(Topic.EVENTS)
    await asyncio.gather(*(log.append(Topic.EVENTS, "key", b"x" * 300_000) for _ in range(8)))
    await asyncio.gather(*(log.append(Topic.EVENTS, "key", b"") for _ in range(600)))
    sizes: list[int] = []
    async with aclosing(log.read(Topic.EVENTS, start)) as batches:
        while sum(sizes) < 608:
            sizes.append(len(await anext(batches)))
    assert sizes[0] == 4
    assert max(sizes) == 500


async def test_retention_is_by_topic(log: EmbeddedLog, clock: ManualClock) -> None:
    """Events go after 24 h, receipts after 72 h; younger ones stay, and a reader from before is told of the gap."""
    starts = {topic: await log.end(topic) for topic in Topic}
    for topic in Topic:
        await log.append(topic, "key", b"old")
    clock.advance(23 * HOUR)
    for topic in Topic:
        await log.append(topic, "key", b"young")
    await log.tidy()
    assert await values(log, starts[Topic.EVENTS], 2) == [b"old", b"young"]

    clock.advance(2 * HOUR)
    await log.tidy()
    with pytest.raises(LogGap):
        await values(log, starts[Topic.EVENTS], 1)
    after = {PARTITION: starts[Topic.EVENTS][PARTITION] + 1}
    assert await values(log, after, 1) == [b"young"]
    assert await values(log, starts[Topic.RECEIPTS], 2, Topic.RECEIPTS) == [b"old", b"young"]

    clock.advance(48 * HOUR)
    await log.tidy()
    with pytest.raises(LogGap):
        await values(log, starts[Topic.RECEIPTS], 1, Topic.RECEIPTS)


async def test_a_reader_that_is_up_to_date_meets_no_gap(log: EmbeddedLog, clock: ManualClock) -> None:
    """Even when retention empties the log; and offsets go on where they were."""
    start = await log.end(Topic.EVENTS)
    async with aclosing(log.read(Topic.EVENTS, start)) as batches, asyncio.timeout(WITHIN):
        await log.append(Topic.EVENTS, "key", b"old")
        [old] = await anext(batches)
        clock.advance(25 * HOUR)
        await log.tidy()
        assert await log.end(Topic.EVENTS) == {PARTITION: old.offset + 1}
        await log.append(Topic.EVENTS, "key", b"new")
        [new] = await anext(batches)
        assert (new.value, new.offset) == (b"new", old.offset + 1)


async def test_retention_takes_many(log: EmbeddedLog, clock: ManualClock) -> None:
    """More than one batch's worth, all gone at the end, up to the first that is young."""
    start = await log.end(Topic.EVENTS)
    await asyncio.gather(*(log.append(Topic.EVENTS, "key", b"") for _ in range(2 * TIDY_ROWS + 10)))
    clock.advance(25 * HOUR)
    await log.append(Topic.EVENTS, "key", b"young")
    await log.tidy()
    assert await values(log, {PARTITION: start[PARTITION] + 2 * TIDY_ROWS + 10}, 1) == [b"young"]
    assert await log.since(Topic.EVENTS, 0) == {PARTITION: start[PARTITION] + 2 * TIDY_ROWS + 10}


async def test_since_by_a_clock_that_went_back(log: EmbeddedLog, clock: ManualClock) -> None:
    """The first record at or after the time in the order of the log: reading from there leaves none of them out."""
    start = (await log.end(Topic.EVENTS))[PARTITION]
    for seconds in (0, 5, -2, 5):
        clock.step(seconds)
        await log.append(Topic.EVENTS, "key", b"")
    assert await log.since(Topic.EVENTS, clock.now() - 4000) == {PARTITION: start + 1}
    assert await log.since(Topic.EVENTS, 0) == {PARTITION: start}
    assert await log.since(Topic.EVENTS, clock.now() + 1) == {PARTITION: start + 4}


async def test_a_position_in_a_replaced_file_is_a_gap(file: Path) -> None:
    """A new file's offsets begin after all that an older one gave out, so its positions are never taken for this one's."""
    log = await EmbeddedLog.open(f"sqlite:///{file}")
    await log.append(Topic.EVENTS, "key", b"1")
    position = await log.end(Topic.EVENTS)
    await log.close()
    os.unlink(file)
    log = await EmbeddedLog.open(f"sqlite:///{file}")
    await asyncio.gather(*(log.append(Topic.EVENTS, "key", b"2") for _ in range(10)))
    with pytest.raises(LogGap):
        await values(log, position, 1)
    await log.close()


async def test_a_log_replaced_while_open_is_out_of_reach(log: EmbeddedLog, file: Path) -> None:
    """Appends raise, and a waiting reader is told."""
    async with aclosing(log.read(Topic.EVENTS, await log.end(Topic.EVENTS))) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        os.unlink(file)
        with pytest.raises(LogUnavailable):
            await log.append(Topic.EVENTS, "key", b"lost")
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(waiting, WITHIN)


async def test_a_sync_that_fails_acknowledges_nothing(file: Path) -> None:
    """LogUnavailable; the reader goes on, and so does the log when the disk does, with consecutive offsets."""
    with FaultyDisk() as disk:
        log = await EmbeddedLog.open(f"sqlite:///{file}")
        start = await log.end(Topic.EVENTS)
        await log.append(Topic.EVENTS, "key", b"1")
        disk.broken = True
        with pytest.raises(LogUnavailable):
            await log.append(Topic.EVENTS, "key", b"lost")
        disk.broken = False
        await log.append(Topic.EVENTS, "key", b"2")
        assert await values(log, start, 2) == [b"1", b"2"]
        await log.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system: only root may mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)


async def test_a_disk_that_fills_up(small_disk: Path) -> None:
    """Appends end in LogUnavailable; every acknowledged record is read, by this process and after opening again; with more
    space, appends go on."""
    url = f"sqlite:///{small_disk / 'log.sqlite'}"
    log = await EmbeddedLog.open(url)
    start = await log.end(Topic.EVENTS)
    acknowledged: list[bytes] = []

    async def append_for_ever() -> None:
        while True:
            value = f"{len(acknowledged):08000}".encode()
            await log.append(Topic.EVENTS, "key", value)
            acknowledged.append(value)

    with pytest.raises(LogUnavailable):
        await append_for_ever()
    assert len(acknowledged) > 10
    assert await values(log, start, len(acknowledged)) == acknowledged

    grow(small_disk)
    await log.append(Topic.EVENTS, "key", b"again")
    await log.close()
    log = await EmbeddedLog.open(url)
    assert await values(log, start, len(acknowledged) + 1) == [*acknowledged, b"again"]
    await log.close()


async def test_a_store_is_no_log(file: Path) -> None:
    """A file of another kind, or a URL with an option, is refused with what is wrong."""
    from kv.embedded import SqliteStore

    store = await SqliteStore.open(f"sqlite:///{file}")
    await store.close()
    with pytest.raises(LogUnavailable, match="not a Stagecast log"):
        await EmbeddedLog.open(f"sqlite:///{file}")
    with pytest.raises(ValueError, match="no options"):
        await EmbeddedLog.open(f"sqlite:///{file}?mode=ro")
