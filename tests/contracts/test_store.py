"""What every `Store` promises, shown on each adapter."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from kv import Item, KeyValue, Page, Put, Removal, StoreError, open_store
from tests.contracts.children import Children
from tests.contracts.places import StorePlace, patiently

TICK = 0.05
"""Seconds by which a wall clock may lag behind a sleep."""


async def pages(store: KeyValue, record: str, max_bytes: int = 1 << 20) -> list[Page]:
    """All pages of a record, in order."""
    found = [await store.page(record, max_bytes=max_bytes)]
    while (after := found[-1].after) is not None:
        found.append(await store.page(record, after, max_bytes))
    return found


async def items(store: KeyValue, record: str, max_bytes: int = 1 << 20) -> list[Item]:
    return [item for page in await pages(store, record, max_bytes) for item in page.items]


def puts(record: str, keys: Sequence[str], value: bytes = b"v") -> list[Put]:
    return [Put(record, key, value) for key in keys]


async def test_an_item_comes_back_as_it_was_put(store: KeyValue, name: str) -> None:
    """Any bytes, also none; what was never put is None."""
    for value in (b"", bytes(range(256)), b"x" * 100_000):
        await store.put([Put(name, "key", value)])
        assert await store.get(name, "key") == value
    assert await store.get(name, "other") is None
    assert await store.get(f"{name}-other", "key") is None


async def test_the_last_write_wins(store: KeyValue, name: str) -> None:
    """A put replaces value and ttl; within one call too, the later of two puts of an item counts."""
    await store.put([Put(name, "key", b"1", ttl=3600)])
    await store.put([Put(name, "key", b"2")])
    assert await store.get(name, "key") == b"2"
    for n in range(50):
        await store.put([Put(name, "key", f"{n}".encode())])
        assert await store.get(name, "key") == f"{n}".encode()


async def test_what_is_meant_is_removed(store: KeyValue, name: str) -> None:
    """By its whole value or by what that begins with; another value stays, a longer one too; absent items are no error."""
    await store.put([Put(name, "a", b"one"), Put(name, "b", b"one"), Put(name, "c", b"one"), Put(name, "d", bytes(2))])
    meant = [
        Removal(name, "a", b"one"),
        Removal(name, "b", b"on"),
        Removal(name, "c", b"on", longer=True),
        Removal(name, "d", b"\0", longer=True),
        Removal(name, "e", b"one"),
        Removal(f"{name}/", "b", b"one"),
    ]
    assert await store.remove(meant) == {(name, "a"), (name, "c"), (name, "d")}
    assert [item.key for item in await items(store, name)] == ["b"]
    assert await store.remove([]) == set()


async def test_records_do_not_mix(store: KeyValue, name: str) -> None:
    """The same key in two records is two items, also where one record's name begins with the other's."""
    await store.put([Put(name, "key", b"1"), Put(f"{name}/", "key", b"2"), Put(f"{name}/key", "", b"3")])
    assert await items(store, name) == [Item("key", b"1")]
    assert await items(store, f"{name}/") == [Item("key", b"2")]
    await store.delete(name, ["key"])
    assert await store.get(f"{name}/", "key") == b"2"


async def test_non_ascii_names(store: KeyValue, name: str) -> None:
    """Records and keys are any text: other scripts, characters beyond 16 bits, quotes, spaces."""
    record = f"{name}/é 日本 \U0001f3c6 'x' \"y\""
    keys = ["a b", "ü", "日本", "\U0001f3c6", "'; --", '"', "%", "_"]
    await store.put([Put(record, key, key.encode()) for key in keys])
    for key in keys:
        assert await store.get(record, key) == key.encode()
    await store.delete(record, ["日本"])
    assert {item.key for item in await items(store, record)} == set(keys) - {"日本"}


async def test_keys_are_ordered_as_utf8_bytes(store: KeyValue, name: str) -> None:
    """Not by any alphabet, and not by UTF-16 units: U+FFFD comes before U+1F3C6. Digits order as text."""
    keys = ["Z", "a", "aa", "a-", "B", "10", "9", "é", "z", "\ufffd", "\U0001f3c6", "日"]
    await store.put(puts(name, keys))
    ordered = sorted(keys, key=str.encode)
    assert [item.key for item in await items(store, name)] == ordered
    assert [item.key for item in await items(store, name, max_bytes=1)] == ordered


async def test_pages_are_bounded_by_bytes(store: KeyValue, name: str) -> None:
    """Keys and values of a page fit `max_bytes`; the pages together are the record, each item once, in order."""
    keys = [f"{n:04}" for n in range(500)]
    await store.put(puts(name, keys, b"v" * 96))
    found = await pages(store, name, max_bytes=1000)
    assert [item.key for page in found for item in page.items] == keys
    assert all(1 <= len(page.items) <= 10 for page in found)
    assert len(found[0].items) == 10
    assert found[0].after == found[0].items[-1].key


async def test_a_page_has_at_least_one_item(store: KeyValue, name: str) -> None:
    """An item larger than `max_bytes` is a page of its own, so that no reader stands still."""
    await store.put([Put(name, "1", b"x" * 5000), Put(name, "2", b""), Put(name, "3", b"x" * 5000)])
    found = await pages(store, name, max_bytes=100)
    assert [[item.key for item in page.items] for page in found if page.items] == [["1"], ["2"], ["3"]]


async def test_a_page_begins_after_a_key(store: KeyValue, name: str) -> None:
    """The key itself is left out and need not exist: a page goes on although its last item was deleted."""
    await store.put(puts(name, ["a", "b", "c", "d"]))
    assert [item.key for item in (await store.page(name, "b")).items] == ["c", "d"]
    await store.delete(name, ["b"])
    assert [item.key for item in (await store.page(name, "b")).items] == ["c", "d"]
    assert await store.page(name, "d") == Page([], None)


async def test_the_page_of_an_absent_record_is_empty(store: KeyValue, name: str) -> None:
    """It is the last page, too."""
    page = await store.page(name)
    assert (list(page.items), page.after) == ([], None)


async def test_deleted_items_are_gone(store: KeyValue, name: str) -> None:
    """From `get` and from pages; deleting what is absent is no error, and a deleted item may come again."""
    await store.put(puts(name, ["a", "b", "c"]))
    await store.delete(name, ["a", "c", "never there"])
    await store.delete(name, [])
    assert await store.get(name, "a") is None
    assert [item.key for item in await items(store, name)] == ["b"]
    await store.put([Put(name, "a", b"again")])
    assert await store.get(name, "a") == b"again"


async def test_an_item_ends_with_its_ttl(store: KeyValue, name: str) -> None:
    """It is there before and not after, by `get` and by page; its neighbours with a longer ttl or none stay."""
    start = time.monotonic()
    await store.put([Put(name, "short", b"", ttl=2), Put(name, "long", b"", ttl=3600), Put(name, "stays", b"")])
    found = await items(store, name)
    assert [item.key for item in found] == ["long", "short", "stays"] or time.monotonic() - start >= 1
    await asyncio.sleep(2 + TICK)
    assert await store.get(name, "short") is None
    assert [item.key for item in await items(store, name)] == ["long", "stays"]


async def test_an_item_put_again_has_its_new_ttl(store: KeyValue, name: str) -> None:
    """A refresh outlives the first ttl; so does a put without one."""
    await store.put([Put(name, key, b"", ttl=1) for key in ("refreshed", "kept", "control")])
    await store.put([Put(name, "refreshed", b"", ttl=3600), Put(name, "kept", b"")])
    await asyncio.sleep(1 + TICK)
    assert [item.key for item in await items(store, name)] == ["kept", "refreshed"]


async def test_ten_thousand_items_in_one_call(store: KeyValue, name: str) -> None:
    """The most a call may have, over several records; one more is the caller's error."""
    records = [f"{name}/{n}" for n in range(10)]
    batch = [Put(records[n % 10], f"{n:05}", f"{n}".encode()) for n in range(10_000)]
    await store.put(batch)
    for number, record in enumerate(records):
        assert [int(item.value) for item in await items(store, record, 20_000)] == list(range(number, 10_000, 10))
    with pytest.raises(ValueError, match="10,000"):
        await store.put([*batch, batch[0]])


