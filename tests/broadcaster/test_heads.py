"""Events as the store keeps them: pages of the index and of history."""

import pytest

from broadcaster.heads import Damaged
from kv import Put
from stagecast.records import HEADS, RequiredMap, required_map_record
from tests.broadcaster.world import Broadcaster, World


async def test_pages_of_the_index(world: World, one: Broadcaster) -> None:
    """However small the pages: every id once, and the end is told."""
    world.store.page_bytes = 40
    events = {f"event-{n}" for n in range(50)}
    for event in events:
        await one.parts.heads.enlist(event, world.clock.now())
    found: list[str] = []
    after: str | None = None
    for _ in range(100):
        ids, after = await one.parts.heads.page(after, 7)
        assert len(ids) <= 7
        found += ids
        if after is None:
            break
    assert len(found) == 50
    assert set(found) == events == set(await one.parts.heads.enlisted())


async def test_pages_of_history(world: World, one: Broadcaster) -> None:
    """However small the pages: every seq once, in order, the store's and the head's together."""
    await one.create()
    for n in range(20):
        await one.go(("live", "half")[n % 2], f"n{n}")
    head = await one.head()
    await one.parts.heads.keep_history(head, [entry for entry in head.accepted if entry.seq % 3])
    world.store.page_bytes = 300
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        entries, after = await one.parts.heads.history(head, after)
        found += [entry.seq for entry in entries]
    assert found == list(range(1, 22))


async def test_what_can_not_be_is_named(world: World, one: Broadcaster) -> None:
    """A head that can't be read, and one whose plan is not there, are errors that name the event."""
    await world.store.compare_and_set(HEADS, "broken", b"{", None)
    with pytest.raises(Damaged, match="broken"):
        await one.parts.heads.read("broken")
    head = await one.create()
    with pytest.raises(Damaged, match="final: plan revision 9"):
        await one.parts.heads.plan(
            type(head)(**{**{f: getattr(head, f) for f in head.__struct_fields__}, "revision": 9})
        )


async def test_gens_only_grow(world: World, one: Broadcaster) -> None:
    """Every gen is greater than all before it, whatever the clock says."""
    gens = [await one.parts.heads.next_gen("final", now) for now in (100, 100, 50, 200)]
    assert gens == [100, 101, 102, 200]


async def test_the_required_map_is_of_a_gen(world: World, one: Broadcaster) -> None:
    """A campaign's map counts for the gen it was made for."""
    head = await one.create()
    other = RequiredMap("1764000000000-a", 10.0)
    await world.store.put(
        [Put(required_map_record("final"), str(head.gen + 1), b'{"map":"1764000000000-a","rate":10.0}')]
    )
    assert await one.parts.heads.required_map(head) is None
    await world.store.put([Put(required_map_record("final"), str(head.gen), b'{"map":"1764000000000-a","rate":10.0}')])
    assert await one.parts.heads.required_map(head) == other
