"""The HTTP API: its answers, its problems, who may call, and its description."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from broadcaster.api import Api, http_api
from broadcaster.service import remembering
from kv import Put
from stagecast.access import CACHED, Gate, Scope, new_key
from stagecast.receipts import HostBeat, Receipt
from stagecast.records import API_KEYS, HEADS, REVOKED, Revocation
from tests.broadcaster.world import Broadcaster, World

PLAN: list[dict[str, Any]] = [
    {"stage": "upcoming"},
    {"stage": "live", "after": "PT3600S"},
    {"stage": "half"},
    {"stage": "ended", "after": "PT7200S", "of": "live"},
]
EVENT = {"id": "final", "title": "The final", "plan": PLAN}


class Caller:
    """Calls the API in memory, with a key or none."""

    def __init__(self, http: httpx.AsyncClient, keys: dict[str, str]) -> None:
        self._http = http
        self.keys = keys
        self.id = ""

    async def __call__(
        self, method: str, path: str, body: Any = None, *, scope: str | None = "operator", key: str | None = None,
        content: bytes | None = None, media: str | None = None,
    ) -> httpx.Response:  # fmt: skip
        headers = [(b"authorization", f"Bearer {self.keys[scope]}".encode())] if scope else []
        if key is not None:
            headers.append((b"idempotency-key", key.encode("latin-1")))
        if media is not None:
            headers.append((b"content-type", media.encode()))
        sent = msgspec.json.encode(body) if body is not None else content
        got = await self._http.request(method, path, content=sent, headers=headers)
        if got.is_error:
            assert got.headers["content-type"] == "application/problem+json"
            assert got.json()["status"] == got.status_code
        return got

    async def created(self, **more: Any) -> dict[str, Any]:
        got = await self("POST", "/v1/events", {**EVENT, **more})
        assert got.status_code == 201, got.text
        made: dict[str, Any] = got.json()
        return made


@pytest.fixture
async def call(world: World, one: Broadcaster) -> AsyncIterator[Caller]:
    """A caller with one key of each scope."""
    keys: dict[str, str] = {}
    scopes: tuple[Scope, ...] = ("operator", "viewer", "service")
    for scope in scopes:
        keys[scope], digest, kept = new_key(scope, world.clock.now())
        await world.store.put([Put(API_KEYS, digest, msgspec.json.encode(kept))])
    app = http_api(one.parts, Gate(remembering(world.store), world.clock.monotonic))
    await one.cadence.round()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://broadcaster") as http:
        yield Caller(http, keys)


async def test_create_and_show(world: World, call: Caller) -> None:
    """201 with the whole event; GET says the same; creating it again is 409 with its head."""
    made = await call("POST", "/v1/events", EVENT)
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/events/final"
    now = world.clock.now()
    assert made.json() == {
        "id": "final", "title": "The final", "gen": now, "seq": 1, "stage": "upcoming", "ts": now, "map": None,
        "revision": 1, "plan": PLAN, "hold": None, "next": {"stage": "live", "due": "2025-11-24T17:00:00.000Z"},
        "armed": False, "arming": None,
    }  # fmt: skip
    assert (await call("GET", "/v1/events/final")).json() == made.json()
    again = await call("POST", "/v1/events", EVENT)
    assert again.status_code == 409
    assert again.json()["head"] == {"e": "final", "gen": now, "seq": 1, "stage": "upcoming", "ts": now, "hold": None}


async def test_transition(world: World, call: Caller) -> None:
    """202 with what was accepted; the same key again is the same answer, with another body 422."""
    made = await call.created()
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live", "reason": "kick-off"}, key="k")
    assert got.status_code == 202
    assert got.json() == {
        "e": "final", "gen": made["gen"], "seq": 2, "stage": "live", "ts": world.clock.now() + 1, "log": "ok",
    }  # fmt: skip
    again = await call("POST", "/v1/events/final/transitions", {"stage": "live", "reason": "kick-off"}, key="k")
    assert again.json() == got.json()
    other = await call("POST", "/v1/events/final/transitions", {"stage": "half", "reason": "kick-off"}, key="k")
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")


async def test_a_key_is_made_if_none_is_sent(call: Caller) -> None:
    """The answer tells the key that the server made; sending it again repeats the answer."""
    await call.created()
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live"})
    key = got.headers["idempotency-key"]
    assert 1 <= len(key) <= 64
    assert (await call("POST", "/v1/events/final/transitions", {"stage": "live"}, key=key)).json() == got.json()


@pytest.mark.parametrize("key", ["", "x" * 65, "tab\there", "caf\xe9"])
async def test_bad_idempotency_keys(call: Caller, key: str) -> None:
    """1 to 64 printable ASCII characters, or 422 naming the header."""
    await call.created()
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live"}, key=key)
    assert (got.status_code, got.json()["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"stage": "nowhere"}, 422, "$.stage"),
        ({"stage": 7}, 422, "$.stage"),
        ({}, 422, "$"),
        ({"stage": "live", "if_seq": "1"}, 422, "$.if_seq"),
        ({"stage": "live", "extra": 1}, 422, "$"),
        ({"stage": "live", "reason": "é" * 101}, 422, "$.reason"),
        ({"stage": "upcoming"}, 409, None),
        ({"stage": "live", "if_gen": 1}, 409, None),
        ({"stage": "live", "if_seq": 2}, 409, None),
        ({"stage": "live", "reason": "x" * 5000}, 413, None),
    ],
)
async def test_refused_transitions(call: Caller, body: dict[str, Any], status: int, field: str | None) -> None:
    """422 names the field, 409 has the head, 413 is for what is too long."""
    await call.created()
    got = await call("POST", "/v1/events/final/transitions", body)
    assert (got.status_code, got.json().get("field")) == (status, field)
    assert (got.json().get("head") is not None) == (status == 409 or body.get("stage") == "nowhere")


async def test_too_soon(world: World, call: Caller) -> None:
    """Within 1 s 409 with Retry-After; `urgent` goes through."""
    await call.created()
    world.clock.advance(5)
    await call("POST", "/v1/events/final/transitions", {"stage": "live"})
    got = await call("POST", "/v1/events/final/transitions", {"stage": "half"})
    assert (got.status_code, got.headers["retry-after"]) == (409, "1")
    assert (await call("POST", "/v1/events/final/transitions", {"stage": "half", "urgent": True})).status_code == 202


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ([], "$.plan"),
        ([{"stage": "a"}, {"stage": "a"}], "$.plan[1].stage"),
        ([{"stage": "a"}, {"stage": "gone"}], "$.plan[1].stage"),
        ([{"stage": "a"}, {"stage": "b", "of": "a"}], "$.plan[1].of"),
        ([{"stage": "a"}, {"stage": "b", "after": "PT1M", "of": "c"}], "$.plan[1].of"),
        ([{"stage": "a"}, {"stage": "b", "after": "PT1M", "at": "2026-01-01T00:00:00Z"}], "$.plan[1].after"),
        ([{"stage": "A"}], "$.plan[0].stage"),
        ([{"stage": "a"}, {"stage": "b", "after": "soon"}], "$.plan[1].after"),
        ([{"stage": "a"}, {"stage": "b", "at": "2026-01-01T00:00:00"}], "$.plan[1].at"),
        ([{"stage": "a"}, {"stage": "b", "when": 1}], "$.plan[1]"),
        ("upcoming", "$.plan"),
    ],
)
async def test_wrong_plans_name_the_field(call: Caller, plan: Any, field: str) -> None:
    """A plan that can't be is 422 with the place of what is wrong, at creation and at replanning."""
    got = await call("POST", "/v1/events", {**EVENT, "plan": plan})
    assert (got.status_code, got.json()["field"]) == (422, field)
    await call.created()
    got = await call("PUT", "/v1/events/final/plan", {"plan": plan})
    assert (got.status_code, got.json()["field"]) == (422, field)


