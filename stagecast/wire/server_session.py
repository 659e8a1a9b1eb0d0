"""The node's side of one connection of `stagecast.v1`, sans-I/O: a device's messages and the time in, things to do out. Pure.

    session = ServerSession(rules, number, now)
    for step in session.receive(message, now, wall):   # Send | Greeted | Rearm | Want | Follow | Leave | At | Acked | End
        ...
    session.settle(event, code, now, wall)             # for every event of a Want, when its head is known or refused
    session.expire(now, wall)                          # at session.deadline() or any time later

`now` is monotonic, in seconds; `wall` is in ms since 1970. A session holds no more than the protocol needs: some 400 bytes.
"""

import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from stagecast.tokens import GRACE, Claims, TokenError
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import Invalid, Malformed, decode_device_frame, encode
from stagecast.wire.frames import (
    EVENTS_MAX,
    HELLO_DEADLINE,
    MESSAGES_MAX,
    MESSAGES_WINDOW,
    SILENCE_FACTOR,
    Ack,
    Auth,
    Back,
    DeviceFrame,
    Err,
    ErrCode,
    Goaway,
    Hello,
    Ping,
    Pong,
    Position,
    Sub,
    Unsub,
)

LIFETIME_JITTER = 0.1
"""Share of the lifetime that is random, so that connections made together do not end together: 3 of 30 min."""
REFRESH_AHEAD = 60.0
"""Seconds before `exp` at which `auth` is due."""
BACK_STEADY: Back = (2000, 5000)
REFUSED_TEXT: dict[str, str] = {
    "unknown_event": "no such event",
    "too_many_events": f"at most {EVENTS_MAX} events on one connection",
    "unavailable": "the event's state can't be read now",
}


@dataclass
class Rules:
    """What all sessions of a node share, and ask of it."""

    admit: Callable[[str, int], Claims]
    """(token, wall) → what the token says. Raises TokenError: no good, expired or revoked."""
    head: Callable[[str], bytes | None]
    """An event's head as the `state` object of a welcome; None if it is not known (yet)."""
    rng: random.Random
    node: str = "0"
    """The beginning of session ids: new for every start of a worker."""
    ping: float = 45.0
    lifetime: float = 1800.0
    hello_deadline: float = HELLO_DEADLINE
    maps: str | None = None
    back: Back = BACK_STEADY
    silence: float = field(init=False)

    def __post_init__(self) -> None:
        self.silence = self.ping * SILENCE_FACTOR


# Steps: what a session wants done, in order.


class Send(Struct, frozen=True, gc=False):
    """One text message to the device."""

    data: bytes


class Greeted(Struct, frozen=True, gc=False):
    """The hello is good: the session has a member and a device from here on."""


class Rearm(Struct, frozen=True, gc=False):
    """The session's deadline may have come nearer."""


class Want(Struct, frozen=True):
    """The heads of these events are not known: settle each, now or later."""

    events: list[str]


class Follow(Struct, frozen=True):
    """From now on the device follows these events, and stands at these positions. Their heads have just been sent."""

    at: list[Position]


class Leave(Struct, frozen=True):
    """The device follows these events no more, or no longer waits for them."""

    events: list[str]


class At(Struct, frozen=True):
    """The device says where it stands, in events that it follows."""

    at: list[Position]


class Acked(Struct, frozen=True, gc=False):
    """An ack. If nobody asked for it: `charge`."""

    ack: Ack


class End(Struct, frozen=True, gc=False):
    """Close with this code; nothing more comes from the session."""

    code: CloseCode
    reason: str


_GREETED: Final = (Greeted(), Rearm())

Step = Send | Greeted | Rearm | Want | Follow | Leave | At | Acked | End


class Phase(Enum):
    OPEN = "waits for hello"
    GREETED = "hello is good, some head is not known yet"
    READY = "welcomed"
    ENDED = "closed, or about to be"

    __hash__ = object.__hash__
    """By identity: an enum's own is a call of Python for every message."""


