"""What the plan does now, and when to look again (rule 10: a plan never undoes a person). Pure: `now` is an argument.

A stage is due at `at`, or `after` the accepted ts of the stage it counts from. The plan fires only a stage later than every one
this gen ever reached, and of those that are due only the latest; on hold it fires nothing; what it finds overdue by more than
10 min it does not fire: it holds and says so. A stage marked `armed` is due no earlier than it is armed, and before that the plan
goes no further.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from stagecast.event import Head, Request, earliest, furthest
from stagecast.plan import Plan

OVERDUE_MS = 10 * 60 * 1000
NOT_ARMED = "to be armed"
PLAN = "plan"
"""Who, in the audit, when nobody did it by hand."""


@dataclass(frozen=True, slots=True)
class Fire:
    """Ask for this transition now."""

    request: Request
    due: int


@dataclass(frozen=True, slots=True)
class PutOnHold:
    """The plan is too late to know what is right: a person decides."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (wall ms); None: before the head changes."""

    until: int | None


Decision = Fire | PutOnHold | Wait


def decide(head: Head, plan: Plan, now: int) -> Decision:
    """What the plan does with this head at `now` (wall ms). Every instance decides the same, with the same request id."""
    if head.hold or head.gone:
        return Wait(None)
    ahead = [(place, due) for place, due in _reachable(head, plan) if due is not None]
    late = [(place, due) for place, due in ahead if due <= now]
    if not late:
        return Wait(min((due for _, due in ahead), default=None))
    place, due = late[-1]
    stage = plan.stages[place].stage
    if now - due > OVERDUE_MS:
        return PutOnHold(f"{stage} was due {(now - due) // 60_000} min ago")
    if head.ts <= now < (open_from := earliest(head, plan)):
        return Wait(open_from)
    return Fire(_request(head, stage), due)


def _ahead(head: Head, plan: Plan) -> list[tuple[int, int | None]]:
    """Places of the plan later than every stage reached, each with the wall ms it is due, None while that is open."""
    return [(place, due_of(head, plan, place)) for place in range(furthest(head, plan) + 1, len(plan.stages))]


def _reachable(head: Head, plan: Plan) -> list[tuple[int, int | None]]:
    """Those of `_ahead` that the plan may fire by itself now: it stops before the first that nobody has armed."""
    found: list[tuple[int, int | None]] = []
    for place, due in _ahead(head, plan):
        if plan.stages[place].armed:
            if head.armed is None or head.armed.stage != plan.stages[place].stage:
                break
            due = None if due is None else max(due, head.armed.at)
        found.append((place, due))
    return found


def due_of(head: Head, plan: Plan, place: int) -> int | None:
    """When the stage at this place is due by its times, wall ms; None while that is open."""
    planned = plan.stages[place]
    if planned.at is not None:
        return round(planned.at.timestamp() * 1000)
    if planned.after is None:
        return None
    since = head.reached.get(planned.of or plan.stages[place - 1].stage)
    return None if since is None else since + round(planned.after.total_seconds() * 1000)


def _request(head: Head, stage: str) -> Request:
    mark = hashlib.sha256(f"{head.event}\0{head.gen}\0{head.revision}\0{stage}".encode()).hexdigest()[:32]
    return Request(f"{PLAN}-{mark}", stage, PLAN, f"plan revision {head.revision}", head.gen, head.seq)


class Next(Struct, frozen=True, omit_defaults=True):
    """What the plan does next, for people."""

    stage: str
    due: str | None = None
    """RFC 3339, UTC; absent while it is open."""
    why: str | None = None
    """What it waits for, when no time is known."""


def upcoming(head: Head, plan: Plan) -> Next | None:
    """The stage that comes next by the plan: the first that has a time, else the first that waits for something."""
    if head.gone:
        return None
    ahead, reachable = _ahead(head, plan), _reachable(head, plan)
    timed = [(due, place) for place, due in reachable if due is not None]
    if timed:
        due, place = min(timed)
        return Next(plan.stages[place].stage, due=rfc3339(due))
    if not ahead:
        return None
    if len(reachable) < len(ahead):
        place, open_due = ahead[len(reachable)]
        return Next(plan.stages[place].stage, rfc3339(open_due) if open_due is not None else None, NOT_ARMED)
    planned = plan.stages[ahead[0][0]]
    if planned.after is None:
        return Next(planned.stage, why="by hand")
    after = planned.of or plan.stages[ahead[0][0] - 1].stage
    return Next(planned.stage, why=f"{msgspec.to_builtins(planned.after)} after {after}")


def rfc3339(ms: int) -> str:
    """`2026-11-23T20:00:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
