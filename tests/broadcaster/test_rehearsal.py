"""Rehearsals: the same stages, faster, under an id that is nobody's."""

from datetime import UTC, datetime, timedelta

import pytest

from broadcaster.rehearsal import GAP_MIN, CannotRehearse, gaps, played, rehearsed_map, shadow_id
from stagecast.event import Delivery, Request, create
from stagecast.plan import PlannedStage, plan_of
from stagecast.wire.frames import StageMap
from tests.broadcaster.test_api import Caller, call

__all__ = ["call"]
T0 = datetime(2026, 12, 5, 19, tzinfo=UTC)
MINUTES = timedelta(minutes=1)
A = PlannedStage("a")


@pytest.mark.parametrize(
    ("stages", "speed", "wanted"),
    [
        ([PlannedStage("a"), PlannedStage("b"), PlannedStage("c")], 1, [30, 30]),
        ([A, PlannedStage("b", after=10 * MINUTES), PlannedStage("c", after=30 * MINUTES, of="a")], 10, [60, 120]),
        ([A, PlannedStage("b", at=T0), PlannedStage("c"), PlannedStage("d", at=T0 + 2 * MINUTES)], 2, [15, 15, 45]),
        ([PlannedStage("a", at=T0), PlannedStage("b", at=T0), PlannedStage("c", at=T0 + MINUTES)], 60, [GAP_MIN, GAP_MIN]),
        ([A, PlannedStage("b", at=T0, armed=True), PlannedStage("c", after=MINUTES, stays=MINUTES)], 30, [GAP_MIN, 2]),
    ],
)  # fmt: skip
def test_gaps_are_the_plans_own(stages: list[PlannedStage], speed: float, wanted: list[float]) -> None:
    """Proportions are kept; who waits for a person comes after 30 s; nothing comes sooner than the broadcaster takes it."""
    assert gaps(plan_of(stages), speed) == wanted


def test_a_rehearsal_has_an_end() -> None:
    """A plan that would take longer than an hour wants a greater speed."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b", after=timedelta(days=2))])
    with pytest.raises(CannotRehearse, match="greater speed"):
        gaps(plan, 10)
    assert gaps(plan, 1000) == [172.8]


def test_the_plan_it_plays() -> None:
    """All stages, by themselves, each at its time; nothing is armed or stays."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b", armed=True), PlannedStage("c", stays=MINUTES)])
    start = round(T0.timestamp() * 1000)
    assert played(plan, [2.0, 3.0], start).stages == (
        PlannedStage("a"),
        PlannedStage("b", at=T0 + timedelta(seconds=2)),
        PlannedStage("c", at=T0 + timedelta(seconds=5)),
    )


@pytest.mark.parametrize("event", ["final", "x" * 64])
def test_its_id_is_an_event_id(event: str) -> None:
    """However long the event's own is."""
    made = shadow_id(event, "6924b0a0ff")
    assert made.startswith("rehearsal-")
    assert made.endswith("-6924b0a0ff")
    assert len(made) <= 64


def test_what_its_devices_hold() -> None:
    """What was made for the event, so that a stage forgotten there is missing here too; else a payload for every stage."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b")])
    shadow = create("shadow", "S", plan, 7, Request("c", "a", "ann"), Delivery(), 7)
    synthetic = rehearsed_map(None, plan, shadow)
    assert (synthetic.e, synthetic.gen, synthetic.stages) == ("shadow", 7, {"a": ["a"], "b": ["b"]})
    made = StageMap("final", 3, "1764000000000-ab", {"a": ["t1"]}, cohort=True)
    assert rehearsed_map(made, plan, shadow) == StageMap("shadow", 7, "1764000000000-ab", {"a": ["t1"]})


async def test_without_keys_there_is_none(call: Caller) -> None:
    """A service that can't make devices says why; nothing is created."""
    await call.created()
    got = await call("POST", "/v1/events/final/rehearsals", {"speed": 20})
    assert got.status_code == 409
    assert "no device URL" in got.json()["detail"]
    assert len((await call("GET", "/v1/events")).json()["events"]) == 1
    assert (await call("POST", "/v1/events/final/rehearsals", {"speed": 0})).json()["field"] == "$.speed"
