"""A worker's end of the link to its feed: connects, comes back when it breaks, and never lets what is not taken pile up."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog

from pushy.link import Counted, FromWorker, Gauges, LinkError, Sessions, ToWorker, Unpacker, pack, to_worker

UNSENT_MAX = 4 << 20
"""Bytes that wait for the feed: beyond that what can be lost is dropped, and if more comes the link is made anew."""
RETRY_FIRST, RETRY_MAX = 0.02, 1.0

_log = structlog.get_logger()


class FeedLink(asyncio.Protocol):
    """`joined` is called on every new connection, before anything is received; `received` for each message; `lost` at its end."""

    def __init__(
        self,
        path: Path,
        joined: Callable[[], None],
        received: Callable[[ToWorker], None],
        lost: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._path = path
        self._joined = joined
        self._received = received
        self._lost = lost
        self._rng = rng
        self._transport: asyncio.WriteTransport | None = None
        self._unpacker: Unpacker[ToWorker] = to_worker()
        self._broken = asyncio.Event()
        self._flushed = asyncio.Event()
        self.dropped = 0
        """Messages not sent because the feed did not take them, or was not there."""

    @property
    def up(self) -> bool:
        return self._transport is not None

    async def run(self) -> None:
        """Keeps the link up until cancelled."""
        loop, delay = asyncio.get_running_loop(), RETRY_FIRST
        while True:
            self._broken.clear()
            try:
                await loop.create_unix_connection(lambda: self, str(self._path))
            except OSError:
                await asyncio.sleep(self._rng.uniform(delay / 2, delay))
                delay = min(2 * delay, RETRY_MAX)
                continue
            delay = RETRY_FIRST
            await self._broken.wait()

    def send(self, message: FromWorker) -> bool:
        """False if it was dropped. What the feed must have, such as Follow, is never dropped from a link that stays: if it does
        not fit the link is cut, and the worker says everything again when it joins."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self.dropped += 1
            return False
        if transport.get_write_buffer_size() > UNSENT_MAX:
            self.dropped += 1
            if not isinstance(message, Counted | Gauges | Sessions):
                transport.abort()
            return False
        transport.write(pack(message))
        return True

    async def flush(self) -> None:
        """Waits until all is with the kernel, or the link is gone."""
        while self._transport is not None and self._transport.get_write_buffer_size():
            self._flushed.clear()
            await self._flushed.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=0)
        self._unpacker = to_worker()
        self._joined()

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._unpacker.feed(data)
        except LinkError as error:
            _log.error("the feed speaks another language", why=str(error))
            if self._transport is not None:
                self._transport.abort()
            return
        for message in messages:
            self._received(message)

    def resume_writing(self) -> None:
        self._flushed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._flushed.set()
        self._broken.set()
        self._lost()
