"""The registry, written behind, on the embedded store."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kv import KeyValue
from pushy.registry import DEVICE_KEY, Registry
from stagecast.records import Session, device_record, registry_record
from tests.pushy.hosting import GEN, FaultyStore, roads


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyValue]:
    async with roads(tmp_path) as (_, store):
        yield store


def session(sid: str, host: str = "h1") -> Session:
    return Session(sid, host, "http://h1:8082", 0, GEN)


async def kept(store: KeyValue, member: str = "m1", device: str = "d1") -> str | None:
    """The session id that stands in the registry."""
    found = await store.get(registry_record(member), device)
    return msgspec.json.decode(found, type=Session).sid if found else None


async def test_a_session_is_found_by_member_and_by_device(store: KeyValue) -> None:
    """Both records are written: member → device → session, and device → member."""
    registry = Registry(60.0)
    registry.began("m1", "d1", session("s1"))
    assert await registry.flush(store)
    assert await kept(store) == "s1"
    assert await store.get(device_record("d1"), DEVICE_KEY) == b"m1"
    assert (len(registry), registry.written) == (0, 1)


async def test_an_ended_session_is_deleted(store: KeyValue) -> None:
    """With its device's record."""
    registry = Registry(60.0)
    registry.began("m1", "d1", session("s1"))
    await registry.flush(store)
    registry.ended("m1", "d1", "s1")
    await registry.flush(store)
    assert await kept(store) is None
    assert await store.get(device_record("d1"), DEVICE_KEY) is None


async def test_an_old_hosts_teardown_leaves_the_newer_entry(store: KeyValue) -> None:
    """The device has moved to another host before the old one noticed: the entry of the new session stays."""
    old, new = Registry(60.0), Registry(60.0)
    old.began("m1", "d1", session("s1"))
    await old.flush(store)
    new.began("m1", "d1", session("s2", "h2"))
    await new.flush(store)
    old.ended("m1", "d1", "s1")
    await old.flush(store)
    assert await kept(store) == "s2"
    assert await store.get(device_record("d1"), DEVICE_KEY) == b"m1"


async def test_a_late_end_does_not_hide_a_pending_session(store: KeyValue) -> None:
    """The end of an earlier session arrives after the next one began: the later one is written."""
    registry = Registry(60.0)
    registry.began("m1", "d1", session("s2"))
    registry.ended("m1", "d1", "s1")
    await registry.flush(store)
    assert await kept(store) == "s2"


async def test_changes_of_one_device_are_one_write(store: KeyValue) -> None:
    """A device that comes and goes between two writes costs one."""
    registry = Registry(60.0)
    for i in range(10):
        registry.began("m1", "d1", session(f"s{i}"))
    assert len(registry) == 1
    await registry.flush(store)
    assert await kept(store) == "s9"


async def test_beyond_its_bound_it_sheds_and_counts() -> None:
    """Who is already pending stays, with the newest word; who is new is shed: its pull is the net."""
    registry = Registry(60.0, pending_max=2)
    for member in ("m1", "m2", "m3"):
        registry.began(member, "d1", session("s1"))
    registry.began("m1", "d1", session("s2"))
    assert registry.shed == 1
    assert {holder: change.sid for holder, change in registry.take()} == {("m1", "d1"): "s2", ("m2", "d1"): "s1"}


async def test_what_the_store_refused_is_written_later(store: KeyValue) -> None:
    """A batch that failed is pending again, unless something newer came."""
    registry, faulty = Registry(60.0), FaultyStore(store)
    faulty.down = True
    for member in ("m1", "m2"):
        registry.began(member, "d1", session("s1"))
    assert not await registry.flush(faulty)
    assert (len(registry), registry.failed) == (2, 2)
    registry.began("m1", "d1", session("s2"))
    faulty.down = False
    assert await registry.flush(faulty)
    assert (await kept(store, "m1"), await kept(store, "m2")) == ("s2", "s1")
