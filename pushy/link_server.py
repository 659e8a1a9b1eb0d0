"""The feed's end of the link: one connection per worker on a Unix socket, bounded in bytes."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol, cast

import structlog

from pushy.link import FromWorker, Joined, LinkError, ToWorker, from_workers, pack

LINK_BYTES_MAX = 32 << 20
"""Bytes that a worker may owe; beyond it the link is dropped, and the worker joins again and gets the heads instead."""
BUSY_BYTES = 8 << 20
"""Bytes owed above which a worker takes no deliveries: they must not cost it its link."""

_log = structlog.get_logger()


class WorkerLink(asyncio.Protocol):
    """A worker as the feed sees it. `id` is unique in this process: a worker that comes back gets another."""

    def __init__(self, id: int, owner: "LinkOwner") -> None:
        self.id = id
        self.joined: Joined | None = None
        self.gauges: dict[str, float] = {}
        self.gauged = float("-inf")
        """When `gauges` came (monotonic)."""
        self._owner = owner
        self._unpacker = from_workers()
        self._transport: asyncio.Transport | None = None

    @property
    def worker(self) -> int | None:
        """The worker's index, once it has joined."""
        return self.joined.worker if self.joined else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._unpacker.feed(data):
                self._take(message)
        except LinkError as error:
            _log.error("link broken", worker=self.worker, error=str(error))
            self.drop()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._owner.closed(self)

    def send(self, message: ToWorker) -> None:
        self.write(pack(message))

    def write(self, data: bytes) -> None:
        """Packed messages, for as long as the worker keeps up; see LINK_BYTES_MAX."""
        if self._transport is None or self._transport.is_closing():
            return
        if self.owed + len(data) > LINK_BYTES_MAX:
            _log.error("worker too slow", worker=self.worker, owed=self.owed)
            self._owner.overflowed(self)
            self.drop()
            return
        self._transport.write(data)

    @property
    def owed(self) -> int:
        """Bytes that the worker has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    @property
    def busy(self) -> bool:
        return self._transport is None or self._transport.is_closing() or self.owed > BUSY_BYTES

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Joined):
            if self.joined is not None:
                raise LinkError("joined twice")
            self.joined = message
        elif self.joined is None:
            raise LinkError("the first message is not Joined")
        self._owner.received(self, message)


class LinkOwner(Protocol):
    """Who is told what happens on the links."""

    def opened(self, link: WorkerLink) -> None: ...

    def received(self, link: WorkerLink, message: FromWorker) -> None: ...

    def closed(self, link: WorkerLink) -> None: ...

    def overflowed(self, link: WorkerLink) -> None: ...


class SocketBusy(OSError):
    """Another process listens at this Unix socket."""


@contextlib.asynccontextmanager
async def listening_for_workers(path: Path, owner: LinkOwner) -> AsyncIterator[None]:
    """Takes workers at the Unix socket `path` (mode 0600) while the context is open. A stale socket there is replaced.
    Raises SocketBusy, OSError."""
    ids = iter(range(1, 1 << 62))
    make: Callable[[], WorkerLink] = lambda: WorkerLink(next(ids), owner)  # noqa: E731
    listening = _bind(path)
    try:
        server = await asyncio.get_running_loop().create_unix_server(make, sock=listening)
    except BaseException:
        listening.close()
        raise
    try:
        yield
    finally:
        server.close()
        _unlink(path)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise SocketBusy(f"{path}: another feed listens here")
            path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening
