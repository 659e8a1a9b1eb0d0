"""The transition table: what is accepted, what is refused and in which order, what the head remembers."""

import dataclasses
import itertools
from datetime import timedelta

import msgspec
import pytest

from stagecast.broadcast import AckPolicy
from stagecast.event import (
    LINGER_MS,
    REMEMBERED,
    Armed,
    Delivery,
    Head,
    Hold,
    Kind,
    Moved,
    Outcome,
    Refusal,
    Refused,
    Repeated,
    Request,
    active,
    arm,
    create,
    delete,
    disarm,
    find,
    furthest,
    hold,
    regenerate,
    replan,
    resume,
    transition,
)
from stagecast.names import GONE
from stagecast.plan import PlannedStage, plan_of

PLAN = plan_of([PlannedStage(name) for name in ("upcoming", "live", "pause", "ended")])
DELIVERY = Delivery()
GEN = 1_764_000_000_000
START = GEN
_ids = itertools.count()


def ask(stage: str, *, id: str = "", **more: object) -> Request:
    request = Request(id or f"r{next(_ids)}", stage, "ann")
    return dataclasses.replace(request, **more)  # type: ignore[arg-type]  # any field of a Request


def created() -> Head:
    return create("final", "The final", PLAN, GEN, ask("upcoming", id="create"), DELIVERY, START)


def moved(outcome: Outcome) -> Head:
    assert isinstance(outcome, Moved), outcome
    return outcome.head


def at(*stages: str) -> Head:
    """A head that went through these stages, 10 s apart, with `resume` after each revert."""
    head = created()
    for stage in stages:
        head = resume(moved(transition(head, PLAN, ask(stage), DELIVERY, head.ts + 10_000)))
    return head


def test_creation_accepts_the_first_stage_as_seq_1() -> None:
    """A new head is at the plan's first stage, seq 1, with the creating request remembered."""
    head = created()
    assert (head.gen, head.seq, head.stage, head.ts, head.revision) == (GEN, 1, "upcoming", START, 1)
    assert [entry.request for entry in head.accepted] == ["create"]
    assert head.reached == {"upcoming": START}


@pytest.mark.parametrize(
    ("start", "stage", "kind"),
    [
        ((), "live", Kind.FORWARD),
        ((), "pause", Kind.FORWARD),
        ((), "ended", Kind.END),
        (("live",), "upcoming", Kind.REVERT),
        (("live", "ended"), "pause", Kind.REVERT),
        (("live", "upcoming"), "live", Kind.FORWARD),
    ],
)
def test_the_table(start: tuple[str, ...], stage: str, kind: Kind) -> None:
    """Every legal row: the kind follows from the places in the plan; seq goes up by one, gen stays."""
    head = at(*start)
    outcome = transition(head, PLAN, ask(stage), DELIVERY, head.ts + 10_000)
    assert isinstance(outcome, Moved)
    assert outcome.kind is kind
    assert (outcome.head.gen, outcome.head.seq, outcome.head.stage) == (head.gen, head.seq + 1, stage)
    assert (outcome.head.hold is not None) is (kind is Kind.REVERT)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        # each request breaks every later check too, so the first in order must answer
        (ask("nowhere", id="create", if_gen=1, if_seq=9), Refusal.OTHER_BODY),
        (ask("nowhere", if_gen=1, if_seq=9), Refusal.NOT_IN_PLAN),
        (ask("live", if_gen=1, if_seq=9), Refusal.SAME_STAGE),
        (ask("pause", if_gen=1, if_seq=9), Refusal.WRONG_GEN),
        (ask("pause", if_gen=GEN, if_seq=9), Refusal.WRONG_SEQ),
        (ask("pause", if_gen=GEN, if_seq=2), Refusal.TOO_SOON),
    ],
)
def test_checks_come_in_the_stated_order(request_: Request, why: Refusal) -> None:
    """Known id, stage in the plan, current stage again, if_gen, if_seq, interval: the first that fails is the answer."""
    head = at("live")
    assert transition(head, PLAN, request_, DELIVERY, head.ts) == Refused(why)


