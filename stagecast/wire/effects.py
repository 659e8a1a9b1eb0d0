"""What a client session asks its driver to do, and tells the application: one union of frozen values."""

from typing import Any

import msgspec
from msgspec import Struct

from stagecast.broadcast import State
from stagecast.names import EventId
from stagecast.wire.frames import AckResult, Back, DeviceFrame, Payload, StageMap


class Send(Struct, frozen=True, tag=True):
    """Send this frame on the open connection."""

    frame: DeviceFrame


class Welcomed(Struct, frozen=True, tag=True):
    """The node took the token. From now on come back by `back` (ms)."""

    sid: str
    back: Back


class Leaving(Struct, frozen=True, tag=True):
    """The node will close soon; then come back by `back` (ms), or as told before."""

    why: str
    back: Back | None


class Switched(Struct, frozen=True, tag=True):
    """The device took a newer state. `missing`: it holds no payload for the stage (`payload` is null)."""

    state: State
    result: AckResult
    payload: Payload = None


class Filled(Struct, frozen=True, tag=True):
    """The payload that was `missing` when the device switched to `state` has come since."""

    state: State
    payload: Payload


class FetchDue(Struct, frozen=True, tag=True):
    """GET this stage map (If-None-Match: `etag`, if any), then call `fetched` or `fetch_failed`."""

    event: EventId
    url: str
    etag: str | None


class TokenDue(Struct, frozen=True, tag=True):
    """Get a fresh token, then call `renewed` or `renewal_failed`."""


class Refused(Struct, frozen=True, tag=True):
    """The node answered `err`; an event named here is asked for again in 30 to 60 s."""

    event: EventId | None
    code: str
    text: str


class Message(Struct, frozen=True, tag=True):
    """Something for this device alone."""

    id: str
    kind: str
    body: Any


class MapHeld(Struct, frozen=True, tag=True):
    """Another stage map is in use."""

    map: StageMap


class Dropped(Struct, frozen=True, tag=True):
    """A frame that is none of this protocol's."""

    why: str


class GiveUp(Struct, frozen=True, tag=True):
    """Abort the connection, call `closed`, and back off."""

    why: str


Effect = (
    Send | Welcomed | Leaving | Switched | Filled | MapHeld | FetchDue | TokenDue | Refused | Message | Dropped | GiveUp
)


def as_builtins(effects: list[Effect]) -> list[Any]:
    """The effects as plain JSON values, for the test vectors that other SDKs share."""
    plain: list[Any] = msgspec.to_builtins(effects)
    return plain
