"""Transitions: accepted means durable, once and in order (rule 1), and identity never repeats (rule 6)."""

import asyncio

import msgspec
import pytest

from broadcaster.producer import AlreadyThere, NoSuchStage, Rejected, StageMissing, StillOverdue, UnknownEvent
from kv import OutcomeUnknown, Put, StoreUnavailable
from stagecast.broadcast import AckPolicy
from stagecast.event import REMEMBERED, Refusal, Request
from stagecast.log import Topic
from stagecast.receipts import Receipt, encode_receipt
from stagecast.records import GENS, RequiredMap, required_map_record
from tests.broadcaster.world import Broadcaster, Fate, World, by_hand, paced


async def test_creation_accepts_the_first_stage_and_says_it(world: World, one: Broadcaster) -> None:
    """A new event is at its plan's first stage as seq 1, with gen = now, enlisted, and its broadcast is in the log."""
    head = await one.create()
    assert (head.gen, head.seq, head.stage, head.ts) == (world.clock.now(), 1, "upcoming", world.clock.now())
    assert await world.broadcasts() == [(1, "upcoming")]
    assert "final" in await one.parts.heads.enlisted()


async def test_creating_a_living_event_is_refused(one: Broadcaster) -> None:
    """A second creation names the head that is there; the same creation again is answered as the first time."""
    first = await one.create()
    await one.go("live")
    again = await one.create()
    assert (again.gen, again.seq, again.stage, again.ts) == (first.gen, 1, "upcoming", first.ts)
    with pytest.raises(AlreadyThere) as refused:
        await one.create(key="another")
    assert refused.value.head.stage == "live"
    with pytest.raises(Rejected, match="another body"):
        await one.create(plan=by_hand("upcoming", "ended"))


ORDER = [
    # what is wrong with the request, from the first check to the last: each request also has all later wrongs
    ({"key": "known", "stage": "nowhere", "if_gen": 1, "if_seq": 9, "urgent": False}, Refusal.OTHER_BODY),
    ({"key": "new", "stage": "nowhere", "if_gen": 1, "if_seq": 9, "urgent": False}, Refusal.NOT_IN_PLAN),
    ({"key": "new", "stage": "live", "if_gen": 1, "if_seq": 9, "urgent": False}, Refusal.SAME_STAGE),
    ({"key": "new", "stage": "half", "if_gen": 1, "if_seq": 9, "urgent": False}, Refusal.WRONG_GEN),
    ({"key": "new", "stage": "half", "if_seq": 9, "urgent": False}, Refusal.WRONG_SEQ),
    ({"key": "new", "stage": "half", "if_seq": 2, "urgent": False}, Refusal.TOO_SOON),
]


@pytest.mark.parametrize(("wish", "why"), ORDER, ids=[why.name for _, why in ORDER])
async def test_the_order_of_the_checks(world: World, one: Broadcaster, wish: dict[str, object], why: Refusal) -> None:
    """A request that is wrong in several ways is refused for the first of them, and nothing changes."""
    await one.create()
    world.clock.advance(10)
    await one.go("live", "known")
    before = await one.head()
    with pytest.raises(Rejected) as refused:
        await one.go(**wish)  # type: ignore[arg-type]
    if why is Refusal.NOT_IN_PLAN:
        assert isinstance(refused.value, NoSuchStage)
        assert str(refused.value) == "no stage 'nowhere' in the plan, which has upcoming, live, half, ended"
    else:
        assert refused.value.why is why
    assert await one.head() == before


async def test_a_second_between_transitions(world: World, one: Broadcaster) -> None:
    """Less than 1 s after a transition the next is refused unless urgent; creation starts no interval."""
    await one.create()
    world.clock.advance(0.001)
    assert await one.go("live", urgent=False) == 2
    world.clock.advance(0.999)
    with pytest.raises(Rejected):
        await one.go("half", urgent=False)
    world.clock.advance(0.001)
    assert await one.go("half", urgent=False) == 3