TRANSITIONS: Final[dict[tuple[Phase, type[DeviceFrame]], str]] = {
    (Phase.OPEN, Hello): "_hello",
    (Phase.GREETED, Sub): "_sub",
    (Phase.GREETED, Unsub): "_unsub",
    (Phase.GREETED, Ack): "_ack",
    (Phase.GREETED, Ping): "_ping",
    (Phase.GREETED, Auth): "_auth",
    (Phase.READY, Sub): "_sub",
    (Phase.READY, Unsub): "_unsub",
    (Phase.READY, Ack): "_ack",
    (Phase.READY, Ping): "_ping",
    (Phase.READY, Auth): "_auth",
}
"""What a device may send when. What is not here ends the session with 4400: a first frame that is no hello, a second hello."""


class _WelcomeFrame(Struct, frozen=True, tag_field="t", tag="welcome"):
    """`frames.Welcome` with its states as they are, so that a head is encoded once and not for every device."""

    sid: str
    now: int
    ping: float
    back: Back
    refresh: float | None
    maps: str | None
    state: list[msgspec.Raw]


_encoder = msgspec.json.Encoder()


class _Pending:
    """What stands between a hello or a sub and its answer; most sessions have none."""

    __slots__ = ("found", "refused", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[str, Position] = {}
        self.found: dict[str, Position] = {}
        self.refused: list[tuple[str, ErrCode]] = []


class ServerSession:
    """One connection's session. See the module's head."""

    __slots__ = (
        "_bucket",
        "_ends",
        "_expires",
        "_heard",
        "_number",
        "_pending",
        "_rules",
        "app",
        "claims",
        "events",
        "phase",
        "start",
    )

    def __init__(self, rules: Rules, number: int, now: float) -> None:
        self._rules = rules
        self._number = number
        self._heard = now
        self._bucket = now
        """When the messages so far are paid for: a leaky bucket as one number (GCRA, ITU-T I.371)."""
        self._ends = self._expires = now + rules.hello_deadline
        self._pending: _Pending | None = None
        self.phase = Phase.OPEN
        self.claims: Claims | None = None
        self.app = ""
        """What the device calls its software."""
        self.events: tuple[str, ...] = ()
        """Followed events: those whose head the device was given."""
        self.start = 0
        """Wall ms of the hello."""

    @property
    def number(self) -> int:
        """Which of the node's sessions."""
        return self._number

    @property
    def sid(self) -> str:
        return f"{self._rules.node}-{self._number:x}"

    def receive(self, message: bytes, now: float, wall: int) -> list[Step]:
        """A text message of the device."""
        if self.phase is Phase.ENDED:
            return []
        self._heard = now
        try:
            frame = decode_device_frame(message)
        except Malformed as error:
            return self._end(CloseCode.MALFORMED, str(error))
        except Invalid as error:
            return self._invalid(error, now)
        if type(frame) is not Ack and (over := self.charge(now)):
            return over
        step = TRANSITIONS.get((self.phase, type(frame)))
        if step is None:
            why = "the first frame must be hello" if self.phase is Phase.OPEN else "a second hello"
            return self._end(CloseCode.MALFORMED, why)
        steps: list[Step] = getattr(self, step)(frame, now, wall)
        return steps

    def touch(self, now: float) -> None:
        """The device gave a sign of life that is no message: a ping or pong of RFC 6455, a part of a frame."""
        if self.phase is not Phase.OPEN:
            self._heard = now

    def silent(self, now: float) -> float:
        """Seconds since the device was last heard."""
        return now - self._heard

    def charge(self, now: float) -> list[Step]:
        """Counts one message against the rate: 20 at once, then one per 0.5 s. Acks that were asked for are free."""
        self._bucket = max(self._bucket, now) + MESSAGES_WINDOW / MESSAGES_MAX
        if self._bucket - now > MESSAGES_WINDOW + 1e-6:
            return self._end(CloseCode.RATE, f"more than {MESSAGES_MAX} messages in {MESSAGES_WINDOW:g} s")
        return []

    def deadline(self) -> float:
        """When to call `expire` (monotonic), if not before."""
        if self.phase is Phase.OPEN:
            return self._ends
        return min(self._heard + self._rules.silence, self._ends, self._expires)

    def expire(self, now: float, wall: int) -> list[Step]:
        """What time alone brings about."""
        if self.phase is Phase.ENDED:
            return []
        if self.phase is Phase.OPEN:
            return self._end(CloseCode.SILENT, "no hello") if now >= self._ends else []
        if now >= self._expires:
            return self._end(CloseCode.UNAUTHORIZED, "the token has expired")
        if now >= self._heard + self._rules.silence:
            return self._end(CloseCode.SILENT, "nothing heard")
        if now >= self._ends:
            return self.go_away(CloseCode.LIFETIME, "lifetime")
        return []

    def go_away(self, code: CloseCode, why: str) -> list[Step]:
        """Ends by plan: says when to come back, then closes."""
        if self.phase is Phase.ENDED:
            return []
        said: list[Step] = [Send(encode(Goaway(why, self._rules.back)))] if self.phase is Phase.READY else []
        return said + self._end(code, why)

    def end(self, code: CloseCode, reason: str) -> list[Step]:
        """Ends for a reason outside of the session: replaced, revoked, slow."""
        return [] if self.phase is Phase.ENDED else self._end(code, reason)

    def settle(self, event: str, refused: ErrCode | None, now: float, wall: int) -> list[Step]:
        """A wanted event's head is known now (`refused` is None), or can't be had."""
        pending = self._pending
        position = pending.wanted.pop(event, None) if pending else None
        if pending is None or position is None or self.phase is Phase.ENDED:
            return []
        if refused is not None:
            pending.refused.append((event, refused))
        else:
            pending.found[event] = position
        return self._answer(now, wall)

    # frames

    def _hello(self, frame: Hello, now: float, wall: int) -> list[Step]:
        try:
            claims = self._rules.admit(frame.token, wall)
        except TokenError as error:
            return self._end(CloseCode.UNAUTHORIZED, str(error))
        if claims.dev != frame.device:
            return self._end(CloseCode.FORBIDDEN, "the token is another device's")
        return self.admitted(claims, frame, now, wall)

    def admitted(self, claims: Claims, frame: Hello, now: float, wall: int) -> list[Step]:
        """What a hello means whose token says `claims`, and is the device's own."""
        self._take(claims, now, wall)
        self.app = sys.intern(frame.app)  # a few texts for all sessions
        self._ends = now + self._rules.lifetime * (1 - self._rules.rng.random() * LIFETIME_JITTER)
        self.start = wall
        self.phase = Phase.GREETED
        return [*_GREETED, *(self._at_once(frame.at, now, wall) or self._follow(frame.at, now, wall))]

    def _at_once(self, at: list[Position], now: float, wall: int) -> list[Step] | None:
        """The usual hello, fast: one event, whose head is known. None for any other; `_follow` would say the same."""
        if len(at) != 1 or self.claims is None or not self.claims.allows(at[0].e):
            return None
        head = self._rules.head(at[0].e)
        if head is None:
            return None
        self.phase = Phase.READY
        self.events = shared((at[0].e,))
        return [Send(self._welcome([head], now, wall)), Follow(at)]

    def _sub(self, frame: Sub, now: float, wall: int) -> list[Step]:
        return self._follow(frame.at, now, wall)

    def _unsub(self, frame: Unsub, now: float, wall: int) -> list[Step]:
        steps: list[Step] = [Leave(self._drop(frame.e))]
        return steps + self._answer(now, wall) if self.phase is Phase.GREETED else steps

    def _ack(self, frame: Ack, now: float, wall: int) -> list[Step]:
        return [Acked(frame)]

    def _ping(self, frame: Ping, now: float, wall: int) -> list[Step]:
        steps: list[Step] = [Send(encode(Pong(frame.c, wall)))]
        if frame.at:
            steps.append(At([position for position in frame.at if position.e in self.events]))
        return steps

    def _auth(self, frame: Auth, now: float, wall: int) -> list[Step]:
        assert self.claims is not None
        try:
            claims = self._rules.admit(frame.token, wall)
        except TokenError as error:
            return self._end(CloseCode.UNAUTHORIZED, str(error))
        if claims.dev != self.claims.dev:
            return self._end(CloseCode.FORBIDDEN, "the token is another device's")
        if claims.sub != self.claims.sub:
            return self._end(CloseCode.UNAUTHORIZED, "the token is another member's")
        self._take(claims, now, wall)
        lost = [event for event in self._held() if not claims.allows(event)]
        if not lost:
            return [Rearm()]
        self._refuse(lost, "unknown_event")
        return [Rearm(), Leave(self._drop(lost)), *self._answer(now, wall)]

    # inside

    def _take(self, claims: Claims, now: float, wall: int) -> None:
        self.claims = claims
        self._expires = now + claims.exp - wall / 1000 + GRACE

    def _held(self) -> list[str]:
        """Events followed, wanted, or found and waiting for the welcome: what a token has to allow."""
        pending = self._pending
        return list(dict.fromkeys((*self.events, *pending.wanted, *pending.found))) if pending else [*self.events]

    def _begin(self) -> _Pending:
        if self._pending is None:
            self._pending = _Pending()
        return self._pending

    def _refuse(self, events: Iterable[str], code: ErrCode) -> None:
        self._begin().refused.extend((event, code) for event in events)

    def _follow(self, at: list[Position], now: float, wall: int) -> list[Step]:
        """Sorts what a hello or a sub asks for: refused, known, wanted."""
        assert self.claims is not None
        pending, want = self._begin(), []
        held = set(self._held())
        for position in {position.e: position for position in at}.values():
            event = position.e
            if event not in held and len(held) >= EVENTS_MAX:
                pending.refused.append((event, "too_many_events"))
            elif not self.claims.allows(event):
                pending.refused.append((event, "unknown_event"))
            else:
                held.add(event)
                if self._rules.head(event) is not None:
                    pending.found[event] = position
                    pending.wanted.pop(event, None)
                else:
                    if event not in pending.wanted:
                        want.append(event)
                    pending.wanted[event] = position
        steps: list[Step] = [Want(want)] if want else []
        return steps + self._answer(now, wall)

    def _answer(self, now: float, wall: int) -> list[Step]:
        """What can be answered now: before the welcome everything at once or nothing, afterwards each event by itself."""
        pending = self._pending
        if pending is None or (self.phase is Phase.GREETED and pending.wanted):
            return []
        heads = [(position, self._rules.head(position.e)) for position in pending.found.values()]
        pending.refused.extend((position.e, "unavailable") for position, head in heads if head is None)
        states = [head for _, head in heads if head is not None]
        if self.phase is Phase.GREETED:
            self.phase = Phase.READY
            steps: list[Step] = [Send(self._welcome(states, now, wall))]
        else:
            steps = [Send(state) for state in states]
        steps += [Send(encode(Err(code, event, REFUSED_TEXT[code]))) for event, code in pending.refused]
        followed = [position for position, head in heads if head is not None]
        if followed:
            self.events = shared(tuple(dict.fromkeys((*self.events, *(position.e for position in followed)))))
            steps.append(Follow(followed))
        pending.found, pending.refused = {}, []
        if not pending.wanted:
            self._pending = None
        return steps

    def _welcome(self, states: list[bytes], now: float, wall: int) -> bytes:
        rules = self._rules
        assert self.claims is not None
        left = self.claims.exp - wall / 1000
        refresh = None if now + left >= self._ends else round(max(left - REFRESH_AHEAD, left / 2), 3)
        raw = [msgspec.Raw(state) for state in states]
        return _encoder.encode(_WelcomeFrame(self.sid, wall, rules.ping, rules.back, refresh, rules.maps, raw))

    def _drop(self, events: Iterable[str]) -> list[str]:
        """Forgets those of `events` that are followed, found or wanted; gives them back."""
        gone = set(events)
        dropped = [event for event in self._held() if event in gone]
        self.events = shared(tuple(event for event in self.events if event not in gone))
        if pending := self._pending:
            pending.wanted = {event: at for event, at in pending.wanted.items() if event not in gone}
            pending.found = {event: at for event, at in pending.found.items() if event not in gone}
            if not pending.wanted and self.phase is Phase.READY and not pending.refused:
                self._pending = None
        return dropped

    def _invalid(self, error: Invalid, now: float) -> list[Step]:
        """A JSON object that is no frame: an `err`, unless it is the first thing that the device says."""
        if self.phase is Phase.OPEN:
            return self._end(CloseCode.MALFORMED, f"the first frame must be a good hello; {error}")
        return self.charge(now) or [Send(encode(Err(error.code, None, str(error))))]

    def _end(self, code: CloseCode, reason: str) -> list[Step]:
        self.phase = Phase.ENDED
        self._pending = None
        return [End(code, reason)]


_SHARED_MAX = 10_000
_tuples: dict[tuple[str, ...], tuple[str, ...]] = {}


def shared(events: tuple[str, ...]) -> tuple[str, ...]:
    """The same tuple for equal subscriptions: most devices of a node follow the same events."""
    if len(_tuples) >= _SHARED_MAX:
        _tuples.clear()
    return _tuples.setdefault(events, events)
