"""Events in memory: brought up by records of the log, never turned back."""

import asyncio

import msgspec

from broadcaster.control import live
from broadcaster.heads import Kept
from broadcaster.roster import Roster, watch_log
from stagecast.event import LINGER_MS
from stagecast.log import Topic
from stagecast.records import HEADS
from tests.broadcaster.world import Broadcaster, World, by_hand, until


async def test_it_never_turns_back(world: World, one: Broadcaster) -> None:
    """A head read earlier but arriving later does not replace a newer one."""
    await one.create()
    old = await one.parts.heads.read("final")
    assert old is not None
    await one.go("live")
    known = one.parts.roster.saw(old, by_hand())
    assert known is not None
    assert known.head.stage == "live"


async def test_a_restored_store_counts_versions_anew(world: World, one: Broadcaster) -> None:
    """A greater (gen, seq) is newer though its version is not: after a restored backup and a regen."""
    await one.create()
    await one.go("live")
    kept = await one.parts.heads.read("final")
    assert kept is not None
    again = msgspec.structs.replace(kept.head, gen=kept.head.gen + 1, seq=1)
    known = one.parts.roster.saw(Kept(again, 1), by_hand())
    assert known is not None
    assert known.head is again


async def test_the_log_tells_of_other_instances(world: World, one: Broadcaster) -> None:
    """Creations, transitions and holds of another instance are known here as soon as their records arrive."""
    other = world.broadcaster()
    watching = asyncio.create_task(watch_log(other.parts.roster, world.log, await world.log.end(Topic.EVENTS)))
    roster = other.parts.roster
    await one.create()
    await until(lambda: roster.get("final") is not None)
    known = roster.get("final")
    assert known is not None
    await one.go("live")
    await until(lambda: known.head.stage == "live")
    world.clock.advance(1)
    await one.parts.producer.hold("final", "rain", "ann")
    await until(lambda: known.head.hold is not None)
    watching.cancel()
    await asyncio.wait([watching])


async def test_old_news_is_not_read_about(world: World, one: Broadcaster) -> None:
    """A record no newer than a head read within the last second costs no read; a newer one does."""
    head = await one.create()
    record = head.broadcast()
    assert not one.parts.roster.wants(record)
    await one.go("live")
    assert not one.parts.roster.wants(record)
    world.clock.advance(1)
    assert one.parts.roster.wants(record)
    other = world.broadcaster()
    assert other.parts.roster.wants(record)


async def test_strange_records_and_a_store_that_is_down(world: World, one: Broadcaster) -> None:
    """Neither a record that is none of ours nor a failing read ends the watch."""
    roster = one.parts.roster
    watching = asyncio.create_task(watch_log(roster, world.log, await world.log.end(Topic.EVENTS)))
    await world.log.append(Topic.EVENTS, "x", b"{")
    other = world.broadcaster()
    await other.create("first")
    await until(lambda: roster.get("first") is not None)
    assert world.store.reads[HEADS] >= 1
    watching.cancel()
    await asyncio.wait([watching])


async def test_memory_is_bounded(world: World, one: Broadcaster) -> None:
    """Over its limit the roster takes no further event, and counts it."""
    small = Roster(one.parts.heads, world.clock, limit=1)
    for event in ("a", "b"):
        await one.create(event)
        await small.refresh(event)
    assert (len(small), small.left_out) == (1, 1)


async def test_what_rests_is_not_taken_in(world: World, one: Broadcaster) -> None:
    """An event that is over is read and shown to who watches it, and stays out of memory."""
    await one.create()
    await one.go("ended")
    world.clock.advance(LINGER_MS / 1000 + 1)
    other = world.broadcaster()
    known = await other.parts.roster.refresh("final")
    assert known is not None
    assert b'"stage":"ended"' in await live(other.parts, "final")
    assert len(other.parts.roster) == 0
