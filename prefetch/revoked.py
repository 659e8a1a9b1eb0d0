"""Which tokens are void: the store's list, then the log's news of it, kept in memory so that a pull costs no read. While the log
is silent the list is read again and again, so that a revocation counts within SILENT s without it.
"""

import asyncio

import msgspec
import structlog

from kv import Store, StoreError
from stagecast.log import LogError, MessageLog, Positions, Topic
from stagecast.records import REVOKED, RecordError, Revocation, decode_record
from stagecast.tokens import Claims

PAUSE = 1.0
"""Seconds before the log is tried again."""
SILENT = 15.0
"""Seconds without a record of any kind, beats included: then the log counts as silent, and the list is read so often."""

_log = structlog.get_logger("prefetch.revoked")


class Revocations:
    """Call `load` once, then run `follow`."""

    def __init__(self, store: Store, log: MessageLog, silent: float = SILENT) -> None:
        self._store = store
        self._log = log
        self._silent = silent
        self._heard = asyncio.Event()
        self._until: dict[str, int] = {}

    def voids(self, claims: Claims) -> bool:
        """Whether the token was revoked, by its device or its member."""
        issued = claims.iat * 1000
        return any(
            issued <= self._until.get(subject, -1) for subject in (f"device:{claims.dev}", f"member:{claims.sub}")
        )

    async def load(self) -> None:
        """Everything that is revoked now. Raises StoreError."""
        after: str | None = None
        while True:
            page = await self._store.page(REVOKED, after)
            for item in page.items:
                self._add(msgspec.json.decode(item.value, type=Revocation))
            if page.after is None:
                return
            after = page.after

    async def follow(self) -> None:
        """For ever; cancel it to stop. After a gap or an outage of the log, and while it is silent, the list is loaded again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_log())
            tasks.create_task(self._mind_silence())

    async def _follow_log(self) -> None:
        while True:
            try:
                positions = await self._log.end(Topic.EVENTS)  # before the list: between them nothing is missed
                await self._reload()
                await self._read(positions)
            except LogError as error:
                _log.warning("revocations: reading the log again", error=str(error))
            await asyncio.sleep(PAUSE)

    async def _mind_silence(self) -> None:
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(self._silent):
                    await self._heard.wait()
            except TimeoutError:
                await self._reload()
            else:
                await asyncio.sleep(self._silent / 15)  # wait for a sign of life at most so often, however much is said

    async def _read(self, positions: Positions) -> None:
        async for records in self._log.read(Topic.EVENTS, positions):
            self._heard.set()
            for record in records:
                if b'"revoked"' not in record.value:
                    continue
                try:
                    said = decode_record(record.value)
                except RecordError:
                    continue
                if isinstance(said, Revocation):
                    self._add(said)

    async def _reload(self) -> None:
        try:
            await self.load()
        except StoreError as error:
            _log.warning("revocations: not loaded", error=str(error))

    def _add(self, said: Revocation) -> None:
        self._until[said.subject] = max(said.ts, self._until.get(said.subject, -1))
