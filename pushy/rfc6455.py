"""RFC 6455 frames, the server's side, sans-I/O: bytes in, events out; frames to send as bytes."""

from enum import IntEnum
from typing import Final

TEXT: Final = 1


class Opcode(IntEnum):
    """RFC 6455 §5.2, §11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole unmasked frame with FIN set (RFC 6455 §5.1: a server must not mask; §5.2: the length in its shortest form)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload
