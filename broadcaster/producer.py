"""Accepts transitions: judge the head, compare-and-set, append (rule 1). People, the API and the plan all come through here.

Every change is one loop: read the head (as of every acknowledged change), judge it by `stagecast.event`, compare-and-set. A lost
race judges again. So does an outcome that is unknown: if it happened, the head now remembers the request id, and the answer is
the first one; if not, the same wish is judged anew, and should the lost set land after all, the next one fails on its version.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import assert_never

import msgspec
import structlog
from msgspec import Struct

from broadcaster.heads import ATTEMPTS, Busy, Heads, Kept
from broadcaster.policy import delivery_for
from broadcaster.publisher import Publisher, Standing
from broadcaster.roster import Roster
from broadcaster.schedule import PLAN, Fire, PutOnHold, Wait, decide
from kv import OutcomeUnknown, StoreError, StoreUnavailable
from stagecast import event as rules
from stagecast.audit import Act, What
from stagecast.clock import Clock
from stagecast.event import Accepted, Delivery, Head, Moved, Outcome, Refusal, Refused, Repeated, Request
from stagecast.plan import Plan
from stagecast.receipts import Progress

_log = structlog.get_logger()
Census = Callable[[Head], Progress | None]


class UnknownEvent(Exception):
    """No event of this id ever was."""


class Rejected(Exception):
    """The event's state does not allow it; `head` is what it was judged by."""

    def __init__(self, why: Refusal | str, head: Head) -> None:
        super().__init__(str(why))
        self.why = why
        self.head = head


class AlreadyThere(Rejected):
    """An event of this id is living."""


class NoSuchStage(Rejected):
    """A transition to a stage that the plan does not have; the text says what it has."""


class StageMissing(Rejected):
    """A plan without the event's current stage."""


class StillOverdue(Rejected):
    """Resumed now, the plan would hold again at once."""


class Taken(Struct, frozen=True):
    """The answer to an accepted transition."""

    e: str
    gen: int
    seq: int
    stage: str
    ts: int
    log: Standing


@dataclass(frozen=True, slots=True)
class Step:
    """What a judge makes of a head: the next head (None: nothing to change), and which transition was accepted, now or before."""

    head: Head | None
    accepted: Accepted | None = None
    kind: str = "none"
    due: int | None = None
    """When the plan wanted it, wall ms."""
    acts: tuple[Act, ...] = ()
    """For the audit, once `head` is durable: what was done and is no transition."""


Judge = Callable[[Kept | None], Awaitable[Step]]


@dataclass(slots=True)
class Counts:
    """Since the start. `outcomes` by (kind, outcome)."""

    outcomes: dict[tuple[str, str], int] = field(default_factory=dict)
    lost_races: int = 0
    unknown: int = 0
    """Compare-and-sets whose answer was lost."""
    store_errors: int = 0
    acts_lost: int = 0
    """Acts that could not be written into the audit."""
    plan_lag: float = 0.0
    """Seconds from due to accepted, of the last stage that this instance fired."""

    def note(self, kind: str, outcome: str) -> None:
        self.outcomes[kind, outcome] = self.outcomes.get((kind, outcome), 0) + 1


class Producer:
    """Changes events. Every method may raise UnknownEvent, Rejected and its kinds, StoreUnavailable (nothing happened), Busy
    (nothing happened), OutcomeUnknown (it may have: the same request with the same id tells)."""

    def __init__(self, heads: Heads, roster: Roster, publisher: Publisher, clock: Clock, census: Census) -> None:
        self._heads = heads
        self._roster = roster
        self._publisher = publisher
        self._clock = clock
        self._census = census
        self.counts = Counts()

    async def create(self, event: str, title: str, plan: Plan, request: Request) -> Head:
        """A new event at its plan's first stage; over a gone one it is a greater gen. The same request again is answered by
        the head as it was made. Raises AlreadyThere."""
        digest = sha256(msgspec.json.encode((title, plan))).hexdigest()[:16]

        async def judge(kept: Kept | None) -> Step:
            if kept is not None and not kept.head.gone:
                return Step(None, _created_by(kept.head, request.id, digest), "create")
            gen, revision = await self._new_gen(event, plan)
            await self._heads.enlist(event, self._clock.now())
            head = rules.create(event, title, plan, gen, request, Delivery(), self._clock.now())
            entry = msgspec.structs.replace(head.accepted[0], digest=digest)
            return Step(msgspec.structs.replace(head, revision=revision, accepted=(entry,)), entry, "create")

        kept, step = await self.settle(event, judge)
        assert step.accepted is not None
        first = step.accepted
        return msgspec.structs.replace(kept.head, seq=first.seq, stage=first.stage, ts=first.ts)

    async def transition(self, event: str, request: Request) -> Taken:
        """Goes to a stage."""

        async def judge(kept: Kept | None) -> Step:
            head = _known(event, kept)
            plan, delivery = await self._heads.plan(head), await self._delivery(head)
            outcome = rules.transition(head, plan, request, delivery, self._clock.now())
            if outcome == Refused(Refusal.NOT_IN_PLAN):
                self.counts.note("transition", Refusal.NOT_IN_PLAN.name.lower())
                stages = ", ".join(planned.stage for planned in plan.stages)
                raise NoSuchStage(f"no stage {request.stage!r} in the plan, which has {stages}", head)
            return self._step(head, outcome)

        return self._taken(await self.settle(event, judge))

    async def delete(self, event: str, request: Request) -> Taken:
        """Goes to `gone`; deleting what is gone is answered by the first deletion."""

        async def judge(kept: Kept | None) -> Step:
            head = _known(event, kept)
            return self._step(head, rules.delete(head, request, await self._delivery(head), self._clock.now()))

        return self._taken(await self.settle(event, judge))

    async def regenerate(self, event: str, request: Request) -> Taken:
        """The same stage under a greater gen (rule 6): every device takes it anew."""

        async def judge(kept: Kept | None) -> Step:
            head = living(event, kept)
            known = rules.find(head, request.id)
            if known is not None and known.seq == 1:
                return Step(None, known, "regen")
            plan = await self._heads.plan(head)
            gen, revision = await self._new_gen(event, plan)
            again = rules.regenerate(head, gen, request, Delivery(), self._clock.now())
            return Step(msgspec.structs.replace(again, revision=revision), again.accepted[0], "regen")

        return self._taken(await self.settle(event, judge))

    async def replan(self, event: str, plan: Plan, who: str = "") -> Head:
        """A new plan revision; nothing is armed under it. Raises StageMissing."""
        mine: int | None = None

        async def judge(kept: Kept | None) -> Step:
            nonlocal mine
            head = living(event, kept)
            if head.revision == mine:
                return Step(None)
            if plan.index(head.stage) is None:
                raise StageMissing(f"the plan lacks the current stage {head.stage!r}", head)
            if mine is None or mine < head.revision:
                mine = await self._heads.add_plan(event, head.gen, head.revision, plan)
            act = self.act(head, "plan", who, detail=f"revision {mine}")
            return Step(rules.replan(head, plan, mine), kind="replan", acts=(act,))

        return (await self.settle(event, judge))[0].head

    async def hold(self, event: str, why: str, who: str) -> Head:
        """The plan fires nothing until `resume`; a hold already there stays."""

        async def judge(kept: Kept | None) -> Step:
            head = living(event, kept)
            held = rules.hold(head, why, who, self._clock.now())
            return Step(None if held is head else held, kind="hold", acts=(self.act(head, "hold", who, why),))

        return (await self.settle(event, judge))[0].head

    async def resume(self, event: str, who: str = "", why: str = "") -> Head:
        """The plan goes on. Raises StillOverdue when it would hold again at once."""

        async def judge(kept: Kept | None) -> Step:
            head = living(event, kept)
            going = rules.resume(head)
            match decide(going, await self._heads.plan(head), self._clock.now()):
                case PutOnHold(overdue) if head.hold:
                    raise StillOverdue(overdue, head)
            return Step(going if head.hold else None, kind="resume", acts=(self.act(head, "resume", who, why),))

        return (await self.settle(event, judge))[0].head

    async def follow_plan(self, event: str) -> None:
        """Does what the plan wants now, judged by the head as it stands in the store: whatever another instance or a person
        did meanwhile counts (rule 10)."""

        async def judge(kept: Kept | None) -> Step:
            if kept is None:
                return Step(None)
            head, now = kept.head, self._clock.now()
            plan = await self._heads.plan(head)
            match decide(head, plan, now):
                case Wait():
                    return Step(None)
                case PutOnHold(why):
                    _log.warning("plan on hold", e=event, gen=head.gen, seq=head.seq, why=why)
                    act = self.act(head, "hold", PLAN, why)
                    return Step(rules.hold(head, why, PLAN, now), kind="hold", acts=(act,))
                case Fire(request, due):
                    outcome = rules.transition(head, plan, request, await self._delivery(head), now)
                    return Step(None) if isinstance(outcome, Refused) else self._step(head, outcome, due)
                case never:
                    assert_never(never)

        kept, step = await self.settle(event, judge)
        if step.head is not None and step.accepted is not None and step.due is not None:
            self.counts.plan_lag = max(self._clock.now() - step.due, 0) / 1000
        self._note_read(kept)

    def act(self, head: Head, what: What, who: str, why: str = "", detail: str = "") -> Act:
        """An act on this head, now."""
        return Act(self._clock.now(), head.seq, what, who, why, detail)

    async def settle(self, event: str, judge: Judge) -> tuple[Kept, Step]:
        """The loop that every change is. After an unknown outcome it goes on only while the head can tell what became of it."""
        unknown: OutcomeUnknown | None = None
        judged: Kept | None = None
        asked: Head | None = None
        for _ in range(ATTEMPTS):
            try:
                kept = await self._heads.read(event)
                if unknown and not _tells(kept, judged, asked):
                    break
                step = await judge(kept)
                if step.head is None:
                    return self._settled(_standing(event, kept), step, "repeated" if step.accepted else "same")
                if kept is not None:
                    await self._heads.keep_history(kept.head, _leaving(kept.head, step.head))
                    await self._wake(kept.head)
                judged, asked = kept, step.head
                done = await self._heads.swap(step.head, kept.version if kept else None)
            except OutcomeUnknown as error:
                self.counts.unknown += 1
                unknown = error
            except StoreUnavailable as error:
                self.counts.store_errors += 1
                raise (unknown or error) from error
            else:
                if done is not None:
                    await self._keep_acts(done.head, step.acts)
                    return self._settled(done, step, "accepted")
                self.counts.lost_races += 1
        raise unknown or Busy(event)

    async def _wake(self, head: Head) -> None:
        """An event that rests is in nobody's memory: a newer entry in the index, written before the change, has it read by every
        instance, should this one die before its append."""
        plan, now = self._heads.cached_plan(head), self._clock.now()
        if not head.gone and (plan is None or not rules.active(head, plan, now)):
            await self._heads.enlist(head.event, now)

    async def _keep_acts(self, head: Head, acts: Sequence[Act]) -> None:
        """The change stands, whatever becomes of its acts."""
        if not acts:
            return
        try:
            await self._heads.keep_acts(head, acts)
        except StoreError as error:
            self.counts.acts_lost += len(acts)
            _log.warning("acts not in the audit", e=head.event, acts=[act.what for act in acts], error=str(error))

    def _settled(self, kept: Kept, step: Step, outcome: str) -> tuple[Kept, Step]:
        """Tells the log, the roster, the operator. What was accepted before is said again too: its append may have been lost."""
        if step.head is None and step.accepted is None:
            return kept, step
        self.counts.note(step.kind, outcome)
        self._note_read(kept)
        self._publisher.soon(kept.head)
        entry = step.accepted
        _log.info(
            step.kind, outcome=outcome, e=kept.head.event, gen=kept.head.gen, seq=kept.head.seq, stage=kept.head.stage,
            who=entry.who if entry else None, request=entry.request if entry else None, log=self._publisher.standing,
        )  # fmt: skip
        return kept, step

    def _note_read(self, kept: Kept) -> None:
        plan = self._heads.cached_plan(kept.head)
        if plan is not None:  # it was just judged by it; if it has left the cache, the log's own record brings it here
            self._roster.saw(kept, plan)

    async def _new_gen(self, event: str, plan: Plan) -> tuple[int, int]:
        """A greater gen, and the revision under which it has this plan."""
        gen = await self._heads.next_gen(event, self._clock.now())
        return gen, await self._heads.add_plan(event, gen, 0, plan)

    async def _delivery(self, head: Head) -> Delivery:
        return delivery_for(self._census(head), head.map, await self._heads.required_map(head))

    def _step(self, head: Head, outcome: Outcome, due: int | None = None) -> Step:
        match outcome:
            case Moved(moved, kind):
                return Step(moved, moved.accepted[-1], kind.value, due)
            case Repeated(accepted):
                return Step(None, accepted, "transition", due)
            case Refused(why):
                self.counts.note("transition", why.name.lower())
                raise Rejected(why, head)
            case never:
                assert_never(never)

    def _taken(self, settled: tuple[Kept, Step]) -> Taken:
        kept, step = settled
        entry = step.accepted
        assert entry is not None
        return Taken(kept.head.event, kept.head.gen, entry.seq, entry.stage, entry.ts, self._publisher.standing)


