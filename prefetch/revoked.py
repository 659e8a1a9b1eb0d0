"""Which tokens are void: the store's list, then the log's news of it, kept in memory so that a pull costs no read."""

import asyncio

import msgspec
import structlog

from kv import Store, StoreError
from stagecast.log import LogError, MessageLog, Topic
from stagecast.records import REVOKED, RecordError, Revocation, decode_record
from stagecast.tokens import Claims

PAUSE = 1.0
"""Seconds before the log is tried again."""

_log = structlog.get_logger("prefetch.revoked")


class Revocations:
    """Call `load` once, then run `follow`."""

    def __init__(self, store: Store, log: MessageLog) -> None:
        self._store = store
        self._log = log
        self._until: dict[str, int] = {}
        self._from: dict[int, int] = {}

    def voids(self, claims: Claims) -> bool:
        """Whether the token was revoked, by its device or its member."""
        issued = claims.iat * 1000
        return any(
            issued <= self._until.get(subject, -1) for subject in (f"device:{claims.dev}", f"member:{claims.sub}")
        )

    async def load(self) -> None:
        """Everything that is revoked now, and the place in the log from which news counts. Raises StoreError, LogError."""
        self._from = dict(await self._log.end(Topic.EVENTS))  # before the list: between them nothing is missed
        after: str | None = None
        while True:
            page = await self._store.page(REVOKED, after)
            for item in page.items:
                self._add(msgspec.json.decode(item.value, type=Revocation))
            if page.after is None:
                return
            after = page.after

    async def follow(self) -> None:
        """For ever; cancel it to stop. After a gap, or a silent log, the list is loaded again."""
        while True:
            try:
                await self._read()
            except (StoreError, LogError) as error:
                _log.warning("revocations: reading again", error=str(error))
                await asyncio.sleep(PAUSE)
                await self._reload()

    async def _read(self) -> None:
        async for records in self._log.read(Topic.EVENTS, self._from):
            for record in records:
                self._from[record.partition] = record.offset + 1
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
        except (StoreError, LogError) as error:
            _log.warning("revocations: not loaded", error=str(error))

    def _add(self, said: Revocation) -> None:
        self._until[said.subject] = max(said.ts, self._until.get(said.subject, -1))
