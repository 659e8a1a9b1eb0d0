"""Appends: in the background, bounded, and how well they go."""

import asyncio

import msgspec

from broadcaster.publisher import LATE_AFTER, UNDER_WAY_MAX
from stagecast.records import Revocation
from tests.broadcaster.world import Broadcaster, World


async def test_the_standing(world: World, one: Broadcaster) -> None:
    """Late before the first acknowledged append, ok after it, late when the last is long ago or failed."""
    publisher = one.parts.publisher
    seen: list[tuple[str, float | None]] = [(publisher.standing, publisher.age)]
    assert await publisher.beat()
    seen.append((publisher.standing, publisher.age))
    for seconds in (LATE_AFTER, 0.001):
        world.clock.advance(seconds)
        seen.append((publisher.standing, publisher.age))
    await publisher.beat()
    world.log.down = True
    assert not await publisher.beat()
    seen.append((publisher.standing, publisher.age))
    assert seen == [("late", None), ("ok", 0.0), ("ok", 10.0), ("late", 10.001), ("late", 0.0)]
    assert (publisher.counts.acknowledged, publisher.counts.failed) == (2, 1)


async def test_background_appends_are_bounded(world: World, one: Broadcaster) -> None:
    """Over the limit an append is skipped and counted, and left to the cadence."""
    head = await one.create()
    await one.parts.publisher.drain(5)
    for _ in range(UNDER_WAY_MAX + 5):
        one.parts.publisher.soon(head)
    assert one.parts.publisher.counts.skipped == 5
    await one.parts.publisher.drain(5)
    assert len(await world.broadcasts()) == 1 + UNDER_WAY_MAX


async def test_what_hangs_is_given_up(world: World, one: Broadcaster) -> None:
    """Draining takes no longer than it is allowed, and leaves no task behind."""
    head = await one.create()
    await one.parts.publisher.drain(5)
    one.parts.publisher.soon(head)
    await one.parts.publisher.drain(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_head_without_a_legal_broadcast_harms_no_other(world: World, one: Broadcaster) -> None:
    """What no host would take is not appended, and counted."""
    head = await one.create()
    await one.parts.publisher.drain(5)
    assert not await one.parts.publisher.broadcast(msgspec.structs.replace(head, stage="NOT A STAGE"))
    assert one.parts.publisher.counts.failed == 1
    assert await world.broadcasts() == [(1, "upcoming")]


async def test_revocations_are_owed(world: World, one: Broadcaster) -> None:
    """A revocation that the log did not take is said by the first round that finds the log well, once."""
    world.log.down = True
    revocation = Revocation("device", "tv-9", world.clock.now())
    assert not await one.parts.publisher.revoke(revocation)
    await one.cadence.round()
    world.log.down = False
    await one.cadence.round()
    await one.cadence.round()
    assert (await world.said()).count(revocation) == 1
