"""What a plan does when (rule 10): a plan never undoes a person."""

from datetime import UTC, datetime, timedelta

import pytest

from broadcaster.schedule import NOT_ARMED, OVERDUE_MS, Fire, Next, PutOnHold, Wait, decide, rfc3339, upcoming
from stagecast.event import Delivery, Head, Moved, Request, arm, create, delete, hold, resume, transition
from stagecast.plan import Plan, PlannedStage, plan_of

T0 = 1_764_000_000_000
MINUTE = 60_000


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


PLAN = plan_of(
    [
        PlannedStage("upcoming"),
        PlannedStage("live", at=at(T0 + 10 * MINUTE)),
        PlannedStage("half", after=minutes(45)),
        PlannedStage("penalties"),
        PlannedStage("ended", after=minutes(120), of="live"),
    ]
)


def begun(plan: Plan = PLAN) -> Head:
    return create("final", "The final", plan, T0, Request("c", plan.first, "ann"), Delivery(), T0)


def moved(head: Head, stage: str, now: int, plan: Plan = PLAN) -> Head:
    outcome = transition(head, plan, Request(f"{stage}-{now}", stage, "ann", urgent=True), Delivery(), now)
    assert isinstance(outcome, Moved)
    return outcome.head


def fired(head: Head, now: int, plan: Plan = PLAN) -> Head:
    """The head after the plan did what it wants."""
    decision = decide(head, plan, now)
    assert isinstance(decision, Fire)
    outcome = transition(head, plan, decision.request, Delivery(), now)
    assert isinstance(outcome, Moved)
    return outcome.head


def test_at_fires_at_its_time() -> None:
    """A stage with `at` waits until then, and fires then, as itself, with the seq it was judged by."""
    head = begun()
    due = T0 + 10 * MINUTE
    assert decide(head, PLAN, due - 1) == Wait(due)
    decision = decide(head, PLAN, due)
    assert isinstance(decision, Fire)
    assert (decision.request.stage, decision.request.if_seq, decision.due) == ("live", 1, due)


def test_after_counts_from_the_accepted_ts() -> None:
    """`after` counts from when the previous stage really was accepted, by hand or not."""
    head = moved(begun(), "live", T0 + MINUTE)
    assert decide(head, PLAN, T0 + 2 * MINUTE) == Wait(T0 + 46 * MINUTE)
    assert fired(head, T0 + 46 * MINUTE).stage == "half"


def test_of_counts_from_the_named_stage() -> None:
    """`of` counts from that stage; a stage before it that waits for a person does not hold it up."""
    head = moved(moved(begun(), "live", T0 + MINUTE), "half", T0 + 2 * MINUTE)
    due = T0 + 121 * MINUTE
    assert decide(head, PLAN, due - 1) == Wait(due)
    assert fired(head, due).stage == "ended"


def test_a_stage_without_time_waits_for_a_person() -> None:
    """Nothing fires by itself where the plan says no time."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b"), PlannedStage("c", after=minutes(1))])
    assert decide(begun(plan), plan, T0 + 10**10) == Wait(None)


def test_only_the_latest_due_stage_fires() -> None:
    """After a pause of the service, what was due in between is skipped, not played in haste."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b", at=at(T0 + 1000)), PlannedStage("c", at=at(T0 + 2000))])
    assert fired(begun(plan), T0 + 5000, plan).stage == "c"


def test_a_revert_is_not_undone() -> None:
    """After going back by hand nothing fires; resumed, only stages later than every one ever reached do."""
    head = moved(moved(moved(begun(), "live", T0), "half", T0 + MINUTE), "live", T0 + 2 * MINUTE)
    assert decide(head, PLAN, T0 + 100 * MINUTE) == Wait(None)
    assert decide(resume(head), PLAN, T0 + 100 * MINUTE) == Wait(T0 + 122 * MINUTE)


def test_going_forward_by_hand_skips_what_was_passed() -> None:
    """A stage that a person jumped over never fires, though its time comes."""
    head = moved(begun(), "penalties", T0 + MINUTE)
    assert decide(head, PLAN, T0 + 30 * MINUTE) == Wait(None)


def test_on_hold_nothing_fires() -> None:
    """A held plan is silent; resumed in time it goes on."""
    head = hold(begun(), "rain", "ann", T0)
    assert decide(head, PLAN, T0 + 11 * MINUTE) == Wait(None)
    assert fired(resume(head), T0 + 11 * MINUTE).stage == "live"


def test_overdue_holds_and_says_so() -> None:
    """Up to 10 min late it fires; later it holds, naming what was due."""
    due = T0 + 10 * MINUTE
    assert isinstance(decide(begun(), PLAN, due + OVERDUE_MS), Fire)
    assert decide(begun(), PLAN, due + OVERDUE_MS + 1) == PutOnHold("live was due 10 min ago")


