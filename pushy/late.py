"""Roads that may be opened late: a feed that starts while one of them is down serves by the other."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from kv import KeyValue, Page, Put, Removal, StoreUnavailable, Version
from stagecast.log import LogUnavailable, MessageLog, Positions, Record, Topic

PAUSE = 1.0
"""Seconds between two tries; each try takes up to 10 s by itself."""

_log = structlog.get_logger()


class _Road(Protocol):
    async def close(self) -> None: ...


R = TypeVar("R", bound=_Road)


class _Late(Generic[R]):
    def __init__(self, name: str, open: Callable[[], Awaitable[R]], unavailable: type[Exception]) -> None:
        self._name = name
        self._open = open
        self._unavailable = unavailable
        self._road: R | None = None

    @property
    def there(self) -> R:
        """The road. Raises its port's Unavailable until it is open."""
        if self._road is None:
            raise self._unavailable(f"the {self._name} is not open yet")
        return self._road

    async def open(self) -> bool:
        """Tries once. Raises ValueError for a URL that can't be right."""
        try:
            self._road = await self._open()
        except self._unavailable as error:
            _log.warning("not open yet", road=self._name, error=str(error)[:200])
        return self._road is not None

    async def keep_opening(self) -> None:
        """Tries until it is open."""
        while self._road is None and not await self.open():  # noqa: ASYNC110 - it is a try, not a look
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        if self._road is not None:
            await self._road.close()


class LateLog(_Late[MessageLog]):
    """A `MessageLog`: LogUnavailable until it is open."""

    def __init__(self, open: Callable[[], Awaitable[MessageLog]]) -> None:
        super().__init__("log", open, LogUnavailable)

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        await self.there.append(topic, key, value)

    async def end(self, topic: Topic) -> Positions:
        return await self.there.end(topic)

    async def since(self, topic: Topic, ts: int) -> Positions:
        return await self.there.since(topic, ts)

    def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        return self.there.read(topic, positions)


class LateStore(_Late[KeyValue]):
    """Both ports of a store: StoreUnavailable until it is open."""

    def __init__(self, open: Callable[[], Awaitable[KeyValue]]) -> None:
        super().__init__("store", open, StoreUnavailable)

    async def get(self, record: str, key: str) -> bytes | None:
        return await self.there.get(record, key)

    async def put(self, items: Sequence[Put]) -> None:
        await self.there.put(items)

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        await self.there.delete(record, keys)

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        return await self.there.remove(items)

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        return await self.there.page(record, after, max_bytes)

    async def read(self, record: str, key: str) -> Version | None:
        return await self.there.read(record, key)

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        return await self.there.compare_and_set(record, key, value, expected)
