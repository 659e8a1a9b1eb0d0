"""Campaigns on the real embedded store and log: begun, taken up, hinted, over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from prefetch.campaign import LEASE_MS, Campaign
from prefetch.events import read_campaign
from prefetch.push import Pusher
from prefetch.recommenders import RecommenderError
from prefetch.runner import OPEN, NoCampaign, NoEvent, Runner, Wanted
from prefetch.stage_maps import Keyed, StageMaps
from prefetch.tastes import Member, Title, member_put, pack, title_put
from stagecast.log import Topic
from stagecast.records import RequiredMap, Session, decode_record, registry_record, required_map_record
from stagecast.wire.frames import Hint, StageMap
from tests.prefetch.conftest import PLAN, Site, set_event
from tests.prefetch.peers import host

FAST = Wanted(budget=100_000)


@contextlib.asynccontextmanager
async def running(site: Site, key: str | None = None) -> AsyncIterator[Runner]:
    """A runner at work, stopped as the service stops it."""
    parts = site.parts()
    pusher = Pusher(site.store, key, parts.clock, parts.rng, parts.metrics)
    runner = Runner(parts, pusher)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.wait([task])
        await runner.close()
        await pusher.close()


async def tastes(site: Site, members: int, titles: int = 3) -> None:
    """An event with titles and members of two cohorts."""
    await set_event(site.store, "final")
    await site.store.put(
        [title_put("final", Title(f"t{i}", pack([1.0, float(i)]), float(i)), 3600) for i in range(titles)]
    )
    made = [Member(f"m{i:05d}", pack([1.0, (-1.0) ** i]), "odd" if i % 2 else "default") for i in range(members)]
    for start in range(0, members, 5000):
        await site.store.put([member_put("final", member, 3600) for member in made[start : start + 5000]])


async def until(site: Site, phase: str, **more: Any) -> Campaign:
    """The campaign once it is in `phase` and its fields are as said."""
    while True:
        campaign, _ = await read_campaign(site.store, "final")
        if campaign and campaign.phase == phase and all(getattr(campaign, k) == v for k, v in more.items()):
            return campaign
        await asyncio.sleep(0.01)


async def hints(site: Site, start: dict[int, int]) -> AsyncIterator[Hint]:
    async for records in site.log.read(Topic.EVENTS, start):
        for record in records:
            said = decode_record(record.value)
            if isinstance(said, Hint):
                yield said


async def test_a_campaign_gives_everyone_a_map_and_tells_devices(site: Site) -> None:
    """Each member's map has the campaign's version, each cohort's one below; then broadcasts require it and a hint says so."""
    await tastes(site, 2500)
    start = dict(await site.log.end(Topic.EVENTS))
    async with running(site) as runner:
        begun = await runner.start("final", FAST)
        done = await until(site, "done")
        hint = await anext(hints(site, start))
    assert (done.done, done.total, done.skipped, done.map) == (2500, 2500, 0, begun.map)
    assert (hint.e, hint.gen, hint.map, hint.w) == ("final", 1, done.map, done.window)
    maps = StageMaps(site.store, "final", 1, site.parts().rng)
    for member, best in (("m00000", "t2"), ("m00001", "t0")):
        found = await maps.get(member)
        assert found is not None
        assert (found.map, found.cohort) == (done.map, False)
        assert set(found.stages) == {planned.stage for planned in PLAN.stages}
        assert found.stages["live"][0] == found.default[0] == best
    odd = await maps.get("cohort:odd")
    assert odd is not None
    assert (odd.cohort, odd.map < done.map, odd.stages["live"][0]) == (True, True, "t0")
    required = await site.store.get(required_map_record("final"), "1")
    assert required is not None
    assert msgspec.json.decode(required, type=RequiredMap) == RequiredMap(done.map, 1000.0)


async def test_devices_that_are_connected_are_pushed_to(site: Site) -> None:
    """Through their host, with the map that was stored; the others are counted absent."""
    await tastes(site, 20)
    with host(lambda entry, calls: [("d1", 200)]) as one:
        session = msgspec.json.encode(Session("s", "h", one.url, 0, 0))
        await asyncio.gather(*(site.store.put([_put(i, session)]) for i in range(5)))
        async with running(site, key="secret") as runner:
            await runner.start("final", FAST)
            done = await until(site, "done")
    assert (done.pushed, done.absent, done.busy) == (5, 15, 0)
    assert {entry["member"] for entry in one.entries} == {f"m{i:05d}" for i in range(5)}
    assert {entry["frame"]["map"] for entry in one.entries} == {done.map}


def _put(i: int, session: bytes) -> Any:
    from kv import Put

    return Put(registry_record(f"m{i:05d}"), "d1", session, 60.0)


async def test_beginning_again_while_one_runs_is_the_same_campaign(site: Site) -> None:
    """In this process or in another; once it is done a new one has a greater map version."""
    await tastes(site, 300)
    async with running(site) as one, running(site) as two:
        begun = await one.start("final", Wanted(budget=200))
        assert (await one.start("final", FAST)).map == begun.map
        assert (await two.start("final", FAST)).map == begun.map
        campaign, _ = await read_campaign(site.store, "final")
        assert campaign is not None
        assert campaign.owner == one.owner
    async with running(site) as three:
        await until(site, "done", done=300)
        second = await three.start("final", FAST)
        assert second.map > begun.map
        assert (await until(site, "done")).map == second.map


