"""The plan of an event: its stages in order, with their times. Revisions are immutable. Pure."""

from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from stagecast.names import GONE, StageName

STAGES_MAX = 64
AFTER_MAX = timedelta(days=400)
"""Keeps every due time a date: a longer one would overflow where it is added, for all events of a schedule."""


class PlanError(ValueError):
    """A plan that can't be; `field` is where, as a JSONPath such as `$.plan[2].of`."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{text} - at `{field}`")
        self.field = field
        self.text = text


class PlannedStage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One stage and when it is due: `at`; or `after` the accepted ts of the previous stage, or of stage `of`; or neither,
    and it waits for a person. An `armed` one waits for a person as well: at its time the plan fires it only if somebody has armed
    it, and until then the plan goes no further. While an event is at a stage that `stays`, leaving it earlier needs `urgent`."""

    stage: StageName
    at: Annotated[datetime, Meta(tz=True)] | None = None
    after: timedelta | None = None
    of: StageName | None = None
    armed: bool = False
    stays: timedelta | None = None


class Plan(Struct, frozen=True):
    """Stages in order. Build it with `plan_of`, which checks it."""

    stages: tuple[PlannedStage, ...]

    @property
    def first(self) -> str:
        return self.stages[0].stage

    @property
    def last(self) -> str:
        return self.stages[-1].stage

    def index(self, stage: str) -> int | None:
        """The stage's place, or None when it is not in the plan."""
        return next((i for i, planned in enumerate(self.stages) if planned.stage == stage), None)


def plan_of(stages: list[PlannedStage], where: str = "$.plan") -> Plan:
    """The plan of these stages. Raises PlanError naming the first field that is wrong."""
    if not 1 <= len(stages) <= STAGES_MAX:
        raise PlanError(where, f"a plan has 1 to {STAGES_MAX} stages, not {len(stages)}")
    before: set[str] = set()
    latest: datetime | None = None
    for i, planned in enumerate(stages):
        _check_stage(planned, before, latest, f"{where}[{i}]")
        before.add(planned.stage)
        latest = planned.at or latest
    return Plan(tuple(stages))


def shift(plan: Plan, by: timedelta, start: int) -> Plan:
    """The plan with every stage from place `start` on due `by` later (earlier, when negative). What counts from a stage that
    moves, moves with it; what counts from an earlier one waits that much longer; what waits for a person goes on waiting. Raises
    PlanError when that can't be, or nothing would move."""
    moving = {planned.stage for planned in plan.stages[start:]}
    stages, moved = list(plan.stages), False
    for place in range(start, len(stages)):
        planned = stages[place]
        since = planned.of or plan.stages[place - 1].stage
        where = f"$.plan[{place}]"
        try:
            if planned.at is not None:
                stages[place] = replace(planned, at=planned.at + by)
            elif planned.after is not None and since not in moving:
                stages[place] = replace(planned, after=planned.after + by)
        except OverflowError as error:
            raise PlanError("$.by", f"{planned.stage!r} would be due at no date that can be") from error
        later = stages[place]
        if later.after is not None and later.after < timedelta(0):
            raise PlanError(f"{where}.after", f"{planned.stage!r} would be due before {since!r}, which it comes after")
        moved |= later != planned
    if not moved:
        raise PlanError("$.by", "no later stage has a time, so nothing moves")
    return plan_of(stages)


def _check_stage(planned: PlannedStage, before: set[str], latest: datetime | None, where: str) -> None:
    if planned.stage == GONE:
        raise PlanError(f"{where}.stage", f"{GONE!r} is reserved for deleted events")
    if planned.stage in before:
        raise PlanError(f"{where}.stage", f"stage {planned.stage!r} is in the plan twice")
    if planned.at is not None and planned.after is not None:
        raise PlanError(f"{where}.after", "a stage has `at` or `after`, not both")
    if planned.of is not None and planned.after is None:
        raise PlanError(f"{where}.of", "`of` says what `after` counts from; without `after` it means nothing")
    if planned.of is not None and planned.of not in before:
        raise PlanError(f"{where}.of", f"{planned.of!r} is not an earlier stage of this plan")
    if planned.after is not None and planned.after < timedelta(0):
        raise PlanError(f"{where}.after", "a duration can't be negative")
    if planned.after is not None and planned.after > AFTER_MAX:
        raise PlanError(f"{where}.after", f"a duration is at most {AFTER_MAX.days} days")
    if planned.after is not None and not before:
        raise PlanError(f"{where}.after", "the first stage has nothing to come after")
    if planned.stays is not None and not timedelta(0) <= planned.stays <= AFTER_MAX:
        raise PlanError(f"{where}.stays", f"a duration is 0 to {AFTER_MAX.days} days")
    if planned.at is not None and latest is not None and planned.at < latest:
        raise PlanError(f"{where}.at", f"{planned.at.isoformat()} is before an earlier stage's {latest.isoformat()}")
