"""What a host's feed and its workers say to each other over a Unix socket: messages and their framing. Pure.

The feed holds the roads (log, store, admin port); a worker holds connections. A worker that loses its feed keeps its connections,
comes back to the socket, joins again and follows its events again: what it missed comes as their heads.
"""

import struct
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from stagecast.receipts import Receipt
from stagecast.records import Revocation

MESSAGE_BYTES_MAX = 16 << 20
M = TypeVar("M")


# worker → feed


class Joined(Struct, frozen=True, tag=True):
    """First on every connection. `boot` is new for every start of the worker."""

    worker: int
    boot: str
    pid: int


class Follow(Struct, frozen=True, tag=True):
    """The worker wants the heads of these events, now and from now on: each is answered by Update or Refused."""

    events: list[str]


class Unfollow(Struct, frozen=True, tag=True):
    events: list[str]


class Counted(Struct, frozen=True, tag=True):
    receipts: list[Receipt]


class Began(Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A session began (after its hello was accepted): for the registry, and for other workers to replace an earlier one."""

    member: str
    device: str
    sid: str
    start: int


class Ended(Struct, frozen=True, tag=True, array_like=True, gc=False):
    member: str
    device: str
    sid: str


class Sessions(Struct, frozen=True, tag=True):
    """Began and Ended in order, some milliseconds' worth at once."""

    changes: list[Began | Ended]


class Delivered(Struct, frozen=True, tag=True):
    """What became of a Push's frames here: only devices that are (or were) connected to this worker."""

    id: int
    statuses: list[tuple[int, str, int]]
    """(place in the Push, device, 200 | 503)."""


class Gauges(Struct, frozen=True, tag=True):
    """A worker's metrics, once a second: counters are cumulative since its boot."""

    values: dict[str, float]
    """Metric name (with labels in Prometheus' text form) → value. CONNECTIONS is always there."""


class Happening(Struct, frozen=True):
    """Something that happened to a device, in words."""

    ts: int
    """Wall ms."""
    what: str
    detail: str


class Explained(Struct, frozen=True, tag=True):
    """What this worker knows of the device of an Explain."""

    id: int
    happenings: list[Happening]


CONNECTIONS = "stagecast_connections"
"""Gauge: connections open at this worker, of any state: a drain is over when it is 0 everywhere."""
AHEAD = "stagecast_devices_ahead_total"
"""Counter: positions that devices stated and that were greater than the head (the store was restored from a backup)."""


# feed → worker


class Readiness(Struct, frozen=True, tag=True):
    """Whether to accept devices; false when both roads are silent, or not yet resolved."""

    ready: bool


class Update(Struct, frozen=True, tag=True):
    """An event's head, newer than what was sent before."""

    e: str
    gen: int
    seq: int
    map: str | None
    ack: int
    """The ack policy's p, 0 for none."""
    frame: bytes
    """The WebSocket frame of the `state`, ready to be written."""
    welcome: bytes
    """The `state` object for a welcome or the answer to `sub`: its ack is null."""


class Refused(Struct, frozen=True, tag=True):
    """The event can't be followed: it does not exist, or its head can't be read now. Not followed afterwards."""

    e: str
    code: Literal["unknown_event", "unavailable"]


class Hinted(Struct, frozen=True, tag=True):
    """A `hint` for an event's subscribers."""

    e: str
    frame: bytes


class Revoked(Struct, frozen=True, tag=True):
    """All standing revocations when a worker joins, later each new one."""

    revocations: list[Revocation]


class Replaced(Struct, frozen=True, tag=True):
    """A later session of the same member and device began at another worker of this host."""

    member: str
    device: str
    start: int


class Parcel(Struct, frozen=True):
    """One frame for a member's devices, or for one device."""

    member: str | None
    device: str | None
    e: str | None
    """The event the frame is about: only for connections whose token allows it."""
    frame: bytes


class Push(Struct, frozen=True, tag=True):
    """Answered by Delivered with the same id."""

    id: int
    parcels: list[Parcel]


class Explain(Struct, frozen=True, tag=True):
    """Answered by Explained with the same id."""

    id: int
    device: str


class Drain(Struct, frozen=True, tag=True):
    """Close all connections with 4000 at `rate` a second (this worker's share), telling each `back` (ms), and accept no more."""

    rate: float
    back: tuple[int, int]


class Steer(Struct, frozen=True, tag=True):
    """The `back` that welcomes and goaways carry from now on, ms."""

    back: tuple[int, int]
    accept_rate: float = 0.0
    """This worker's share of the host's `accept_rate`; 0: as before."""


FromWorker = Joined | Follow | Unfollow | Counted | Sessions | Delivered | Explained | Gauges
ToWorker = Readiness | Update | Refused | Hinted | Revoked | Replaced | Push | Explain | Drain | Steer

_encoder = msgspec.msgpack.Encoder()
_length = struct.Struct(">I")


def pack(message: FromWorker | ToWorker) -> bytes:
    """A message with its length in front."""
    body = _encoder.encode(message)
    return _length.pack(len(body)) + body


class LinkError(ValueError):
    """The other side speaks something else: the connection is closed and made anew."""


class Unpacker(Generic[M]):
    """Cuts a byte stream into messages of one direction: `Unpacker(msgspec.msgpack.Decoder(ToWorker))`."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]") -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """The messages that `data` completes. Raises LinkError."""
        self._buffer += data
        messages: list[M] = []
        start, end = 0, len(self._buffer)
        while end - start >= _length.size:
            (size,) = _length.unpack_from(self._buffer, start)
            if size > MESSAGE_BYTES_MAX:
                raise LinkError(f"a message of {size} bytes, at most {MESSAGE_BYTES_MAX} allowed")
            if end - start < _length.size + size:
                break
            start += _length.size
            try:
                messages.append(self._decoder.decode(memoryview(self._buffer)[start : start + size]))
            except msgspec.DecodeError as error:
                raise LinkError(str(error)) from error
            start += size
        if start:
            del self._buffer[:start]
        return messages


def from_workers() -> Unpacker[FromWorker]:
    """The feed's side."""
    return Unpacker(msgspec.msgpack.Decoder(FromWorker))


def to_worker() -> Unpacker[ToWorker]:
    """The worker's side."""
    return Unpacker(msgspec.msgpack.Decoder(ToWorker))