async def test_a_repeated_request_gets_the_first_answer(world: World, one: Broadcaster) -> None:
    """The same id and body is answered by the first acceptance, whatever happened since; it is not done twice."""
    await one.create()
    request = Request("again", "live", "ann", urgent=True)
    first = await one.parts.producer.transition("final", request)
    await one.go("half")
    world.clock.advance(60)
    again = await world.broadcaster().parts.producer.transition("final", request)
    assert (again.gen, again.seq, again.stage, again.ts) == (first.gen, first.seq, first.stage, first.ts)
    assert (await one.head()).seq == 3


async def test_the_promise_reaches_back_32_transitions(world: World, one: Broadcaster) -> None:
    """The 32nd last request is still known; the one before it is not, and is judged as new."""
    await one.create()
    for n in range(REMEMBERED + 1):
        await one.go(("live", "half")[n % 2], f"n{n}")
    assert await one.go("half", "n1") == 3
    assert await one.go("live", "n32") == 34
    with pytest.raises(Rejected) as refused:
        await one.go("live", "n0")
    assert refused.value.why is Refusal.SAME_STAGE


async def test_racing_producers_accept_each_request_once(world: World, one: Broadcaster) -> None:
    """Eight instances, each with requests of its own at once: all accepted once, seqs without a gap."""
    await one.create(plan=by_hand("upcoming", *(f"s{n}" for n in range(8))))
    racers = [world.broadcaster() for _ in range(8)]
    seqs = await asyncio.gather(*(racer.go(f"s{n}") for n, racer in enumerate(racers)))
    assert sorted(seqs) == list(range(2, 10))
    head = await one.head()
    assert [entry.seq for entry in head.accepted] == list(range(1, 10))
    assert len({entry.request for entry in head.accepted}) == 9
    assert len({entry.ts for entry in head.accepted}) == 9


async def test_racing_repeats_of_one_request_are_one(world: World, one: Broadcaster) -> None:
    """The same request at eight instances at once has one seq and eight equal answers."""
    await one.create()
    racers = [world.broadcaster() for _ in range(8)]
    assert await asyncio.gather(*(racer.go("live", "same") for racer in racers)) == [2] * 8
    assert (await one.head()).seq == 2


@pytest.mark.parametrize("fate", ["applied", "dropped"])
async def test_an_unknown_outcome_is_looked_up(world: World, one: Broadcaster, fate: Fate) -> None:
    """A compare-and-set whose answer is lost counts once, whether it happened or not."""
    await one.create()
    world.store.answers_lost.append(fate)
    assert await one.go("live") == 2
    assert [entry.stage for entry in (await one.head()).accepted] == ["upcoming", "live"]
    assert set(await world.broadcasts()) == {(1, "upcoming"), (2, "live")}


@pytest.mark.parametrize("fate", ["applied", "dropped"])
async def test_unknown_outcomes_of_every_other_change(world: World, one: Broadcaster, fate: Fate) -> None:
    """Creation, hold, resume, replan, regen and deletion each happen once when their answer is lost."""
    lose = world.store.answers_lost
    lose.append(fate)
    assert (await one.create()).seq == 1
    for change in (one.parts.producer.hold("final", "rain", "ann"), one.parts.producer.resume("final")):
        lose.append(fate)
        await change
    lose.append(fate)
    assert (await one.parts.producer.replan("final", by_hand("upcoming", "ended"))).revision == 2
    lose.append(fate)
    again = await one.parts.producer.regenerate("final", Request("regen", "", "ann"))
    head = await one.head()
    assert (again.gen, again.seq, head.gen, head.seq) == (head.gen, 1, head.gen, 1)
    lose.append(fate)
    assert (await one.parts.producer.delete("final", Request("delete", "gone", "ann"))).seq == 2
    assert not lose


@pytest.mark.parametrize("change", ["delete", "go"])
async def test_an_unknown_outcome_of_another_gen_stays_unknown(world: World, one: Broadcaster, change: str) -> None:
    """The answer of a deletion (or of a transition) is lost, and the event is created anew before it can be looked up: what
    was asked of the old one is not done to the new one."""
    old = await one.create()
    other = world.broadcaster()

    async def created_anew() -> None:
        if change == "go":
            await other.parts.producer.delete("final", Request("theirs", "gone", "bob"))
        await other.create(key="anew")

    world.store.answers_lost.append("applied")
    world.store.meanwhile = created_anew
    asked = one.go("live") if change == "go" else one.parts.producer.delete("final", Request("ours", "gone", "ann"))
    with pytest.raises(OutcomeUnknown):
        await asked
    head = await one.head()
    assert (head.gen > old.gen, head.seq, head.stage) == (True, 1, "upcoming")


