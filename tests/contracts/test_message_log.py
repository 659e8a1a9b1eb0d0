"""What every `MessageLog` promises, shown on each adapter."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import pytest

from stagecast.clock import SystemClock
from stagecast.log import LogError, LogGap, MessageLog, Positions, Record, Topic, open_log
from tests.contracts.children import LANES, Children
from tests.contracts.places import LogPlace

WITHIN = 20.0
"""Seconds that anything may take: only a hang takes them."""


async def records(
    batches: AsyncGenerator[Sequence[Record], None], enough: Callable[[list[Record]], bool], mine: str
) -> list[Record]:
    """The records whose key begins with `mine`, until there are enough of them."""
    found: list[Record] = []
    async with asyncio.timeout(WITHIN):
        async for batch in batches:
            assert batch, "a batch is never empty"
            found += [record for record in batch if record.key.startswith(mine)]
            if enough(found):
                return found
    raise AssertionError("the log ended")


async def values(log: MessageLog, topic: Topic, positions: Positions, mine: str, last: bytes) -> list[bytes]:
    """The values under keys that begin with `mine`, from `positions` on up to the one that is `last`."""
    async with aclosing(log.read(topic, positions)) as batches:
        found = await records(batches, lambda found: any(record.value == last for record in found), mine)
    return [record.value for record in found]


@pytest.mark.parametrize("topic", Topic)
async def test_a_record_comes_back_as_it_was_appended(log: MessageLog, name: str, topic: Topic) -> None:
    """Key, value and a time; any bytes, also none, also a non-ASCII key."""
    start = await log.end(topic)
    for value in (b"", bytes(range(256)), "ü".encode(), b"last"):
        await log.append(topic, f"{name}-é-日本", value)

    async with aclosing(log.read(topic, start)) as batches:
        found = await records(batches, lambda found: len(found) == 4, name)

    assert [record.value for record in found] == [b"", bytes(range(256)), "ü".encode(), b"last"]
    assert {record.key for record in found} == {f"{name}-é-日本"}
    assert all(record.ts > 1_700_000_000_000 for record in found)


async def test_topics_do_not_mix(log: MessageLog, name: str) -> None:
    """A reader of one topic gets nothing of the other."""
    start = await log.end(Topic.RECEIPTS)
    await log.append(Topic.EVENTS, name, b"event")
    await log.append(Topic.RECEIPTS, name, b"receipt")

    assert await values(log, Topic.RECEIPTS, start, name, b"receipt") == [b"receipt"]


async def test_records_of_a_key_keep_their_order(log: MessageLog, name: str) -> None:
    """Also while appends of other keys go on at the same time, and in one partition with rising offsets."""
    start = await log.end(Topic.EVENTS)

    async def lane(key: str) -> None:
        for n in range(20):
            await log.append(Topic.EVENTS, key, f"{n}".encode())

    await asyncio.gather(*(lane(f"{name}-{i}") for i in range(8)))
    async with aclosing(log.read(Topic.EVENTS, start)) as batches:
        found = await records(batches, lambda found: len(found) == 160, name)

    for i in range(8):
        own = [record for record in found if record.key == f"{name}-{i}"]
        assert [record.value for record in own] == [f"{n}".encode() for n in range(20)]
        assert len({record.partition for record in own}) == 1
        assert [record.offset for record in own] == sorted({record.offset for record in own})


async def test_appends_under_way_at_once_are_all_kept(log: MessageLog, name: str) -> None:
    """200 appends at once: each is acknowledged and is there once."""
    start = await log.end(Topic.RECEIPTS)
    expected = {f"{n}".encode() for n in range(200)}
    await asyncio.gather(*(log.append(Topic.RECEIPTS, name, value) for value in expected))

    async with aclosing(log.read(Topic.RECEIPTS, start)) as batches:
        found = await records(batches, lambda found: {record.value for record in found} == expected, name)
    assert len(found) == 200


async def test_the_end_is_resolved_when_asked_for(log: MessageLog, name: str) -> None:
    """What was appended after `end` and before the first read is never missed; what was before is not repeated."""
    for round_ in range(5):
        await log.append(Topic.EVENTS, name, b"before")
        end = await log.end(Topic.EVENTS)
        await log.append(Topic.EVENTS, name, f"after {round_}".encode())
        expected = f"after {round_}".encode()
        assert await values(log, Topic.EVENTS, end, name, expected) == [expected]


async def test_a_reader_that_does_not_ask_for_long_misses_nothing(log: MessageLog, name: str) -> None:
    """A reader between two batches holds its place."""
    async with aclosing(log.read(Topic.EVENTS, await log.end(Topic.EVENTS))) as batches:
        await log.append(Topic.EVENTS, name, b"0")
        found = await records(batches, lambda found: len(found) == 1, name)
        for n in range(1, 50):
            await log.append(Topic.EVENTS, name, f"{n}".encode())
        found += await records(batches, lambda found: found[-1].value == b"49", name)
    assert [record.value for record in found] == [f"{n}".encode() for n in range(50)]


async def test_a_waiting_reader_is_told(log: MessageLog, name: str) -> None:
    """A reader at the end waits, and gets the next record when it comes."""
    async with aclosing(log.read(Topic.EVENTS, await log.end(Topic.EVENTS))) as batches:
        waiting = asyncio.ensure_future(records(batches, lambda found: len(found) == 1, name))
        await log.append(Topic.EVENTS, name, b"there")
        assert [record.value for record in await waiting] == [b"there"]


async def test_several_readers_each_get_everything(log: MessageLog, name: str) -> None:
    """Readers of one process do not share records, and one may begin behind another."""
    start = await log.end(Topic.EVENTS)
    early = [asyncio.ensure_future(values(log, Topic.EVENTS, start, name, b"29")) for _ in range(3)]
    for n in range(30):
        await log.append(Topic.EVENTS, name, f"{n}".encode())
    late = await values(log, Topic.EVENTS, start, name, b"29")
    for found in [late, *await asyncio.gather(*early)]:
        assert found == [f"{n}".encode() for n in range(30)]


async def test_a_reader_goes_on_from_where_it_stopped(log: MessageLog, name: str) -> None:
    """Positions after a batch are the offset after its last record: nothing twice, nothing left out."""
    positions = dict(await log.end(Topic.EVENTS))
    for n in range(10):
        await log.append(Topic.EVENTS, name, f"{n}".encode())
    found: list[Record] = []
    while len(found) < 10:
        async with aclosing(log.read(Topic.EVENTS, positions)) as batches, asyncio.timeout(WITHIN):
            batch = await anext(batches)
        found += [record for record in batch if record.key == name]
        positions |= {record.partition: record.offset + 1 for record in batch}
    assert [record.value for record in found] == [f"{n}".encode() for n in range(10)]


async def test_since_finds_the_first_record_of_a_time(log: MessageLog, name: str) -> None:
    """`since` the time of a record of one's own leads to it or to one of the same ms before it; a time to come is the end."""
    start = await log.end(Topic.EVENTS)
    for n in range(3):
        await log.append(Topic.EVENTS, name, f"{n}".encode())
        await asyncio.sleep(0.002)  # so that the records differ in their time
    async with aclosing(log.read(Topic.EVENTS, start)) as batches:
        found = await records(batches, lambda found: len(found) == 3, name)

    assert await values(log, Topic.EVENTS, await log.since(Topic.EVENTS, found[1].ts), name, b"2") == [b"1", b"2"]
    assert await log.since(Topic.EVENTS, found[2].ts + 3_600_000) == await log.end(Topic.EVENTS)


