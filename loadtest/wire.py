"""A device's side of a WebSocket for load: bytes in, texts out, and the least memory in between. Pure.

It speaks enough of RFC 6455 for a peer that is under test elsewhere: no fragmentation, no extensions. A key of zero masks its
frames (§5.3 wants a mask, not a good one), so that a payload is sent as it is.
"""

import struct

from stagecast.wire import SUBPROTOCOL

_ZERO_MASK = b"\0\0\0\0"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class WireError(ValueError):
    """The peer sent what a node of this protocol never sends."""


def upgrade_request(host: str) -> bytes:
    """The handshake, §4.1. Its key is constant: nothing here is secret, and the node's answer is checked elsewhere."""
    return (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One masked frame of at most 64 KiB."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    return head + _ZERO_MASK + payload


class Wire:
    """What one connection keeps between reads: nothing, mostly."""

    __slots__ = ("_rest", "upgraded")

    def __init__(self) -> None:
        self._rest = b""
        self.upgraded = False

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """Frames that `data` completes: (opcode, payload). Raises WireError."""
        data = self._rest + data if self._rest else data
        at, frames = 0, []
        if not self.upgraded:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return []
            if not data.startswith(b"HTTP/1.1 101 "):
                raise WireError(data[:80].decode("latin-1").split("\r\n")[0])
            self.upgraded = True
        while (found := _frame(data, at)) is not None:
            opcode, start, end = found
            frames.append((opcode, data[start:end]))
            at = end
        self._rest = data[at:]
        return frames


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """(opcode, start and end of the payload) of the whole frame at `at`, or None."""
    if len(data) < at + 2:
        return None
    if data[at] & 0x70 or not data[at] & 0x80 or data[at + 1] & 0x80:
        raise WireError("a frame that is fragmented, masked or extended")
    size, start = data[at + 1] & 0x7F, at + 2
    if size == 126:
        if len(data) < at + 4:
            return None
        size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
    elif size == 127:
        raise WireError("a frame over 64 KiB")
    return (data[at] & 0x0F, start, start + size) if len(data) >= start + size else None
