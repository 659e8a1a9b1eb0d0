"""Which plans can be, and which field is named when one can't."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stagecast.plan import AFTER_MAX, STAGES_MAX, Plan, PlanError, PlannedStage, plan_of, shift

T0 = datetime(2026, 11, 23, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_plan_keeps_its_order() -> None:
    """First, last and places are as written; a stage of another plan has no place."""
    plan = plan_of([PlannedStage("upcoming"), PlannedStage("live", at=T0), PlannedStage("ended", after=2 * HOUR)])
    assert (plan.first, plan.last) == ("upcoming", "ended")
    assert [plan.index(stage) for stage in ("upcoming", "live", "ended", "gone")] == [0, 1, 2, None]


@pytest.mark.parametrize(
    ("stages", "field"),
    [
        ([], "$.plan"),
        ([PlannedStage(f"s{i}") for i in range(STAGES_MAX + 1)], "$.plan"),
        ([PlannedStage("gone")], "$.plan[0].stage"),
        ([PlannedStage("a"), PlannedStage("b"), PlannedStage("a")], "$.plan[2].stage"),
        ([PlannedStage("a"), PlannedStage("b", at=T0, after=HOUR)], "$.plan[1].after"),
        ([PlannedStage("a"), PlannedStage("b", of="a")], "$.plan[1].of"),
        ([PlannedStage("a"), PlannedStage("b", after=HOUR, of="c"), PlannedStage("c")], "$.plan[1].of"),
        ([PlannedStage("a"), PlannedStage("b", after=HOUR, of="b")], "$.plan[1].of"),
        ([PlannedStage("a"), PlannedStage("b", after=-HOUR)], "$.plan[1].after"),
        ([PlannedStage("a"), PlannedStage("b", after=AFTER_MAX + HOUR)], "$.plan[1].after"),
        ([PlannedStage("a", after=HOUR)], "$.plan[0].after"),
        ([PlannedStage("a", stays=-HOUR)], "$.plan[0].stays"),
        ([PlannedStage("a", at=T0), PlannedStage("b"), PlannedStage("c", at=T0 - HOUR)], "$.plan[2].at"),
    ],
)
def test_a_plan_that_cannot_be_names_the_field(stages: list[PlannedStage], field: str) -> None:
    """The first wrong field is named as a path into the request's body."""
    with pytest.raises(PlanError) as caught:
        plan_of(stages)
    assert caught.value.field == field
    assert field in str(caught.value)


def test_bounds_are_inclusive() -> None:
    """64 stages, 400 days, zero waiting, two stages due at once and a prefix of the reserved name are all legal."""
    plan_of([PlannedStage(f"s{i}") for i in range(STAGES_MAX)])
    plan_of([PlannedStage("a", at=T0), PlannedStage("b", at=T0), PlannedStage("gone-fishing", after=AFTER_MAX)])
    plan_of([PlannedStage("a"), PlannedStage("b", after=timedelta(0), of="a")])


@pytest.mark.parametrize(
    "stage",
    [
        b'{"stage": "Live"}',
        b'{"stage": ""}',
        b'{"stage": "a\\n"}',
        b'{"stage": "live", "at": "2026-11-23T20:00:00"}',
        b'{"stage": "live", "after": "P1Y"}',
        b'{"stage": "live", "after": 7200}',
        b'{"stage": "live", "when": "soon"}',
    ],
)
def test_planned_stages_are_checked_when_read(stage: bytes) -> None:
    """A time without a zone, a duration without a fixed length, a name outside the alphabet or an unknown field can't pass."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(stage, type=PlannedStage)


def test_a_plan_survives_its_encoding() -> None:
    """Stored and read again, a plan is equal, its times included, and what was not said is not written."""
    plan = plan_of(
        [PlannedStage("upcoming"), PlannedStage("live", at=T0), PlannedStage("ended", after=HOUR, of="live")]
    )
    data = msgspec.json.encode(plan)
    assert msgspec.json.decode(data, type=Plan) == plan
    assert b"null" not in data


MATCH = plan_of(
    [
        PlannedStage("upcoming"),
        PlannedStage("live", at=T0),
        PlannedStage("half", after=HOUR),
        PlannedStage("penalties"),
        PlannedStage("ended", at=T0 + 3 * HOUR),
        PlannedStage("credits", after=HOUR, of="live"),
    ]
)


@pytest.mark.parametrize(
    ("start", "moves"),
    [
        (1, {"live": {"at": T0 + HOUR}, "ended": {"at": T0 + 4 * HOUR}}),
        (2, {"half": {"after": 2 * HOUR}, "ended": {"at": T0 + 4 * HOUR}, "credits": {"after": 2 * HOUR}}),
        (4, {"ended": {"at": T0 + 4 * HOUR}, "credits": {"after": 2 * HOUR}}),
    ],
)
def test_a_shift_moves_what_is_later_together(start: int, moves: dict[str, dict[str, object]]) -> None:
    """Times move; what counts from a stage that moves goes with it, from one that does not, waits longer; the rest stays."""
    wanted = [msgspec.structs.replace(one, **moves.get(one.stage, {})) for one in MATCH.stages]
    assert list(shift(MATCH, HOUR, start).stages) == wanted
    assert shift(shift(MATCH, HOUR, start), -HOUR, start) == MATCH


@pytest.mark.parametrize(
    ("by", "start", "field"),
    [
        (-HOUR, 5, "$.plan[5].after"),
        (-4 * HOUR, 4, "$.plan[4].at"),
        (HOUR, 6, "$.by"),
        (timedelta(0), 1, "$.by"),
        (timedelta(days=400_000 * 365), 1, "$.by"),
    ],
)
def test_a_shift_that_cannot_be(by: timedelta, start: int, field: str) -> None:
    """Before what comes earlier, of nothing, out of the calendar: refused with the field."""
    credits = PlannedStage("credits", after=HOUR / 2, of="live")
    plan = plan_of([*MATCH.stages[:5], *([credits] if start == 5 else [])])
    with pytest.raises(PlanError) as caught:
        shift(plan, by, start)
    assert caught.value.field == field