async def test_a_position_before_the_start_is_a_gap(log_place: LogPlace, log: MessageLog) -> None:
    """What retention deleted is said to be lost, never skipped in silence."""
    lost = await log_place.before_start(Topic.EVENTS)
    async with aclosing(log.read(Topic.EVENTS, lost)) as batches, asyncio.timeout(WITHIN):
        with pytest.raises(LogGap):
            await anext(batches)


async def test_a_position_past_the_end_is_a_gap(log: MessageLog, name: str) -> None:
    """A log that ends before the position is not the one the position came from (truncated, restored, replaced)."""
    await log.append(Topic.EVENTS, name, b"last")
    beyond = {partition: offset + 1000 for partition, offset in (await log.end(Topic.EVENTS)).items()}
    async with aclosing(log.read(Topic.EVENTS, beyond)) as batches, asyncio.timeout(WITHIN):
        with pytest.raises(LogGap):
            await anext(batches)


async def test_reading_again_after_a_gap(log_place: LogPlace, log: MessageLog, name: str) -> None:
    """From a fresh `end` a reader that met a gap reads on."""
    lost = await log_place.before_start(Topic.EVENTS)
    async with aclosing(log.read(Topic.EVENTS, lost)) as batches, asyncio.timeout(WITHIN):
        with pytest.raises(LogGap):
            await anext(batches)
    end = await log.end(Topic.EVENTS)
    await log.append(Topic.EVENTS, name, b"after")
    assert await values(log, Topic.EVENTS, end, name, b"after") == [b"after"]


