"""The cadence: every 5 s the broadcast of every active event, and a `beat`, are appended again (rule 2).

That is the whole repair of the system: whoever died, and whatever was lost between compare-and-set and device, some producer says
it again. On the way it finds events (by the index), reads heads again, and completes history; what rests leaves memory, and what
has been gone for 24 h leaves the index too. Its head stays, and creating it again puts it back there.
"""

import asyncio
import contextlib
from typing import Literal

import structlog

from broadcaster.heads import Damaged, Heads, Kept
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
"""An id in the index without a head for so long is dropped: its creator died before the head was written. A head that rests is
read again until its entry is so old: who brings an event to life puts it into the index just before."""

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
        """The index as last read, of what was found: an id put there again (created over a gone one, or brought to life) is a
        reason to read its head."""
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
            self._forget_resting()
        except StoreError as error:
            if self.store_answers:
                _log.warning("store not readable", error=str(error))
            self.store_answers = False
        else:
            self.store_answers = True

    async def _find_events(self) -> None:
        listed = await self._heads.enlisted()
        self._listed = {event: put for event, put in self._listed.items() if listed.get(event) == put}
        await together(self._look_up, [(event, put) for event, put in listed.items() if event not in self._listed])
        for known in self._roster.active():
            if known.head.event not in listed:  # dropped as an orphan while its creation was very slow
                await self._heads.enlist(known.head.event, known.head.ts)

    async def _look_up(self, listed: tuple[str, int]) -> None:
        event, put = listed
        old = self._clock.now() - put > ORPHAN_AFTER_MS
        known = await self._refresh(event)
        if known is None:
            if old:
                _log.warning("index id without a head dropped", e=event)
                await self._heads.strike(event)
        elif isinstance(known, Known) and self._is_settled(known, old):
            self._listed[event] = put
            if known.head.gone and not self._roster.is_active(known):
                await self._strike_gone(known.kept)

    def _is_settled(self, known: Known, old: bool) -> bool:
        """Whether its entry needs no further look: one too many, or about to come to life, is looked up in every round."""
        if self._roster.is_active(known):
            return self._roster.get(known.head.event) is not None
        return old

    async def _strike_gone(self, gone: Kept) -> None:
        """Takes what is long gone out of the index. Whoever creates it again puts it there *before* the head: should that fall
        between our reading of the index and the removal, the read after it sees the new head and puts it back. (A head written
        later still is put back by its creator's cadence, or by any that heard of it.)"""
        event = gone.head.event
        await self._heads.strike(event)
        known = await self._refresh(event)
        if not isinstance(known, Known) or known.kept.order != gone.order:
            await self._heads.enlist(event, self._clock.now())

    def _forget_resting(self) -> None:
        for known in self._roster.all():
            if not self._roster.is_active(known):
                self._roster.forget(known)
                self._listed.pop(known.head.event, None)  # a last look at it, in the next round

    def _stale(self) -> list[Known]:
        now = self._clock.monotonic()
        return [known for known in self._roster.active() if now - known.read_at >= PERIOD / 2]

    async def _refresh(self, event: str) -> Known | Literal["damaged"] | None:
        """None: there is no head. One that is damaged harms no other event."""
        try:
            return await self._roster.refresh(event)
        except Damaged as error:
            _log.error("event damaged", error=str(error))
            return "damaged"

    async def _complete_history(self, known: Known) -> None:
        """History never misses what a head remembers for longer than a round."""
        head = known.head
        gen, seq = known.in_history
        missing = [entry for entry in head.accepted if gen != head.gen or entry.seq > seq]
        await self._heads.keep_history(head, missing)
        known.in_history = (head.gen, head.seq)
