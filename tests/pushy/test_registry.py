"""The registry, written behind, on the embedded store."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from kv import KeyValue, Put, Removal
from pushy.link import Began, Ended
from pushy.registry import BATCH, DEVICE_KEY, Registry
from pushy.whereabouts import holder_of
from stagecast.records import Session, device_record, registry_record
from tests.pushy.hosting import GEN, FaultyStore, roads


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyValue]:
    async with roads(tmp_path) as (_, store):
        yield store


class Device:
    """A device of a member, as a registry is told of it."""

    def __init__(self, member: str = "m1", device: str = "d1") -> None:
        self.member, self.device = member, device
        self.holder = holder_of(member, device)

    def begins(self, registry: Registry, sid: str, worker: int = 0) -> None:
        registry.began(self.holder, worker, Began(self.member, self.device, sid, GEN))

    def ends(self, registry: Registry, sid: str) -> None:
        registry.ended(self.holder, Ended(self.member, self.device, sid))


def registry(host: str = "h1", pending_max: int = 10_000) -> Registry:
    return Registry(60.0, host, f"http://{host}:8082", pending_max)


async def kept(store: KeyValue, member: str = "m1", device: str = "d1") -> str | None:
    """The session id that stands in the registry."""
    found = await store.get(registry_record(member), device)
    return msgspec.json.decode(found, type=Session).sid if found else None


async def test_a_session_is_found_by_member_and_by_device(store: KeyValue) -> None:
    """Both records are written: member → device → session, and device → member."""
    one, device = registry(), Device()
    device.begins(one, "s1")
    assert await one.flush(store)
    assert await kept(store) == "s1"
    assert await store.get(device_record("d1"), DEVICE_KEY) == b"m1"
    assert (len(one), one.written) == (0, 1)


async def test_an_ended_session_is_deleted(store: KeyValue) -> None:
    """With its device's record."""
    one, device = registry(), Device()
    device.begins(one, "s1")
    await one.flush(store)
    device.ends(one, "s1")
    await one.flush(store)
    assert await kept(store) is None
    assert await store.get(device_record("d1"), DEVICE_KEY) is None


async def test_an_old_hosts_teardown_leaves_the_newer_entry(store: KeyValue) -> None:
    """The device has moved to another host before the old one noticed: the entry of the new session stays."""
    old, new, device = registry(), registry("h2"), Device()
    device.begins(old, "s1")
    await old.flush(store)
    device.begins(new, "s2")
    await new.flush(store)
    device.ends(old, "s1")
    await old.flush(store)
    assert await kept(store) == "s2"
    assert await store.get(device_record("d1"), DEVICE_KEY) == b"m1"


async def test_a_late_end_does_not_hide_a_pending_session(store: KeyValue) -> None:
    """The end of an earlier session arrives after the next one began: the later one is written."""
    one, device = registry(), Device()
    device.begins(one, "s2")
    device.ends(one, "s1")
    await one.flush(store)
    assert await kept(store) == "s2"


async def test_changes_of_one_device_are_one_write(store: KeyValue) -> None:
    """A device that comes and goes between two writes costs one."""
    one, device = registry(), Device()
    for i in range(10):
        device.begins(one, f"s{i}")
    assert len(one) == 1
    await one.flush(store)
    assert await kept(store) == "s9"


async def test_beyond_its_bound_it_sheds_and_counts() -> None:
    """Who is already pending stays, with the newest word; who is new is shed: its pull is the net."""
    one, devices = registry(pending_max=2), [Device(member) for member in ("m1", "m2", "m3")]
    for device in devices:
        device.begins(one, "s1")
    devices[0].begins(one, "s2")
    assert one.shed == 1
    assert [(change.member, change.sid) for _, change in one.take().values()] == [("m1", "s2"), ("m2", "s1")]


async def test_a_backlog_is_written_by_bounded_batches(store: KeyValue) -> None:
    """The oldest first; what comes meanwhile waits behind."""
    one, devices = registry(), [Device(f"m{i}") for i in range(BATCH + 1)]
    for device in devices:
        device.begins(one, "s1")
    await one.flush(store)
    assert (await kept(store, f"m{BATCH - 1}"), await kept(store, f"m{BATCH}")) == ("s1", None)
    assert (len(one), one.written) == (1, BATCH)
    await one.flush(store)
    assert await kept(store, f"m{BATCH}") == "s1"


async def test_what_the_store_refused_is_written_later(store: KeyValue) -> None:
    """A batch that failed is pending again, unless something newer came."""
    one, device, faulty = registry(), Device(), FaultyStore(store)
    faulty.down = True
    for member in ("m1", "m2"):
        Device(member).begins(one, "s1")
    assert not await one.flush(faulty)
    assert (len(one), one.failed) == (2, 2)
    device.begins(one, "s2")
    faulty.down = False
    assert await one.flush(faulty)
    assert (await kept(store, "m1"), await kept(store, "m2")) == ("s2", "s1")


async def test_only_the_session_itself_is_removed(store: KeyValue) -> None:
    """Ids that begin alike, and members that do: each entry, and each device's record, is looked at as a whole."""
    one, device = registry(), Device("m1")
    device.begins(one, "s11")
    await one.flush(store)
    device.ends(one, "s1")
    await one.flush(store)
    assert await kept(store) == "s11"
    await store.put([Put(device_record("d1"), DEVICE_KEY, b"m12")])
    device.ends(one, "s11")
    await one.flush(store)
    assert await kept(store) is None
    assert await store.get(device_record("d1"), DEVICE_KEY) == b"m12"


async def test_many_ends_are_few_writes(store: KeyValue) -> None:
    """A host that drains tells all of them at once: two calls, however many they are."""
    one, devices, counting = registry(), [Device(f"m{i}", f"d{i}") for i in range(300)], Counting(store)
    for device in devices:
        device.begins(one, "s1")
    await one.flush(counting)
    for device in devices:
        device.ends(one, "s1")
    await one.flush(counting)
    assert (await kept(store, "m0", "d0"), await kept(store, "m299", "d299")) == (None, None)
    assert await store.get(device_record("d299"), DEVICE_KEY) is None
    assert counting.removals == [300, 300]


class Counting(FaultyStore):
    def __init__(self, store: KeyValue) -> None:
        super().__init__(store)
        self.removals: list[int] = []

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        self.removals.append(len(items))
        return await super().remove(items)
