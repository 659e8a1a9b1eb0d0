"""The link's framing, and the feed's end of it on a real Unix socket."""

import asyncio
import socket
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushy import link_server
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
from pushy.link_server import SocketBusy, WorkerLink, listening_for_workers
from stagecast.receipts import Receipt
from stagecast.records import Revocation
from tests.pushy.hosting import GEN, Worker, until

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


class Owner:
    """Takes down what happens on the links."""

    def __init__(self) -> None:
        self.links: list[WorkerLink] = []
        self.received_messages: list[FromWorker] = []
        self.ended = 0
        self.overflows = 0

    def opened(self, link: WorkerLink) -> None:
        self.links.append(link)

    def received(self, link: WorkerLink, message: FromWorker) -> None:
        self.received_messages.append(message)

    def closed(self, link: WorkerLink) -> None:
        self.ended += 1

    def overflowed(self, link: WorkerLink) -> None:
        self.overflows += 1


async def test_a_worker_must_join_first(tmp_path: Path) -> None:
    """Anything before Joined, or a second Joined, ends the link."""
    owner = Owner()
    async with listening_for_workers(tmp_path / "link", owner):
        for messages in ([Follow(["one"])], [Joined(0, "b", 1), Joined(0, "b", 1)]):
            worker = Worker(*await asyncio.open_unix_connection(str(tmp_path / "link")))
            worker.send(*messages)
            await worker.ended()
            await worker.close()
        await until(lambda: owner.ended == 2)
    assert owner.received_messages == [Joined(0, "b", 1)]


async def test_a_worker_that_does_not_read_loses_its_link(tmp_path: Path) -> None:
    """What it owes is bounded: beyond that the link is dropped, once, and counted; deliveries stop well before."""
    owner = Owner()
    async with listening_for_workers(tmp_path / "link", owner):
        worker = await Worker.join(tmp_path / "link")
        await until(lambda: owner.received_messages)
        link, chunk, most = owner.links[0], bytes(1 << 20), 0
        while link.owed <= link_server.BUSY_BYTES:
            link.write(chunk)
        assert link.busy
        assert owner.overflows == 0
        while not owner.overflows:
            link.write(chunk)
            most = max(most, link.owed)
        assert most <= link_server.LINK_BYTES_MAX
        await until(lambda: owner.ended)
        link.write(chunk)
        assert (link.owed, owner.overflows) == (0, 1)
        await worker.close()


async def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    """A path left by a killed feed is taken over, one in use is not; mode 0600; gone at the end."""
    path = tmp_path / "link"
    owner = Owner()
    async with listening_for_workers(path, owner):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(SocketBusy):
            async with listening_for_workers(path, owner):
                pass
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with listening_for_workers(path, owner):
        await (await Worker.join(path)).close()


def test_packing_is_a_length_and_messagepack() -> None:
    """What another language would need to know."""
    packed = pack(Readiness(True))
    assert int.from_bytes(packed[:4], "big") == len(packed) - 4
    assert msgspec.msgpack.decode(packed[4:]) == {"type": "Readiness", "ready": True}
