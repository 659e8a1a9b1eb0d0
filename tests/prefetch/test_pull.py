"""The pull, over real HTTP: what a device gets, and that no herd gets through to the recommender."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from kv import Put
from prefetch.admission import Admission
from prefetch.api import Api
from prefetch.cors import Origins
from prefetch.parts import Parts
from prefetch.pull import Pull
from prefetch.push import Pusher
from prefetch.revoked import Revocations
from prefetch.runner import Runner
from prefetch.service import prefetch_service
from prefetch.tastes import Member, member_put, pack
from stagecast.clock import ManualClock, SystemClock
from stagecast.http import serving
from stagecast.log import Topic
from stagecast.records import REVOKED, Revocation, encode_record
from stagecast.tokens import KeysFile
from stagecast.wire.codec import decode_node_frame
from stagecast.wire.frames import StageMap
from tests.prefetch.conftest import Caller, Site, set_event
from tests.prefetch.peers import Fickle
from tests.prefetch.test_runner import FAST, running, tastes, until


async def campaign(site: Site, members: int) -> str:
    """An event whose campaign is done; its map version."""
    await tastes(site, members)
    async with running(site) as runner:
        await runner.start("final", FAST)
        return (await until(site, "done")).map


async def test_a_device_gets_its_members_map(caller: Caller) -> None:
    """The `map` frame as an object, when to ask again, and an ETag that answers 304."""
    version = await campaign(caller.site, 3)
    got = await caller.pull("m00001")
    assert got.status_code == 200
    frame = decode_node_frame(got.content)
    assert isinstance(frame, StageMap)
    assert (frame.map, frame.e, frame.gen, frame.cohort) == (version, "final", 1, False)
    assert 2800 < got.json()["refresh_after"] < 4400
    assert got.headers["etag"] == f'"{version}"'
    assert got.headers["cache-control"] == f"private, max-age={int(got.json()['refresh_after'])}"
    for matching in (f'"{version}"', f'"other", W/"{version}"', "*"):
        again = await caller.pull("m00001", **{"If-None-Match": matching})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == f'"{version}"'
    assert (await caller.pull("m00001", **{"If-None-Match": '"other"'})).status_code == 200


async def test_times_are_spread(caller: Caller) -> None:
    """No two devices are told the same hour: what came together does not come back together."""
    await campaign(caller.site, 3)
    after = {(await caller.pull("m00001")).json()["refresh_after"] for _ in range(20)}
    assert len(after) == 20


async def test_a_member_who_comes_later_gets_a_map_on_the_spot(caller: Caller) -> None:
    """Made once, however many of its devices ask together, then kept; with the campaign's version."""
    version = await campaign(caller.site, 3)
    await caller.site.store.put([member_put("final", Member("late", pack([1.0, 1.0])), 3600)])
    got = await asyncio.gather(*(caller.pull("late") for _ in range(20)))
    assert {one.json()["map"] for one in got} == {version}
    metrics = (await caller.http.get("/metrics")).text
    assert "stagecast_prefetch_maps_total 1.0" in metrics
    assert (await caller.pull("late")).json()["map"] == version
    shown = await caller.http.get("/v1/stage-maps/final/members/late")
    assert shown.json()["stages"] == got[0].json()["stages"]


async def test_an_unknown_member_gets_the_cohorts_map(caller: Caller) -> None:
    """Of its own cohort where it is known to have one; a later campaign's own map is never hidden by its ETag."""
    version = await campaign(caller.site, 3)
    got = (await caller.pull("stranger")).json()
    assert got["cohort"] is True
    assert got["map"] < version
    assert 240 <= got["refresh_after"] <= 360


async def test_nothing_known_is_404(caller: Caller) -> None:
    """No event, a deleted one, no map of any kind: 404 with a time to come back."""
    for prepare in (None, "upcoming", "gone"):
        if prepare:
            await set_event(caller.site.store, "final", stage=prepare)
        got = await caller.pull("m1")
        assert got.status_code == 404
        assert int(got.headers["retry-after"]) > 0
        await asyncio.sleep(0)


async def test_who_may_pull(caller: Caller) -> None:
    """A valid token for this event: else 401 or 403, as problem details."""
    await campaign(caller.site, 3)
    path = "/v1/stage-maps/final"
    for authorization, status in (
        ("", 401),
        ("Basic x", 401),
        ("Bearer nonsense", 401),
        (f"Bearer {caller.site.token('m00001', 'other')}", 403),
        (f"Bearer {caller.site.token('m00001', 'fin*')}", 200),
    ):
        got = await caller.http.get(path, headers={"Authorization": authorization})
        assert got.status_code == status, authorization
        if status != 200:
            assert got.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("subject", [("member", "m00001"), ("device", "d1")])
async def test_a_revoked_token_is_refused(site: Site, subject: tuple[Any, str]) -> None:
    """Whether it was revoked before this process began, or just now: the log tells."""
    await campaign(site, 3)
    revocation = Revocation(*subject, SystemClock().now() + 1000)
    old = Revocation("member", "m00000", SystemClock().now() + 1000)
    await site.store.put([Put(REVOKED, old.subject, msgspec.json.encode(old))])
    async with prefetch_service(site.settings, "127.0.0.1:0", key=None) as url, httpx.AsyncClient(base_url=url) as http:
        caller = Caller(http, site)
        assert (await caller.http.get("/v1/stage-maps/final", headers=bearer(site, "m00000", "d2"))).status_code == 401
        assert (await caller.pull("m00001")).status_code == 200
        await site.log.append(Topic.EVENTS, "_", encode_record(revocation))
        while (await caller.pull("m00001")).status_code != 401:  # noqa: ASYNC110 - the process's own log reader
            await asyncio.sleep(0.01)
        assert (await caller.http.get("/v1/stage-maps/final", headers=bearer(site, "m00002", "d2"))).status_code == 200


def bearer(site: Site, member: str, device: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.token(member, device=device)}"}


async def test_browsers_may_pull_from_allowed_origins(site: Site) -> None:
    """A preflight is answered, and the answer, error or not, can be read; other Origins get no leave."""
    await campaign(site, 3)
    settings = replace(site.settings, origins=["https://tv.example"])
    async with prefetch_service(settings, "127.0.0.1:0", key=None) as url, httpx.AsyncClient(base_url=url) as http:
        for origin, allowed in (("https://tv.example", True), (url, True), ("https://evil.example", False)):
            preflight = await http.options(
                "/v1/stage-maps/final",
                headers={"Origin": origin, "Access-Control-Request-Method": "GET",
                         "Access-Control-Request-Headers": "authorization, if-none-match"},
            )  # fmt: skip
            assert preflight.status_code == (204 if allowed else 403)
            got = await http.get("/v1/stage-maps/final", headers={"Origin": origin, **bearer(site, "m00001", "d1")})
            refused = await http.get("/v1/stage-maps/final", headers={"Origin": origin})
            assert (got.status_code, refused.status_code) == (200, 401)
            for one in (got, refused):
                assert one.headers.get("access-control-allow-origin") == (origin if allowed else None)
                assert one.headers["vary"] == "Origin"
            if allowed:
                named = preflight.headers["access-control-allow-headers"].lower()
                assert "authorization" in named
                assert "if-none-match" in named
                assert "ETag" in got.headers["access-control-expose-headers"]


async def strangers(site: Site, count: int) -> list[str]:
    """Members whom the campaign, which is done, has not come to."""
    await campaign(site, 3)
    members = [Member(f"s{i}", pack([1.0, 1.0])) for i in range(count)]
    await site.store.put([member_put("final", member, 3600) for member in members])
    return [member.id for member in members]


