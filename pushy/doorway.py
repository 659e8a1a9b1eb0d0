"""Where a worker's devices come in: the listening socket, open only while the worker is ready for them."""

import asyncio
import socket
from collections.abc import Callable

import structlog

from pushy.streams import Listening, Streams, Turn

BACKLOG = 4096
"""A storm waits here, not in the SYN retries of devices (1 s and more); the kernel caps it at net.core.somaxconn."""
NOT_SENT_MAX = 16 * 1024
"""TCP_NOTSENT_LOWAT: bytes the kernel takes beyond what is in flight; the rest of SO_SNDBUF is for the network."""
RETRY = 1.0

_log = structlog.get_logger()


class Doorway:
    """Listens beside its siblings on one port: the kernel shares connections out among sockets with SO_REUSEPORT.

    Options are set on the listening socket: what it accepts inherits them, without a system call per connection.
    """

    def __init__(
        self,
        where: tuple[str, int],
        send_buffer: int,
        user_timeout: float,
        connection: Callable[[], asyncio.Protocol],
        turn: Callable[[Streams], Turn] | None = None,
    ) -> None:
        self._where = where
        self._send_buffer = send_buffer
        self._user_timeout = user_timeout
        self._connection = connection
        self._turn = turn
        self._wanted = False
        self._changed = asyncio.Event()

    def open(self, wanted: bool) -> None:
        """Whether to listen from now on. Connections that are there stay."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """Listens and stops listening as told, until cancelled."""
        listening: Listening | None = None
        streams = Streams(asyncio.get_running_loop(), self._turn)
        try:
            while True:
                self._changed.clear()
                if self._wanted and listening is None:
                    listening = await self._listen(streams)
                elif not self._wanted and listening is not None:
                    listening.close()
                    listening = None
                if (listening is not None) == self._wanted:
                    await self._changed.wait()
        finally:
            if listening is not None:
                listening.close()
            streams.close()

    async def _listen(self, streams: Streams) -> Listening | None:
        try:
            return streams.listen(self._socket(), self._connection)
        except OSError as error:
            _log.error("can't listen", where=self._where, why=str(error))
            await asyncio.sleep(RETRY)
            return None

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_MAX)
            # The net below the worker's own deadline (which may take twice as long): a peer without power answers no probe.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._user_timeout * 1000))
            listening.bind(self._where)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening
