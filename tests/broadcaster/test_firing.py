"""Plans carried out: on every instance, never twice, never against a person."""

import asyncio
from datetime import timedelta

from broadcaster.firing import LOOK_EVERY, RETRY
from broadcaster.schedule import PLAN
from stagecast.plan import PlannedStage, plan_of
from tests.broadcaster.world import Broadcaster, World, paced, until

PACED = paced(("upcoming", 0), ("live", 60), ("half", 60), ("ended", 60))


async def test_a_due_stage_is_fired(world: World, one: Broadcaster) -> None:
    """At its due time a stage is accepted, by `plan`, and the lag is measured."""
    await one.create(plan=PACED)
    assert await one.firing.step() == LOOK_EVERY
    world.clock.advance(59.9)
    assert round(await one.firing.step(), 3) == 0.1
    world.clock.advance(0.11)
    await one.firing.step()
    head = await one.head()
    assert (head.stage, head.seq, head.accepted[-1].who) == ("live", 2, PLAN)
    assert round(one.parts.producer.counts.plan_lag, 3) == 0.01


async def test_two_broadcasters_never_double(world: World, one: Broadcaster) -> None:
    """Eight instances at the same due times: each stage is accepted once."""
    instances = [one, *(world.broadcaster() for _ in range(7))]
    await one.create(plan=PACED)
    for instance in instances[1:]:
        await instance.parts.roster.refresh("final")
    for _ in range(3):
        world.clock.advance(60.001)
        await asyncio.gather(*(instance.firing.step() for instance in instances))
        for instance in instances:
            await instance.parts.roster.refresh("final")
    assert [entry.stage for entry in (await one.head()).accepted] == ["upcoming", "live", "half", "ended"]


async def test_a_stale_instance_fires_nothing_old(world: World, one: Broadcaster) -> None:
    """An instance whose memory is behind judges by the store: what is done or passed is not fired."""
    stale = world.broadcaster()
    await one.create(plan=PACED)
    await stale.parts.roster.refresh("final")
    await one.go("half")
    world.clock.advance(61)
    await one.firing.step()
    assert (await one.head()).stage == "ended"
    await stale.firing.step()
    assert (await one.head()).seq == 3
    known = stale.parts.roster.get("final")
    assert known is not None
    assert known.head.seq == 3


async def test_a_hold_of_another_instance_counts(world: World, one: Broadcaster) -> None:
    """A hold accepted elsewhere a moment ago, at the same seq, stops the stage."""
    other = world.broadcaster()
    await one.create(plan=PACED)
    await other.parts.roster.refresh("final")
    world.clock.advance(60)
    await one.parts.producer.hold("final", "rain", "ann")
    await other.firing.step()
    assert (await one.head()).seq == 1


async def test_a_revert_is_not_undone(world: World, one: Broadcaster) -> None:
    """After a person went back, the plan is silent on every instance, until resumed; then it goes on further ahead."""
    other = world.broadcaster()
    await one.create(plan=PACED)
    await one.go("live")
    await one.go("upcoming")
    await other.parts.roster.refresh("final")
    for instance in (one, other):
        world.clock.advance(65)
        await instance.firing.step()
    assert (await one.head()).seq == 3
    await one.parts.producer.resume("final")
    await one.firing.step()
    assert (await one.head()).stage == "half"


async def test_long_overdue_holds(world: World, one: Broadcaster) -> None:
    """What is overdue by more than 10 min is not fired: the plan is on hold, and the head says why."""
    await one.create(plan=PACED)
    world.clock.advance(60 + 601)
    await one.firing.step()
    head = await one.head()
    assert (head.stage, head.seq) == ("upcoming", 1)
    assert head.hold is not None
    assert (head.hold.why, head.hold.by) == ("live was due 10 min ago", PLAN)


async def test_store_down_is_tried_again(world: World, one: Broadcaster) -> None:
    """A stage due while the store is down is fired when it is back."""
    await one.create(plan=PACED)
    world.clock.advance(60)
    world.store.down = True
    assert await one.firing.step() == RETRY
    assert one.firing.failed == 1
    world.store.down = False
    await one.firing.step()
    assert (await one.head()).stage == "live"


async def test_unknown_outcomes_fire_once(world: World, one: Broadcaster) -> None:
    """A plan's compare-and-set whose answer is lost, applied or not, is one transition."""
    await one.create(plan=PACED)
    world.clock.advance(60)
    world.store.answers_lost.extend(["dropped", "applied"])
    await one.firing.step()
    assert [entry.stage for entry in (await one.head()).accepted] == ["upcoming", "live"]


async def test_a_new_head_wakes_the_loop(world: World, one: Broadcaster) -> None:
    """The loop acts at once on an event that it learns of, without waiting for its next look."""
    running = asyncio.create_task(one.firing.run())
    await asyncio.sleep(0)
    now = plan_of([PlannedStage("upcoming"), PlannedStage("live", after=timedelta(0))])
    await one.create(plan=now)
    known = one.parts.roster.get("final")
    assert known is not None
    world.clock.advance(0.5)
    await until(lambda: known.head.stage == "live")
    running.cancel()
    await asyncio.wait([running])
