"""What the log and the store hold, and under which names: one place, so that tiers that never import each other agree.

Log `events` (key = event id, `_` for what concerns every host): broadcasts, hints, beats, revocations, nothing else.
Log `receipts` (key = event id): receipts.
"""

import zlib
from typing import Literal

import msgspec
from msgspec import Struct

from stagecast.broadcast import Broadcast, BroadcastError, decode_broadcast
from stagecast.names import MapVersion
from stagecast.wire.frames import Hint

EVERYWHERE = "_"
"""The log key of records that are not one event's."""


class Beat(Struct, frozen=True, tag_field="t", tag="beat"):
    """Says that the log is alive: appended by every producer every 5 s."""

    ts: int


class Revocation(Struct, frozen=True, tag_field="t", tag="revoked"):
    """Tokens of `id` issued at or before `ts` (wall ms) are void; their connections close with 4401."""

    kind: Literal["device", "member"]
    id: str
    ts: int

    @property
    def subject(self) -> str:
        return f"{self.kind}:{self.id}"


EventsRecord = Broadcast | Hint | Beat | Revocation


class RecordError(ValueError):
    """These bytes are no record of the log `events`."""


_encoder = msgspec.json.Encoder()
_others = msgspec.json.Decoder(Hint | Beat | Revocation)


def encode_record(record: Hint | Beat | Revocation) -> bytes:
    """The record's bytes; a broadcast has its own `encode_broadcast`, with its own bound."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> EventsRecord:
    """Reads a record of the log `events`, checked. Raises RecordError."""
    try:
        return decode_broadcast(data) if data.startswith(b'{"t":"state"') else _others.decode(data)
    except (BroadcastError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(str(error)) from error


# The store. Items of these records change by compare-and-set alone: `heads`, `plans/…`, `gens`, `campaigns`.
HEADS = "heads"
"""key = event id → Head."""
GENS = "gens"
"""key = event id → the greatest gen ever given out, decimal; stays for ever."""
CAMPAIGNS = "campaigns"
"""key = event id → the campaign's state (prefetch)."""
REVOKED = "revoked"
"""key = Revocation.subject → Revocation; ttl = the longest life of a token."""
API_KEYS = "api_keys"
"""key = SHA-256 of the API key, hexadecimal → access.ApiKey."""
INDEX_SHARDS = 16
BUCKETS = 4096
"""Records that an event's stage maps are spread over."""
HISTORY_TTL = 400 * 24 * 3600.0
REVOKED_TTL = 400 * 24 * 3600.0
"""Seconds; tokens that live longer are refused (tokens.LIFE_MAX)."""


def index_record(shard: int) -> str:
    """Record of a shard of the index; key = event id → when it was put there, wall ms, decimal."""
    return f"index/events/{shard}"


def index_shard(event: str) -> int:
    return zlib.crc32(event.encode()) % INDEX_SHARDS


def plan_record(event: str, gen: int) -> str:
    """Key = revision, 6 digits → Plan. Set once, never changed."""
    return f"plans/{event}/{gen}"


def history_record(event: str, gen: int) -> str:
    """Key = seq, 16 digits → event.Accepted."""
    return f"history/{event}/{gen}"


def audit_record(event: str, gen: int) -> str:
    """Key = wall ms, 16 digits, `-`, place among acts done together, `-`, 8 random digits → audit.Act; kept like history."""
    return f"audit/{event}/{gen}"


def series_record(event: str, gen: int) -> str:
    """Key = seq, 16 digits, `-`, chunk, 6 digits → the chunk's points (broadcaster.series); kept as long as history."""
    return f"series/{event}/{gen}"


def registry_record(member: str) -> str:
    """Key = device id → Session. ttl = connection lifetime + grace."""
    return f"registry/{member}"


def device_record(device: str) -> str:
    """Key = `member` → the member's id. ttl as the registry's."""
    return f"devices/{device}"


def bucket_of(key: str) -> int:
    """Of the stage maps of a member, or of `cohort:<name>`."""
    return zlib.crc32(key.encode()) % BUCKETS


def stage_map_record(event: str, gen: int, bucket: int) -> str:
    """Key = member id (or `cohort:<name>`) → wire.frames.StageMap."""
    return f"stage_maps/{event}/{gen}/{bucket}"


def required_map_record(event: str) -> str:
    """Key = gen, decimal → RequiredMap."""
    return f"required_map/{event}"


class RequiredMap(Struct, frozen=True):
    """The map version that broadcasts ask devices to hold: of the last finished campaign."""

    map: MapVersion
    rate: float
    """Stage maps per second that the stage-map API serves: what the fetch window is computed from."""


class Session(Struct, frozen=True, gc=False):
    """Where a device is connected."""

    sid: str
    host: str
    admin: str
    """Base URL of the host's admin port, as other hosts reach it: where `POST /push` goes."""
    worker: int
    start: int
    """When the session began, wall ms: a later one replaces an earlier one on the same host."""
