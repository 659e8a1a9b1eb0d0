"""The cadence: every 5 s the broadcast of every active event, and a `beat`, are appended again (rule 2).

That is the whole repair of the system: whoever died, and whatever was lost between compare-and-set and device, some producer says
it again. On the way it finds events (by the index), reads heads again, and completes history.
"""

import asyncio
import contextlib

import structlog

from broadcaster.heads import Damaged, Heads
from broadcaster.publisher import Publisher
from broadcaster.roster import Known, Roster
from broadcaster.together import together
from kv import StoreError
from stagecast.clock import Clock

PERIOD = 5.0
"""Seconds."""
STORE_WAIT = 2.0
"""Seconds that a round waits for the store; then it repeats what it has in memory (rule 8)."""
ORPHAN_AFTER_MS = 60_000
"""An id in the index without a head for so long is dropped: its creator died before the head was written."""
RESTING_REREAD = 60.0
"""Seconds between reads of a head that is not active: it has nothing to repeat, but might have come to life."""

_log = structlog.get_logger()


class Cadence:
    """One producer's cadence. `round` is one beat of it."""

    def __init__(self, heads: Heads, roster: Roster, publisher: Publisher, clock: Clock) -> None:
        self._heads = heads
        self._roster = roster
        self._publisher = publisher
        self._clock = clock
        self._reading: asyncio.Task[None] | None = None
        self._listed: dict[str, int] = {}
        """The index as last read: an id put there again (created over a gone one) is a reason to read its head."""
        self.rounds = 0
        self.lag = 0.0
        """Seconds by which the last round began late."""
        self.store_answers = False
        """Whether the last reads of the store went through."""

    async def run(self) -> None:
        """Rounds, for ever, at a steady pace."""
        due = self._clock.monotonic()
        try:
            while True:
                self.lag = max(self._clock.monotonic() - due, 0.0)
                await self.round()
                due = max(due + PERIOD, self._clock.monotonic() - PERIOD)
                await asyncio.sleep(max(due - self._clock.monotonic(), 0.0))
        finally:
            if self._reading is not None:
                self._reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._reading

    async def round(self) -> None:
        """Brings memory up to date, then says everything again. A store that is slow or down does not hold it up."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_store())
        await asyncio.wait([self._reading], timeout=STORE_WAIT)
        if self._reading.done():
            self._reading.result()  # a defect there ends the process, and is not passed over in silence
        else:
            self.store_answers = False
        if await self._publisher.beat():  # a log that takes no beat takes nothing: try again in the next round
            await self._publisher.pay()
            await together(self._publisher.broadcast, [known.head for known in self._roster.active()])
        self.rounds += 1

    async def _read_store(self) -> None:
        try:
            await self._find_events()
            await together(self._refresh, [known.head.event for known in self._stale()])
            await together(
                self._complete_history, [known for known in self._roster.all() if not known.history_complete]
            )
        except StoreError as error:
            if self.store_answers:
                _log.warning("store not readable", error=str(error))
            self.store_answers = False
        else:
            self.store_answers = True

    async def _find_events(self) -> None:
        listed = await self._heads.enlisted()
        await together(self._look_up, [(event, put) for event, put in listed.items() if self._listed.get(event) != put])
        self._listed = {event: put for event, put in listed.items() if self._roster.get(event)}
        for known in self._roster.active():
            if known.head.event not in listed:  # dropped as an orphan while its creation was very slow
                await self._heads.enlist(known.head.event, known.head.ts)

    async def _look_up(self, listed: tuple[str, int]) -> None:
        event, put = listed
        if not await self._refresh(event) and self._clock.now() - put > ORPHAN_AFTER_MS:
            _log.warning("index id without a head dropped", e=event)
            await self._heads.strike(event)

    def _stale(self) -> list[Known]:
        now = self._clock.monotonic()
        active = {known.head.event for known in self._roster.active()}
        return [
            known
            for known in self._roster.all()
            if now - known.read_at >= (PERIOD / 2 if known.head.event in active else RESTING_REREAD)
        ]

    async def _refresh(self, event: str) -> bool:
        """Whether there is a head. One that is damaged harms no other event."""
        try:
            return await self._roster.refresh(event) is not None
        except Damaged as error:
            _log.error("event damaged", error=str(error))
            return True

    async def _complete_history(self, known: Known) -> None:
        """History never misses what a head remembers for longer than a round."""
        head = known.head
        gen, seq = known.in_history
        missing = [entry for entry in head.accepted if gen != head.gen or entry.seq > seq]
        await self._heads.keep_history(head, missing)
        known.in_history = (head.gen, head.seq)
