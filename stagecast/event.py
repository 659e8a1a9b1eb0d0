"""One live event as a state machine: its head, and the table of transitions. Pure: `now` is an argument, nothing is stored.

A transition is a function from a head to the next head; the caller makes it durable with one compare-and-set. The table:

    from       to                     kind     what else
    ---------  ---------------------  -------  ------------------------------------------
    a stage    a later one            forward
    a stage    the plan's last        end
    a stage    an earlier one         revert   the plan is on hold until resumed (rule 10)
    a stage    gone (a deletion)      gone     nothing follows it
    gone       anything               refused  creating the event again is a greater gen

A stage that its plan marks `armed` fires by itself only while the head is armed for it; arming is used up by the transition that
reaches or passes the stage, and taken back by a revert or a new plan.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum, StrEnum

import msgspec
from msgspec import Struct

from stagecast.broadcast import AckPolicy, Broadcast
from stagecast.names import GONE, EventId, StageName
from stagecast.plan import Plan

REMEMBERED = 32
"""Accepted transitions kept in the head: the reach of the promise that a repeated request is answered the same."""
MIN_INTERVAL_MS = 1000
"""Between two transitions that are not urgent, so that a fan-out of one is over before the next."""
LINGER_MS = 24 * 3600 * 1000
"""How long an ended (or deleted) event's head is still appended again by the cadence."""
REASON_BYTES_MAX = 200


class Accepted(Struct, frozen=True):
    """One accepted transition, as the head remembers it and history keeps it."""

    request: str
    digest: str
    """Of the request's body: the same id with another body is refused."""
    seq: int
    stage: StageName
    ts: int
    who: str
    reason: str


class Hold(Struct, frozen=True):
    """Why the plan fires nothing now."""

    why: str
    by: str
    at: int


class Armed(Struct, frozen=True):
    """A person's consent that the plan fires this stage when it is due."""

    stage: StageName
    by: str
    at: int
    """Wall ms. A stage armed after it was due is due now."""
    override: str = ""
    """Why it was armed though the checks said no-go."""


class Head(Struct, frozen=True):
    """An event's current state: one item, changed by compare-and-set alone."""

    event: EventId
    title: str
    gen: int
    seq: int
    stage: StageName
    ts: int
    map: str | None
    fetch: int
    ack: AckPolicy | None
    revision: int
    """Of the plan; the plan itself is an item of its own, written before the head names it."""
    accepted: tuple[Accepted, ...]
    """The last 32, oldest first."""
    reached: dict[StageName, int]
    """Stage → ts of its last acceptance: what `after` counts from, what a plan never goes back behind. `regenerate` keeps it."""
    hold: Hold | None = None
    armed: Armed | None = None

    @property
    def gone(self) -> bool:
        return self.stage == GONE

    def broadcast(self) -> Broadcast:
        """What devices get of this head: the same for every append of one seq."""
        return Broadcast(self.event, self.gen, self.seq, self.stage, self.ts, self.map, self.fetch, self.ack)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How devices should take a broadcast, from the last census: the map they should hold, the window (ms) in which those
    without it fetch it, and who acks."""

    map: str | None = None
    fetch: int = 30_000
    ack: AckPolicy = AckPolicy(p=2**32, w=2000)  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class Request:
    """A wish to go to a stage. `id` is the idempotency key, unique in (event, gen) for as long as the head remembers it."""

    id: str
    stage: str
    who: str
    reason: str = ""
    if_gen: int | None = None
    if_seq: int | None = None
    urgent: bool = False

    @property
    def digest(self) -> str:
        """Of what was asked, not of who asked or under which id."""
        body = msgspec.json.encode((self.stage, self.if_gen, self.if_seq, self.urgent, self.reason))
        return hashlib.sha256(body).hexdigest()[:16]


class Kind(Enum):
    FORWARD = "forward"
    END = "end"
    REVERT = "revert"
    GONE = "gone"


class Refusal(StrEnum):
    """Why a request is refused; the order is the order of the checks."""

    OTHER_BODY = "this request id was used with another body"
    GONE = "the event is gone"
    NOT_IN_PLAN = "no such stage in the plan"
    SAME_STAGE = "this is the current stage"
    WRONG_GEN = "the event is of another gen"
    WRONG_SEQ = "the event has moved on"
    TOO_SOON = "less than 1 s after the previous transition; say urgent if it must be now"
    STAYS = "by the plan this stage stays for a while yet; say urgent if it must be now"


@dataclass(frozen=True, slots=True)
class Moved:
    """Accepted: the next head, to be made durable."""

    head: Head
    kind: Kind


@dataclass(frozen=True, slots=True)
class Repeated:
    """This request was accepted before; the answer is the first one."""

    accepted: Accepted


@dataclass(frozen=True, slots=True)
class Refused:
    why: Refusal


Outcome = Moved | Repeated | Refused


def create(event: str, title: str, plan: Plan, gen: int, request: Request, delivery: Delivery, now: int) -> Head:
    """A new event's first head: the plan's first stage as seq 1. `gen` must exceed every gen this id ever had."""
    blank = Head(event, title, gen, 0, plan.first, now - 1, None, 0, None, 1, (), {})
    return _accept(blank, plan.first, request, delivery, now)


def regenerate(head: Head, gen: int, request: Request, delivery: Delivery, now: int) -> Head:
    """The same stage under a greater gen, as seq 1: after kv was restored from a backup, or the event's home moved. When stages
    were reached stays as it was, so that `after` goes on counting from there."""
    blank = msgspec.structs.replace(head, gen=gen, seq=0, revision=1, accepted=())
    return msgspec.structs.replace(_accept(blank, head.stage, request, delivery, now), reached=head.reached)


def transition(head: Head, plan: Plan, request: Request, delivery: Delivery, now: int) -> Outcome:
    """Judges a request against a head. The checks come in the order of `Refusal`, after the look for a known request id."""
    known = find(head, request.id)
    if known is not None:
        return Repeated(known) if known.digest == request.digest else Refused(Refusal.OTHER_BODY)
    if head.gone:
        return Refused(Refusal.GONE)
    target = plan.index(request.stage)
    if target is None:
        return Refused(Refusal.NOT_IN_PLAN)
    if request.stage == head.stage:
        return Refused(Refusal.SAME_STAGE)
    refusal = _guard(head, plan, request, now)
    if refusal is not None:
        return Refused(refusal)
    kind = _kind(plan, head.stage, target)
    moved = _accept(head, request.stage, request, delivery, now)
    if kind is Kind.REVERT:
        moved = msgspec.structs.replace(moved, hold=Hold(f"reverted to {request.stage}", request.who, moved.ts))
    elif head.armed is not None and (plan.index(head.armed.stage) or 0) > target:
        moved = msgspec.structs.replace(moved, armed=head.armed)
    return Moved(moved, kind)


def delete(head: Head, request: Request, delivery: Delivery, now: int) -> Outcome:
    """The transition to `gone`, whatever stage the request names. Deleting what is gone repeats the first answer; a request id
    that was a transition's is refused, as everywhere."""
    known = find(head, request.id)
    if known is not None and known.stage != GONE:
        return Refused(Refusal.OTHER_BODY)
    if head.gone:
        return Repeated(head.accepted[-1])
    return Moved(_accept(head, GONE, request, delivery, now), Kind.GONE)


