"""The control room: go or no-go before arming, shifting, CloudEvents, and the audit of it all."""

from asyncio import gather
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kv import Put
from stagecast.receipts import HostBeat, Receipt
from stagecast.records import RequiredMap, required_map_record
from tests.broadcaster.test_api import Caller, call
from tests.broadcaster.world import Broadcaster, World

PLAN: list[dict[str, Any]] = [
    {"stage": "upcoming"},
    {"stage": "live", "at": "2025-11-24T17:00:00Z", "armed": True},
    {"stage": "half", "after": "PT2700S"},
    {"stage": "ended"},
]
EVENT = {"id": "final", "title": "The final", "plan": PLAN}
OLD, NEW = "1764000000000-a", "1764000000001-b"
__all__ = ["call"]


async def created(call: Caller) -> dict[str, Any]:
    got = await call("POST", "/v1/events", EVENT)
    assert got.status_code == 201, got.text
    made: dict[str, Any] = got.json()
    return made


def host(world: World, one: Broadcaster, *, connections: int = 10, limit: int = 100, log_age: float = 1.0) -> None:
    """A host that speaks now."""
    now = world.clock.now()
    one.parts.ledger.beat(HostBeat("h1", now, connections, limit, log_age, True), now)


def census(world: World, one: Broadcaster, gen: int, **more: Any) -> None:
    """What the worker of a host counts of seq 1."""
    receipt = Receipt("h1", "b", 0, world.clock.now(), "final", gen, 1, **more)
    one.parts.ledger.take(receipt, world.clock.now())


async def checks(call: Caller) -> dict[str, bool]:
    got = await call("GET", "/v1/events/final/readiness", scope="viewer")
    assert got.status_code == 200
    return {check["name"]: check["ok"] for check in got.json()["checks"]}


async def test_readiness_names_every_check(world: World, one: Broadcaster, call: Caller) -> None:
    """Without hosts it is no-go; with one that is well it is go; each check has a text for people."""
    await created(call)
    got = (await call("GET", "/v1/events/final/readiness")).json()
    assert got["go"] is False
    assert [check["name"] for check in got["checks"]] == [
        "coverage",
        "hosts",
        "feed",
        "capacity",
        "clock",
        "log",
        "store",
    ]
    assert all(check["text"] for check in got["checks"])
    host(world, one)
    assert (await call("GET", "/v1/events/final/readiness")).json()["go"] is True


async def test_coverage_is_of_the_required_map(world: World, one: Broadcaster, call: Caller) -> None:
    """Devices count that hold the version of the last finished campaign, though no broadcast has asked for it yet."""
    gen = (await created(call))["gen"]
    host(world, one)
    required = msgspec.json.encode(RequiredMap(NEW, 100.0))
    await world.store.put([Put(required_map_record("final"), str(gen), required)])
    assert (await checks(call))["coverage"] is False
    census(world, one, gen, subscribed=20, at_or_past=20, holding=20, maps={OLD: 2, NEW: 18})
    assert (await checks(call))["coverage"] is False
    census(world, one, gen, subscribed=20, at_or_past=20, holding=20, maps={OLD: 1, NEW: 19})
    assert (await checks(call))["coverage"] is True


async def test_arming_under_no_go_needs_an_override(world: World, one: Broadcaster, call: Caller) -> None:
    """409 names the failed checks; with a reason it is armed, and the audit keeps who, why, and in spite of what."""
    await created(call)
    got = await call("POST", "/v1/events/final/arm", {"armed": True})
    assert got.status_code == 409
    assert {check["name"] for check in got.json()["checks"]} == {"hosts", "feed", "capacity"}
    assert got.json()["head"]["stage"] == "upcoming"
    got = await call("POST", "/v1/events/final/arm", {"armed": True, "override": "the venue has no network yet"})
    assert (got.status_code, got.json()["armed"]) == (200, True)
    assert got.json()["arming"]["stage"] == "live"
    audit = (await call("GET", "/v1/events/final/audit")).json()["audit"]
    assert [(line["what"], line["why"], line["detail"]) for line in audit[1:]] == [
        ("override", "the venue has no network yet", "hosts, feed, capacity"),
        ("arm", "the venue has no network yet", "live"),
    ]


