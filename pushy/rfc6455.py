"""RFC 6455 frames, the server's side, sans-I/O: bytes in, events out; frames to send as bytes.

    reader = FrameReader(Limits(8192))
    for event in reader.receive(data):   # Message | Ping | Pong | Close | Violation
        ...

Nothing is kept between calls unless a frame or a fragmented message is under way: then it is `clean`, and idle connections may
share one reader. A `Violation` is the last event there is: the connection fails with its code (RFC 6455 §7.1.7) and further bytes
are ignored, as they are after a Close (§5.5.1).
"""

import codecs
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

CONTROL_BYTES_MAX = 125
"""RFC 6455 §5.5."""
HEADER_BYTES_MAX = 14

NO_STATUS = 1005
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
POLICY = 1008
TOO_BIG = 1009


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send."""

    message: int
    """Bytes of one message, all fragments together."""
    fragments: int = 64
    """Frames of one message, empty ones included: endless empty fragments would cost time without ever reaching `message`."""
    burst: int = 256
    """Frames in one read: a buffer full of tiny frames would hold the loop for 0.1 s."""


class Message(Struct, frozen=True, gc=False):
    """A whole message. Text has been checked to be UTF-8."""

    data: bytes
    text: bool


class Ping(Struct, frozen=True, gc=False):
    data: bytes


class Pong(Struct, frozen=True, gc=False):
    data: bytes


class Close(Struct, frozen=True, gc=False):
    """`code` is 1005 when the frame had none (RFC 6455 §7.1.5)."""

    code: int
    reason: str


class Violation(Struct, frozen=True, gc=False):
    """The client broke a rule: fail the connection with `code` (RFC 6455 §7.4.1)."""

    code: int
    reason: str


Event = Message | Ping | Pong | Close | Violation


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole unmasked frame with FIN set (RFC 6455 §5.1: a server must not mask; §5.2: the length in its shortest form)."""
    size = len(payload)
    if opcode == TEXT and 126 <= size < 65536:  # nearly all there are
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int = NO_STATUS, reason: str = "") -> bytes:
    """A Close frame; without a status for 1005 (RFC 6455 §5.5.1, §7.4.1). The reason is cut to what a control frame holds."""
    if code == NO_STATUS:
        return server_frame(b"", CLOSE)
    text = reason.encode()[: CONTROL_BYTES_MAX - 2].decode(errors="ignore").encode()
    return server_frame(code.to_bytes(2, "big") + text, CLOSE)


def may_be_received(code: int) -> bool:
    """Whether a Close frame may carry `code` (RFC 6455 §7.4.1, §7.4.2; 1012–1014 by the IANA registry)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def unmask(data: bytes | bytearray | memoryview, mask: bytes, offset: int = 0) -> bytes:
    """RFC 6455 §5.3: octet i is XORed with mask[i mod 4]; `offset` octets of the frame came before `data`.

    One XOR of two big integers: 0.3 µs for 100 bytes, where a loop over the octets takes 6 µs.
    """
    size = len(data)
    turn = offset & 3
    key = (mask[turn:] + mask[:turn]) * (size // 4 + 1)
    return (int.from_bytes(data, "little") ^ int.from_bytes(key[:size], "little")).to_bytes(size, "little")


class _Fail(Exception):
    """How the inside of the reader says that it found a violation."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.violation = Violation(code, reason)