async def test_a_herd_does_not_get_through_to_the_recommender(site: Site) -> None:
    """1,000 members at once whom no campaign has come to: maps are made for those whom admission lets in, everybody else gets
    the cohort's, and is told to come back over the time that the backlog takes."""
    herd = await strangers(site, 1000)
    clock = ManualClock(SystemClock().now())
    real = site.parts()
    parts = Parts(site.store, real.log, clock, real.rng, 50.0, real.metrics)
    pull = Pull(parts, Admission(50.0, clock.monotonic()))
    got = await asyncio.gather(*(pull.answer("final", member) for member in herd))
    assert Counter(one.got for one in got) == {"made": 50, "deferred": 950}
    assert all(one.map is not None for one in got)
    after = [one.map.refresh_after for one in got if one.got == "deferred" and one.map]
    assert 15 < max(after) <= 19
    made = "stagecast_prefetch_maps_total 50.0"
    assert made in parts.metrics.render().decode()
    clock.advance(1)
    again = await asyncio.gather(*(pull.answer("final", member) for member in herd))
    assert Counter(one.got for one in again) == {"own": 50, "deferred": 950}


async def test_over_capacity_the_answer_is_still_200(site: Site) -> None:
    """Over HTTP: nobody is sent away, the cohort's map says when to come back."""
    herd = await strangers(site, 100)
    async with (
        prefetch_service(replace(site.settings, map_rate=1.0), "127.0.0.1:0", key=None) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        tokens = [bearer(site, member, "d1") for member in herd]
        got = [
            one
            for start in range(0, len(herd), 20)
            for one in await asyncio.gather(
                *(http.get("/v1/stage-maps/final", headers=token) for token in tokens[start : start + 20])
            )
        ]
    assert {one.status_code for one in got} == {200}
    deferred = [one.json()["refresh_after"] for one in got if one.json()["cohort"]]
    assert len(deferred) > 50
    assert max(deferred) > 10


@pytest.fixture
async def fickle(site: Site) -> AsyncIterator[tuple[httpx.AsyncClient, Fickle, Site]]:
    """The service on a store that can be taken away."""
    store = Fickle(site.store)
    real = site.parts()
    parts = Parts(store, real.log, real.clock, real.rng, real.serving_rate, real.metrics)
    pusher = Pusher(store, None, parts.clock, parts.rng, parts.metrics)
    pull = Pull(parts, Admission(1000, parts.clock.monotonic()))
    revoked = Revocations(store, site.log)
    api = Api(parts, pull, Runner(parts, pusher), KeysFile(site.settings.keys_file), revoked)
    async with serving(api.app(Origins(())), "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as http:
        yield http, store, site
    await pusher.close()


async def test_while_kv_is_down_devices_get_cohort_maps(fickle: tuple[httpx.AsyncClient, Fickle, Site]) -> None:
    """From memory, for events that were asked for before; others are 404 with a time, and only operators see 503."""
    http, store, site = fickle
    await campaign(site, 3)
    await set_event(site.store, "other")
    operator = {"Authorization": f"Bearer {await site.api_key('operator')}"}
    assert (await http.get("/v1/stage-maps/final", headers=bearer(site, "stranger", "d1"))).json()["cohort"] is True
    assert (await http.get("/readyz")).status_code == 200
    store.down = True
    got = await http.get("/v1/stage-maps/final", headers=bearer(site, "m00001", "d1"))
    assert (got.status_code, got.json()["cohort"]) == (200, True)
    token = {"Authorization": f"Bearer {site.token('m00001', 'other')}"}
    unknown = await http.get("/v1/stage-maps/other", headers=token)
    assert unknown.status_code == 404
    assert int(unknown.headers["retry-after"]) > 0
    for path in ("/v1/campaigns/final", "/readyz"):
        assert (await http.get(path, headers=operator)).status_code == 503
    assert (await http.get("/healthz")).status_code == 200