def test_a_gone_event_refuses_everything_but_known_requests() -> None:
    """Nothing follows `gone`; a request accepted before is still answered as it was."""
    before = at("live")
    head = moved(delete(before, ask(GONE), DELIVERY, before.ts + 5000))
    assert head.gone
    assert transition(head, PLAN, ask("nowhere"), DELIVERY, head.ts + 5000) == Refused(Refusal.GONE)
    first = transition(head, PLAN, ask("upcoming", id="create"), DELIVERY, head.ts + 5000)
    assert first == Repeated(before.accepted[0])


def test_a_repeated_request_gets_the_first_answer() -> None:
    """The same id with the same body is not accepted again, however far the event has moved since."""
    request = ask("live", id="once")
    head = moved(transition(created(), PLAN, request, DELIVERY, START + 5000))
    entry = head.accepted[-1]
    later = moved(transition(head, PLAN, ask("pause"), DELIVERY, head.ts + 5000))
    assert transition(later, PLAN, request, DELIVERY, later.ts) == Repeated(entry)
    assert transition(later, PLAN, ask("live", id="once", who="bob"), DELIVERY, later.ts) == Repeated(entry)


@pytest.mark.parametrize(
    "other", [{"stage": "pause"}, {"if_seq": 1}, {"if_gen": GEN}, {"urgent": True}, {"reason": "late"}]
)
def test_a_used_id_with_another_body_is_refused(other: dict[str, object]) -> None:
    """Each part of the body counts; who asks does not."""
    head = moved(transition(created(), PLAN, ask("live", id="once"), DELIVERY, START + 5000))
    request = dataclasses.replace(ask("live", id="once"), **other)  # type: ignore[arg-type]  # any field of a Request
    assert transition(head, PLAN, request, DELIVERY, head.ts + 5000) == Refused(Refusal.OTHER_BODY)


def test_the_last_32_are_remembered() -> None:
    """The 32 newest accepted requests are found, oldest first; the 33rd is forgotten."""
    head = created()
    for n in range(REMEMBERED):
        stage = "live" if n % 2 == 0 else "pause"
        head = moved(transition(head, PLAN, ask(stage, id=f"q{n}"), DELIVERY, head.ts + 5000))
    assert [entry.request for entry in head.accepted] == [f"q{n}" for n in range(REMEMBERED)]
    assert [entry.seq for entry in head.accepted] == list(range(2, REMEMBERED + 2))
    assert find(head, "create") is None


@pytest.mark.parametrize(("passed", "refused"), [(-1, False), (0, True), (999, True), (1000, False)])
def test_one_second_between_transitions(passed: int, refused: bool) -> None:
    """Refused iff 0 ≤ now − ts < 1 s: a clock behind the head's ts does not lock the event."""
    head = at("live")
    outcome = transition(head, PLAN, ask("pause"), DELIVERY, head.ts + passed)
    assert (outcome == Refused(Refusal.TOO_SOON)) is refused
    assert isinstance(transition(head, PLAN, ask("pause", urgent=True), DELIVERY, head.ts + passed), Moved)


def test_creation_starts_no_interval() -> None:
    """The first transition may follow creation at once."""
    assert isinstance(transition(created(), PLAN, ask("live"), DELIVERY, START), Moved)


@pytest.mark.parametrize(("now", "ts"), [(5000, 5000), (1, 1), (0, 1), (-90_000, 1)])
def test_ts_rises_although_clocks_fall(now: int, ts: int) -> None:
    """ts = max(now, old ts + 1), so that ts rises with seq whatever the producer's clock says."""
    head = at("live")
    assert moved(transition(head, PLAN, ask("pause", urgent=True), DELIVERY, head.ts + now)).ts == head.ts + ts


def test_a_revert_holds_the_plan_until_resumed() -> None:
    """Going back puts the plan on hold, with who and when; going forward by hand does not lift it; resume does."""
    head = at("live", "pause")
    back = moved(transition(head, PLAN, ask("live"), DELIVERY, head.ts + 5000))
    assert back.hold == Hold("reverted to live", "ann", back.ts)
    on = moved(transition(back, PLAN, ask("ended"), DELIVERY, back.ts + 5000))
    assert on.hold == back.hold
    assert resume(on).hold is None


def test_hold_keeps_the_first_reason_and_changes_nothing_for_devices() -> None:
    """A second hold is the first; neither hold nor resume nor a new plan gives devices anything new."""
    head = at("live")
    held = hold(head, "rain", "ann", 5)
    assert held.hold == Hold("rain", "ann", 5)
    assert hold(held, "snow", "bob", 6) is held
    replanned = replan(held, PLAN, 2)
    assert replanned is not None
    assert replanned.revision == 2
    assert head.broadcast() == held.broadcast() == replanned.broadcast() == resume(held).broadcast()