async def test_an_outcome_that_stays_unknown_says_so(world: World, one: Broadcaster) -> None:
    """When the look-up fails too, the error is OutcomeUnknown and not "nothing happened"; repeating the request tells."""
    await one.create()

    world.store.answers_lost.append("applied, then down")
    with pytest.raises((OutcomeUnknown, StoreUnavailable)) as raised:
        await one.go("live")
    world.store.down = False
    assert raised.type is OutcomeUnknown
    assert await one.go("live") == 2


async def test_store_down_nothing_is_accepted(world: World, one: Broadcaster) -> None:
    """Without the store there is no transition (rule 8), and none later either."""
    await one.create()
    world.store.down = True
    with pytest.raises(StoreUnavailable):
        await one.go("live")
    world.store.down = False
    assert (await one.head()).seq == 1


async def test_log_down_the_answer_says_late(world: World, one: Broadcaster) -> None:
    """Transitions are accepted while the log is down, and say `late`, until an append is acknowledged again."""
    await one.create()
    await one.parts.publisher.drain(5)
    go = one.parts.producer.transition
    assert (await go("final", Request("a", "live", "ann", urgent=True))).log == "ok"
    await one.parts.publisher.drain(5)
    world.log.down = True
    await one.cadence.round()
    assert (await go("final", Request("b", "half", "ann", urgent=True))).log == "late"
    world.log.down = False
    await one.cadence.round()
    assert (await go("final", Request("c", "live", "ann", urgent=True))).log == "ok"
    await one.parts.publisher.drain(5)
    world.clock.advance(10.1)
    assert (await go("final", Request("d", "half", "ann", urgent=True))).log == "late"


async def test_ts_rises_though_the_clock_falls(world: World, one: Broadcaster) -> None:
    """The ts of a transition is later than the one before, whatever the wall clock does."""
    await one.create()
    world.clock.step(-3600)
    await one.go("live")
    await one.go("half")
    stamps = [entry.ts for entry in (await one.head()).accepted]
    assert stamps == [stamps[0], stamps[0] + 1, stamps[0] + 2]


async def test_deleted_and_created_again_is_a_greater_gen(world: World, one: Broadcaster) -> None:
    """`gone` takes no transition; deleting it again repeats the answer; the next life has a greater gen, even if clocks fell."""
    first = await one.create()
    gone = await one.parts.producer.delete("final", Request("d", "gone", "ann"))
    assert (gone.seq, gone.stage) == (2, "gone")
    assert await one.parts.producer.delete("final", Request("d2", "gone", "bob")) == gone
    for change in (
        one.go("live"), one.parts.producer.replan("final", by_hand()), one.parts.producer.hold("final", "", "ann"),
        one.parts.producer.resume("final"), one.parts.producer.regenerate("final", Request("r", "", "ann")),
    ):  # fmt: skip
        with pytest.raises(Rejected) as refused:
            await change
        assert refused.value.why is Refusal.GONE
    world.clock.step(-7200)
    second = await one.create(key="create again")
    assert second.gen == first.gen + 1
    assert (second.seq, second.stage, [e.seq for e in second.accepted]) == (1, "upcoming", [1])
    history, _ = await one.parts.heads.history(first, 0)
    assert [entry.stage for entry in history] == ["upcoming", "gone"]


