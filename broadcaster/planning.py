"""What people do to a plan that runs: arm the next stage that waits for it, take that back, move all later stages together.

Each is one change of the head by compare-and-set, as everything is (see `producer`), and an act in the audit.
"""

from datetime import timedelta
from typing import NoReturn

import msgspec

from broadcaster.heads import Heads, Kept
from broadcaster.producer import Producer, Rejected, Step, living
from broadcaster.schedule import due_of
from stagecast import event as rules
from stagecast.clock import Clock
from stagecast.event import Head
from stagecast.plan import Plan, PlanError, shift


class NothingToArm(Rejected):
    """No later stage of the plan is marked `armed`."""


class Planning:
    """Methods may raise what the producer's do."""

    def __init__(self, producer: Producer, heads: Heads, clock: Clock) -> None:
        self._producer = producer
        self._heads = heads
        self._clock = clock

    async def arm(self, event: str, who: str, override: str = "", failed: str = "") -> Head:
        """From now on the plan fires its next `armed` stage when that is due. `override` is why, though the checks named in
        `failed` said no-go. Armed already, it stays as it is. Raises NothingToArm."""

        async def judge(kept: Kept | None) -> Step:
            head = living(event, kept)
            armed = rules.arm(head, await self._heads.plan(head), who, self._clock.now(), override)
            if armed is None:
                raise NothingToArm("no later stage of the plan is to be armed", head)
            if armed is head or armed.armed is None:
                return Step(None)
            acts = [self._producer.act(head, "arm", who, override, armed.armed.stage)]
            if override:
                acts.insert(0, self._producer.act(head, "override", who, override, failed))
            return Step(armed, kind="arm", acts=tuple(acts))

        return (await self._producer.settle(event, judge))[0].head

    async def disarm(self, event: str, who: str) -> Head:
        """Nothing is armed any more."""

        async def judge(kept: Kept | None) -> Step:
            head = living(event, kept)
            stage = head.armed.stage if head.armed else ""
            act = self._producer.act(head, "disarm", who, detail=stage)
            return Step(rules.disarm(head) if head.armed else None, kind="disarm", acts=(act,))

        return (await self._producer.settle(event, judge))[0].head

    async def shift(self, event: str, by: timedelta, who: str, start: str | None, revision: int | None = None) -> Head:
        """A new plan revision with all later stages (or those from stage `start` on) due `by` later. What is armed stays so.
        `revision`: only if that is the plan's. Raises PlanError (also for what would then be overdue), Rejected."""
        mine: int | None = None

        async def judge(kept: Kept | None) -> Step:
            nonlocal mine
            head = living(event, kept)
            if head.revision == mine:
                return Step(None)
            if revision is not None and revision != head.revision:
                raise Rejected(f"the plan is at revision {head.revision} by now, not {revision}", head)
            plan = shifted(head, await self._heads.plan(head), by, start, self._clock.now())
            mine = await self._heads.add_plan(event, head.gen, head.revision, plan)
            act = self._producer.act(
                head, "shift", who, detail=f"{said(by)}{f' from {start}' if start else ''}, revision {mine}"
            )
            return Step(rules.replan(head, plan, mine, shifted=True), kind="shift", acts=(act,))

        return (await self._producer.settle(event, judge))[0].head


def shifted(head: Head, plan: Plan, by: timedelta, start: str | None, now: int) -> Plan:
    """The plan of this head with its later stages moved. Raises PlanError naming the field of the request or of the plan."""
    first = rules.furthest(head, plan) + 1
    if start is not None:
        place = plan.index(start)
        if place is None:
            _refuse("$.from", f"no stage {start!r} in the plan")
        if place < first:
            _refuse("$.from", f"{start!r} has been reached: only later stages can move")
        first = place
    moved = shift(plan, by, first)
    for place in range(first, len(moved.stages)):
        due, before = due_of(head, moved, place), due_of(head, plan, place)
        if due is not None and due != before and due < now:
            _refuse("$.by", f"{moved.stages[place].stage!r} would have been due {(now - due) / 1000:.0f} s ago")
    return moved


def said(by: timedelta) -> str:
    """`+PT5M` or `-PT90S`, as the request said it."""
    text: str = msgspec.to_builtins(by)
    return text if text.startswith("-") else f"+{text}"


def _refuse(field: str, text: str) -> NoReturn:
    raise PlanError(field, text)
