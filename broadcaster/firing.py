"""Fires what plans want, when they want it: on every instance, without a leader (rule 10). Decisions are in `schedule`."""

import asyncio

import structlog

from broadcaster.heads import Busy, Damaged
from broadcaster.producer import Producer, Rejected, UnknownEvent
from broadcaster.roster import Roster
from broadcaster.schedule import Wait, decide
from broadcaster.together import together
from kv import StoreError
from stagecast.clock import Clock

LOOK_EVERY = 1.0
"""Seconds between looks at most: a wall clock may be set."""
RETRY = 0.25
"""Seconds until what could not be fired (kv down) is tried again."""
_log = structlog.get_logger()


class Firing:
    """The plans of all events in the roster, carried out."""

    def __init__(self, producer: Producer, roster: Roster, clock: Clock) -> None:
        self._producer = producer
        self._roster = roster
        self._clock = clock
        self.failed = 0
        self._failing: set[str] = set()

    async def run(self) -> None:
        """For ever: does what is due, sleeps until the next due time or until a head changes."""
        while True:
            self._roster.changed.clear()
            delay = await self.step()
            try:
                async with asyncio.timeout(delay):
                    await self._roster.changed.wait()
            except TimeoutError:
                continue

    async def step(self) -> float:
        """Does what is due by the heads in memory; each is judged again by its head in the store. Seconds to the next look."""
        now = self._clock.now()
        due: list[str] = []
        delay = LOOK_EVERY
        for known in self._roster.all():
            match decide(known.head, known.plan, now):
                case Wait(None):
                    pass
                case Wait(until) if until is not None:
                    delay = min(delay, (until - now) / 1000)
                case _:
                    due.append(known.head.event)
        await together(self._follow, due)
        return min(delay, RETRY) if due else delay

    async def _follow(self, event: str) -> None:
        try:
            await self._producer.follow_plan(event)
        except (StoreError, Busy, UnknownEvent, Rejected, Damaged) as error:
            self.failed += 1
            if event not in self._failing:  # one line for an outage, not four a second
                _log.warning("plan not carried out", e=event, error=str(error) or type(error).__name__)
            self._failing.add(event)
        else:
            self._failing.discard(event)
