"""Appends to the log `events`: in the background after a transition, in turn for the cadence; and how well that goes.

Nobody waits for an append to be told "accepted" (rule 1). A lost one needs no care here: the cadence says it again (rule 2).
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

import structlog

from stagecast.broadcast import BroadcastError, encode_broadcast
from stagecast.clock import Clock
from stagecast.event import Head
from stagecast.log import LogError, MessageLog, Topic
from stagecast.records import EVERYWHERE, Beat, Revocation, encode_record

UNDER_WAY_MAX = 256
"""Background appends at once; over it one is skipped (`skipped`) and left to the cadence."""
OWED_MAX = 10_000
"""Revocations that wait for the log; over it one is skipped, and takes effect when its device reconnects."""
LATE_AFTER = 10.0
"""Seconds since the last acknowledged append after which the log counts as late: two beats missed."""

Standing = Literal["ok", "late"]
_log = structlog.get_logger()


@dataclass(slots=True)
class Appends:
    """Counters since the start."""

    acknowledged: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    """Sum over the acknowledged, from asked to acknowledged."""


class Publisher:
    """The one place of this process that writes to the log `events`."""

    def __init__(self, log: MessageLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._under_way: set[asyncio.Task[bool]] = set()
        self._acknowledged: float | None = None
        self._failed = False
        self._owed: dict[str, Revocation] = {}
        self.counts = Appends()

    @property
    def standing(self) -> Standing:
        """`ok` while the last append was acknowledged, and that not long ago."""
        age = self.age
        return "late" if self._failed or age is None or age > LATE_AFTER else "ok"

    @property
    def age(self) -> float | None:
        """Seconds since the last acknowledged append; None before the first."""
        return None if self._acknowledged is None else self._clock.monotonic() - self._acknowledged

    def soon(self, head: Head) -> None:
        """Starts to append the head's broadcast, and returns at once."""
        if len(self._under_way) >= UNDER_WAY_MAX:
            self.counts.skipped += 1
            return
        task = asyncio.create_task(self.broadcast(head))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def broadcast(self, head: Head) -> bool:
        """Appends the head's broadcast; whether it was acknowledged. A head that makes no legal broadcast is a defect of whoever
        wrote it: logged, and no harm to the others."""
        try:
            value = encode_broadcast(head.broadcast())
        except BroadcastError as error:
            self.counts.failed += 1
            _log.error("no legal broadcast", e=head.event, error=str(error))
            return False
        return await self._append(head.event, value)

    async def beat(self) -> bool:
        """Says that the log is alive; whether it is."""
        return await self._append(EVERYWHERE, encode_record(Beat(self._clock.now())))

    async def revoke(self, revocation: Revocation) -> bool:
        """Says a revocation; one that is not acknowledged is owed (see `pay`)."""
        said = await self._append(EVERYWHERE, encode_record(revocation))
        if said:
            self._owed.pop(revocation.subject, None)
        elif len(self._owed) < OWED_MAX or revocation.subject in self._owed:
            self._owed[revocation.subject] = revocation
        else:
            self.counts.skipped += 1
        return said

    async def pay(self) -> None:
        """Says owed revocations again, until one fails: unlike broadcasts, the cadence does not repeat them."""
        for revocation in list(self._owed.values()):
            if not await self.revoke(revocation):
                return

    async def drain(self, timeout: float) -> None:
        """Waits for what is under way, `timeout` seconds at most; the rest is given up, to the cadence of others."""
        under_way = set(self._under_way)
        if under_way:
            _, left = await asyncio.wait(under_way, timeout=timeout)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _append(self, key: str, value: bytes) -> bool:
        began = self._clock.monotonic()
        try:
            await self._log.append(Topic.EVENTS, key, value)
        except LogError as error:
            self.counts.failed += 1
            if not self._failed:  # one line for an outage, not one per append
                _log.warning("log late", key=key, error=str(error))
            self._failed = True
            return False
        if self._failed:
            _log.info("log back", key=key)
        self._failed = False
        self._acknowledged = self._clock.monotonic()
        self.counts.acknowledged += 1
        self.counts.seconds += self._acknowledged - began
        return True
