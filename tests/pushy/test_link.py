"""The link: its messages, whole and in pieces."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushy.link import (
    MESSAGE_BYTES_MAX,
    Began,
    Counted,
    Delivered,
    Drain,
    Ended,
    Follow,
    FromWorker,
    Gauges,
    Hinted,
    Joined,
    LinkError,
    Parcel,
    Push,
    Readiness,
    Refused,
    Replaced,
    Revoked,
    Sessions,
    Steer,
    ToWorker,
    Unfollow,
    Unpacker,
    Update,
    from_workers,
    pack,
    to_worker,
)
from stagecast.receipts import Receipt
from stagecast.records import Revocation
from tests.pushy.hosting import GEN

M = TypeVar("M")
FROM_WORKERS: list[FromWorker] = [
    Joined(1, "boot", 42),
    Follow(["one", "two"]),
    Unfollow(["one"]),
    Counted([Receipt("h", "b", 1, GEN, "one", GEN, 3, audience=2, written=1, pending=1, latency={3: 1})]),
    Sessions([Began("m", "d", "s", GEN), Ended("m", "d", "s")]),
    Delivered(7, [(0, "d", 200), (1, "d", 503)]),
    Gauges({'stagecast_closes_total{code="1001"}': 1.0}),
]
TO_WORKERS: list[ToWorker] = [
    Readiness(True),
    Update("one", GEN, 3, None, 2**32, b"\x81\x00", b"{}"),
    Refused("two", "unknown_event"),
    Hinted("one", b"\x81\x00"),
    Revoked([Revocation("device", "d", GEN)]),
    Replaced("m", "d", GEN),
    Push(7, [Parcel("m", None, "one", b"\x81\x00"), Parcel(None, "d", None, b"")]),
    Drain(12.5, (2000, 5000)),
    Steer((2000, 9000)),
]


@given(st.lists(st.integers(0, 600), max_size=12))
def test_messages_survive_any_cut(cuts: list[int]) -> None:
    """Whole or split anywhere, both directions give back what was said, in order."""
    assert through(from_workers(), FROM_WORKERS, cuts) == FROM_WORKERS
    assert through(to_worker(), TO_WORKERS, cuts) == TO_WORKERS


def through(unpacker: Unpacker[M], messages: Sequence[FromWorker | ToWorker], cuts: list[int]) -> list[M]:
    """What comes out when the packed messages go in, cut at these bytes."""
    data = b"".join(pack(message) for message in messages)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [message for start, end in pairwise(edges) for message in unpacker.feed(data[start:end])]


@pytest.mark.parametrize(
    "data",
    [
        (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"),
        (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
        pack(Readiness(True)),
    ],
)
def test_another_language_is_an_error(data: bytes) -> None:
    """Too long, no MessagePack, or a message of the other direction."""
    with pytest.raises(LinkError):
        from_workers().feed(data)


def test_packing_is_a_length_and_messagepack() -> None:
    """What another language would need to know."""
    packed = pack(Readiness(True))
    assert int.from_bytes(packed[:4], "big") == len(packed) - 4
    assert msgspec.msgpack.decode(packed[4:]) == {"type": "Readiness", "ready": True}
