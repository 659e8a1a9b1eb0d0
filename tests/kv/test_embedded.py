"""What is the embedded store's own; what it has in common with others is in `tests/contracts`."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kv import Item, OutcomeUnknown, Put, StoreUnavailable, Version
from kv.embedded import ROWS, TIDY_ROWS, SqliteStore
from stagecast.clock import ManualClock
from tests.stagecast.faulty_disk import FaultyDisk


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kv.sqlite"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(file: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(f"sqlite:///{file}", clock)
    yield opened
    await opened.close()


async def test_a_ttl_runs_to_the_ms(store: SqliteStore, clock: ManualClock) -> None:
    """There until it is over, gone from then on, by `get` and by page."""
    await store.put([Put("record", "key", b"v", ttl=0.5), Put("record", "other", b"v")])
    clock.advance(0.499)
    assert await store.get("record", "key") == b"v"
    clock.advance(0.001)
    assert await store.get("record", "key") is None
    assert await store.page("record") == ([Item("other", b"v")], None)


async def test_pages_pass_over_expired_items(store: SqliteStore, clock: ManualClock) -> None:
    """They count for nothing, neither as bytes nor as a page that turns out empty."""
    await store.put([Put("record", f"{n:03}", b"x" * 100, ttl=10 if n % 3 else None) for n in range(90)])
    clock.advance(11)
    page = await store.page("record", max_bytes=1030)
    assert [item.key for item in page.items] == [f"{n:03}" for n in range(0, 30, 3)]
    assert page.after == "027"
    last = await store.page("record", "084")
    assert ([item.key for item in last.items], last.after) == (["087"], None)


async def test_expired_items_are_deleted_in_batches(store: SqliteStore, clock: ManualClock, file: Path) -> None:
    """What is over leaves the file; what lives, or lives for ever, stays."""
    await store.put([Put("record", f"{n}", b"", ttl=10) for n in range(2 * TIDY_ROWS + 1)])
    await store.put([Put("record", "later", b"", ttl=100), Put("record", "always", b"")])
    clock.advance(11)
    await store.tidy()
    assert {key for (key,) in sqlite3.connect(file).execute("SELECT key FROM items")} == {"later", "always"}


async def test_an_item_put_again_is_not_deleted_with_its_old_ttl(store: SqliteStore, clock: ManualClock) -> None:
    """A ttl belongs to the last write."""
    await store.put([Put("record", "key", b"1", ttl=10)])
    await store.put([Put("record", "key", b"2", ttl=100)])
    clock.advance(50)
    await store.tidy()
    assert await store.get("record", "key") == b"2"


async def test_a_put_is_atomic(store: SqliteStore) -> None:
    """One item that can't be stored, and none is."""
    with pytest.raises(UnicodeEncodeError):
        await store.put([Put("record", "good", b""), Put("record", "\ud800", b"")])
    assert await store.get("record", "good") is None


async def test_many_items_are_written_as_if_one_by_one(store: SqliteStore, clock: ManualClock) -> None:
    """Whatever their order and number: with their own ttl each, and the later of two puts of an item counts."""
    for count in (ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5):
        record = f"record-{count}"
        first = [Put(record, f"{n:03}", b"old", 1.0) for n in range(count)]
        second = [Put(record, f"{n:03}", f"{n}".encode(), None if n % 2 else 0.57) for n in reversed(range(count))]
        await store.put([*first, Put("other", record, b"o"), *second])
        assert (await store.page(record)).items == [Item(f"{n:03}", f"{n}".encode()) for n in range(count)]
        clock.advance(0.569)
        assert len((await store.page(record)).items) == count
        clock.advance(0.001)
        assert (await store.page(record)).items == [Item(f"{n:03}", f"{n}".encode()) for n in range(1, count, 2)]
        assert await store.get("other", record) == b"o"


async def test_a_put_that_can_not_be_written_spoils_no_other(store: SqliteStore) -> None:
    """Nothing of it is there, and all of those that shared its transaction."""
    spoilt = [Put("bad", f"{n}", b"v") for n in range(3 * ROWS)]
    spoilt[2 * ROWS] = Put("bad", "none", None)  # type: ignore[arg-type]
    puts = [store.put(items) for items in ([Put("before", "key", b"v")], spoilt, [Put("after", "key", b"v")])]
    assert [type(one) for one in await asyncio.gather(*puts, return_exceptions=True)] == [
        type(None),
        StoreUnavailable,
        type(None),
    ]
    assert [len((await store.page(record)).items) for record in ("before", "bad", "after")] == [1, 0, 1]


async def test_keys_with_a_null_character(store: SqliteStore) -> None:
    """Are keys like any other, and ordered by it."""
    await store.put([Put("record", key, key.encode()) for key in ("a", "a\0", "a\0b", "a\x01", "")])
    assert [item.key for item in (await store.page("record")).items] == ["", "a", "a\0", "a\0b", "a\x01"]
    assert [item.key for item in (await store.page("record", "")).items] == ["a", "a\0", "a\0b", "a\x01"]
    assert await store.get("record", "a\0") == b"a\0"


async def test_a_sync_that_fails_leaves_a_compare_and_set_unknown(file: Path) -> None:
    """OutcomeUnknown, and the item can be read to decide; a plain write is StoreUnavailable, to be written again."""
    with FaultyDisk() as disk:
        store = await SqliteStore.open(f"sqlite:///{file}")
        await store.compare_and_set("record", "key", b"1", None)
        disk.broken = True
        with pytest.raises(OutcomeUnknown):
            await store.compare_and_set("record", "key", b"2", 1)
        with pytest.raises(StoreUnavailable):
            await store.put([Put("record", "key", b"")])
        disk.broken = False
        found = await store.read("record", "key")
        assert found == Version(b"1", 1)
        assert await store.compare_and_set("record", "key", b"2", found.version) == Version(b"2", 2)
        await store.close()


async def test_a_file_out_of_reach_surely_sets_nothing(store: SqliteStore, file: Path) -> None:
    """Before anything is written it is StoreUnavailable, for every call."""
    os.rename(file, file.with_suffix(".away"))
    with pytest.raises(StoreUnavailable):
        await store.compare_and_set("record", "key", b"1", None)
    with pytest.raises(StoreUnavailable):
        await store.put([Put("record", "key", b"")])
    with pytest.raises(StoreUnavailable):
        await store.get("record", "key")
    with pytest.raises(StoreUnavailable):
        await store.read("record", "key")
    with pytest.raises(StoreUnavailable):
        await store.page("record")


async def test_racing_sets_in_one_transaction(store: SqliteStore) -> None:
    """Sets that wait together are judged one after the other: one of them wins each version."""
    for expected in (None, 1, 2):
        done = await asyncio.gather(
            *(store.compare_and_set("record", "key", f"{n}".encode(), expected) for n in range(50))
        )
        assert [version for version in done if version] == [Version(b"0", (expected or 0) + 1)]


async def test_a_log_is_no_store(file: Path) -> None:
    """A file of another kind, or a URL with an option, is refused with what is wrong."""
    from stagecast.log.embedded import EmbeddedLog

    log = await EmbeddedLog.open(f"sqlite:///{file}")
    await log.close()
    with pytest.raises(StoreUnavailable, match="not a Stagecast store"):
        await SqliteStore.open(f"sqlite:///{file}")
    with pytest.raises(ValueError, match="no options"):
        await SqliteStore.open(f"sqlite:///{file}?mode=ro")
