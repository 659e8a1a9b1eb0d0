"""A WebSocket echo, for conformance tests of the frame layer: everything else of the server is as for devices."""

import asyncio

from pushy.handshake import Upgrade, accept
from pushy.rfc6455 import (
    BINARY,
    NO_STATUS,
    PONG,
    TEXT,
    Close,
    FrameReader,
    Limits,
    Message,
    Ping,
    Violation,
    close_frame,
    server_frame,
)

LIMITS = Limits(message=64 << 20, fragments=1 << 20, burst=1 << 20)
UNREAD_MAX = 1 << 20
"""Bytes unsent beyond which the peer is not read."""


class Echo(asyncio.Protocol):
    def __init__(self, transport: asyncio.Transport, upgrade: Upgrade) -> None:
        self._transport = transport
        self._reader = FrameReader(LIMITS)
        transport.set_write_buffer_limits(high=UNREAD_MAX)
        transport.write(accept(upgrade, None))

    def data_received(self, data: bytes) -> None:
        for event in self._reader.receive(data):
            match event:
                case Message(message, text):
                    self._transport.write(server_frame(message, TEXT if text else BINARY))
                case Ping(payload):
                    self._transport.write(server_frame(payload, PONG))
                case Close(code, _):
                    self._transport.write(close_frame() if code == NO_STATUS else close_frame(code))
                    self._transport.close()
                case Violation(code, reason):
                    self._transport.write(close_frame(code, reason))
                    self._transport.write_eof()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
