"""The HTTP server's protocol with two bounds that it leaves to a proxy in front: how long the head of a request may take, and how
large it may grow. Without them a client holds a descriptor for ever with one byte, or all memory with one request."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_DEADLINE = 10.0
"""Seconds from the connection, or from the first byte of a further request, to the end of the head."""
HEAD_BYTES_MAX = 64 * 1024
"""Of a request line and its fields; what one read brings beyond is looked at still."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 26\r\n\r\nthe request is too large.\r\n"
)


class BoundedHttp(HttpToolsProtocol):
    head_deadline = HEAD_DEADLINE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: int | None = 0
        """Bytes of the head under way; None between a head's end and the next request."""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is None or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > HEAD_BYTES_MAX:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._head = 0
        self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        self._disarm()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._disarm()
        self._late = self.loop.call_later(self.head_deadline, self._cut)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:  # an answer is under way: it is not to suffer
            self._arm()
        else:
            self.transport.close()


def bounded(head_deadline: float) -> type[BoundedHttp]:
    """The protocol with another deadline, in seconds."""
    return type("BoundedHttp", (BoundedHttp,), {"head_deadline": head_deadline})