def find(head: Head, request_id: str) -> Accepted | None:
    """The remembered transition of this request, if any."""
    return next((entry for entry in head.accepted if entry.request == request_id), None)


def replan(head: Head, plan: Plan, revision: int, *, shifted: bool = False) -> Head | None:
    """The head under a new plan revision, or None when the plan lacks the current stage. Who armed, armed the old plan: only
    one that is merely `shifted` stays armed."""
    if plan.index(head.stage) is None:
        return None
    return msgspec.structs.replace(head, revision=revision, armed=head.armed if shifted else None)


def arm(head: Head, plan: Plan, by: str, now: int, override: str = "") -> Head | None:
    """The head armed for the next stage that waits for it, or None when no stage ahead does. Armed already, it stays as it is."""
    place = to_arm(head, plan)
    if place is None:
        return None
    stage = plan.stages[place].stage
    if head.armed is not None and head.armed.stage == stage:
        return head
    return msgspec.structs.replace(head, armed=Armed(stage, by, now, override))


def disarm(head: Head) -> Head:
    return head if head.armed is None else msgspec.structs.replace(head, armed=None)


def to_arm(head: Head, plan: Plan) -> int | None:
    """The place of the first stage ahead that fires by itself only when armed; None when there is none."""
    ahead = range(furthest(head, plan) + 1, len(plan.stages))
    return None if head.gone else next((place for place in ahead if plan.stages[place].armed), None)


def earliest(head: Head, plan: Plan) -> int:
    """From when on (wall ms) a transition need not be urgent; 0 after creation, which starts no interval."""
    if head.seq <= 1:
        return 0
    here = plan.index(head.stage)
    stays = plan.stages[here].stays if here is not None else None
    return head.ts + max(MIN_INTERVAL_MS, round(stays.total_seconds() * 1000) if stays else 0)


def hold(head: Head, why: str, by: str, now: int) -> Head:
    """The plan fires nothing until `resume`. A hold already there stays as it is."""
    return head if head.hold else msgspec.structs.replace(head, hold=Hold(why, by, now))


def resume(head: Head) -> Head:
    return msgspec.structs.replace(head, hold=None)


def active(head: Head, plan: Plan, now: int) -> bool:
    """Whether the cadence appends this head again: until 24 h after the last stage, or the deletion, was accepted. A deletion
    needs the repair as any stage does: if its one append is lost, nobody else tells the devices."""
    over = head.gone or head.stage == plan.last
    return not over or now - head.ts < LINGER_MS


def furthest(head: Head, plan: Plan) -> int:
    """The place in the plan of the latest stage this gen ever reached; -1 when none of the plan's was."""
    return max((i for i, planned in enumerate(plan.stages) if planned.stage in head.reached), default=-1)


def _kind(plan: Plan, current: str, target: int) -> Kind:
    here = plan.index(current)
    if here is not None and target < here:
        return Kind.REVERT
    return Kind.END if target == len(plan.stages) - 1 else Kind.FORWARD


def _guard(head: Head, plan: Plan, request: Request, now: int) -> Refusal | None:
    if request.if_gen is not None and request.if_gen != head.gen:
        return Refusal.WRONG_GEN
    if request.if_seq is not None and request.if_seq != head.seq:
        return Refusal.WRONG_SEQ
    if request.urgent or not head.ts <= now < earliest(head, plan):
        return None
    return Refusal.TOO_SOON if now - head.ts < MIN_INTERVAL_MS else Refusal.STAYS


def _accept(head: Head, stage: str, request: Request, delivery: Delivery, now: int) -> Head:
    ts = max(now, head.ts + 1)
    entry = Accepted(request.id, request.digest, head.seq + 1, stage, ts, request.who, request.reason)
    return msgspec.structs.replace(
        head,
        seq=head.seq + 1,
        stage=stage,
        ts=ts,
        map=delivery.map,
        fetch=delivery.fetch,
        ack=delivery.ack,
        accepted=(*head.accepted, entry)[-REMEMBERED:],
        reached={**head.reached, stage: ts},
        armed=None,
    )
