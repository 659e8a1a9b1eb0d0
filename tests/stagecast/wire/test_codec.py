"""Frames to JSON and back: stagecast.wire.codec."""

import contextlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagecast.wire.codec import (
    DEVICE_TYPES,
    NODE_TYPES,
    FrameError,
    Invalid,
    Malformed,
    decode_device_frame,
    decode_node_frame,
    decode_pulled_map,
    encode,
)
from stagecast.wire.frames import DeviceFrame, NodeFrame, Ping, StageMap
from tests.stagecast.wire.strategies import almost_frames, device_frames, node_frames

DECODERS: list[Callable[[bytes], object]] = [decode_device_frame, decode_node_frame]
HUGE = b"9" * 5000
DEEP = b"[" * 50_000 + b"]" * 50_000
NASTY = {
    "empty": b"",
    "no object": b"[]",
    "two objects": b"{}{}",
    "byte order mark": b'\xef\xbb\xbf{"t":"ping","c":1}',
    "NaN": b'{"t":"ping","c":NaN}',
    "a leading zero": b'{"t":"ping","c":01}',
    "deep nesting": DEEP,
    "deep nesting in a body": b'{"t":"msg","id":"a","kind":"k","body":' + DEEP + b"}",
    "deep nesting in an unknown type": b'{"t":"other","x":' + DEEP + b"}",
    "a lone surrogate": b'{"t":"auth","token":"\\ud800"}',
    "no UTF-8": b'{"t":"\xff"}',
}
INVALID = {
    "no type": b"{}",
    "a type that is no text": b'{"t":1}',
    "an infinite clock": b'{"t":"ping","c":1e999}',
    "a huge clock": b'{"t":"ping","c":' + HUGE + b"}",
    "an integer over 2^53 - 1": b'{"t":"ack","e":"f","gen":9007199254740992,"seq":1,"r":"switched","ms":1}',
    "a negative seq": b'{"t":"ack","e":"f","gen":1,"seq":-1,"r":"switched","ms":1}',
    "a seq that is a float": b'{"t":"ack","e":"f","gen":1,"seq":1.5,"r":"switched","ms":1}',
    "a result that is none": b'{"t":"ack","e":"f","gen":1,"seq":1,"r":"done","ms":1}',
    "an event id with capitals": b'{"t":"unsub","e":["Final"]}',
    "an event id with a line end": b'{"t":"unsub","e":["final\\n"]}',
    "an empty event id": b'{"t":"unsub","e":[""]}',
    "a map version that is none": b'{"t":"sub","at":[{"e":"f","map":"v1"}]}',
    "a boolean clock": b'{"t":"ping","c":true}',
    "a missing field": b'{"t":"auth"}',
    "a token over 4096": b'{"t":"auth","token":"' + b"x" * 4097 + b'"}',
    "an app over 64": b'{"t":"hello","token":"t","device":"d","app":"' + b"x" * 65 + b'","at":[]}',
    "a device with a space": b'{"t":"hello","token":"t","device":"a b","app":"","at":[]}',
    "two types": b'{"t":"ping","t":"ack","c":1}',
}


@given(device_frames)
def test_a_device_frame_comes_back(frame: DeviceFrame) -> None:
    """decode(encode(f)) == f for everything a device can say."""
    assert decode_device_frame(encode(frame)) == frame
    assert decode_device_frame(encode(frame).decode()) == frame


@given(node_frames)
def test_a_node_frame_comes_back(frame: NodeFrame) -> None:
    """decode(encode(f)) == f for everything a node can say."""
    assert decode_node_frame(encode(frame)) == frame


