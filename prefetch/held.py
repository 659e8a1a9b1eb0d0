"""A campaign in this process's hands: every change is a compare-and-set, and one that fails says that it is another's now."""

import asyncio
from collections.abc import Callable

import msgspec

from kv import KeyValue, OutcomeUnknown, StoreUnavailable, Version
from prefetch.campaign import Campaign
from stagecast.records import CAMPAIGNS

TRIES = 3


class Lost(Exception):
    """Somebody else changed the campaign: stop, look again."""


class Held:
    """One campaign as last written by us."""

    def __init__(self, store: KeyValue, campaign: Campaign, version: int | None) -> None:
        self._store = store
        self._version = version
        self._turn = asyncio.Lock()
        self.campaign = campaign

    async def write(self, change: Callable[[Campaign], Campaign]) -> Campaign:
        """Makes the change durable. Raises Lost, StoreUnavailable. A caller that is cancelled does not cut the write short: it is
        seen through, so that the next one (letting go) knows what stands there."""
        writing = asyncio.create_task(self._write(change))
        writing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(writing)

    async def _write(self, change: Callable[[Campaign], Campaign]) -> Campaign:
        async with self._turn:
            wanted = change(self.campaign)
            self._version = await self._set(msgspec.json.encode(wanted))
            self.campaign = wanted
            return wanted

    async def _set(self, data: bytes) -> int:
        event = self.campaign.event
        for _ in range(TRIES):
            done: Version | None
            try:
                done = await self._store.compare_and_set(CAMPAIGNS, event, data, self._version)
            except OutcomeUnknown:
                done = None
            if done is not None:
                return done.version
            # Refused, or the answer was lost: what stands there tells. Our own bytes hold our name and lease, nobody else's do.
            found = await self._store.read(CAMPAIGNS, event)
            if found is not None and found.value == data:
                return found.version
            if (found.version if found else None) != self._version:
                raise Lost(event)
        raise StoreUnavailable(f"campaign of {event!r}: no outcome in {TRIES} tries")