async def test_racing_creations_make_one_event(world: World, one: Broadcaster) -> None:
    """Of eight creations at once one wins; the others are told of it."""
    racers = [world.broadcaster() for _ in range(8)]
    results = await asyncio.gather(*(r.create(key=f"k{n}") for n, r in enumerate(racers)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyThere"] * 7 + ["Head"]
    gens = await world.store.read(GENS, "final")
    assert gens is not None
    assert int(gens.value) >= (await one.head()).gen


async def test_regen_keeps_the_stage_under_a_greater_gen(world: World, one: Broadcaster) -> None:
    """Regen: same stage and plan, greater gen, seq 1; the old gen's transitions stay in history."""
    before = await one.create(plan=by_hand("upcoming", "live"))
    await one.go("live")
    taken = await one.parts.producer.regenerate("final", Request("r", "", "ann"))
    assert taken.gen > before.gen
    assert (taken.seq, taken.stage) == (1, "live")
    head = await one.head()
    assert await one.parts.heads.plan(head) == by_hand("upcoming", "live")
    assert await one.parts.producer.regenerate("final", Request("r", "", "ann")) == taken
    old, _ = await one.parts.heads.history(before, 0)
    assert [entry.stage for entry in old] == ["upcoming", "live"]


async def test_a_plan_needs_the_current_stage(one: Broadcaster) -> None:
    """A new plan is a new revision, valid at once; one without the current stage is refused."""
    await one.create()
    with pytest.raises(StageMissing):
        await one.parts.producer.replan("final", by_hand("live", "ended"))
    head = await one.parts.producer.replan("final", by_hand("upcoming", "extra"))
    assert (head.revision, head.seq) == (2, 1)
    assert await one.go("extra") == 2


async def test_racing_plans_get_revisions_of_their_own(world: World, one: Broadcaster) -> None:
    """Plans given at once never share a revision: what a head names is what its writer wrote."""
    await one.create()
    plans = [by_hand("upcoming", f"s{n}") for n in range(4)]
    heads = await asyncio.gather(*(world.broadcaster().parts.producer.replan("final", plan) for plan in plans))
    assert len({head.revision for head in heads}) == 4
    for head, plan in zip(heads, plans, strict=True):
        assert await world.broadcaster().parts.heads.plan(head) == plan


async def test_revert_puts_the_plan_on_hold(one: Broadcaster) -> None:
    """Going back by hand holds the plan until it is resumed (rule 10)."""
    await one.create()
    await one.go("half")
    await one.go("live")
    head = await one.head()
    assert head.hold is not None
    assert (head.hold.why, head.hold.by) == ("reverted to live", "ann")
    assert (await one.parts.producer.resume("final")).hold is None


async def test_resume_of_what_would_hold_again_is_refused(world: World, one: Broadcaster) -> None:
    """A plan that is overdue by more than 10 min can't be resumed: the operator is told why, and chooses."""
    await one.create(plan=paced(("upcoming", 0), ("live", 60)))
    await one.parts.producer.hold("final", "rain", "ann")
    world.clock.advance(60 + 601)
    with pytest.raises(StillOverdue, match="live was due 10 min ago"):
        await one.parts.producer.resume("final")


async def test_unknown_events(one: Broadcaster) -> None:
    """What never was is unknown to every change."""
    for change in (one.go("live"), one.parts.producer.hold("final", "", "ann"), one.parts.producer.resume("final")):
        with pytest.raises(UnknownEvent):
            await change


async def test_delivery_comes_from_the_census(world: World, one: Broadcaster) -> None:
    """The next broadcast asks for the finished campaign's map, in a window by what is missing, and for a sample of acks."""
    head = await one.create()
    required = RequiredMap("1764000000000-a", rate=1000.0)
    await world.store.put([Put(required_map_record("final"), str(head.gen), msgspec.json.encode(required))])
    await one.go("live")
    census = Receipt("h", "b", 0, 0, "final", head.gen, 2, subscribed=200_000, at_or_past=200_000, holding=150_000)
    await world.log.append(Topic.RECEIPTS, "final", encode_receipt(census))
    one.parts.ledger.take(census, world.clock.now())
    await one.go("half")
    now = await one.head()
    assert (now.map, now.fetch, now.ack) == (required.map, 50_000, AckPolicy(2**31, 10_000))


async def test_what_leaves_the_head_is_in_history_first(world: World, one: Broadcaster) -> None:
    """Every transition beyond the 32 that a head remembers is in history, though no cadence ever ran."""
    await one.create()
    for n in range(REMEMBERED + 8):
        await one.go(("live", "half")[n % 2], f"n{n}")
    head = await one.head()
    assert head.accepted[0].seq == 10
    found, more = await one.parts.heads.history(head, 0)
    assert [entry.seq for entry in found] == list(range(1, REMEMBERED + 10))
    assert more is None
