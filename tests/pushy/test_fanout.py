"""The two loops of the fan-out: whole frames, in order, to those who can take them; nothing broken for those who can't."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from pushy import native
from pushy.fanout import chosen, way, write_all
from pushy.followed import Place
from pushy.hub import Loops
from pushy.streams import Stream, Streams
from stagecast.wire.sampling import ack_hash


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    try:
        native.build(folder)
    except native.NotBuilt as why:
        pytest.skip(str(why))
    return folder


@pytest.fixture(params=["python", "native", "batched"])
def loops(request: pytest.FixtureRequest) -> Loops:
    kind: str = request.param
    try:
        return chosen(kind, request.getfixturevalue("built") if kind != "python" else Path("nowhere"))
    except ValueError as why:
        pytest.skip(str(why))


class Seated(asyncio.Protocol):
    """What a connection is for the loops: a stream, and `keep` for what did not go out whole."""

    transport: Stream

    def __init__(self) -> None:
        self.unsent = self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Stream)
        self.transport = transport

    def keep(self, frame: bytes, sent: int) -> bool:
        if self.broken:
            raise RuntimeError
        self.transport.write(memoryview(frame)[sent:])
        self.unsent = self.transport.get_write_buffer_size() > 0
        return not self.unsent

    def resume_writing(self) -> None:
        self.unsent = False


class Room:
    """Seats with small kernel buffers, and their peers."""

    def __init__(self, count: int) -> None:
        self.streams = Streams(asyncio.get_running_loop())
        self.seats: list[Seated] = []
        self.peers: list[socket.socket] = []
        self.places: list[Place] = []
        for _ in range(count):
            here, there = socket.socketpair()
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            here.setblocking(False)
            there.setblocking(False)
            seat = Seated()
            self.streams.add(here.detach(), seat)
            self.seats.append(seat)
            self.peers.append(there)
            self.places.append(Place(cast("Any", seat), cast("Any", None), (1, 1)))

    def free(self) -> list[Place]:
        return [place for place, seat in zip(self.places, self.seats, strict=True) if not seat.unsent]


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room(300)  # more than one chunk
    yield made
    made.streams.close()
    for peer in made.peers:
        peer.close()
    await asyncio.sleep(0)


def read(peer: socket.socket) -> bytes:
    """All that is there."""
    got = b""
    while True:
        try:
            part = peer.recv(65536)
        except BlockingIOError:
            return got
        if not part:
            return got
        got += part


async def test_every_stream_stays_whole(loops: Loops, room: Room) -> None:
    """Readers of all speeds: whoever had nothing unsent when a frame went out gets exactly that frame, whole and in order,
    however little of it went into its socket at once; the places given back are those whose frame waits."""
    rng = random.Random(5)
    owed = {id(place): b"" for place in room.places}
    got = [b""] * len(room.peers)
    stuck_ever = 0
    for number in range(60):
        frame = bytes([number]) * rng.choice([20, 500, 3000])
        part = room.free()
        stuck = loops.write_all(frame, part)
        for place in part:
            owed[id(place)] += frame
        unsent = [place for place, seat in zip(room.places, room.seats, strict=True) if seat.unsent]
        assert {id(place) for place in stuck} == {id(place) for place in part} & {id(place) for place in unsent}
        stuck_ever += len(stuck)
        for i, peer in enumerate(room.peers):
            if rng.random() < i / len(room.peers):
                got[i] += read(peer)
        await asyncio.sleep(0)
    assert stuck_ever > 100
    async with asyncio.timeout(10):
        while [len(one) for one in got] != [len(one) for one in owed.values()]:
            got = [one + read(peer) for one, peer in zip(got, room.peers, strict=True)]
            await asyncio.sleep(0)
    assert got == list(owed.values())


async def test_those_who_leave_are_left_out(loops: Loops, room: Room) -> None:
    """A closing stream is not written to past what it still flushes; one whose peer is gone is aborted; the rest get it."""
    for seat in room.seats[:10]:
        seat.transport.close()
    for peer in room.peers[10:20]:
        peer.close()
    stuck = loops.write_all(b"frame", room.places)
    assert stuck == room.places[:20]
    assert all(seat.transport.is_closing() for seat in room.seats[:20])
    assert {read(peer) for peer in room.peers[20:]} == {b"frame"}


async def test_only_those_who_are_due_get_a_state(loops: Loops, room: Room) -> None:
    """Given an order, who has it already is passed over, who has unsent bytes is owed it, and all others are written to."""
    order = (1, 2)
    for place, seat in zip(room.places[:30], room.seats[:30], strict=True):
        place.sent = order if place in room.places[:10] else place.sent
        seat.unsent = place not in room.places[:10]
    room.peers[40].close()
    written, stuck = loops.give(b"frame", room.places, order, 1)
    assert (written, stuck) == (270, [room.places[40]])
    assert all(place.sent is order for place in room.places)
    assert [place.owes for place in room.places] == [0] * 10 + [1] * 20 + [0] * 270
    got = [read(peer) for peer in room.peers[:40] + room.peers[41:]]
    assert got == [b""] * 30 + [b"frame"] * 269


async def test_one_that_fails_leaves_the_others_whole(loops: Loops, room: Room) -> None:
    """What an outlet raises comes through, but not before every frame that has begun has somebody to finish it."""
    for seat in room.seats[:3]:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(seat.transport.descriptor, b"x" * 999)
    room.seats[0].broken = True
    frame = b"f" * 4000
    with pytest.raises(RuntimeError):
        loops.write_all(frame, room.places[:4])
    async with asyncio.timeout(10):
        got = [read(peer) for peer in room.peers[:3]]
        while any(seat.unsent for seat in room.seats[1:3]):
            await asyncio.sleep(0)
            got = [one + read(peer) for one, peer in zip(got, room.peers[:3], strict=True)]
    assert {one.count(b"f") for one in got[1:]} <= {0, len(frame)}


def test_all_ways_ask_the_same_devices(loops: Loops) -> None:
    """Devices acknowledge by a hash that they compute themselves: what a worker counts as asked must be those."""
    devices = [f"device-{i}" for i in range(500)] + ["ø", ""]
    for p in (0, 1, 1 << 20, 1 << 31, (1 << 32) - 1):
        assert loops.asked(devices, 7, 123456789012, p) == sum(ack_hash(one, 7, 123456789012) < p for one in devices)


def test_the_choice_is_what_was_asked_for(built: Path, tmp_path: Path) -> None:
    """`auto` takes what is there; `native` is refused where it has not been built."""
    assert type(chosen("auto", built)).__name__ == type(chosen("native", built)).__name__ == "Loops"
    assert chosen("python", built).write_all is write_all
    assert chosen("auto", tmp_path).write_all is write_all
    assert way("auto", built) in ("batched", "native")
    assert [way(kind, tmp_path) for kind in ("auto", "python")] == ["python", "python"]
    with pytest.raises(ValueError, match="native"):
        chosen("native", tmp_path)


def test_without_a_compiler_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is missing, or that the compiler failed, and leaves nothing behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.NotBuilt, match="no C compiler"):
        native.build(tmp_path)
    (tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    with pytest.raises(native.NotBuilt, match="failed"):
        native.build(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["cc"]
    assert native.load(tmp_path) is None
