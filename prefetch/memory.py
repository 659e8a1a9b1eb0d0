"""Reading once for many: callers that ask for one key together share one read, and its answer serves for a moment longer."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from kv import StoreError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """Single flight: one call per key at a time, whoever asks meanwhile gets its outcome."""

    def __init__(self) -> None:
        self._flying: dict[K, asyncio.Task[V]] = {}

    async def join(self, key: K, call: Callable[[], Awaitable[V]]) -> V:
        """The call's result; a caller that is cancelled does not cancel it for the others."""
        flying = self._flying.get(key)
        if flying is None:
            flying = self._flying[key] = asyncio.create_task(_awaited(call))
            flying.add_done_callback(lambda task: self._landed(key, task))
        return await asyncio.shield(flying)

    def _landed(self, key: K, task: asyncio.Task[V]) -> None:
        self._flying.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, even if every caller has gone


async def _awaited(call: Callable[[], Awaitable[V]]) -> V:
    return await call()


class Memory(Generic[K, V]):
    """Values by key: fresh for `fresh` seconds, then read again; while the store does not answer, the last one known. The `size`
    keys read last are kept."""

    def __init__(
        self, read: Callable[[K], Awaitable[V]], monotonic: Callable[[], float], fresh: float, size: int = 1000
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._fresh = fresh
        self._size = size
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._flights: Flights[K, V] = Flights()
        self.reads = 0

    async def get(self, key: K) -> V:
        """Raises what `read` raises: StoreError only for a key not known yet."""
        known = self._known.get(key)
        if known is not None and self._monotonic() - known[0] < self._fresh:
            return known[1]
        try:
            return await self._flights.join(key, lambda: self._again(key))
        except StoreError:
            if known is None:
                raise
            return known[1]

    def forget(self, key: K) -> None:
        """The value changed here: read it again."""
        self._known.pop(key, None)

    async def _again(self, key: K) -> V:
        self.reads += 1
        value = await self._read(key)
        self._known[key] = (self._monotonic(), value)
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return value