class _Text:
    """Checks UTF-8 as it arrives (RFC 6455 §8.1), so that a bad message fails at its first bad octet."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def check(self, data: bytes, last: bool) -> None:
        try:
            self._decoder.decode(data, last)
        except UnicodeDecodeError as error:
            raise _Fail(INVALID_DATA, "text is not UTF-8") from error


class _Frame:
    """A frame under way: its header is known, its payload not yet complete."""

    __slots__ = ("data", "fin", "left", "mask", "opcode")

    def __init__(self, opcode: int, fin: bool, left: int, mask: bytes) -> None:
        self.opcode = opcode
        self.fin = fin
        self.left = left
        self.mask = mask
        self.data = bytearray()


class _Partial:
    """A message under way: the frames so far."""

    __slots__ = ("data", "fragments", "text")

    def __init__(self, text: bool) -> None:
        self.data = bytearray()
        self.fragments = 0
        self.text = _Text() if text else None


class FrameReader:
    """Reads what one client sends. See the module's head."""

    __slots__ = ("_frame", "_limits", "_message", "_over", "_rest")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rest = b""
        """The beginning of a header."""
        self._frame: _Frame | None = None
        self._message: _Partial | None = None
        self._over = False

    @property
    def clean(self) -> bool:
        """Whether it holds nothing of what it has read, and so may read for another connection."""
        return not self._rest and self._frame is None and self._message is None and not self._over

    def receive(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if self.clean and (whole := self._whole(data)) is not None:
            return [whole]
        events: list[Event] = []
        if self._over:
            return events
        try:
            self._read(data, events)
        except _Fail as fail:
            self._over = True
            events.append(fail.violation)
        return events

    def _whole(self, data: bytes) -> Event | None:
        """The usual case, fast: `data` is one final text frame of less than 64 KiB. None for anything else, good or bad."""
        size = len(data) - 6
        if size < 0 or data[0] != 0x81:
            return None
        at = 2
        if size > 125:
            size, at = size - 2, 4
            if size < 126 or data[1] != 0xFE or int.from_bytes(data[2:4], "big") != size:
                return None
        elif data[1] != 0x80 | size:
            return None
        if size > self._limits.message:
            return None
        text = unmask(data[at + 4 :], data[at : at + 4])
        if not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                return None
        return Message(text, True)

    def _read(self, data: bytes, events: list[Event]) -> None:
        at = frames = 0
        if self._rest:
            data = self._rest + data
            self._rest = b""
        while not self._over:
            frames += 1
            if frames > self._limits.burst:
                raise _Fail(POLICY, f"more than {self._limits.burst} frames at once")
            frame = self._frame
            if frame is None:
                size, frame = self._header(data, at)
                if frame is None:
                    self._rest = bytes(data[at:])
                    return
                at += size
                self._frame = frame
            part = data[at : at + frame.left]
            at += len(part)
            self._payload(frame, part, events)
            if frame.left:
                return

    def _header(self, data: bytes, at: int) -> tuple[int, _Frame | None]:
        """The header at `at` and its length, checked as far as it is there; None while octets are missing (RFC 6455 §5.2)."""
        there = len(data) - at
        if there == 0:
            return 0, None
        first = data[at]
        opcode, fin = first & 0x0F, first & 0x80 != 0
        if first & 0x70:
            raise _Fail(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        self._check_opcode(opcode, fin)
        if there == 1:
            return 0, None
        second = data[at + 1]
        if not second & 0x80:
            raise _Fail(PROTOCOL_ERROR, "frames from a client must be masked")  # §5.1
        length, size = second & 0x7F, 2
        if opcode >= CLOSE and length > CONTROL_BYTES_MAX:
            raise _Fail(PROTOCOL_ERROR, "a control frame holds 125 bytes at most")  # §5.5
        if length > 125:
            size = 4 if length == 126 else 10
            if there < size:
                return 0, None
            length = int.from_bytes(data[at + 2 : at + size], "big")
            if length < (126 if size == 4 else 65536) or length >> 63:
                raise _Fail(PROTOCOL_ERROR, "the length is not in its shortest form")  # §5.2
        if opcode < CLOSE:
            self._check_size(opcode, length)
        if there < size + 4:
            return 0, None
        return size + 4, _Frame(opcode, fin, length, bytes(data[at + size : at + size + 4]))

    def _check_opcode(self, opcode: int, fin: bool) -> None:
        if opcode >= CLOSE:
            if opcode > PONG:
                raise _Fail(PROTOCOL_ERROR, "reserved opcode")  # §5.2
            if not fin:
                raise _Fail(PROTOCOL_ERROR, "a control frame must not be fragmented")  # §5.5
        elif opcode > BINARY:
            raise _Fail(PROTOCOL_ERROR, "reserved opcode")
        elif opcode == CONTINUATION:
            if self._message is None:
                raise _Fail(PROTOCOL_ERROR, "nothing to continue")  # §5.4
        elif self._message is not None:
            raise _Fail(PROTOCOL_ERROR, "a new message inside a fragmented one")  # §5.4

    def _check_size(self, opcode: int, length: int) -> None:
        """By the declared length, before a byte of it is kept (RFC 6455 §10.4, §7.4.1: 1009)."""
        so_far = len(self._message.data) if self._message else 0
        if so_far + length > self._limits.message:
            raise _Fail(TOO_BIG, f"a message holds {self._limits.message} bytes at most")
        if self._message and self._message.fragments >= self._limits.fragments:
            raise _Fail(TOO_BIG, f"a message has {self._limits.fragments} fragments at most")

    def _payload(self, frame: _Frame, part: bytes, events: list[Event]) -> None:
        """Takes `part` of the frame's payload; the frame is done when nothing is left."""
        if frame.opcode < CLOSE and self._message is None:
            self._message = _Partial(frame.opcode == TEXT)
        plain = unmask(part, frame.mask, len(frame.data)) if part else b""
        frame.left -= len(part)
        message = self._message
        if frame.opcode < CLOSE and message is not None and message.text is not None and (plain or frame.fin):
            message.text.check(plain, frame.fin and not frame.left)
        frame.data += plain
        if frame.left:
            return
        self._frame = None
        if frame.opcode >= CLOSE:
            events.append(self._control(frame.opcode, bytes(frame.data)))
        elif message is not None:
            self._data(frame, message, events)

    def _data(self, frame: _Frame, message: _Partial, events: list[Event]) -> None:
        message.fragments += 1
        message.data += frame.data
        if frame.fin:
            self._message = None
            events.append(Message(bytes(message.data), message.text is not None))

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        self._over = True
        if not payload:
            return Close(NO_STATUS, "")
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not may_be_received(code):
            return Violation(PROTOCOL_ERROR, "not a close code")  # §5.5.1, §7.4
        try:
            return Close(code, payload[2:].decode())
        except UnicodeDecodeError:
            return Violation(INVALID_DATA, "the reason is not UTF-8")  # §5.5.1
