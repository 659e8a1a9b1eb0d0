"""What every `Conditional` promises, shown on each adapter."""

import asyncio

from kv import KeyValue, OutcomeUnknown, Put, StoreUnavailable, Version, open_store
from tests.contracts.children import Children
from tests.contracts.places import StorePlace, patiently

WRITERS = 8


async def attempt(store: KeyValue, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
    """One compare-and-set; an unknown outcome is resolved as the port says, by one's own mark: `value` is nobody else's."""
    try:
        return await store.compare_and_set(record, key, value, expected)
    except OutcomeUnknown:
        found = await store.read(record, key)
        return found if found and found.value == value else None


async def set_once(store: KeyValue, record: str, key: str, value: bytes) -> Version:
    """Sets the item, against whoever else does."""
    while True:
        found = await store.read(record, key)
        if done := await attempt(store, record, key, value, found.version if found else None):
            return done


async def test_an_item_never_set_is_none(store: KeyValue, name: str) -> None:
    """And can't be changed from a version it never had."""
    assert await store.read(name, "key") is None
    assert await store.compare_and_set(name, "key", b"x", 1) is None
    assert await store.read(name, "key") is None


async def test_setting_step_by_step(store: KeyValue, name: str) -> None:
    """Each set gives the next version, 1 the first; `read` sees what was acknowledged."""
    version: int | None = None
    for n in range(1, 20):
        done = await store.compare_and_set(name, "key", f"{n}".encode(), version)
        assert done == Version(f"{n}".encode(), n)
        assert await store.read(name, "key") == done
        version = done.version


async def test_only_the_expected_version_is_replaced(store: KeyValue, name: str) -> None:
    """An older version, a later one and "absent" are refused, and change nothing."""
    await store.compare_and_set(name, "key", b"1", None)
    await store.compare_and_set(name, "key", b"2", 1)
    for expected in (None, 1, 3):
        assert await store.compare_and_set(name, "key", b"no", expected) is None
    assert await store.read(name, "key") == Version(b"2", 2)


async def test_the_same_value_is_a_new_version(store: KeyValue, name: str) -> None:
    """A version never comes back, so a value that comes back is not mistaken for the old one."""
    await store.compare_and_set(name, "key", b"a", None)
    await store.compare_and_set(name, "key", b"b", 1)
    assert await store.compare_and_set(name, "key", b"a", 2) == Version(b"a", 3)
    assert await store.compare_and_set(name, "key", b"c", 1) is None


async def test_any_bytes_under_any_name(store: KeyValue, name: str) -> None:
    """Values empty or large, names in any script; keys and records are items of their own."""
    for key, value in (("empty", b""), ("ü 日本 \U0001f3c6", bytes(range(256))), ("large", b"x" * 100_000)):
        assert await store.compare_and_set(f"{name}/é", key, value, None) == Version(value, 1)
        assert await store.read(f"{name}/é", key or "k") == Version(value, 1)
    assert await store.read(name, "large") is None


async def test_the_ports_share_no_item(store: KeyValue, name: str) -> None:
    """A conditional item is not seen through `Store`, nor changed or deleted by it; and the other way round."""
    await store.compare_and_set(name, "key", b"conditional", None)
    assert await store.get(name, "key") is None
    assert list((await store.page(name)).items) == []
    await store.put([Put(name, "key", b"plain")])
    assert await store.read(name, "key") == Version(b"conditional", 1)
    await store.delete(name, ["key"])
    assert await store.read(name, "key") == Version(b"conditional", 1)


async def test_one_of_many_creates(store_place: StorePlace, store: KeyValue, name: str) -> None:
    """Of 8 that set an absent item at once, over two connections, exactly one does."""
    other = await open_store(store_place.url)
    try:
        for round_ in range(3):
            done = await asyncio.gather(
                *(attempt((store, other)[n % 2], name, f"{round_}", f"{n}".encode(), None) for n in range(WRITERS))
            )
            [winner] = [version for version in done if version is not None]
            assert await store.read(name, f"{round_}") == winner
    finally:
        await other.close()


async def test_racing_writers(store_place: StorePlace, store: KeyValue, name: str) -> None:
    """8 writers on two connections, 5 sets each: every success has a version of its own, and the last is their number."""
    other = await open_store(store_place.url)

    async def writer(number: int) -> list[Version]:
        mine = (store, other)[number % 2]
        return [await set_once(mine, name, "key", f"{number}-{n}".encode()) for n in range(5)]

    try:
        done = [version for each in await asyncio.gather(*map(writer, range(WRITERS))) for version in each]
    finally:
        await other.close()
    assert sorted(version.version for version in done) == list(range(1, WRITERS * 5 + 1))
    assert await store.read(name, "key") == max(done, key=lambda version: version.version)


async def test_read_sees_every_acknowledged_set(store_place: StorePlace, store: KeyValue, name: str) -> None:
    """A read that began after a set was acknowledged, on any connection, never gives an older version."""
    other = await open_store(store_place.url)
    acknowledged = 0

    async def reader() -> None:
        while acknowledged < 30:
            before = acknowledged
            found = await other.read(name, "key")
            assert (found.version if found else 0) >= before
            await asyncio.sleep(0)

    async def writer() -> None:
        nonlocal acknowledged
        for n in range(30):
            done = await store.compare_and_set(name, "key", f"{n}".encode(), n or None)
            assert done is not None
            acknowledged = done.version

    try:
        await asyncio.gather(reader(), reader(), writer())
    finally:
        await other.close()


async def test_racing_processes(store_place: StorePlace, store: KeyValue, name: str, children: Children) -> None:
    """8 processes, 5 sets each: as for writers of one process."""
    family = [children.start("increment", store_place.url, name, "key", "5") for _ in range(WRITERS)]
    versions = sorted([int(line) for child in family for line in await child.ended(60)])
    assert versions == list(range(1, WRITERS * 5 + 1))
    found = await store.read(name, "key")
    assert found is not None
    assert found.version == WRITERS * 5


async def test_nothing_acknowledged_is_lost_by_a_crash(
    store_place: StorePlace, store: KeyValue, name: str, children: Children
) -> None:
    """SIGKILL in the middle of sets: the item is at the last acknowledged version, or at one whose answer got lost."""
    child = children.start("set-for-ever", store_place.url, name, "key")
    await child.printed(50)
    await store_place.crash(child)
    child.kill()
    found = await patiently(lambda: store.read(name, "key"))
    assert found is not None
    assert found.version >= int(child.lines[-1])
    assert await store.compare_and_set(name, "key", b"after", found.version) == Version(b"after", found.version + 1)


def test_an_unknown_outcome_is_an_error_of_its_own() -> None:
    """Who catches "surely not set" does not catch "perhaps set"."""
    assert not issubclass(OutcomeUnknown, StoreUnavailable)
    assert not issubclass(StoreUnavailable, OutcomeUnknown)