async def test_the_budget_is_kept(site: Site) -> None:
    """A batch is half a second of it, so that the pace is even and little is repeated after a crash."""
    await tastes(site, 100)
    async with running(site) as runner:
        await runner.start("final", Wanted(budget=20))
        campaign = await until(site, "running", done=10)
        assert campaign.rate == 20


async def test_a_stopped_process_lets_go_at_once(site: Site) -> None:
    """Another goes on from the cursor without waiting for the lease, and nobody is done twice."""
    await tastes(site, 60)
    async with running(site) as one:
        await one.start("final", Wanted(budget=20))
        await until(site, "running", done=10)
    let_go, version = await read_campaign(site.store, "final")
    assert let_go is not None
    assert let_go.phase == "running"
    assert let_go.lease < let_go.started + LEASE_MS + 10_000
    await site.store.compare_and_set(
        "campaigns", "final", msgspec.json.encode(replace(let_go, budget=100_000.0)), version
    )
    async with running(site):
        done = await until(site, "done")
    assert (done.done, done.epoch > let_go.epoch) == (60, True)


async def test_a_campaign_freezes(site: Site) -> None:
    """From then on nothing is computed, and no map is required that not everybody has."""
    await tastes(site, 10)
    async with running(site) as runner:
        await runner.start("final", Wanted(freeze=datetime(2020, 1, 1, tzinfo=UTC)))
        frozen = await until(site, "frozen", over=True)
    assert frozen.done == 0
    assert await site.store.get(required_map_record("final"), "1") is None


@pytest.mark.parametrize(
    ("titles", "members", "recommender", "says"),
    [
        (0, 3, None, "has no titles: `stagecast prefetch import final FILE --kind titles`"),
        (3, 0, None, "has no members: `stagecast prefetch import final FILE --kind members|maps`"),
    ],
)
async def test_a_campaign_that_can_not_work_says_what_to_do(
    site: Site, titles: int, members: int, recommender: str | None, says: str
) -> None:
    """As `failed`, with words that name the command."""
    await tastes(site, members, titles)
    async with running(site) as runner:
        await runner.start("final", replace(FAST, recommender=recommender))
        failed = await until(site, "failed")
    assert says in failed.error


async def test_a_failed_campaign_may_be_begun_again(site: Site) -> None:
    """After what was missing has been imported."""
    await tastes(site, 3, titles=0)
    async with running(site) as runner:
        await runner.start("final", FAST)
        await until(site, "failed")
        await tastes(site, 3)
        await runner.start("final", FAST)
        assert (await until(site, "done")).done == 3


async def test_unknown_events_and_recommenders_are_refused(site: Site) -> None:
    """Before anything begins."""
    async with running(site) as runner:
        with pytest.raises(NoEvent):
            await runner.start("final", FAST)
        await set_event(site.store, "final")
        with pytest.raises(RecommenderError, match="'mine'; there are: stored, vectors"):
            await runner.start("final", Wanted(recommender="mine"))
        with pytest.raises(NoCampaign):
            await runner.hint("final", 1000)


async def test_stored_maps_are_run_as_they_are(site: Site) -> None:
    """Ready maps, imported: the campaign stamps and pushes them, and the cohort's with them."""
    await set_event(site.store, "final")
    maps = StageMaps(site.store, "final", 1, site.parts().rng)
    ready = StageMap("final", 1, "1700000000000-import", {"live": ["a"]}, ["b"])
    await maps.put([Keyed("m1", ready), Keyed("m2", ready), Keyed("cohort:default", replace(ready, cohort=True))], 3600)
    async with running(site) as runner:
        await runner.start("final", FAST)
        done = await until(site, "done")
    assert (done.recommender, done.done) == ("stored", 2)
    found = await maps.get("m1")
    assert found is not None
    assert (found.map, found.stages, found.default) == (done.map, {"live": ["a"]}, ["b"])


async def test_a_deleted_event_ends_its_campaign(site: Site) -> None:
    """The campaign is of one gen; and when the event's last stage has come nobody looks after it any more."""
    await tastes(site, 60)
    async with running(site) as runner:
        await runner.start("final", Wanted(budget=20))
        await until(site, "running", done=10)
        await set_event(site.store, "final", stage="gone")
        failed = await until(site, "failed", over=True)
        assert "deleted" in failed.error
        await set_event(site.store, "final", gen=2, stage="ended")
        await runner.start("final", FAST)
        done = await until(site, "done", over=True)
        assert done.gen == 2
        while (await site.store.page(OPEN)).items:  # noqa: ASYNC110 - another's doing: nothing here to wait on
            await asyncio.sleep(0.01)


async def test_a_hint_goes_out_when_asked(site: Site) -> None:
    """With its window, which later hints keep; from a process that does not hold the campaign too."""
    await tastes(site, 3)
    async with running(site) as one:
        await one.start("final", FAST)
        done = await until(site, "done")
        start = dict(await site.log.end(Topic.EVENTS))
        parts = site.parts()
        pusher = Pusher(site.store, None, parts.clock, parts.rng, parts.metrics)
        await Runner(parts, pusher).hint("final", 7000)
        await pusher.close()
        async for hint in hints(site, start):
            if hint.w == 7000:
                break
        assert hint.map == done.map
        assert (await until(site, "done")).window == 7000