@pytest.mark.parametrize(
    ("more", "field"),
    [({"id": "Final"}, "$.id"), ({"id": "a" * 65}, "$.id"), ({"title": ""}, "$.title"), ({"x": 1}, "$")],
)
async def test_wrong_events_name_the_field(call: Caller, more: dict[str, Any], field: str) -> None:
    """An event that can't be is 422 with the field."""
    got = await call("POST", "/v1/events", {**EVENT, **more})
    assert (got.status_code, got.json()["field"]) == (422, field)


async def test_a_new_plan(call: Caller) -> None:
    """200 with the next revision; without the current stage 422."""
    await call.created()
    got = await call("PUT", "/v1/events/final/plan", {"plan": [{"stage": "upcoming"}, {"stage": "live"}]})
    assert (got.status_code, got.json()["revision"], got.json()["next"]) == (
        200,
        2,
        {"stage": "live", "why": "by hand"},
    )
    got = await call("PUT", "/v1/events/final/plan", {"plan": [{"stage": "live"}]})
    assert (got.status_code, got.json()["field"]) == (422, "$.plan")


async def test_hold_and_resume(world: World, call: Caller) -> None:
    """Hold says why and by whom; resume lets the plan go on, or 409 when it would hold again."""
    await call.created()
    got = await call("POST", "/v1/events/final/hold", {"reason": "rain"})
    assert got.json()["hold"]["why"] == "rain"
    assert got.json()["hold"]["at"] == world.clock.now()
    assert (await call("POST", "/v1/events/final/resume", {})).json()["hold"] is None
    await call("POST", "/v1/events/final/hold", {})
    world.clock.advance(3600 + 601)
    got = await call("POST", "/v1/events/final/resume", {})
    assert got.status_code == 409
    assert "live was due 10 min ago" in got.json()["detail"]