async def test_arming_and_disarming(world: World, one: Broadcaster, call: Caller) -> None:
    """Under go no override is needed; doing it again changes nothing; with nothing left to arm it is 409."""
    await created(call)
    host(world, one)
    for _ in range(2):
        assert (await call("POST", "/v1/events/final/arm", {"armed": True})).json()["armed"] is True
    world.clock.advance(1)
    for _ in range(2):
        assert (await call("POST", "/v1/events/final/arm", {"armed": False})).json()["armed"] is False
    audit = (await call("GET", "/v1/events/final/audit")).json()["audit"]
    assert [line["what"] for line in audit] == ["transition", "arm", "disarm"]
    await call("POST", "/v1/events/final/transitions", {"stage": "live"})
    got = await call("POST", "/v1/events/final/arm", {"armed": True})
    assert (got.status_code, got.json()["head"]["stage"]) == (409, "live")


async def test_an_armed_stage_fires_by_itself(world: World, one: Broadcaster, call: Caller) -> None:
    """Not armed, its time passes; armed, the plan goes on by itself."""
    await created(call)
    world.clock.advance(3700)
    await one.firing.step()
    assert (await one.head()).stage == "upcoming"
    await call("POST", "/v1/events/final/arm", {"armed": True, "override": "go"})
    await one.firing.step()
    assert (await one.head()).stage == "live"
    assert (await one.head()).armed is None


async def test_a_shift_is_a_new_revision(world: World, one: Broadcaster, call: Caller) -> None:
    """All later times move; it stays armed; the audit says by how much; `revision` keeps a repeat from shifting twice."""
    await created(call)
    host(world, one)
    await call("POST", "/v1/events/final/arm", {"armed": True})
    got = await call("POST", "/v1/events/final/shift", {"by": "PT5M", "revision": 1})
    assert got.status_code == 200, got.text
    assert (got.json()["revision"], got.json()["armed"]) == (2, True)
    assert got.json()["next"] == {"stage": "live", "due": "2025-11-24T17:05:00.000Z"}
    again = await call("POST", "/v1/events/final/shift", {"by": "PT5M", "revision": 1})
    assert (again.status_code, again.json()["head"]["seq"]) == (409, 1)
    world.clock.advance(1)
    back = await call("POST", "/v1/events/final/shift", {"by": "-PT5M", "from": "live"})
    assert back.json()["plan"] == PLAN
    audit = (await call("GET", "/v1/events/final/audit")).json()["audit"]
    assert [line["detail"] for line in audit if line["what"] == "shift"] == [
        "+PT300S, revision 2", "-PT300S from live, revision 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"by": "soon"}, "$.by"),
        ({}, "$"),
        ({"by": "-PT2H"}, "$.by"),
        ({"by": "PT5M", "from": "nowhere"}, "$.from"),
        ({"by": "PT5M", "from": "upcoming"}, "$.from"),
        ({"by": "PT5M", "from": "ended"}, "$.by"),
    ],
)
async def test_shifts_that_cannot_be(call: Caller, body: dict[str, Any], field: str) -> None:
    """422 with the field: no duration, into the past, a stage that is not ahead, one without a time."""
    await created(call)
    got = await call("POST", "/v1/events/final/shift", body)
    assert (got.status_code, got.json()["field"]) == (422, field)


async def test_two_shifts_at_once_are_both_done(world: World, call: Caller, one: Broadcaster) -> None:
    """Each is judged by the plan that it finds: the loser of the race shifts what the winner has shifted."""
    await created(call)
    other = world.broadcaster()
    planning = (one.parts.planning, other.parts.planning)
    await gather(*(one.shift("final", timedelta(minutes=5), "ann", None) for one in planning))
    got = (await call("GET", "/v1/events/final")).json()
    assert got["next"]["due"] == "2025-11-24T17:10:00.000Z"


async def test_a_shift_of_unknown_outcome_is_done_once(world: World, call: Caller, one: Broadcaster) -> None:
    """The answer of its compare-and-set was lost: the head tells that it is there."""
    await created(call)
    world.store.answers_lost.append("applied")
    got = await call("POST", "/v1/events/final/shift", {"by": "PT5M"})
    assert got.json()["next"]["due"] == "2025-11-24T17:05:00.000Z"