def test_a_plan_without_the_current_stage_is_refused() -> None:
    """`replan` keeps the rule that an event is always somewhere in its plan."""
    assert replan(at("live"), plan_of([PlannedStage("upcoming"), PlannedStage("ended")]), 2) is None


@pytest.mark.parametrize(
    ("stages", "place"),
    [((), 0), (("live",), 1), (("pause",), 2), (("pause", "upcoming"), 2), (("ended", "live"), 3)],
)
def test_the_furthest_stage_is_what_a_plan_never_goes_back_behind(stages: tuple[str, ...], place: int) -> None:
    """Stages skipped by hand count as passed, and a revert takes nothing back."""
    assert furthest(at(*stages), PLAN) == place


def test_furthest_of_another_plan() -> None:
    """Places are those of the plan asked about; a plan of other stages was reached nowhere."""
    assert furthest(at("live"), plan_of([PlannedStage("live"), PlannedStage("upcoming")])) == 1
    assert furthest(at("live"), plan_of([PlannedStage("x")])) == -1


def test_reached_keeps_the_last_acceptance() -> None:
    """`after` counts from the newest ts at which a stage was accepted."""
    head = at("live", "upcoming", "live")
    assert head.reached["live"] == head.ts
    assert head.reached["upcoming"] == head.ts - 10_000


def test_deletion_is_a_transition_to_gone() -> None:
    """`gone` is one more seq; deleting again repeats the first answer, by the same request or another."""
    head = at("live")
    outcome = delete(head, ask("whatever", id="del"), DELIVERY, head.ts + 5000)
    assert isinstance(outcome, Moved)
    assert outcome.kind is Kind.GONE
    gone = outcome.head
    assert (gone.seq, gone.stage, gone.gen) == (head.seq + 1, GONE, head.gen)
    assert delete(gone, ask(GONE, id="del"), DELIVERY, 0) == Repeated(gone.accepted[-1])
    assert delete(gone, ask(GONE), DELIVERY, 0) == Repeated(gone.accepted[-1])


def test_a_transitions_id_deletes_nothing() -> None:
    """One request is accepted once: its id can't be used again for a deletion, before or after the event is gone."""
    head = at()
    head = moved(transition(head, PLAN, ask("live", id="once"), DELIVERY, head.ts + 5000))
    assert delete(head, ask(GONE, id="once"), DELIVERY, head.ts + 5000) == Refused(Refusal.OTHER_BODY)
    gone = moved(delete(head, ask(GONE), DELIVERY, head.ts + 5000))
    assert delete(gone, ask(GONE, id="once"), DELIVERY, gone.ts) == Refused(Refusal.OTHER_BODY)


def test_regeneration_keeps_the_stage_under_a_greater_gen() -> None:
    """Every device takes it; the plan stays behind what was reached, goes on counting from when it was, and stays on hold; old
    request ids mean nothing."""
    head = hold(at("pause"), "moved", "ann", 7)
    new = regenerate(head, GEN + 1, ask("pause", id="regen"), DELIVERY, START)
    assert (new.gen, new.seq, new.stage) == (GEN + 1, 1, "pause")
    assert new.ts > head.ts
    assert new.hold == head.hold
    assert new.reached == head.reached
    assert furthest(new, PLAN) == furthest(head, PLAN)
    assert [entry.request for entry in new.accepted] == ["regen"]


@pytest.mark.parametrize(
    ("head", "after", "expected"),
    [
        (at("live"), 10 * LINGER_MS, True),
        (at("ended"), LINGER_MS - 1, True),
        (at("ended"), LINGER_MS, False),
        (at("ended", "live"), LINGER_MS, True),
        (moved(delete(at("live"), ask(GONE), DELIVERY, START + 50_000)), LINGER_MS - 1, True),
        (moved(delete(at("live"), ask(GONE), DELIVERY, START + 50_000)), LINGER_MS, False),
    ],
)
def test_the_cadence_repeats_until_a_day_after_the_end(head: Head, after: int, expected: bool) -> None:
    """Running events always, ended and deleted ones for 24 h: a lost append of the end, or of `gone`, heals too."""
    assert active(head, PLAN, head.ts + after) is expected


