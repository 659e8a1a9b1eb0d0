"""What devices get of a head, and its bytes: the log's record and the device's `state` frame are the same JSON object, so a
host passes it on without encoding it again."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from stagecast.names import Count, EventId, MapVersion, Millis, StageName

BROADCAST_BYTES_MAX = 512


class AckPolicy(Struct, frozen=True):
    """Which devices acknowledge, and how fast: a device acks iff its hash is below `p`, at U(0, `w`)."""

    p: Annotated[int, Meta(ge=1, le=2**32)]
    w: Millis


class State(Struct, frozen=True, tag_field="t", tag="state"):
    """An event's current state as a device reads it: unknown fields are ignored."""

    e: EventId
    gen: Count
    seq: Count
    stage: StageName
    ts: Millis
    map: MapVersion | None
    fetch: Millis
    ack: AckPolicy | None

    @property
    def order(self) -> tuple[int, int]:
        """What decides which of two states is newer; nothing else does."""
        return self.gen, self.seq


class Broadcast(State, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="state"):
    """A `State` as producers write and hosts accept it: a closed schema, so that no member's data can ever ride on it."""


class BroadcastError(ValueError):
    """These bytes are not a broadcast, or too many."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Broadcast)


def encode_broadcast(broadcast: Broadcast) -> bytes:
    """The broadcast's bytes: equal for equal broadcasts. Checked as a host checks them, so that a producer's mistake is its own
    error and not a record every host drops. Raises BroadcastError. A legal broadcast has at most 367 bytes."""
    data = _encoder.encode(broadcast)
    decode_broadcast(data)
    return data


def decode_broadcast(data: bytes) -> Broadcast:
    """Reads and checks what `encode_broadcast` wrote. Raises BroadcastError for anything else, another spelling of the same JSON
    included: a field given twice, or one hidden inside `ack`, could carry data that the schema does not know."""
    if len(data) > BROADCAST_BYTES_MAX:
        raise BroadcastError(f"{len(data)} bytes, at most {BROADCAST_BYTES_MAX} allowed")
    try:
        broadcast = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BroadcastError(str(error)) from error
    if _encoder.encode(broadcast) != data:
        raise BroadcastError("not as a producer spells a broadcast")
    return broadcast


def for_welcome(broadcast: State) -> bytes:
    """The state as a welcome carries it: never asking for an ack, since welcomes are not in a broadcast's audience."""
    return _encoder.encode(msgspec.structs.replace(broadcast, ack=None))
