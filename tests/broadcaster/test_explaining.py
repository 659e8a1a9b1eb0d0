"""A device's time line: from the registry, its host and the event; what can't be asked says so."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from broadcaster.explaining import Explaining, made_at
from kv import Put
from stagecast.http import answer, serving
from stagecast.records import Session, bucket_of, device_record, registry_record, stage_map_record
from stagecast.settings import SERVICE_KEY
from stagecast.wire.frames import StageMap
from tests.broadcaster.test_api import Caller, call
from tests.broadcaster.world import Broadcaster, World

__all__ = ["call"]


class Host:
    """A host's admin port."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.url = ""

    async def explain(self, http: HttpRequest) -> Response:
        self.asked.append((http.url.path, http.headers.get("authorization")))
        return answer({"timeline": [{"ts": 5, "what": "ack", "detail": "final at gen 7 seq 2"}]}, self.status)


@pytest.fixture
async def host(world: World) -> AsyncIterator[Host]:
    """A host that has device tv-9 of member ann."""
    made = Host()
    async with serving(Starlette(routes=[Route("/explain/{device}", made.explain)]), "127.0.0.1:0") as url:
        made.url = url
        session = Session("0a-1", "h1", url, 0, 3)
        await world.store.put(
            [
                Put(device_record("tv-9"), "member", b"ann"),
                Put(registry_record("ann"), "tv-9", msgspec.json.encode(session)),
            ]
        )
        yield made


async def lines(explaining: Explaining, device: str = "tv-9", event: str | None = None) -> list[tuple[str, str]]:
    return [(one.what, one.detail) for one in (await explaining.explain(device, event)).timeline]


def explaining(world: World, one: Broadcaster, data: Path) -> Explaining:
    return Explaining(world.store, one.parts.heads, world.clock, data / SERVICE_KEY)


async def test_a_time_line(world: World, one: Broadcaster, host: Host, tmp_path: Path) -> None:
    """The registry's session, what the host tells, the event's stages and head, by time; the host gets the service key."""
    (tmp_path / SERVICE_KEY).write_text("sc_service_x\n")
    await one.create()
    got = await lines(explaining(world, one, tmp_path), event="final")
    assert [what for what, _ in got] == ["registry", "ack", "stage", "head", "stage map"]
    assert got[0][1] == "session 0a-1 of member ann at host h1, worker 0"
    assert "final is at upcoming" in got[3][1]
    assert host.asked == [("/explain/tv-9", "Bearer sc_service_x")]


async def test_what_cannot_be_asked_says_so(world: World, one: Broadcaster, host: Host, tmp_path: Path) -> None:
    """No key, a host that answers an error or nothing, a device nobody knows, an event that never was."""
    nobody = explaining(world, one, tmp_path)
    assert (await lines(nobody))[1] == ("host", "h1 not asked: no service key here (setting service_key_file)")
    assert host.asked == []
    (tmp_path / SERVICE_KEY).write_text("sc_service_x")
    host.status = 503
    assert (await lines(nobody))[1] == ("host", "h1 answered 503")
    gone = msgspec.json.encode(Session("0a-1", "h1", "http://127.0.0.1:9", 0, 3))
    await world.store.put([Put(registry_record("ann"), "tv-9", gone)])
    assert (await lines(nobody))[1] == ("host", "h1 did not answer: ConnectError")
    await world.store.delete(registry_record("ann"), ["tv-9"])
    assert "not connected to any host" in (await lines(nobody))[0][1]
    assert "no host has had this device" in (await lines(nobody, "tv-8"))[0][1]
    assert (await lines(nobody, "tv-8", "nix"))[1] == ("event", "no event 'nix'")


async def test_hosts_that_it_has_left(world: World, one: Broadcaster, host: Host, tmp_path: Path) -> None:
    """Nobody has it now: all that report are asked what they remember; the one that the registry names is asked once."""
    (tmp_path / SERVICE_KEY).write_text("sc_service_x")
    asking = Explaining(world.store, one.parts.heads, world.clock, tmp_path / SERVICE_KEY, lambda: {"h1": host.url})
    assert [what for what, _ in await lines(asking)] == ["registry", "ack"]
    assert len(host.asked) == 1
    await world.store.delete(registry_record("ann"), ["tv-9"])
    assert [what for what, _ in await lines(asking)] == ["ack", "registry"]
    assert len(host.asked) == 2


async def test_the_stage_map_in_the_store(world: World, one: Broadcaster, host: Host, tmp_path: Path) -> None:
    """Its version, and when it was made; a member without one gets a cohort's."""
    head = await one.create()
    line = (await lines(explaining(world, one, tmp_path), event="final"))[-1]
    assert line == ("stage map", "none of its own in the store for final: member ann gets a cohort's")
    made = StageMap("final", head.gen, f"{world.clock.now() - 5000:013}-ab", {"live": ["t1"]})
    bucket = stage_map_record("final", head.gen, bucket_of("ann"))
    await world.store.put([Put(bucket, "ann", msgspec.json.encode(made))])
    told = (await explaining(world, one, tmp_path).explain("tv-9", "final")).timeline
    found = next(one for one in told if one.what == "stage map")
    assert (found.ts, found.detail) == (
        world.clock.now() - 5000,
        f"version {made.map} in the store for final, 1 stages",
    )


@pytest.mark.parametrize(
    ("version", "ms"), [("1764000000000-ab", 1_764_000_000_000), ("7-ab", None), ("release-9", None)]
)
def test_versions_that_tell_when(version: str, ms: int | None) -> None:
    """Those of campaigns do."""
    assert made_at(version) == ms


async def test_over_the_api(call: Caller) -> None:
    """A viewer may ask; ids that can't be are 422."""
    got = await call("GET", "/v1/devices/tv-9/explain", scope="viewer")
    assert got.status_code == 200
    told: list[dict[str, Any]] = got.json()["timeline"]
    assert [line["what"] for line in told] == ["registry"]
    for path in ("/v1/devices/tv%209/explain", "/v1/devices/tv-9/explain?event=NIX"):
        assert (await call("GET", path)).status_code == 422