def test_a_broadcast_says_what_the_census_asked_for() -> None:
    """Map, window and ack policy are those of the delivery the transition was accepted with."""
    head = at("live")
    delivery = Delivery(map="1764000000000-a", fetch=5000, ack=AckPolicy(5, 6))
    broadcast = moved(transition(head, PLAN, ask("pause"), delivery, head.ts + 5000)).broadcast()
    assert (broadcast.map, broadcast.fetch, broadcast.ack) == ("1764000000000-a", 5000, AckPolicy(5, 6))
    assert broadcast.order == (GEN, head.seq + 1)


def test_a_head_survives_its_encoding() -> None:
    """What the store gives back is what was put in: checks and digests of a stored head are those of the live one."""
    head = hold(at("live", "upcoming", "pause"), "rain", "ann", 5)
    assert msgspec.json.decode(msgspec.json.encode(head), type=Head) == head


ARMED = plan_of(
    [
        PlannedStage("upcoming"),
        PlannedStage("live", armed=True),
        PlannedStage("pause"),
        PlannedStage("ended", armed=True),
    ]
)


def armed_for(head: Head) -> str | None:
    return head.armed.stage if head.armed else None


def went(head: Head, stage: str, now: int) -> Head:
    return moved(transition(head, ARMED, ask(stage, urgent=True), DELIVERY, now))


def test_arming_is_for_the_next_stage_that_waits_for_it() -> None:
    """It names who, when and why in spite of what; armed again it stays as it was; with no such stage ahead it can't be."""
    head = arm(created(), ARMED, "ann", START + 5, "we know")
    assert head is not None
    assert head.armed == Armed("live", "ann", START + 5, "we know")
    assert arm(head, ARMED, "bob", START + 9) is head
    assert disarm(head).armed is None
    assert arm(created(), PLAN, "ann", START) is None
    assert arm(went(created(), "ended", START + 10), ARMED, "ann", START) is None


def test_a_transition_uses_arming_up() -> None:
    """By reaching its stage or passing it, by a revert, a regen, a deletion; one that stops before it leaves it."""
    head = arm(created(), ARMED, "ann", START)
    assert head is not None
    assert armed_for(went(head, "live", START + 10)) is None
    assert armed_for(went(head, "pause", START + 10)) is None
    live = arm(went(head, "live", START + 10), ARMED, "ann", START)
    assert live is not None
    assert armed_for(live) == "ended"
    paused = went(live, "pause", START + 20)
    assert armed_for(paused) == "ended"
    assert armed_for(went(paused, "live", START + 30)) is None
    assert armed_for(regenerate(live, GEN + 1, ask(""), DELIVERY, START)) is None
    assert armed_for(moved(delete(live, ask("gone"), DELIVERY, START + 20))) is None


def test_a_new_plan_takes_arming_back() -> None:
    """What was armed was the old plan; moving its times alone leaves it armed."""
    head = arm(created(), ARMED, "ann", START)
    assert head is not None
    again, shifted = replan(head, ARMED, 2), replan(head, ARMED, 2, shifted=True)
    assert again is not None
    assert shifted is not None
    assert (armed_for(again), armed_for(shifted)) == (None, "live")


@pytest.mark.parametrize(
    ("after", "urgent", "why"),
    [(0, False, Refusal.TOO_SOON), (999, False, Refusal.TOO_SOON), (1000, False, Refusal.STAYS),
     (9999, False, Refusal.STAYS), (10_000, False, None), (5000, True, None), (-1, False, None)],
)  # fmt: skip
def test_a_stage_that_stays(after: int, urgent: bool, why: Refusal | None) -> None:
    """Leaving it earlier than its plan says needs `urgent`; a clock set back is no reason to refuse."""
    plan = plan_of([PlannedStage("a"), PlannedStage("goal", stays=timedelta(seconds=10)), PlannedStage("b")])
    head = create("final", "The final", plan, GEN, ask("a"), DELIVERY, START)
    head = moved(transition(head, plan, ask("goal"), DELIVERY, START + 5000))
    outcome = transition(head, plan, ask("b", urgent=urgent), DELIVERY, head.ts + after)
    assert (outcome.why if isinstance(outcome, Refused) else None) == why
