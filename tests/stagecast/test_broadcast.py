"""The broadcast: a closed schema of at most 512 bytes, checked at both ends."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagecast.broadcast import (
    BROADCAST_BYTES_MAX,
    AckPolicy,
    Broadcast,
    BroadcastError,
    State,
    decode_broadcast,
    encode_broadcast,
    for_welcome,
)
from stagecast.names import WIRE_INT_MAX
from stagecast.wire.codec import decode_node_frame

PLAIN = Broadcast("final", 1764000000000, 2, "live", 1764000005000, None, 30_000, AckPolicy(2**32, 2000))
LONGEST = Broadcast(
    e="e" * 64,
    gen=WIRE_INT_MAX,
    seq=WIRE_INT_MAX,
    stage="s" * 64,
    ts=WIRE_INT_MAX,
    map="1764000000000-" + "m" * 48,
    fetch=WIRE_INT_MAX,
    ack=AckPolicy(2**32, WIRE_INT_MAX),
)

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=64)
ints = st.integers(0, WIRE_INT_MAX)
broadcasts = st.builds(
    Broadcast,
    e=names,
    gen=ints,
    seq=ints,
    stage=names,
    ts=ints,
    map=st.none() | st.from_regex(r"\A[0-9]{13}-[A-Za-z0-9._-]{1,48}\Z"),
    fetch=ints,
    ack=st.none() | st.builds(AckPolicy, p=st.integers(1, 2**32), w=ints),
)


def changed(**fields: object) -> bytes:
    """PLAIN's JSON with some fields set (or added)."""
    return msgspec.json.encode({**msgspec.json.decode(encode_broadcast(PLAIN)), **fields})


@given(broadcasts)
def test_every_legal_broadcast_is_read_as_it_was_written(broadcast: Broadcast) -> None:
    """decode(encode(b)) == b, within 512 bytes, and equal broadcasts have equal bytes."""
    data = encode_broadcast(broadcast)
    assert len(data) <= BROADCAST_BYTES_MAX
    assert decode_broadcast(data) == broadcast
    assert encode_broadcast(decode_broadcast(data)) == data


def test_the_longest_legal_broadcast_has_367_bytes() -> None:
    """Names and numbers at their bounds leave room under 512: no legal transition can fail for the size of its broadcast."""
    assert len(encode_broadcast(LONGEST)) == 367


def test_a_device_reads_the_same_bytes() -> None:
    """The log's record is the device's `state` frame."""
    state = decode_node_frame(encode_broadcast(PLAIN))
    assert type(state) is State
    assert (state.e, state.order, state.stage, state.ack) == ("final", PLAIN.order, "live", PLAIN.ack)


@pytest.mark.parametrize("field", ["member", "device", "token", "payload", "title", "x"])
def test_nothing_else_can_ride_on_it(field: str) -> None:
    """A field outside the schema makes the record no broadcast: member data can't reach every device by mistake."""
    with pytest.raises(BroadcastError):
        decode_broadcast(changed(**{field: "m1"}))
    with pytest.raises(BroadcastError):
        decode_broadcast(changed(ack={"p": 1, "w": 1, field: "m1"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"e": "Final"},
        {"e": ""},
        {"e": "e" * 65},
        {"e": "final\n"},
        {"stage": "Ann Smith"},
        {"gen": -1},
        {"gen": "1"},
        {"seq": WIRE_INT_MAX + 1},
        {"seq": 2.0},
        {"seq": True},
        {"ts": None},
        {"map": "v1"},
        {"map": "1764000000000-" + "m" * 49},
        {"fetch": -1},
        {"ack": {"p": 0, "w": 1}},
        {"ack": {"p": 2**32 + 1, "w": 1}},
        {"t": "map"},
    ],
)
def test_each_field_is_checked(fields: dict[str, object]) -> None:
    """Names, bounds and types are refused at the host."""
    with pytest.raises(BroadcastError):
        decode_broadcast(changed(**fields))


@pytest.mark.parametrize("field", ["e", "gen", "seq", "stage", "ts", "map", "fetch", "ack"])
def test_each_field_is_required(field: str) -> None:
    """There is one spelling of a broadcast; nothing is filled in by the reader."""
    fields = msgspec.json.decode(encode_broadcast(PLAIN))
    del fields[field]
    with pytest.raises(BroadcastError):
        decode_broadcast(msgspec.json.encode(fields))


@pytest.mark.parametrize(
    "bad", [{"e": "e" * 600}, {"stage": "Ann Smith"}, {"map": "v1"}, {"seq": -1}, {"ts": WIRE_INT_MAX + 1}]
)
def test_a_producer_cannot_write_what_hosts_refuse(bad: dict[str, object]) -> None:
    """`encode_broadcast` checks as `decode_broadcast` does, since a Struct's constructor checks nothing."""
    with pytest.raises(BroadcastError):
        encode_broadcast(msgspec.structs.replace(PLAIN, **bad))


@given(st.binary(max_size=600))
def test_any_bytes_are_a_broadcast_or_an_error(data: bytes) -> None:
    """Nothing but BroadcastError comes out of bytes from the log."""
    try:
        decode_broadcast(data)
    except BroadcastError:
        return


@pytest.mark.parametrize(
    "data",
    [
        encode_broadcast(PLAIN) + b" ",
        encode_broadcast(PLAIN).replace(b'"e":', b'"e": '),
        encode_broadcast(PLAIN).replace(b'"stage":', b'"stage":"ann-smith","stage":'),
        encode_broadcast(PLAIN).replace(b'"t":"state",', b"")[:-1] + b',"t":"state"}',
    ],
)
def test_there_is_one_spelling(data: bytes) -> None:
    """Hosts pass the bytes on as they are, so a field given twice can't carry what the schema does not know."""
    with pytest.raises(BroadcastError, match="spells"):
        decode_broadcast(data)


def test_too_many_bytes_are_refused_unread() -> None:
    """512 bytes is the bound, before anything is parsed."""
    with pytest.raises(BroadcastError, match="at most 512"):
        decode_broadcast(b"[" * (BROADCAST_BYTES_MAX + 1))


def test_a_welcome_asks_for_no_ack() -> None:
    """The head in a welcome is the broadcast with a null ack: welcomes are not in a broadcast's audience."""
    welcomed = decode_broadcast(for_welcome(PLAIN))
    assert welcomed == msgspec.structs.replace(PLAIN, ack=None)
