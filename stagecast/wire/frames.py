"""The frames of `stagecast.v1`. Receivers ignore unknown fields; `t` is the type."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from stagecast.broadcast import AckPolicy, State
from stagecast.names import WIRE_INT_MAX, Count, DeviceId, EventId, MapVersion, Millis, StageName

DEVICE_FRAME_BYTES_MAX = 8 * 1024
NODE_FRAME_BYTES_MAX = 64 * 1024
EVENTS_MAX = 8
"""Events one connection may follow."""
MESSAGES_MAX, MESSAGES_WINDOW = 20, 10.0
"""Messages a device may send, and in how many seconds; asked acks do not count."""
HELLO_DEADLINE = 5.0
"""Seconds from open to hello."""
SILENCE_FACTOR = 110 / 45
"""A node closes after this many ping intervals without a byte: 110 s at the default of 45 s."""

Token = Annotated[str, Meta(max_length=4096)]
Seconds = Annotated[float, Meta(ge=0, le=WIRE_INT_MAX)]
Payload = Any
"""What a stage shows; any JSON, opaque to Stagecast (ids aimed at)."""


class Position(Struct, frozen=True):
    """Where a device is in an event; gen = seq = 0 means nothing yet."""

    e: EventId
    gen: Count = 0
    seq: Count = 0
    map: MapVersion | None = None


class Hello(Struct, frozen=True, tag_field="t", tag="hello"):
    token: Token
    device: DeviceId
    app: Annotated[str, Meta(max_length=64)] = ""
    at: list[Position] = []


class Sub(Struct, frozen=True, tag_field="t", tag="sub"):
    at: list[Position]


class Unsub(Struct, frozen=True, tag_field="t", tag="unsub"):
    e: list[EventId]


AckResult = Literal["switched", "missing", "ignored"]


class Ack(Struct, frozen=True, tag_field="t", tag="ack"):
    e: EventId
    gen: Count
    seq: Count
    r: AckResult
    ms: Millis
    """Arrival → applied."""


class Ping(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="ping"):
    c: Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)] | float
    """The device's own clock, in its own unit; comes back in the pong."""
    at: list[Position] | None = None
    """Present only if changed since its last ping."""


class Auth(Struct, frozen=True, tag_field="t", tag="auth"):
    token: Token


DeviceFrame = Hello | Sub | Unsub | Ack | Ping | Auth

Back = tuple[Millis, Millis]
"""Reconnect at U(lo, hi) ms."""


class Welcome(Struct, frozen=True, tag_field="t", tag="welcome"):
    sid: str
    now: Millis
    ping: Annotated[float, Meta(ge=0.01, le=86_400)]
    """Seconds between the device's pings."""
    back: Back
    refresh: Seconds | None
    """Seconds until `auth` is due."""
    maps: str | None
    """Base URL of the stage-map API."""
    state: list[State]


class StageMap(Struct, frozen=True, tag_field="t", tag="map"):
    """What prefetch gives one member (or a cohort) for one event."""

    e: EventId
    gen: Count
    map: MapVersion
    stages: dict[StageName, Payload]
    default: Payload = None
    ttl: Seconds = 86_400
    """Seconds that the device may keep it."""
    cohort: bool = False


class PulledMap(StageMap, frozen=True, tag_field="t", tag="map"):
    """What the stage-map API answers: the `map` frame's object, and when to ask again."""

    refresh_after: Seconds | None = None


class Hint(Struct, frozen=True, tag_field="t", tag="hint"):
    """A newer map exists: fetch it at a random moment within `w` ms."""

    e: EventId
    gen: Count
    map: MapVersion
    w: Millis


class Msg(Struct, frozen=True, tag_field="t", tag="msg"):
    id: str
    kind: str
    body: Any = None


class Pong(Struct, frozen=True, tag_field="t", tag="pong"):
    c: int | float
    now: Millis


class Goaway(Struct, frozen=True, tag_field="t", tag="goaway"):
    why: str
    back: Back | None = None


ErrCode = Literal["unknown_event", "too_many_events", "bad_frame", "unknown_type", "unavailable"]


class Err(Struct, frozen=True, tag_field="t", tag="err"):
    code: str
    """One of `ErrCode` from our nodes; a device takes any."""
    e: str | None = None
    text: str = ""


NodeFrame = Welcome | State | StageMap | Hint | Msg | Pong | Goaway | Err

__all__ = [
    "Ack",
    "AckPolicy",
    "Auth",
    "DeviceFrame",
    "Err",
    "Goaway",
    "Hello",
    "Hint",
    "Msg",
    "NodeFrame",
    "Ping",
    "Pong",
    "Position",
    "PulledMap",
    "StageMap",
    "State",
    "Sub",
    "Unsub",
    "Welcome",
]
