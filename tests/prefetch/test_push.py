"""Pushing to hosts over real HTTP: batched, bounded, tried again, and never in the way."""

import random
from typing import Any

import msgspec

from kv import Put
from prefetch.metrics import Metrics
from prefetch.push import ENTRIES, TRIES, Pushed, Pusher
from prefetch.stage_maps import Keyed
from stagecast.clock import ManualClock
from stagecast.records import Session, registry_record
from stagecast.wire.frames import StageMap
from tests.prefetch.conftest import Site
from tests.prefetch.peers import host


def a_map(member: str) -> Keyed:
    return Keyed(member, StageMap("final", 1, "1764000000000-m1", {"live": [member]}))


async def connect(site: Site, member: str, admin: str, device: str = "d1") -> None:
    """As a host's registry writes it."""
    session = Session("s", "h", admin, 0, 0)
    await site.store.put([Put(registry_record(member), device, msgspec.json.encode(session), 60.0)])


def pusher(site: Site, key: str | None = "secret", clock: ManualClock | None = None) -> Pusher:
    return Pusher(site.store, key, clock or ManualClock(), random.Random(1), Metrics())


def all_take(entry: dict[str, Any], _: int) -> list[tuple[str | None, int]]:
    return [("d1", 200)]


async def test_each_member_is_pushed_where_it_is(site: Site) -> None:
    """By registry look-up, to every host that has one of its devices; one without a device is absent."""
    with host(all_take) as one, host(all_take) as two:
        await connect(site, "m1", one.url)
        await connect(site, "m2", two.url)
        await connect(site, "m3", one.url)
        await connect(site, "m3", two.url, "d2")
        push = pusher(site)
        assert await push.push([a_map(f"m{i}") for i in range(1, 5)]) == Pushed(pushed=4, busy=0, absent=1)
        await push.close()
    assert {entry["member"] for entry in one.entries} == {"m1", "m3"}
    assert {entry["member"] for entry in two.entries} == {"m2", "m3"}
    assert one.entries[0]["frame"] == {
        "t": "map", "e": "final", "gen": 1, "map": "1764000000000-m1", "stages": {"live": [one.entries[0]["member"]]},
        "default": None, "ttl": 86400, "cohort": False,
    }  # fmt: skip
    assert one.keys == {"Bearer secret"}


async def test_pushes_go_in_bounded_batches(site: Site) -> None:
    """A host takes so many entries, and less than a MiB, at a time."""
    with host(all_take) as one:
        members = [f"m{i}" for i in range(2 * ENTRIES + 1)]
        for member in members:
            await connect(site, member, one.url)
        push = pusher(site)
        assert (await push.push([a_map(member) for member in members])).pushed == len(members)
        large = [Keyed(m, StageMap("final", 1, "1764000000000-m1", {"live": "x" * 60_000})) for m in members[:20]]
        assert (await push.push(large)).pushed == 20
        await push.close()
    assert [len(call) for call in one.calls[:3]] == [ENTRIES, ENTRIES, 1]
    assert all(len(msgspec.json.encode(call)) < 1 << 20 for call in one.calls)


async def test_a_busy_device_is_tried_again_alone(site: Site) -> None:
    """503 comes back for that device; the one that took it is left in peace."""

    def busy_once(entry: dict[str, Any], calls: int) -> list[tuple[str | None, int]]:
        if calls:
            return [(entry["device"], 200)]
        return [("tv", 200), ("phone", 503)]

    with host(busy_once) as one:
        await connect(site, "m1", one.url)
        push = pusher(site)
        assert await push.push([a_map("m1")]) == Pushed(pushed=2, busy=0, absent=0)
        await push.close()
    assert [[entry.get("device") for entry in call] for call in one.calls] == [[None], ["phone"]]


async def test_a_device_that_stays_busy_is_left_to_pull(site: Site) -> None:
    """After a few tries."""
    with host(lambda entry, calls: [("d1", 503)]) as one:
        await connect(site, "m1", one.url)
        push = pusher(site)
        assert await push.push([a_map("m1")]) == Pushed(pushed=0, busy=1, absent=0)
        await push.close()
    assert len(one.calls) == TRIES


async def test_a_stale_registry_entry_is_no_error(site: Site) -> None:
    """404: the device has gone; it pulls when it is back."""
    with host(lambda entry, calls: [(None, 404)]) as one:
        await connect(site, "m1", one.url)
        push = pusher(site)
        assert await push.push([a_map("m1")]) == Pushed(pushed=0, busy=0, absent=1)
        await push.close()
    assert len(one.calls) == 1


async def test_a_host_that_fails_is_left_alone_for_a_while(site: Site) -> None:
    """Neither it nor one that is not there holds up a campaign, and the others get theirs."""
    clock = ManualClock()
    with host(all_take) as sick, host(all_take) as well:
        sick.broken = True
        await connect(site, "m1", sick.url)
        await connect(site, "m2", well.url)
        await connect(site, "m3", "http://127.0.0.1:9")
        push = pusher(site, clock=clock)
        members = [a_map("m1"), a_map("m2"), a_map("m3")]
        assert await push.push(members) == Pushed(pushed=1, busy=0, absent=2)
        sick.broken = False
        assert (await push.push(members)).pushed == 1
        clock.advance(6)
        assert (await push.push(members)).pushed == 2
        await push.close()


async def test_without_a_key_nothing_is_pushed(site: Site) -> None:
    """Everybody is absent, and pulls."""
    push = pusher(site, key=None)
    assert await push.push([a_map("m1")]) == Pushed(0, 0, 1)
    await push.close()
