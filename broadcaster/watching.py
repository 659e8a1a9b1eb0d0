"""Progress as server-sent events: one look per event and tick, however many watch.

A watcher that is slow gets the newest state when it is ready for it, and none of those before: nothing piles up.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from kv import StoreError

TICK = 0.25
"""Seconds between two looks: at most four states a second."""
QUIET = 10.0
"""Seconds after which a watcher that has got nothing gets a comment: proxies keep the connection, and pages know it lives."""
WATCHERS_MAX = 500
"""Over it one more is told 503 (`refused`)."""
LIFE = 300.0
"""Seconds after which a stream ends: whoever goes on watching comes back, and is asked again who they are. So a key that was
deleted, or a session that is over, watches on for so long at most."""
COMMENT = b": still here\n\n"
Look = Callable[[str], Awaitable[bytes]]
_log = structlog.get_logger()


class TooMany(Exception):
    """WATCHERS_MAX watch already."""


class _Channel:
    """What the watchers of one event share."""

    def __init__(self) -> None:
        self.data = b""
        self.version = 0
        self.watchers = 0
        self.news = asyncio.Event()
        """Replaced when it is set: whoever waits keeps the one that will be."""
        self.task: asyncio.Task[None] | None = None


class Watching:
    """All watchers of a process. `look` gives an event's state as JSON on one line; `stopping` ends every stream."""

    def __init__(self, look: Look, stopping: asyncio.Event, limit: int = WATCHERS_MAX) -> None:
        self._look = look
        self._stopping = stopping
        self._limit = limit
        self._channels: dict[str, _Channel] = {}
        self.watchers = 0
        self.refused = 0
        self.looks = 0

    def stream(self, event: str, quiet: float = QUIET, life: float = LIFE) -> AsyncGenerator[bytes, None]:
        """`progress` events whenever the state changed, for `life` s or until this process stops. Raises TooMany, at once."""
        if self.watchers >= self._limit:
            self.refused += 1
            raise TooMany
        return self._stream(event, quiet, life)

    async def _stream(self, event: str, quiet: float, life: float) -> AsyncGenerator[bytes, None]:
        channel = self._channels.get(event)
        if channel is None:
            channel = self._channels[event] = _Channel()
        self.watchers += 1
        channel.watchers += 1
        if channel.task is None:
            channel.task = asyncio.create_task(self._keep_looking(event, channel))
        seen = 0
        until = asyncio.get_running_loop().time() + life
        try:
            while not self._stopping.is_set() and (left := until - asyncio.get_running_loop().time()) > 0:
                news = channel.news
                if channel.version != seen:
                    seen = channel.version
                    yield b"event: progress\ndata: " + channel.data + b"\n\n"
                    continue
                try:
                    async with asyncio.timeout(min(quiet, left)):
                        await news.wait()
                except TimeoutError:
                    yield COMMENT
        finally:
            self.watchers -= 1
            channel.watchers -= 1
            if not channel.watchers:
                self._channels.pop(event, None)
                channel.task.cancel()

    async def _keep_looking(self, event: str, channel: _Channel) -> None:
        while not self._stopping.is_set():
            try:
                self.looks += 1
                data = await self._look(event)
            except StoreError:
                data = channel.data  # an outage: the last state stands, and comments go on
            except Exception as error:
                _log.exception("progress not readable", e=event, error=str(error))
                data = channel.data
            if data != channel.data:
                channel.data = data
                channel.version += 1
                self._wake(channel)
            await asyncio.sleep(TICK)
        self._wake(channel)

    def _wake(self, channel: _Channel) -> None:
        channel.news.set()
        channel.news = asyncio.Event()