def _known(event: str, kept: Kept | None) -> Head:
    return _standing(event, kept).head


def _tells(kept: Kept | None, judged: Kept | None, asked: Head | None) -> bool:
    """Whether the head as it is tells what became of a change: it is the one that was judged, or of the gen that was to be
    written. In another gen the request's id is not to be found, and the change would be made a second time."""
    if kept is None or asked is None or (judged is not None and kept.version == judged.version):
        return True
    return kept.head.gen == asked.gen


def _standing(event: str, kept: Kept | None) -> Kept:
    if kept is None:
        raise UnknownEvent(event)
    return kept


def living(event: str, kept: Kept | None) -> Head:
    """The head of an event that is there and not gone; raises UnknownEvent, Rejected."""
    head = _known(event, kept)
    if head.gone:
        raise Rejected(Refusal.GONE, head)
    return head


def _created_by(head: Head, request: str, digest: str) -> Accepted:
    """The creation of this living event, if it was this very request."""
    entry = rules.find(head, request)
    if entry is None or entry.seq != 1:
        raise AlreadyThere("an event of this id is living", head)
    if entry.digest != digest:
        raise Rejected(Refusal.OTHER_BODY, head)
    return entry


def _leaving(before: Head, after: Head) -> list[Accepted]:
    """What the next head no longer remembers: it must be in history first (rule 2)."""
    if after.gen != before.gen:
        return list(before.accepted)
    oldest = after.accepted[0].seq
    return [entry for entry in before.accepted if entry.seq < oldest]