def test_a_second_apart() -> None:
    """Stages due at once keep the interval that people must keep."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b", at=at(T0)), PlannedStage("c", after=timedelta(0))])
    head = fired(begun(plan), T0, plan)
    assert head.stage == "b"
    assert decide(head, plan, head.ts + 400) == Wait(head.ts + 1000)
    assert fired(head, head.ts + 1000, plan).stage == "c"


def test_every_instance_asks_with_one_id() -> None:
    """The request id is a function of event, gen, revision and stage, and fits the header's 64 characters."""
    due = T0 + 10 * MINUTE
    one, two = decide(begun(), PLAN, due), decide(begun(), PLAN, due + 700)
    assert isinstance(one, Fire)
    assert isinstance(two, Fire)
    assert one.request == two.request
    assert len(one.request.id) <= 64


def test_a_gone_event_has_no_plan() -> None:
    """Nothing fires after a deletion."""
    outcome = delete(begun(), Request("d", "gone", "ann"), Delivery(), T0)
    assert isinstance(outcome, Moved)
    assert decide(outcome.head, PLAN, T0 + 10 * MINUTE) == Wait(None)
    assert upcoming(outcome.head, PLAN) is None


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], Next("live", due=rfc3339(T0 + 10 * MINUTE))),
        (["live"], Next("half", due=rfc3339(T0 + 50 * MINUTE))),
        (["penalties"], Next("ended", why="PT7200S after live")),
        (["ended"], None),
    ],
)
def test_next_for_people(stages: list[str], expected: Next | None) -> None:
    """The first stage with a time, else what the next one waits for, else nothing."""
    head = begun()
    for stage in stages:
        head = moved(head, stage, T0 + 5 * MINUTE)
    assert upcoming(head, PLAN) == expected


def test_times_for_people() -> None:
    """RFC 3339 in UTC, with milliseconds."""
    assert rfc3339(T0 + 7) == "2025-11-24T16:00:00.007Z"


def test_next_by_hand() -> None:
    """A stage that waits for a person says so."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b")])
    assert upcoming(begun(plan), plan) == Next("b", why="by hand")


GUARDED = plan_of(
    [
        PlannedStage("upcoming"),
        PlannedStage("live", at=at(T0 + 10 * MINUTE), armed=True),
        PlannedStage("half", at=at(T0 + 20 * MINUTE)),
    ]
)


def armed(head: Head, now: int) -> Head:
    made = arm(head, GUARDED, "ann", now)
    assert made is not None
    return made


def test_the_plan_stops_before_what_is_not_armed() -> None:
    """However late it gets, nothing fires and nothing is put on hold; what comes next says that it waits to be armed."""
    head = begun(GUARDED)
    for minute in (0, 10, 25, 600):
        assert decide(head, GUARDED, T0 + minute * MINUTE) == Wait(None)
    assert upcoming(head, GUARDED) == Next("live", rfc3339(T0 + 10 * MINUTE), NOT_ARMED)


def test_armed_it_fires_when_due() -> None:
    """Armed before its time it fires then; armed later it fires at once, as due from then, and the rest of the plan follows."""
    head = armed(begun(GUARDED), T0 + 5 * MINUTE)
    assert decide(head, GUARDED, T0 + 9 * MINUTE) == Wait(T0 + 10 * MINUTE)
    assert upcoming(head, GUARDED) == Next("live", rfc3339(T0 + 10 * MINUTE))
    assert isinstance(decide(head, GUARDED, T0 + 10 * MINUTE), Fire)
    late = armed(begun(GUARDED), T0 + 18 * MINUTE)
    decision = decide(late, GUARDED, T0 + 18 * MINUTE)
    assert isinstance(decision, Fire)
    assert (decision.request.stage, decision.due) == ("live", T0 + 18 * MINUTE)
    live = fired(late, T0 + 18 * MINUTE, GUARDED)
    assert live.armed is None
    assert decide(live, GUARDED, T0 + 19 * MINUTE) == Wait(T0 + 20 * MINUTE)


def test_a_stage_that_stays_holds_the_plan_back() -> None:
    """What is due meanwhile waits until it has stayed long enough."""
    plan = plan_of([PlannedStage("a"), PlannedStage("goal", stays=minutes(1)), PlannedStage("b", after=minutes(0.5))])
    head = moved(begun(plan), "goal", T0 + MINUTE, plan)
    assert decide(head, plan, T0 + MINUTE + 30_000) == Wait(T0 + 2 * MINUTE)
    assert isinstance(decide(head, plan, T0 + 2 * MINUTE), Fire)
