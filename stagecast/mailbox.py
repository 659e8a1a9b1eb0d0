"""A bounded queue for one reader in which the newest value per key wins."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """What one reader has not read: the newest value per key, at most `limit` keys. What never gets read is counted."""

    def __init__(self, limit: int) -> None:
        self.overtaken = 0
        self._limit = limit
        self._unread: dict[object, T] = {}
        self._ready = asyncio.Event()
        self._ended = False
        self.error: Exception | None = None

    def peek(self, key: object) -> T | None:
        return self._unread.get(key)

    def put(self, key: object, value: T) -> None:
        if self._unread.pop(key, None) is not None or len(self._unread) >= self._limit:
            self.overtaken += 1
        while len(self._unread) >= self._limit:
            del self._unread[next(iter(self._unread))]
        self._unread[key] = value
        self._ready.set()

    def amend(self, key: object, value: T) -> None:
        """Puts `value` in the place of the unread one: nothing is overtaken."""
        if key in self._unread:
            self._unread[key] = value

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes: what is unread can be read, then `get` gives None, or raises `error`."""
        if not self._ended:
            self._ended, self.error = True, error
        self._ready.set()

    async def get(self) -> T | None:
        while not self._unread:
            if self._ended:
                if self.error:
                    raise self.error
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._unread.pop(next(iter(self._unread)))