async def test_delete_and_after(call: Caller) -> None:
    """A gone event is shown as `gone`; changes are 410; deleting it again is the same answer; it can be created anew."""
    made = await call.created()
    gone = await call("DELETE", "/v1/events/final")
    assert (gone.status_code, gone.json()["stage"], gone.json()["seq"]) == (200, "gone", 2)
    assert (await call("DELETE", "/v1/events/final")).json() == gone.json()
    shown = await call("GET", "/v1/events/final")
    assert (shown.status_code, shown.json()["stage"], shown.json()["next"]) == (200, "gone", None)
    for method, path, body in (
        ("POST", "transitions", {"stage": "live"}), ("POST", "hold", {}), ("POST", "resume", {}), ("POST", "regen", {}),
        ("PUT", "plan", {"plan": PLAN}),
    ):  # fmt: skip
        got = await call(method, f"/v1/events/final/{path}", body)
        assert (got.status_code, got.json()["head"]["stage"]) == (410, "gone")
    assert (await call.created())["gen"] > made["gen"]


async def test_regen(call: Caller) -> None:
    """Regen answers with the greater gen, the same stage, seq 1; its key makes it one."""
    made = await call.created()
    got = await call("POST", "/v1/events/final/regen", {}, key="r")
    assert got.status_code == 200
    assert (got.json()["seq"], got.json()["stage"]) == (1, "upcoming")
    assert got.json()["gen"] > made["gen"]
    assert (await call("POST", "/v1/events/final/regen", {}, key="r")).json() == got.json()


async def test_lists(world: World, call: Caller) -> None:
    """All events by pages; a bad `after` is 422."""
    for n in range(3):
        await call.created(id=f"e{n}")
    got = (await call("GET", "/v1/events")).json()
    assert sorted(line["id"] for line in got["events"]) == ["e0", "e1", "e2"]
    assert got["after"] is None
    assert set(got["events"][0]) == {"id", "title", "stage", "gen", "seq", "ts", "hold"}
    assert (await call("GET", "/v1/events?after=A")).json()["field"] == "after"


async def test_history(call: Caller) -> None:
    """Every accepted transition with who and why; `after` goes on from a seq."""
    await call.created()
    await call("POST", "/v1/events/final/transitions", {"stage": "live", "reason": "kick-off"}, key="k")
    got = (await call("GET", "/v1/events/final/history")).json()
    assert [(e["seq"], e["stage"], e["reason"]) for e in got["history"]] == [
        (1, "upcoming", ""),
        (2, "live", "kick-off"),
    ]
    assert got["history"][1]["request"] == "k"
    assert re.fullmatch(r"[0-9a-f]{8}", got["history"][1]["who"])
    assert [e["seq"] for e in (await call("GET", "/v1/events/final/history?after=1")).json()["history"]] == [2]
    for bad in ("x", "-1", "9" * 30):
        assert (await call("GET", f"/v1/events/final/history?after={bad}")).status_code == 422