CLOUD = {
    "specversion": "1.0", "id": "42", "source": "/scores/final", "type": "example.kick-off", "time": "2025-11-24T17:00:00Z",
    "data": {"stage": "live", "minute": 0},
}  # fmt: skip


async def test_a_cloud_event_is_a_transition(call: Caller) -> None:
    """Its source and id are the key: repeated it is answered the same; its type is the reason when it gives none."""
    await created(call)
    for _ in range(2):
        got = await call(
            "POST", "/v1/events/final/transitions", CLOUD, scope="service", media="application/cloudevents+json"
        )
        assert (got.status_code, got.json()["seq"]) == (202, 2)
        assert got.headers["idempotency-key"] == "/scores/final 42"
    line = (await call("GET", "/v1/events/final/audit")).json()["audit"][1]
    assert (line["stage"], line["why"]) == ("live", "example.kick-off")
    other = {**CLOUD, "data": {"stage": "half"}}
    got = await call("POST", "/v1/events/final/transitions", other, media="application/cloudevents+json; charset=utf-8")
    assert (got.status_code, got.json()["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specversion": "0.3"}, "$.specversion"),
        ({"id": ""}, "$.id"),
        ({"source": None}, "$.source"),
        ({"data": {}}, "$.data"),
        ({"data": {"stage": "live", "reason": "é" * 101}}, "$.data.reason"),
        ({"data": {"stage": "nowhere"}}, "$.stage"),
    ],
)
async def test_wrong_cloud_events_name_the_field(call: Caller, change: dict[str, Any], field: str) -> None:
    """422, as for any other body."""
    await created(call)
    body = {**CLOUD, **change}
    got = await call("POST", "/v1/events/final/transitions", body, media="application/cloudevents+json")
    assert (got.status_code, got.json()["field"]) == (422, field)


async def test_the_audit_has_everything_in_order(world: World, call: Caller) -> None:
    """Transitions and acts by time, with who and why; any page size gives the same list."""
    await created(call)
    wanted = ["transition"]
    for n in range(12):
        world.clock.advance(2)
        await call("POST", "/v1/events/final/hold", {"reason": f"rain {n}"})
        world.clock.advance(2)
        await call("POST", "/v1/events/final/transitions", {"stage": ("live", "half")[n % 2], "reason": "go"})
        await call("POST", "/v1/events/final/resume", {"reason": "dry"})
        wanted += ["hold", "transition", "resume"]
    whole = (await call("GET", "/v1/events/final/audit", scope="viewer")).json()
    assert whole["after"] is None
    assert [line["what"] for line in whole["audit"]] == wanted
    assert whole["audit"][1]["why"] == "rain 0"
    world.store.page_bytes = 600
    paged: list[dict[str, Any]] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = (await call("GET", "/v1/events/final/audit" + (f"?after={after}" if after else ""))).json()
        paged, after, pages = paged + page["audit"], page["after"], pages + 1
        assert pages < 60
    assert paged == whole["audit"]
    assert pages > 3
    for bad in ("x", "1", "~", "a~b"):
        assert (await call("GET", f"/v1/events/final/audit?after={bad}")).json()["field"] == "after"


async def test_pages_of_the_audit_are_in_order_over_few_acts(world: World, one: Broadcaster, call: Caller) -> None:
    """An act long after many transitions does not come before them, though its own page is the first."""
    await created(call)
    for n in range(12):
        world.clock.advance(2)
        await call("POST", "/v1/events/final/transitions", {"stage": ("live", "half")[n % 2], "reason": "go"})
    world.clock.advance(2)
    await call("POST", "/v1/events/final/resume", {})
    await one.cadence.round()  # history is complete
    world.store.page_bytes = 600
    page = (await call("GET", "/v1/events/final/audit")).json()
    assert page["after"] is not None
    assert {line["what"] for line in page["audit"]} == {"transition"}


async def test_an_act_that_cannot_be_kept_stops_nothing(world: World, one: Broadcaster, call: Caller) -> None:
    """The change stands and is answered; the loss is counted."""
    await created(call)
    world.store.puts_fail = True
    got = await call("POST", "/v1/events/final/hold", {"reason": "rain"})
    assert got.json()["hold"]["why"] == "rain"
    assert one.parts.producer.counts.acts_lost == 1