async def test_no_items_is_no_work(store: KeyValue) -> None:
    """An empty put is no error."""
    await store.put([])


async def test_a_write_is_seen_by_every_later_read(store_place: StorePlace, store: KeyValue, name: str) -> None:
    """Of another connection as well as of one's own."""
    other = await open_store(store_place.url)
    try:
        for n in range(50):
            await store.put([Put(name, "key", f"{n}".encode())])
            assert await other.get(name, "key") == f"{n}".encode()
            await other.delete(name, ["key"])
            assert await store.get(name, "key") is None
    finally:
        await other.close()


async def test_a_closed_store_says_so(store_place: StorePlace, name: str) -> None:
    """Closing is idempotent; afterwards every call raises StoreError."""
    store = await open_store(store_place.url)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.put([Put(name, "key", b"")])
    with pytest.raises(StoreError):
        await store.get(name, "key")
    with pytest.raises(StoreError):
        await store.compare_and_set(name, "key", b"", None)


async def test_nothing_acknowledged_is_lost_by_a_crash(
    store_place: StorePlace, store: KeyValue, name: str, children: Children
) -> None:
    """SIGKILL in the middle of puts: every acknowledged item is there afterwards, whole."""
    for round_ in range(store_place.crashes):
        record = f"{name}/{round_}"
        child = children.start("put-for-ever", store_place.url, record)
        await child.printed(100)
        await store_place.crash(child)
        child.kill()
        there = await patiently(lambda record=record: items(store, record))  # type: ignore[misc]
        found = {item.key: item.value for item in there}
        assert set(child.lines) <= set(found)
        assert all(value == key.encode() for key, value in found.items())
        await store.put([Put(record, "after", b"")])
        assert await store.get(record, "after") == b""