@given(device_frames | node_frames)
def test_another_json_library_reads_the_same(frame: DeviceFrame | NodeFrame) -> None:
    """The bytes are one JSON object with `t`, whoever reads them; written anew by another library they decode the same."""
    plain = orjson.loads(encode(frame))
    assert plain["t"] in DEVICE_TYPES | NODE_TYPES
    decode: Callable[[bytes], object] = decode_device_frame if plain["t"] in DEVICE_TYPES else decode_node_frame
    assert decode(orjson.dumps(plain)) == frame
    assert decode(orjson.dumps({**plain, "later": [1, {"t": "x"}]})) == frame


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("decode", DECODERS)
def test_what_is_no_json_object_is_malformed(data: bytes, decode: Callable[[bytes], object]) -> None:
    """Not one JSON object: 4400."""
    with pytest.raises(Malformed):
        decode(data)


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
def test_an_object_with_a_wrong_field_is_a_bad_frame(data: bytes) -> None:
    """Answered by `err`; the connection goes on."""
    with pytest.raises(Invalid) as caught:
        decode_device_frame(data)
    assert caught.value.code == "bad_frame"
    assert len(str(caught.value)) <= 256


def test_unknown_types() -> None:
    """A node answers an unknown type with `err`, a device ignores it; the other direction's types are unknown."""
    for kind in ("other", "welcome", "x" * 500):
        with pytest.raises(Invalid) as caught:
            decode_device_frame(orjson.dumps({"t": kind, "anything": 1}))
        assert caught.value.code == "unknown_type"
    assert decode_node_frame(b'{"t":"other","anything":1}') is None
    assert decode_node_frame(b'{"t":"hello"}') is None


def test_the_last_of_two_equal_keys_wins() -> None:
    """Duplicate keys are as in every common JSON reader."""
    assert decode_device_frame(b'{"t":"ping","c":1,"c":2}') == Ping(2)


def test_text_that_is_no_text() -> None:
    """Bytes that are no UTF-8 can't come from a socket (1007), nor can a lone surrogate; they are malformed all the same."""
    with pytest.raises(Malformed):
        decode_device_frame(b'{"t":"auth","token":"\xff"}')
    with pytest.raises(Malformed):
        decode_device_frame('{"t":"auth","token":"\ud800"}')


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=64) | almost_frames.map(orjson.dumps))
def test_any_bytes_give_a_frame_or_a_frame_error(decode: Callable[[bytes], object], data: bytes) -> None:
    """Nothing else is ever raised."""
    with contextlib.suppress(Malformed, Invalid):
        decode(data)


@given(data=st.data(), frame=device_frames | node_frames)
def test_a_damaged_frame_gives_a_frame_or_a_frame_error(data: st.DataObject, frame: DeviceFrame | NodeFrame) -> None:
    """One byte changed or all cut off behind it: no other exception, for both readers."""
    good = bytearray(encode(frame))
    place = data.draw(st.integers(0, len(good) - 1))
    damaged = bytes(good[:place])
    if data.draw(st.booleans()):
        damaged += bytes([data.draw(st.integers(0, 255))]) + bytes(good[place + 1 :])
    for decode in DECODERS:
        with contextlib.suppress(Malformed, Invalid):
            decode(damaged)


def test_every_type_is_known() -> None:
    """The types are the protocol's, no more and no less."""
    assert {"hello", "sub", "unsub", "ack", "ping", "auth"} == DEVICE_TYPES
    assert {"welcome", "state", "map", "hint", "msg", "pong", "goaway", "err"} == NODE_TYPES


def pulled(**more: Any) -> bytes:
    return orjson.dumps({"t": "map", "e": "f", "gen": 1, "map": "1764000000000-a", "stages": {"live": [1]}, **more})


def test_a_pulled_map_is_a_map_frame_and_when_to_ask_again() -> None:
    """`refresh_after` may be absent; what is held is the plain map."""
    expected = StageMap("f", 1, "1764000000000-a", {"live": [1]}, None, 86_400, False)
    assert decode_pulled_map(pulled(), "f") == (expected, None)
    got, refresh_after = decode_pulled_map(pulled(refresh_after=60), "f")
    assert (type(got), got, refresh_after) == (StageMap, expected, 60)


@pytest.mark.parametrize("body", [b"", b"<html>", pulled(gen=-1), pulled(refresh_after=-1), pulled(e="g"), DEEP])
def test_a_pulled_map_that_is_none(body: bytes) -> None:
    """Anything else is a FrameError, also another event's map."""
    with pytest.raises(FrameError):
        decode_pulled_map(body, "f")
