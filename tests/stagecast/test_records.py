"""The log's records and the store's names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagecast.broadcast import Broadcast, encode_broadcast
from stagecast.records import (
    INDEX_SHARDS,
    REVOKED_TTL,
    Beat,
    EventsRecord,
    RecordError,
    Revocation,
    decode_record,
    device_record,
    encode_record,
    history_record,
    index_record,
    index_shard,
    plan_record,
    registry_record,
    required_map_record,
    stage_map_record,
)
from stagecast.tokens import LIFE_MAX
from stagecast.wire.frames import Hint

BROADCAST = Broadcast("final", 1, 2, "live", 3, None, 0, None)
OTHERS = [Beat(5), Hint("final", 1, "1764000000000-a", 60_000), Revocation("device", "tv", 7)]


@pytest.mark.parametrize("record", [BROADCAST, *OTHERS])
def test_every_record_is_read_as_it_was_written(record: EventsRecord) -> None:
    """Broadcasts, hints, beats and revocations share the log and are told apart by their `t`."""
    data = encode_broadcast(record) if isinstance(record, Broadcast) else encode_record(record)
    assert decode_record(data) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'{"t":"state"}',
        b'{"t":"receipt"}',
        b'{"t":"beat"}',
        b'{"t":"revoked","kind":"event","id":"x","ts":1}',
        b'{"t":"hint","e":"final","gen":1,"map":"v1","w":1}',
        encode_broadcast(BROADCAST)[:-1] + b',"member":"m1"}',
        b' {"t":"state","e":"final","gen":1,"seq":2,"stage":"live","ts":3,"map":null,"fetch":0,"ack":null}',
        b'{"t":"beat","ts":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"t":"beat","ts":1}\xff',
    ],
)
def test_anything_else_is_a_record_error(data: bytes) -> None:
    """A host can drop a bad record and read on: there is one error, whatever is wrong."""
    with pytest.raises(RecordError):
        decode_record(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_a_record_error(data: bytes) -> None:
    """Nothing else comes out."""
    try:
        decode_record(data)
    except RecordError:
        return


def test_names_do_not_meet() -> None:
    """Records of different kinds, events, gens and members never share a name."""
    names = [
        *(index_record(shard) for shard in range(INDEX_SHARDS)),
        *(plan_record(event, gen) for event in ("a", "b") for gen in (1, 11)),
        *(history_record(event, gen) for event in ("a", "b") for gen in (1, 11)),
        *(stage_map_record(event, gen, bucket) for event in ("a", "b") for gen in (1, 11) for bucket in (1, 11)),
        registry_record("a"),
        device_record("a"),
        required_map_record("a"),
    ]
    assert len(set(names)) == len(names)


def test_an_event_keeps_its_shard() -> None:
    """The shard of an id is the same in every process and version (no salted hash), and shards fill evenly."""
    assert [index_shard(event) for event in ("final", "gala", "a")] == [6, 4, 3]
    shards = [index_shard(f"event-{i}") for i in range(1600)]
    assert {shards.count(shard) > 50 for shard in range(INDEX_SHARDS)} == {True}


def test_a_revocation_outlives_every_token() -> None:
    """It is kept as long as a token may live, and says whom it is about."""
    assert REVOKED_TTL >= LIFE_MAX
    assert Revocation("member", "ann", 1).subject == "member:ann"
