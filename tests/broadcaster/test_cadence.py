"""The cadence is the repair (rule 2): what one instance lost, another says again; history is completed; memory is brought up."""

import asyncio

import msgspec

from broadcaster.cadence import ORPHAN_AFTER_MS, PERIOD, Cadence
from broadcaster.roster import Roster
from stagecast.broadcast import Broadcast
from stagecast.event import LINGER_MS, Request
from stagecast.records import HEADS, Beat, history_record, index_record, index_shard
from tests.broadcaster.world import Broadcaster, World, until


async def test_every_round_says_everything_again(world: World, one: Broadcaster) -> None:
    """A round appends a beat and the broadcast of every active event: equal bytes for an unchanged head."""
    await one.create("final")
    await one.create("other")
    await world.said()
    for _ in range(2):
        await one.cadence.round()
    said = (await world.said())[2:]
    assert [type(record) for record in said].count(Beat) == 2
    repeats = [record for record in said if isinstance(record, Broadcast)]
    assert sorted(record.e for record in repeats) == ["final", "final", "other", "other"]
    assert len(set(repeats)) == 2


async def test_what_died_before_its_append_is_said_by_another(world: World, one: Broadcaster) -> None:
    """Accepted but never appended (a crash between compare-and-set and append): another instance's next round says it, though
    it never heard of the event."""
    world.log.down = True
    await one.create()
    await one.go("live")
    await one.parts.publisher.drain(5)
    world.log.down = False
    assert await world.broadcasts() == []
    await world.broadcaster().cadence.round()
    assert await world.broadcasts() == [(2, "live")]


async def test_a_newer_head_in_the_store_is_found(world: World, one: Broadcaster) -> None:
    """An instance that knew the event says the newest head after a round, not the one it remembers."""
    other = world.broadcaster()
    await one.create()
    await other.cadence.round()
    world.log.down = True
    await one.go("live")
    await one.parts.publisher.drain(5)
    world.log.down = False
    world.clock.advance(PERIOD)
    await other.cadence.round()
    assert (await world.broadcasts())[-1] == (2, "live")


async def test_created_again_is_found_by_the_index(world: World, one: Broadcaster) -> None:
    """An event created over a gone one, by an instance that died before its append, is found in the next round."""
    other = world.broadcaster()
    await one.create()
    await one.parts.producer.delete("final", Request("d", "gone", "ann"))
    world.clock.advance(LINGER_MS / 1000 + 1)
    await other.cadence.round()
    assert other.parts.roster.active() == []
    await world.said()
    world.log.down = True
    again = await one.create(key="again")
    await one.parts.publisher.drain(5)
    world.log.down = False
    await other.cadence.round()
    last = (await world.said())[-1]
    assert isinstance(last, Broadcast)
    assert last.order == (again.gen, 1)


async def test_history_is_completed(world: World, one: Broadcaster) -> None:
    """A round writes what history lacks of the head's entries, whoever accepted them; the next one writes only what is new."""
    await one.create()
    await one.go("live")
    other = world.broadcaster()
    await other.cadence.round()
    record = history_record("final", (await one.head()).gen)
    assert [item.key for item in (await world.store.page(record)).items] == [f"{1:016}", f"{2:016}"]
    await world.store.delete(record, [f"{1:016}"])
    await one.go("half")
    world.clock.advance(PERIOD)
    await other.cadence.round()
    assert [item.key for item in (await world.store.page(record)).items] == [f"{2:016}", f"{3:016}"]


async def test_an_event_that_is_over_falls_silent(world: World, one: Broadcaster) -> None:
    """24 h after its last stage or deletion an event is repeated no more; before, it is."""
    await one.create()
    await one.go("ended")
    world.clock.advance(LINGER_MS / 1000 - 1)
    await one.cadence.round()
    before = await world.broadcasts()
    assert before[-1] == (2, "ended")
    world.clock.advance(2)
    await one.cadence.round()
    assert await world.broadcasts() == before


async def test_an_orphan_of_the_index_is_dropped(world: World, one: Broadcaster) -> None:
    """An id without a head stays for 60 s, for its creator may be at it; then it goes."""
    await one.parts.heads.enlist("orphan", world.clock.now())
    world.clock.advance(ORPHAN_AFTER_MS / 1000)
    await one.cadence.round()
    assert "orphan" in await one.parts.heads.enlisted()
    world.clock.advance(0.001)
    await one.cadence.round()
    assert "orphan" not in await one.parts.heads.enlisted()


async def test_a_living_event_missing_in_the_index_is_put_back(world: World, one: Broadcaster) -> None:
    """However it came about: an event with a head that is known to somebody is never lost from the index."""
    await one.create()
    await world.store.delete(index_record(index_shard("final")), ["final"])
    await one.cadence.round()
    assert "final" in await one.parts.heads.enlisted()


async def test_store_down_memory_is_repeated(world: World, one: Broadcaster) -> None:
    """Without the store the cadence repeats what it knows (rule 8), says so, and recovers."""
    await one.create()
    await one.cadence.round()
    assert one.parts.ready().ready
    before = len(await world.broadcasts())
    world.store.down = True
    await one.cadence.round()
    assert len(await world.broadcasts()) == before + 1
    assert (one.parts.ready().ready, one.parts.ready().kv) == (False, "down")
    world.store.down = False
    await one.cadence.round()
    assert one.parts.ready().ready


async def test_log_down_costs_one_append_a_round(world: World, one: Broadcaster) -> None:
    """While the log takes no beat nothing else is tried; the store is read all the same."""
    await one.create()
    await one.parts.publisher.drain(5)
    world.log.down = True
    failed = one.parts.publisher.counts.failed
    await one.cadence.round()
    assert one.parts.publisher.counts.failed == failed + 1
    assert (one.parts.ready().ready, one.parts.ready().log) == (False, "late")


