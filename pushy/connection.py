"""One device's connection: an `asyncio.Protocol` that carries bytes between a socket, the WebSocket layer, the session and
the hub.

It decides little itself: the session says what a message means, the hub what is owed. Its own affairs are writing without ever
breaking a frame, not reading while it can't write, and the close handshake.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never, cast

from pushy import handshake
from pushy.followed import Place
from pushy.handshake import Door, Refusal, Upgrade
from pushy.happenings import Happenings
from pushy.hub import Hub
from pushy.proxies import BadPreamble, Proxies, read_preamble
from pushy.rfc6455 import (
    NO_STATUS,
    PONG,
    Close,
    Event,
    FrameReader,
    Limits,
    Message,
    Ping,
    Pong,
    Violation,
    close_frame,
    server_frame,
)
from pushy.streams import Stream
from pushy.wheel import Slot, Wheel
from stagecast.clock import Clock
from stagecast.receipts import DROPPED_BY_DEVICE
from stagecast.tokens import Claims
from stagecast.wire.closing import CloseCode
from stagecast.wire.frames import DEVICE_FRAME_BYTES_MAX, ErrCode, Hello
from stagecast.wire.server_session import (
    Acked,
    At,
    End,
    Follow,
    Greeted,
    Leave,
    Phase,
    Rearm,
    Rules,
    Send,
    ServerSession,
    Step,
    Want,
)

HANDSHAKE_DEADLINE = 5.0
"""Seconds from the TCP connection to a whole request, however it drips in."""
CLOSE_DEADLINE = 1.0
"""Seconds that a connection is read on after our Close frame, so that it arrives."""
HANDSHAKE, OPEN, CLOSING = range(3)


@dataclass
class Floor:
    """What all connections of a worker share."""

    rules: Rules
    hub: Hub
    wheel: "Wheel[Connection]"
    door: Door
    clock: Clock
    arrived: Callable[["Connection"], bool]
    """A TCP connection is there: whether to keep it."""
    busy: Callable[["Connection"], Refusal | None]
    """Why a valid upgrade is over a limit, if it is."""
    greeted: Callable[["Connection"], None]
    wanted: Callable[["Connection", list[str]], None]
    left: Callable[["Connection", str], None]
    """The session is over: it leaves the hub and the directory."""
    happenings: Happenings
    gone: Callable[["Connection"], None]
    """The TCP connection is over."""
    introduced: Callable[["Connection", str | None], bool]
    """A proxy has told the client's address (None: it can't say): whether to keep the connection."""
    proxies: Proxies
    handshake_deadline: float
    slow_after: float
    """Seconds without progress of unsent bytes after which a connection is cut."""
    echo: "Callable[[asyncio.Transport, Upgrade], asyncio.Protocol] | None" = None
    """What serves /echo; for conformance tests alone."""
    learn: Callable[[bytes], None] | None = None
    """Remembers a request that was let in, for those that are equal but for the key (pushy/express.py)."""
    limits: Limits = field(default_factory=lambda: Limits(DEVICE_FRAME_BYTES_MAX))
    reader: FrameReader = field(init=False)
    refusals: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    accepts: int = 0
    upgraded: int = 0
    """Connections past the handshake now."""
    stalls: int = 0
    """How often a connection could not take a whole frame."""
    sent: int = 0
    """Bytes written, without fan-outs."""

    def __post_init__(self) -> None:
        self.reader = FrameReader(self.limits)


class Connection(asyncio.Protocol):
    __slots__ = (
        "_floor",
        "_head",
        "_reader",
        "_stall",
        "address",
        "phase",
        "places",
        "proxied",
        "session",
        "slot",
        "transport",
        "unsent",
    )

    transport: Stream
    session: ServerSession

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._head = b""
        """The request so far."""
        self._reader: FrameReader | None = None
        """While a frame or a message is under way."""
        self._stall: tuple[int, float] | None = None
        """While bytes are unsent: how many there were when last looked at, and when to look again."""
        self.address: str | None = None
        """Only where connections are counted per address."""
        self.proxied = False
        """Whether a trusted proxy holds the other end and has not told the client's address yet."""
        self.phase = HANDSHAKE
        self.places: tuple[Place, ...] = ()
        self.slot: Slot | None = None
        self.unsent = False

    @property
    def claims(self) -> Claims:
        """Of a session past its hello."""
        assert self.session.claims is not None
        return self.session.claims

    @property
    def member(self) -> str:
        return self.claims.sub

    @property
    def device(self) -> str:
        return self.claims.dev

    @property
    def app(self) -> str:
        return self.session.app

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("Stream", transport)
        if not self._floor.arrived(self):
            self.transport.abort()
            return
        self._floor.wheel.put(self, self._floor.clock.monotonic() + self._floor.handshake_deadline)

    def connection_lost(self, error: Exception | None) -> None:
        floor = self._floor
        if self.phase == OPEN:
            self._leave("1006", "lost", "1006: the connection broke off")
        floor.wheel.remove(self)
        floor.gone(self)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def data_received(self, data: bytes) -> None:
        if self.phase == HANDSHAKE:
            self._handshake(data)
        else:
            self._frames(self._read(data))

    def _read(self, data: bytes) -> list[Event]:
        """By the reader that all share, until it holds something of this connection's; then it is this connection's own."""
        reader = self._reader or self._floor.reader
        events = reader.receive(data)
        if reader.clean:
            self._reader = None
        elif self._reader is None:
            self._reader, self._floor.reader = reader, FrameReader(self._floor.limits)
        return events

    def pause_writing(self) -> None:
        """Known already: `keep` looks by itself."""

    def resume_writing(self) -> None:
        """All bytes are with the kernel."""
        self.unsent = False
        self._stall = None
        if self.phase == OPEN:
            self._read_on()
            self._floor.hub.drained(self)

    # writing

    def write(self, frame: bytes) -> bool:
        """Takes the whole frame; true if all of it went to the kernel at once (which is not "delivered")."""
        if self.transport.is_closing():
            return False
        self._floor.sent += len(frame)
        if self.unsent:
            self.transport.write(frame)
            return False
        try:
            sent = os.write(self.transport.descriptor, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.transport.abort()
            return False
        return sent == len(frame) or self.keep(frame, sent)

    def keep(self, frame: bytes, sent: int) -> bool:
        """The kernel took only `sent` bytes: the transport finishes the frame, and until then nothing is read from this device,
        so that answers to what it sends can't pile up."""
        self.transport.write(memoryview(frame)[sent:])
        size = self.transport.get_write_buffer_size()
        if not size:
            return not self.transport.is_closing()  # it may have broken just now
        self.unsent = True
        self._floor.stalls += 1
        if self.phase == OPEN:
            self.transport.pause_reading()
            deadline = self._floor.clock.monotonic() + self._floor.slow_after
            self._stall = size, deadline
            self._floor.wheel.put(self, deadline)
        return False

    # the handshake

    def _handshake(self, data: bytes) -> None:
        self._head += data
        if self.proxied and self._floor.proxies.preamble and not self._read_preamble():
            return
        found = handshake.read_request(self._head)
        if found is None:
            return
        request, length = found
        head, rest, self._head = self._head[:length], self._head[length:], b""
        if isinstance(request, Refusal):
            self.refuse(request)
        elif self.proxied and not self._introduce(self._floor.proxies.client(request.forwarded)):
            return
        elif self._floor.echo is not None and request.path == "/echo":
            self._to_echo(self._floor.echo, request, rest)
        elif (refusal := self._floor.door.check(request)) or (refusal := self._floor.busy(self)):
            self.refuse(refusal)
        else:
            if self._floor.learn is not None:
                self._floor.learn(head)
            self._open(request, rest)

    def _read_preamble(self) -> bool:
        """Whether a PROXY preamble has come whole and the connection stays."""
        try:
            found = read_preamble(self._head)
        except BadPreamble:
            self._floor.refusals["proxy"] += 1
            self.transport.abort()
            return False
        if found is None:
            return False
        address, length = found
        self._head = self._head[length:]
        return self._introduce(address)

    def _introduce(self, address: str | None) -> bool:
        self.proxied = False
        kept = self._floor.introduced(self, address)
        if not kept:
            self.transport.abort()
        return kept

    def refuse(self, refusal: Refusal) -> None:
        """Answers, and ends."""
        self._floor.refusals[refusal.reason or str(refusal.status)] += 1
        self.phase = CLOSING
        self.write(handshake.refuse(refusal))
        self._finish()

    def _open(self, request: Upgrade, rest: bytes) -> None:
        floor = self._floor
        floor.accepts += 1
        floor.upgraded += 1
        self.phase = OPEN
        self.session = ServerSession(floor.rules, floor.accepts, floor.clock.monotonic())
        self.write(handshake.accept(request))
        floor.wheel.put(self, self.session.deadline())
        if rest:
            self.data_received(rest)

    def _to_echo(
        self, echo: Callable[[asyncio.Transport, Upgrade], asyncio.Protocol], request: Upgrade, rest: bytes
    ) -> None:
        self._floor.wheel.remove(self)
        self._floor.gone(self)
        protocol = echo(self.transport, request)
        self.transport.set_protocol(protocol)
        if rest:
            protocol.data_received(rest)

    # frames

    def _frames(self, events: list[Event]) -> None:
        now, wall = self._floor.clock.monotonic(), self._floor.clock.now()
        latest: Ping | None = None
        if self.phase == OPEN:
            self.session.touch(now)
        for event in events:
            if self.phase != OPEN:
                if isinstance(event, Close | Violation):
                    self.transport.close()
                continue
            match event:
                case Message(data, True):
                    self.do(self.session.receive(data, now, wall), now, wall)
                case Message():
                    self.close(CloseCode.UNSUPPORTED_DATA, "text frames are expected")
                case Ping():
                    latest = event
                    self.do(self.session.charge(now), now, wall)
                case Pong():
                    self.do(self.session.charge(now), now, wall)
                case Close(code, _):
                    self._leave(DROPPED_BY_DEVICE, "closed by the device", str(code))
                    self.phase = CLOSING
                    self.write(close_frame(code) if code != NO_STATUS else close_frame())
                    self.transport.close()
                    self._floor.wheel.put(self, now + CLOSE_DEADLINE)
                case Violation(code, reason):
                    self.close(CloseCode(code), reason)
                case _:
                    assert_never(event)
        if latest is not None and self.phase == OPEN:
            self.write(server_frame(latest.data, PONG))  # only the latest is owed one (RFC 6455 §5.5.3)

    def settle(self, event: str, refused: ErrCode | None, now: float, wall: int) -> None:
        """A head that it waits for is known, or can't be had."""
        if self.phase == OPEN:
            self.do(self.session.settle(event, refused, now, wall), now, wall)

    def admitted(self, claims: Claims, hello: Hello, now: float, wall: int) -> None:
        """The token of its hello is good."""
        self.do(self.session.admitted(claims, hello, now, wall), now, wall)

    def end(self, code: CloseCode, reason: str, now: float, wall: int) -> None:
        """Ends at once, for a reason that is not the device's doing."""
        if self.phase == OPEN:
            self.do(self.session.end(code, reason), now, wall)

    def go_away(self, code: CloseCode, why: str, now: float, wall: int) -> None:
        """Ends by plan; a handshake under way is cut."""
        if self.phase == OPEN:
            self.do(self.session.go_away(code, why), now, wall)
        elif self.phase == HANDSHAKE:
            self.transport.abort()

    def do(self, steps: list[Step], now: float, wall: int) -> None:
        """What the session wants done."""
        for step in steps:
            match step:
                case Send(data):
                    self.write(server_frame(data))
                case Greeted():
                    self._floor.greeted(self)
                case Rearm():
                    self._floor.wheel.put(self, self.session.deadline())
                case Follow(at):
                    self._floor.hub.join(self, at, now)
                case Acked(ack):
                    if self._floor.hub.ack(self, ack):
                        self._floor.happenings.position(wall, self.device, "ack", ack)
                    else:
                        self.do(self.session.charge(now), now, wall)
                case At(at):
                    self._floor.happenings.position(wall, self.device, "census", at)
                    self._floor.hub.moved(self, at)
                case Want(events):
                    self._floor.wanted(self, events)
                case Leave(events):
                    self._floor.hub.leave(self, events, now)
                case End(code, reason):
                    self.close(code, reason)
                case _:
                    assert_never(step)

    # ending

    def expire(self, now: float, wall: int) -> None:
        """Its time in the wheel has come."""
        if self.phase == OPEN:
            if self._stall is not None and now >= self._stall[1]:
                self._look_at_stall(self._stall[0], now, wall)
            self.do(self.session.expire(now, wall), now, wall)
        else:
            if self.phase == HANDSHAKE:
                self._floor.refusals["slow"] += 1
            self.transport.abort()
        if self.phase == OPEN:
            deadline = self.session.deadline()
            self._floor.wheel.put(self, min(deadline, self._stall[1]) if self._stall else deadline)

    def _look_at_stall(self, before: int, now: float, wall: int) -> None:
        size = self.transport.get_write_buffer_size()
        if size < before:
            self._stall = size, now + self._floor.slow_after
        else:
            self.do(self.session.end(CloseCode.SLOW, "slow"), now, wall)

    def close(self, code: CloseCode, reason: str) -> None:
        """The closing handshake from our side (RFC 6455 §7.1.2): Close frame, no more writing, reading until the peer is done
        or a second has passed."""
        if self.phase != OPEN:
            return
        self._leave(str(int(code)), "closed", f"{int(code)}: {reason}")
        self.phase = CLOSING
        self.write(close_frame(code, reason))
        self._finish()

    def _leave(self, label: str, what: str, why: str) -> None:
        """The session is over; `label` is what its end is counted under, never what a device chose."""
        self._floor.closes[label] += 1
        if self.session.claims is not None:
            self._floor.happenings.session(self._floor.clock.now(), self.device, what, why)
        self._floor.upgraded -= 1
        self._floor.left(self, label)
        self.session.phase = Phase.ENDED

    def _finish(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.write_eof()
        self._read_on()
        self._floor.wheel.put(self, self._floor.clock.monotonic() + CLOSE_DEADLINE)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