async def test_progress_of_the_newest_transition(world: World, one: Broadcaster, call: Caller) -> None:
    """Receipts summed for the head's (gen, seq); it works from memory while the store is down."""
    made = await call.created()
    receipt = Receipt("h", "b", 0, 0, "final", made["gen"], 1, 10, 10, subscribed=10, at_or_past=10)
    one.parts.ledger.take(receipt, world.clock.now())
    got = (await call("GET", "/v1/events/final/progress")).json()
    assert (got["written"], got["subscribed"], got["converged"]) == (10, 10, True)
    world.store.down = True
    assert (await call("GET", "/v1/events/final/progress")).json() == got
    assert (await call("GET", "/v1/events/other/progress")).status_code == 503


async def test_revocations(world: World, call: Caller) -> None:
    """202; kept in the store and said to every host."""
    got = await call("POST", "/v1/revocations", {"device": "tv-9"})
    now = world.clock.now()
    assert (got.status_code, got.json()) == (202, {"kind": "device", "id": "tv-9", "ts": now, "log": "ok"})
    assert Revocation("device", "tv-9", now) in await world.said()
    assert await world.store.get(REVOKED, "device:tv-9") is not None
    assert (await call("POST", "/v1/revocations", {"member": "ann"})).json()["kind"] == "member"
    for body in ({}, {"device": "a", "member": "b"}, {"device": "a b"}):
        assert (await call("POST", "/v1/revocations", body)).status_code == 422


async def test_unknown_events(call: Caller) -> None:
    """What never was is 404, as is an id that can't be."""
    for event in ("nix", "NIX"):
        for method, path, body in (
            ("GET", "", None), ("DELETE", "", None), ("GET", "/history", None), ("GET", "/progress", None),
            ("POST", "/transitions", {"stage": "live"}), ("POST", "/hold", {}), ("POST", "/resume", {}),
            ("POST", "/regen", {}), ("PUT", "/plan", {"plan": PLAN}),
        ):  # fmt: skip
            assert (await call(method, f"/v1/events/{event}{path}", body)).status_code == 404


async def test_store_down(world: World, call: Caller) -> None:
    """503 with Retry-After for transitions and reads; a known key goes on being known, an unknown one is not refused."""
    await call.created()
    world.store.down = True
    world.clock.advance(CACHED + 1)
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live"})
    assert (got.status_code, got.headers["retry-after"]) == (503, "2")
    assert (await call("GET", "/v1/events/final")).status_code == 503
    assert (await call("GET", "/v1/events/final/progress")).status_code == 200
    assert (await call("GET", "/v1/events/final/progress", scope="viewer")).status_code == 503
    assert (await call("GET", "/v1/events/final/progress", scope=None)).status_code == 401


async def test_unknown_outcome_tells_to_repeat(world: World, call: Caller) -> None:
    """When it can't be known whether it was accepted, 503 says so; the same key then tells."""
    await call.created()
    world.store.answers_lost.append("applied, then down")
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live"}, key="k")
    assert got.status_code == 503
    assert "may have been accepted" in got.json()["detail"]
    world.store.down = False
    got = await call("POST", "/v1/events/final/transitions", {"stage": "live"}, key="k")
    assert (got.status_code, got.json()["seq"]) == (202, 2)


@pytest.mark.parametrize("content", [b"{", b"\xff"])
async def test_bodies_that_are_no_json(call: Caller, content: bytes) -> None:
    """400."""
    assert (await call("POST", "/v1/events", content=content)).status_code == 400


def operations(one: Broadcaster) -> list[Any]:
    return [operation for operation, _ in Api(one.parts).operations()]


async def test_who_may_call(one: Broadcaster, call: Caller) -> None:
    """Every operation but health, metrics and the description: 401 without a good key, 403 with a key of a lesser scope."""
    call.keys["bad"] = "sc_operator_of-nothing"
    guarded = [one for one in operations(one) if one.scopes]
    assert len(guarded) == 20
    for operation in guarded:
        path = operation.path.replace("{id}", "final")
        for scope in (None, "bad"):
            got = await call(operation.method, path, {}, scope=scope)
            assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer")
        for scope in ("operator", "viewer", "service"):
            got = await call(operation.method, path, {}, scope=scope)
            assert (got.status_code == 403) == (scope not in operation.scopes), (operation.name, scope)
    reads = {"list", "show", "history", "progress", "readiness", "audit", "report", "hosts", "explain"}
    assert {one.name for one in guarded if "viewer" in one.scopes} == reads
    assert {one.name for one in guarded if "service" in one.scopes} == {*reads, "transition"}


