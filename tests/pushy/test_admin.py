"""The admin port over real HTTP, with a feed on the embedded parts behind it and workers that speak the link."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from kv import Put
from pushy.admin import admin_app
from pushy.link import CONNECTIONS, Delivered, Drain, Gauges, Push, Readiness
from stagecast.access import Gate, Scope, key_digest, new_key
from stagecast.clock import SystemClock
from stagecast.http import serving
from stagecast.records import API_KEYS
from tests.pushy.hosting import GEN, FaultyStore, Host, roads, running, until

MSG = {"t": "msg", "id": "1", "kind": "note", "body": None}
PROGRESS = {"draining": True, "connections": 50, "left": 50, "rate": 10.0, "seconds": 5.0, "empty": False, "host": "h1"}


class Admin:
    """A host, its HTTP client, and keys."""

    def __init__(self, host: Host, store: FaultyStore, http: httpx.AsyncClient) -> None:
        self.host, self.store, self.http = host, store, http

    async def key(self, scope: Scope) -> dict[str, str]:
        text, digest, kept = new_key(scope, GEN)
        assert digest == key_digest(text)
        await self.store.put([Put(API_KEYS, digest, msgspec.json.encode(kept))])
        return {"Authorization": f"Bearer {text}"}


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with roads(tmp_path) as (log, real):
        store = FaultyStore(real)
        async with running(tmp_path, log, store) as host:
            gate = Gate(lambda digest: store.get(API_KEYS, digest), SystemClock().monotonic)
            app = admin_app(host.feed, gate, host.feed.collector)
            async with serving(app, "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as http:
                yield Admin(host, store, http)


async def test_readiness_says_why_not(admin: Admin) -> None:
    """503 with the reasons until a worker has joined; 200 then."""
    await until(lambda: admin.host.feed.roads.ready)
    answer = await admin.http.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["no worker has joined"])
    worker = await admin.host.join()
    await worker.until(Readiness, lambda one: one.ready)
    answer = await admin.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": [], "workers": 1})
    assert (await admin.http.get("/healthz")).json() == {"ok": True}


async def test_metrics_are_the_hosts_in_one_page(admin: Admin) -> None:
    """The feed's own, and each worker's with its label; what is no metric name is left out."""
    for index in range(2):
        worker = await admin.host.join(index)
        worker.send(
            Gauges({CONNECTIONS: 3.0 + index, 'stagecast_closes_total{code="1001"}': 2.0, "no name!": 1.0, "x{y=": 1.0})
        )
    await until(lambda: admin.host.feed.connections() == 7)
    answer = await admin.http.get("/metrics")
    lines = answer.text.splitlines()
    assert 'stagecast_connections{worker="0"} 3.0' in lines
    assert 'stagecast_connections{worker="1"} 4.0' in lines
    assert 'stagecast_closes_total{code="1001",worker="1"} 2.0' in lines
    assert "stagecast_feed_workers 2.0" in lines
    assert "# TYPE stagecast_feed_kv_reads_total counter" in lines
    assert not [line for line in lines if "no name" in line]


async def test_keys_and_scopes(admin: Admin) -> None:
    """Nobody without a key; /push and /drain for operators and services, who look on may not; 503 when the store can't say."""
    operator, viewer = await admin.key("operator"), await admin.key("viewer")
    assert (await admin.http.post("/push", json=[])).status_code == 401
    assert (await admin.http.post("/drain", headers={"Authorization": "Bearer nothing"})).status_code == 401
    assert (
        await admin.http.post("/push", json=[], headers=operator)
    ).status_code == 422  # let in, and told what is wrong
    for path in ("/push", "/drain"):
        assert (await admin.http.post(path, json=[], headers=viewer)).status_code == 403
    admin.store.down = True
    refused = await admin.http.post("/drain", headers={"Authorization": "Bearer another"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


async def test_a_push_is_answered_for_each_device(admin: Admin) -> None:
    """Every worker is asked; what they say is joined; what nobody has is 404."""
    service = await admin.key("service")
    workers = [await admin.host.join(index) for index in range(2)]
    for worker in workers:
        await worker.until(Readiness, lambda one: one.ready)
    body = [{"member": "m1", "frame": MSG}, {"device": "d7", "frame": MSG}]

    async def answer_as(place: int, device: str) -> None:
        push = await workers[place].until(Push)
        assert [(one.member, one.device) for one in push.parcels] == [("m1", None), (None, "d7")]
        workers[place].send(Delivered(push.id, [(0, device, 200)]))

    asking = admin.http.post("/push", json=body, headers=service)
    answer, *_ = await asyncio.gather(asking, answer_as(0, "d1"), answer_as(1, "d2"))
    assert answer.status_code == 200
    assert sorted(answer.json(), key=lambda one: str(one["device"])) == [
        {"i": 0, "member": "m1", "device": "d1", "status": 200},
        {"i": 0, "member": "m1", "device": "d2", "status": 200},
        {"i": 1, "member": None, "device": "d7", "status": 404},
    ]


async def test_a_deaf_worker_does_not_hold_the_answer(admin: Admin) -> None:
    """Within 2 s the caller hears 503 for what a worker left unanswered, and at once when its link breaks."""
    service = await admin.key("service")
    worker = await admin.host.join()
    await worker.until(Readiness, lambda one: one.ready)
    body = [{"member": "m1", "frame": MSG}]
    answer = await admin.http.post("/push", json=body, headers=service, timeout=2.5)
    assert answer.json() == [{"i": 0, "member": "m1", "device": None, "status": 503}]
    await worker.until(Push)

    async def leave() -> None:
        await worker.until(Push)
        await worker.close()

    answer, _ = await asyncio.gather(admin.http.post("/push", json=body, headers=service, timeout=1.0), leave())
    assert answer.json() == [{"i": 0, "member": "m1", "device": None, "status": 503}]


async def test_a_push_with_a_fault_reaches_nobody(admin: Admin) -> None:
    """422 names the place of the first wrong entry; too many, and none at all, are 422 too."""
    service = await admin.key("service")
    state = {
        "t": "state",
        "e": "final",
        "gen": 1,
        "seq": 1,
        "stage": "live",
        "ts": 1,
        "map": None,
        "fetch": 0,
        "ack": None,
    }
    for body, field in (
        ([{"member": "m1", "frame": MSG}, {"member": "m1", "frame": state}], "$[1].frame"),
        ([{"member": "m1", "frame": MSG, "other": 1}], "$[0]"),
        ([{"member": "m1", "frame": MSG}] * 1001, "$"),
        ([], "$"),
    ):
        answer = await admin.http.post("/push", json=body, headers=service)
        assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_drain_by_order(admin: Admin) -> None:
    """202 with how long it takes; the workers get their share, and the host is not ready any more."""
    operator = await admin.key("operator")
    worker = await admin.host.join()
    worker.send(Gauges({CONNECTIONS: 50.0}))
    await until(lambda: admin.host.feed.connections() == 50)
    answer = await admin.http.post("/drain", json={"rate": 10}, headers=operator)
    assert (answer.status_code, answer.json()) == (202, PROGRESS)
    assert (await worker.until(Drain)).rate == 5.0
    worker.send(Gauges({CONNECTIONS: 20.0}))
    await until(lambda: admin.host.feed.connections() == 20)
    viewer = await admin.key("viewer")
    assert (await admin.http.get("/drain", headers=viewer)).json() == PROGRESS | {"left": 20, "seconds": 2.0}
    assert (await admin.http.get("/drain")).status_code == 401
    assert (await admin.http.get("/readyz")).status_code == 503
    assert (await admin.http.post("/drain", json={"rate": 0}, headers=operator)).status_code == 422
    assert (await admin.http.post("/drain", headers=operator)).json()["rate"] == 400.0
