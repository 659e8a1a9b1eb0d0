"""Hypothesis strategies for every frame of both directions, and for bytes that almost are one."""

from typing import Any

from hypothesis import strategies as st

from stagecast.broadcast import AckPolicy, State
from stagecast.names import WIRE_INT_MAX
from stagecast.wire.frames import (
    Ack,
    Auth,
    DeviceFrame,
    Err,
    Goaway,
    Hello,
    Hint,
    Msg,
    NodeFrame,
    Ping,
    Pong,
    Position,
    StageMap,
    Sub,
    Unsub,
    Welcome,
)

counts = st.integers(0, WIRE_INT_MAX)
names = st.from_regex(r"\A[a-z0-9._-]{1,64}\Z")
devices = st.from_regex(r"\A[A-Za-z0-9._:-]{1,64}\Z")
versions = st.from_regex(r"\A[0-9]{13}-[A-Za-z0-9._-]{1,48}\Z")
words = st.text(max_size=20)
seconds = st.floats(0, 1e9)
numbers = st.integers(-WIRE_INT_MAX, WIRE_INT_MAX) | st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
positions = st.builds(Position, names, counts, counts, st.none() | versions)
backs = st.tuples(counts, counts)
acks = st.none() | st.builds(AckPolicy, st.integers(1, 2**32), counts)
states = st.builds(State, names, counts, counts, names, counts, st.none() | versions, counts, acks)
stage_maps = st.builds(
    StageMap, names, counts, versions, st.dictionaries(names, json_values, max_size=4), json_values, seconds, st.booleans()
)  # fmt: skip

device_frames: st.SearchStrategy[DeviceFrame] = st.one_of(
    st.builds(Hello, words, devices, words, st.lists(positions, max_size=8)),
    st.builds(Sub, st.lists(positions, max_size=8)),
    st.builds(Unsub, st.lists(names, max_size=8)),
    st.builds(Ack, names, counts, counts, st.sampled_from(["switched", "missing", "ignored"]), counts),
    st.builds(Ping, numbers, st.none() | st.lists(positions, max_size=8)),
    st.builds(Auth, words),
)
welcomes = st.builds(
    Welcome, words, counts, st.floats(0.01, 86_400), backs, st.none() | seconds, st.none() | words,
    st.lists(states, max_size=8),
)  # fmt: skip
node_frames: st.SearchStrategy[NodeFrame] = st.one_of(
    welcomes,
    states,
    stage_maps,
    st.builds(Hint, names, counts, versions, counts),
    st.builds(Msg, words, words, json_values),
    st.builds(Pong, numbers, counts),
    st.builds(Goaway, words, st.none() | backs),
    st.builds(Err, words, st.none() | words, words),
)
"""Every frame of a node."""

_fields = st.sampled_from(
    ["t", "e", "gen", "seq", "at", "c", "token", "device", "body", "stages", "state", "back", "ack"]
)
_types = st.sampled_from(
    ["hello", "sub", "ack", "ping", "welcome", "state", "map", "hint", "msg", "pong", "err", "other"]
)
almost_frames = st.dictionaries(_fields, json_values | _types, max_size=8).flatmap(
    lambda fields: _types.map(lambda kind: {**fields, "t": kind})
)
"""JSON objects with the names of frames and anything as their values."""