async def test_closing_an_iterator_ends_its_wait(log: MessageLog, name: str) -> None:
    """A reader that waits can be cancelled and closed; the log and other readers go on."""
    end = await log.end(Topic.EVENTS)
    other = asyncio.ensure_future(values(log, Topic.EVENTS, end, name, b"1"))
    batches = log.read(Topic.EVENTS, end)
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await batches.aclose()
    await batches.aclose()

    await log.append(Topic.EVENTS, name, b"1")
    assert await other == [b"1"]


async def test_a_closed_log_says_so(log_place: LogPlace, name: str) -> None:
    """Closing is idempotent; afterwards an append raises and a waiting reader ends, by LogError."""
    log = await open_log(log_place.url)
    await log.append(Topic.EVENTS, name, b"1")
    batches = log.read(Topic.EVENTS, await log.end(Topic.EVENTS))
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    await log.close()
    await log.close()
    with pytest.raises(LogError):
        await log.append(Topic.EVENTS, name, b"2")
    with pytest.raises((LogError, StopAsyncIteration)):
        await asyncio.wait_for(waiting, WITHIN)
    await batches.aclose()


async def test_another_process_reads_and_appends(
    log_place: LogPlace, log: MessageLog, name: str, children: Children
) -> None:
    """Processes see each other's records, each key in order, while all of them append."""
    reader = children.start("read", log_place.url, Topic.EVENTS, name, "20")
    await reader.printed(1)
    start = await log.end(Topic.EVENTS)
    writer = children.start("append", log_place.url, Topic.EVENTS, f"{name}-child", "20")
    for n in range(20):
        await log.append(Topic.EVENTS, name, f"{n}".encode())

    assert (await reader.ended())[1:] == [f"{n}" for n in range(20)]
    await writer.ended()
    assert await values(log, Topic.EVENTS, start, f"{name}-child", b"19") == [f"{n}".encode() for n in range(20)]


async def test_processes_that_open_and_append_at_once(log_place: LogPlace, name: str, children: Children) -> None:
    """Each makes what is missing, or finds it made; no record is lost, and each process's own keep their order."""
    start = SystemClock().now() - 1
    writers = [children.start("append", log_place.url, Topic.RECEIPTS, f"{name}-{n}", "20") for n in range(4)]
    for writer in writers:
        await writer.ended()

    log = await open_log(log_place.url)
    async with aclosing(log.read(Topic.RECEIPTS, await log.since(Topic.RECEIPTS, start))) as batches:
        found = await records(batches, lambda found: len(found) == 80, name)
    await log.close()
    for n in range(4):
        own = [int(record.value) for record in found if record.key == f"{name}-{n}"]
        assert own == list(range(20))


async def test_nothing_acknowledged_is_lost_by_a_crash(
    log_place: LogPlace, log: MessageLog, name: str, children: Children
) -> None:
    """SIGKILL in the middle of appends: every acknowledged record is there afterwards, each key in order without a hole."""
    start = await log.end(Topic.EVENTS)
    for round_ in range(log_place.crashes):
        child = children.start("append-for-ever", log_place.url, Topic.EVENTS, f"{name}-{round_}")
        await child.printed(100)
        await log_place.crash(child)
        child.kill()
        acknowledged: dict[str, int] = {f"{name}-{round_}-{lane}": -1 for lane in range(LANES)}
        for line in child.lines:
            key, n = line.split()
            acknowledged[key] = int(n)

        def complete(found: list[Record], acknowledged: dict[str, int] = acknowledged) -> bool:
            newest = {record.key: int(record.value) for record in found}
            return all(newest.get(key, -1) >= last for key, last in acknowledged.items())

        async with aclosing(log.read(Topic.EVENTS, start)) as batches:
            found = await records(batches, complete, f"{name}-{round_}-")
        for key, last in acknowledged.items():
            seen = sorted({int(record.value) for record in found if record.key == key})
            assert seen == list(range(len(seen)))
            assert len(seen) > last
        start = await log.end(Topic.EVENTS)
