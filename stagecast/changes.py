"""What a device tells its application: changes of stage, notices, and why it ended. Values alone.

DeviceError               the device has ended and does not come back by itself
 ├── TokenRefused         its token is no good, and no other is to be had
 └── Dismissed            the node closed with a code that is the device's own fault
"""

from dataclasses import dataclass

from stagecast.wire.closing import CloseCode
from stagecast.wire.effects import Message, Refused
from stagecast.wire.frames import AckResult, Payload


class DeviceError(Exception):
    """The device has ended and does not come back by itself."""


class TokenRefused(DeviceError):
    """The token is invalid, expired or revoked, and no other is to be had."""


class Dismissed(DeviceError):
    """The node closed with `code`: a fault of this device, or another session of it has taken its place (4409)."""

    def __init__(self, code: int, reason: str) -> None:
        name = CloseCode(code).name.lower().replace("_", " ") if code in list(CloseCode) else "closed"
        super().__init__(f"{name} ({code}){': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Change:
    """The device switched to a stage."""

    event: str
    gen: int
    seq: int
    stage: str
    result: AckResult
    """`missing`: no payload for it is held."""
    payload: Payload
    ts: int
    """When the transition was accepted, ms since 1970 by the producer's clock."""
    applied_at: int
    """When this device switched, ms since 1970 by its own clock."""
    caught_up: bool = False
    """It came with a welcome: the device was away when it was sent."""
    late: bool = False
    """Not a switch: the payload that was missing has come."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A node has welcomed the device."""

    session: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or none could be made; the next try is in `again_in` seconds."""

    code: int
    why: str
    again_in: float


Notice = Connected | Disconnected | Refused | Message
