"""The frames' fields, as the protocol's table has them: stagecast.wire.frames. Written from that table, not from the code."""

from typing import Any

import orjson
import pytest

from stagecast.wire.codec import Invalid, decode_device_frame, decode_node_frame, encode

POSITION = {"e": "final", "gen": 1764000000000, "seq": 2, "map": "1764000000000-a"}
STATE: dict[str, Any] = {
    "t": "state", "e": "final", "gen": 1764000000000, "seq": 3, "stage": "live", "ts": 1764000000001,
    "map": "1764000000000-a", "fetch": 30000, "ack": {"p": 4294967296, "w": 2000},
}  # fmt: skip
FROM_DEVICE: list[dict[str, Any]] = [
    {"t": "hello", "token": "x", "device": "tv-9:living.room", "app": "tv/1", "at": [POSITION]},
    {"t": "sub", "at": [{"e": "final", "gen": 0, "seq": 0, "map": None}]},
    {"t": "unsub", "e": ["final", "semi"]},
    {"t": "ack", "e": "final", "gen": 1, "seq": 2, "r": "ignored", "ms": 12},
    {"t": "ping", "c": 12.5, "at": [POSITION]},
    {"t": "ping", "c": 7},
    {"t": "auth", "token": "y"},
]
FROM_NODE: list[dict[str, Any]] = [
    {
        "t": "welcome", "sid": "s", "now": 1764000000000, "ping": 45.0, "back": [2000, 5000], "refresh": 600.0,
        "maps": "https://maps.example", "state": [{**STATE, "ack": None}],
    },
    {
        "t": "welcome", "sid": "s", "now": 1, "ping": 45.0, "back": [2000, 5000], "refresh": None, "maps": None,
        "state": [],
    },
    STATE,
    {**STATE, "map": None, "ack": None},
    {
        "t": "map", "e": "final", "gen": 1, "map": "1764000000000-a", "stages": {"live": ["t1"]}, "default": {"a": 1},
        "ttl": 60.0, "cohort": True,
    },
    {"t": "hint", "e": "final", "gen": 1, "map": "1764000000000-a", "w": 60000},
    {"t": "msg", "id": "m", "kind": "note", "body": {"any": [1, None]}},
    {"t": "pong", "c": 7, "now": 1764000000000},
    {"t": "goaway", "why": "drain", "back": [1000, 9000]},
    {"t": "goaway", "why": "lifetime", "back": None},
    {"t": "err", "code": "unknown_event", "e": "final", "text": "no such event"},
    {"t": "err", "code": "bad_frame", "e": None, "text": ""},
]  # fmt: skip
MAY_BE_ABSENT = {"hello": {"app", "at"}, "ping": {"at"}, "map": {"default", "ttl", "cohort"}, "msg": {"body"},
                 "goaway": {"back"}, "err": {"e", "text"}}  # fmt: skip


def cases(frames: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(frame, id=f"{i}-{frame['t']}") for i, frame in enumerate(frames)]


@pytest.mark.parametrize("frame", cases(FROM_DEVICE))
def test_frames_from_devices(frame: dict[str, Any]) -> None:
    """Each is read, and written again with the same fields and values."""
    assert orjson.loads(encode(decode_device_frame(orjson.dumps(frame)))) == frame


@pytest.mark.parametrize("frame", cases(FROM_NODE))
def test_frames_from_nodes(frame: dict[str, Any]) -> None:
    """Each is read, and written again with the same fields and values."""
    decoded = decode_node_frame(orjson.dumps(frame))
    assert decoded is not None
    assert orjson.loads(encode(decoded)) == frame


@pytest.mark.parametrize("frame", cases(FROM_DEVICE + FROM_NODE))
def test_every_other_field_is_needed(frame: dict[str, Any]) -> None:
    """Without it the frame is bad; the few that may be absent are read as their default."""
    decode: Any = decode_device_frame if frame in FROM_DEVICE else decode_node_frame
    for name in frame.keys() - {"t"}:
        without = orjson.dumps({key: value for key, value in frame.items() if key != name})
        if name in MAY_BE_ABSENT.get(frame["t"], ()):
            decode(without)
        else:
            with pytest.raises(Invalid, match=name):
                decode(without)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ack": {"p": 0, "w": 1}},
        {"ack": {"p": 2**32 + 1, "w": 1}},
        {"ack": {"p": 1, "w": -1}},
        {"stage": "Live"},
        {"stage": "s" * 65},
        {"seq": 2**53},
        {"map": "1764000000000"},
        {"map": "176400000000-a"},
        {"fetch": None},
    ],
    ids=str,
)
def test_a_state_out_of_bounds(wrong: dict[str, Any]) -> None:
    """Bounds hold where a device reads, too."""
    with pytest.raises(Invalid):
        decode_node_frame(orjson.dumps({**STATE, **wrong}))


@pytest.mark.parametrize("ping", [0, -1, 1e-9, 1e9])
def test_a_ping_interval_that_would_hurt(ping: float) -> None:
    """A node can't make its devices spin, nor forget to ping."""
    with pytest.raises(Invalid, match="ping"):
        decode_node_frame(orjson.dumps({**FROM_NODE[0], "ping": ping}))


def test_a_welcomes_states_have_their_type() -> None:
    """`state` objects in a welcome are whole, `t` included."""
    bare = {key: value for key, value in STATE.items() if key != "t"}
    with_type = {**FROM_NODE[0], "state": [STATE]}
    assert decode_node_frame(orjson.dumps(with_type)) is not None
    assert b'"t":"state"' in encode(decode_node_frame(orjson.dumps({**FROM_NODE[0], "state": [bare]})))  # type: ignore[arg-type]