async def test_hosts_are_listed_as_they_last_said(one: Broadcaster, call: Caller) -> None:
    """With how long ago that was; a host that never reported is not there."""
    now = one.parts.clock.now()
    one.parts.ledger.beat(HostBeat("h1", now, 70, 100, 2.5, True), now - 4000)
    hosts = (await call("GET", "/v1/hosts", scope="viewer")).json()["hosts"]
    age = hosts[0].pop("age")
    assert hosts == [{"host": "h1", "connections": 70, "limit": 100, "log_age": 2.5, "accepting": True}]
    assert age >= 4.0


async def test_the_description_has_every_route(one: Broadcaster, call: Caller) -> None:
    """/openapi.json is OpenAPI 3.1 with every route of the app, its scopes' problems, and no dangling reference."""
    got = await call("GET", "/openapi.json", scope=None)
    described = got.json()
    assert described["openapi"] == "3.1.0"
    app = http_api(one.parts, Gate(remembering(one.parts.store), one.parts.clock.monotonic))
    served = {(route.path, method) for route in app.routes for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    assert served == {(path, method.upper()) for path, methods in described["paths"].items() for method in methods}
    for methods in described["paths"].values():
        for operation in methods.values():
            assert ("401" in operation["responses"]) == bool(operation["security"])
    names = {ref.removeprefix("#/components/schemas/") for ref in re.findall(r'"\$ref":"([^"]+)"', got.text)}
    assert names == set(described["components"]["schemas"]) or names < set(described["components"]["schemas"])


async def test_what_is_answered_is_described(call: Caller) -> None:
    """Statuses that the tests see are in the description: a sample of the main way."""
    described = (await call("GET", "/openapi.json")).json()["paths"]
    await call.created()
    for method, path, body in (
        ("get", "/v1/events/{id}", None), ("post", "/v1/events/{id}/transitions", {"stage": "upcoming"}),
        ("post", "/v1/events/{id}/transitions", {"stage": "x"}), ("post", "/v1/events", EVENT),
        ("delete", "/v1/events/{id}", None), ("post", "/v1/events/{id}/hold", {}),
    ):  # fmt: skip
        got = await call(method.upper(), path.replace("{id}", "final"), body)
        assert str(got.status_code) in described[path][method]["responses"]


async def test_patterns_are_json_schema(call: Caller) -> None:
    """The description's patterns are of the dialect that JSON Schema knows, not Python's."""
    text = (await call("GET", "/openapi.json")).text
    assert "^[a-z0-9._-]{1,64}$" in text
    assert not re.search(r"\\[AZz]", text)


async def test_a_damaged_event_is_not_everybodys(world: World, one: Broadcaster, call: Caller) -> None:
    """A head that can't be read is 500 for itself, and left out of the list."""
    await call.created()
    await world.store.compare_and_set(HEADS, "broken", b"{", None)
    await one.parts.heads.enlist("broken", 0)
    assert [line["id"] for line in (await call("GET", "/v1/events")).json()["events"]] == ["final"]
    assert (await call("GET", "/v1/events/broken")).status_code == 500


async def test_other_paths_and_methods(call: Caller) -> None:
    """404 and 405 are problems too."""
    assert (await call("GET", "/v1/nothing")).status_code == 404
    assert (await call("PATCH", "/v1/events/final")).status_code == 405


async def test_health_and_metrics(world: World, one: Broadcaster, call: Caller) -> None:
    """Health needs no key; readiness is false while store or log is down; metrics tell of transitions, appends, answers."""
    await call.created()
    assert (await call("GET", "/healthz", scope=None)).json() == {"ok": True}
    assert (await call("GET", "/readyz", scope=None)).status_code == 200
    text = (await call("GET", "/metrics", scope=None)).text
    assert 'stagecast_broadcaster_changes_total{kind="create",outcome="accepted"} 1.0' in text
    assert 'stagecast_broadcaster_http_answers_total{status="201"} 1.0' in text
    assert "stagecast_broadcaster_append_age_seconds 0.0" in text
    world.log.down = True
    await one.cadence.round()
    world.log.down = False


async def test_a_missing_body_is_an_empty_one(call: Caller) -> None:
    """Where nothing has to be said, nothing need be sent."""
    await call.created()
    for what in ("hold", "resume", "regen"):
        got = await call("POST", f"/v1/events/final/{what}")
        assert got.is_success, got.text
    assert (await call("POST", "/v1/events/final/transitions")).json()["field"] == "$"
