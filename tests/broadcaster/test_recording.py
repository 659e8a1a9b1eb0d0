"""Curves in the store: kept over restarts, the same from every instance."""

import asyncio

from broadcaster.receipts import KEEP_MS, keep_ledger
from broadcaster.recording import REACH, REACH_MS
from broadcaster.series import Point
from stagecast.log import Topic
from stagecast.receipts import Receipt, encode_receipt
from tests.broadcaster.world import Broadcaster, World, until


async def count(world: World, gen: int, at: int, *, seq: int = 1, n: int = 100) -> None:
    """A worker says where its devices are, now."""
    receipt = Receipt("h1", "b", 0, world.clock.now(), "final", gen, seq, n, n, subscribed=n, at_or_past=at)
    await world.log.append(Topic.RECEIPTS, "final", encode_receipt(receipt))


async def settled(world: World, one: Broadcaster, receipts: int) -> None:
    """It has read so many receipts."""
    seen = 0
    before = one.parts.ledger.before

    def counting(receipt: Receipt, stamp: int) -> None:
        nonlocal seen
        seen += 1
        assert before is not None
        before(receipt, stamp)

    one.parts.ledger.before = counting
    reading = asyncio.create_task(keep_ledger(one.parts.ledger, world.log, world.clock, reach=REACH_MS))
    await until(lambda: seen >= receipts)
    reading.cancel()
    await asyncio.wait([reading])
    one.parts.recorder.pass_time(world.clock.now())


def shares(points: list[Point], since: int) -> list[tuple[int, int]]:
    return [(point.ts - since, point.at_or_past) for point in points]


async def test_two_instances_keep_the_same_curve(world: World, one: Broadcaster) -> None:
    """Both write it; a third, which never read a receipt, reads it from the store."""
    head = await one.create()
    other = world.broadcaster()
    await other.parts.roster.refresh("final")
    for at in (10, 60, 97, 100):
        await count(world, head.gen, at)
        world.clock.advance(1)
    world.clock.advance(2)
    for instance in (one, other):
        await settled(world, instance, 4)
    assert one.parts.recorder.unsaved() == other.parts.recorder.unsaved() != []
    for instance in (one, other):
        await instance.parts.curves.save()
    third = await world.broadcaster().parts.curves.of_gen("final", head.gen)
    assert (
        third == await one.parts.curves.of_gen("final", head.gen) == await other.parts.curves.of_gen("final", head.gen)
    )
    assert shares(third[1], head.ts) == [(1000, 10), (2000, 60), (3000, 97), (4000, 100)]
    assert one.parts.progress(head).reached_ms == {"50": 2000, "95": 3000, "99": 4000, "99.9": 4000}
    assert other.parts.progress(head) == one.parts.progress(head)


async def test_a_restart_keeps_the_curve(world: World, one: Broadcaster) -> None:
    """An instance that starts later goes on where the store ends, also with what the log said while it was away, and knows the
    times that were found before it."""
    head = await one.create()
    for at in (10, 60):
        await count(world, head.gen, at)
        world.clock.advance(1)
    world.clock.advance(2)
    await settled(world, one, 2)
    await one.parts.curves.save()
    world.clock.advance(KEEP_MS / 1000 + REACH - 20)
    await count(world, head.gen, 99)
    world.clock.advance(30)
    late = world.broadcaster()
    await late.parts.roster.refresh("final")
    await count(world, head.gen, 100)
    world.clock.advance(7)
    await settled(world, late, 2)
    assert late.parts.recorder.unsaved() == []
    await late.parts.curves.save()
    kept = (await one.parts.curves.of_gen("final", head.gen))[1]
    assert [point.at_or_past for point in kept] == [10, 60, 99, 100]
    assert late.parts.progress(head).reached_ms["50"] == 2000


async def test_an_outage_of_the_store_loses_nothing(world: World, one: Broadcaster) -> None:
    """Points wait in memory, and are written when it is back."""
    head = await one.create()
    await count(world, head.gen, 10)
    world.clock.advance(3)
    await settled(world, one, 1)
    world.store.down = True
    await one.parts.curves.save()
    assert one.parts.curves.failed == 1
    world.store.down = False
    await one.parts.curves.save()
    assert one.parts.curves.written == 1
    assert list(await world.broadcaster().parts.curves.of_gen("final", head.gen)) == [1]