async def test_store_reads_are_bounded(world: World, one: Broadcaster) -> None:
    """A round reads each active head at most once, and a resting one not at all after a last look."""
    for n in range(10):
        await one.create(f"e{n}")
    for n in range(5):
        await one.parts.producer.delete(f"e{n}", Request("d", "gone", "ann"))
    world.clock.advance(LINGER_MS / 1000 + 1)
    await one.cadence.round()
    world.store.reads.clear()
    rounds = 12
    for _ in range(rounds):
        world.clock.advance(PERIOD)
        await one.cadence.round()
    assert world.store.reads[HEADS] <= 5 * rounds + 5


async def test_a_damaged_head_harms_no_other_event(world: World, one: Broadcaster) -> None:
    """A head that can't be read is passed over, and not taken for an orphan; the others are repeated."""
    await one.create()
    await world.store.compare_and_set(HEADS, "broken", b"{", None)
    await one.parts.heads.enlist("broken", world.clock.now() - ORPHAN_AFTER_MS - 1)
    other = world.broadcaster()
    await other.cadence.round()
    assert [known.head.event for known in other.parts.roster.all()] == ["final"]
    assert "broken" in await one.parts.heads.enlisted()


async def test_it_runs_until_it_is_stopped(world: World, one: Broadcaster) -> None:
    """The loop begins with a round at once, and leaves nothing behind when cancelled."""
    running = asyncio.create_task(one.cadence.run())
    await until(lambda: one.cadence.rounds == 1)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_what_rests_leaves_memory_and_comes_back(world: World, one: Broadcaster) -> None:
    """24 h after its end an event is in no memory and is not read again; a change that only the store tells of, its maker dead
    before the append, brings it back to another instance."""
    other = world.broadcaster()
    await one.create()
    await one.go("ended")
    await other.cadence.round()
    world.clock.advance(LINGER_MS / 1000 + 1)
    for _ in range(2):
        await other.cadence.round()
    assert len(other.parts.roster) == 0
    world.store.reads.clear()
    for _ in range(20):
        world.clock.advance(PERIOD)
        await other.cadence.round()
    assert world.store.reads[HEADS] == 0
    assert "final" in await one.parts.heads.enlisted()
    world.log.down = True
    await one.go("half")
    await one.parts.publisher.drain(5)
    world.log.down = False
    await other.cadence.round()
    assert (await world.broadcasts())[-1] == (3, "half")


async def test_a_wish_under_way_is_waited_for(world: World, one: Broadcaster) -> None:
    """A newer entry in the index, seen before the change it announces, is looked up until the change is there."""
    await one.create()
    await one.go("ended")
    world.clock.advance(LINGER_MS / 1000 + 1)
    other = world.broadcaster()
    await one.parts.heads.enlist("final", world.clock.now())
    await other.cadence.round()
    head = msgspec.structs.replace(await one.head(), stage="half", seq=3, ts=world.clock.now())
    assert await one.parts.heads.swap(head, 2)
    await other.cadence.round()
    assert [known.head.seq for known in other.parts.roster.all()] == [3]


async def test_what_is_gone_leaves_the_index(world: World, one: Broadcaster) -> None:
    """24 h after its deletion an event is in no index and no memory; its head stays, and creating it again is a greater gen
    that stands in the index and is repeated."""
    first = await one.create()
    await one.parts.producer.delete("final", Request("d", "gone", "ann"))
    world.clock.advance(LINGER_MS / 1000 - 1)
    await one.cadence.round()
    assert "final" in await one.parts.heads.enlisted()
    world.clock.advance(2)
    for _ in range(2):
        await one.cadence.round()
    assert await one.parts.heads.enlisted() == {}
    assert len(one.parts.roster) == 0
    assert (await one.head()).gone
    again = await one.create(key="again")
    assert again.gen > first.gen
    other = world.broadcaster()
    await other.cadence.round()
    assert "final" in await one.parts.heads.enlisted()
    assert [known.head.gen for known in other.parts.roster.all()] == [again.gen]


async def test_created_again_while_it_is_struck(world: World, one: Broadcaster) -> None:
    """A re-creation that falls between the reading of the index and the removal is put back, though its maker dies at once."""
    await one.create()
    await one.parts.producer.delete("final", Request("d", "gone", "ann"))
    world.clock.advance(LINGER_MS / 1000 + 1)

    async def create_again() -> None:
        world.log.down = True
        await one.create(key="again")
        await one.parts.publisher.drain(5)
        world.log.down = False

    other = world.broadcaster()
    world.store.before_delete = create_again
    await other.cadence.round()
    assert "final" in await one.parts.heads.enlisted()
    assert [known.head.stage for known in other.parts.roster.active()] == ["upcoming"]


async def test_one_too_many_is_no_orphan(world: World, one: Broadcaster) -> None:
    """An event for which there is no room in memory stays in the index, and is taken in once another has been forgotten."""
    for event in ("a", "b"):
        await one.create(event)
    world.clock.advance(ORPHAN_AFTER_MS / 1000 + 1)
    small = Roster(one.parts.heads, world.clock, limit=1)
    cadence = Cadence(one.parts.heads, small, one.parts.publisher, world.clock)
    await cadence.round()
    assert sorted(await one.parts.heads.enlisted()) == ["a", "b"]
    kept = small.all()[0].head.event
    await one.parts.producer.delete(kept, Request("d", "gone", "ann"))
    world.clock.advance(LINGER_MS / 1000 + 1)
    for _ in range(2):
        await cadence.round()
    assert [known.head.event for known in small.all()] == [({"a", "b"} - {kept}).pop()]
