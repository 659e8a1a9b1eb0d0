"""Streams over one epoll set: what asyncio promises of a transport, on real sockets."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from pushy.streams import Stream, Streams


class Heard(asyncio.Protocol):
    """Writes down what it is told."""

    stream: Stream

    def __init__(self) -> None:
        self.data = bytearray()
        self.told: list[str] = []
        self.error: Exception | None = None
        self.half_open = False
        self.on_data: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Stream)
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.on_data:
            self.on_data(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.half_open

    def pause_writing(self) -> None:
        self.told.append("full")

    def resume_writing(self) -> None:
        self.told.append("empty")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.error = error


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of the other side of a socket
            await asyncio.sleep(0.001)


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    made = Streams(asyncio.get_running_loop())
    yield made
    made.close()
    await asyncio.sleep(0)


def pair(streams: Streams, room: int = 4096) -> tuple[Heard, socket.socket]:
    """A stream with a small kernel buffer, and its peer."""
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    for one in (here, there):
        one.setblocking(False)
    heard = Heard()
    streams.add(here.detach(), heard)
    return heard, there


def fill(heard: Heard) -> bytes:
    """Writes until bytes are unsent; all that was written."""
    written = b""
    while not heard.stream.get_write_buffer_size():
        part = os.urandom(10_000)
        heard.stream.write(part)
        written += part
    return written


async def drained(peer: socket.socket, size: int) -> bytes:
    """The next `size` bytes of the peer."""
    got = b""
    loop = asyncio.get_running_loop()
    while len(got) < size:
        part = await asyncio.wait_for(loop.sock_recv(peer, size - len(got)), 10)
        assert part
        got += part
    return got


async def test_bytes_go_both_ways(streams: Streams) -> None:
    """What is written arrives, what arrives is told."""
    heard, peer = pair(streams)
    with peer:
        heard.stream.write(b"there")
        peer.send(b"here")
        await until(lambda: heard.data == b"here")
        assert await drained(peer, 5) == b"there"


async def test_a_full_peer_gets_every_byte_in_order(streams: Streams) -> None:
    """What the kernel does not take waits, with all that is written after it; `full` and `empty` are told once each."""
    heard, peer = pair(streams)
    with peer:
        written = fill(heard)
        for i in range(100):
            heard.stream.write(bytes([i]) * 100)
            written += bytes([i]) * 100
        assert heard.told == ["full"]
        assert await drained(peer, len(written)) == written
        await until(lambda: heard.told == ["full", "empty"])
        assert heard.stream.get_write_buffer_size() == 0


async def test_closing_sends_what_is_unsent_first(streams: Streams) -> None:
    """`close` reads no more, flushes and then ends; those who write past the stream see at once that it is over."""
    heard, peer = pair(streams)
    with peer:
        written = fill(heard)
        heard.stream.close()
        heard.stream.write(b"never")
        assert heard.stream.is_closing()
        assert heard.stream.descriptor == -1
        assert await drained(peer, len(written)) == written
        await until(lambda: heard.told[-1] == "lost")
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        assert heard.error is None


async def test_aborting_drops_what_is_unsent(streams: Streams) -> None:
    """The protocol is told later, never within its own call, and once."""
    heard, peer = pair(streams)
    with peer:
        fill(heard)
        heard.stream.abort()
        heard.stream.abort()
        heard.stream.close()
        assert "lost" not in heard.told
        await until(lambda: "lost" in heard.told)
        assert heard.told.count("lost") == 1


async def test_half_a_close_waits_for_what_is_unsent(streams: Streams) -> None:
    """After `write_eof` the peer gets all, then the end, and can still speak."""
    heard, peer = pair(streams)
    heard.half_open = True
    with peer:
        written = fill(heard)
        heard.stream.write_eof()
        assert await drained(peer, len(written)) == written
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        peer.send(b"bye")
        await until(lambda: heard.data == b"bye")
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in heard.told)


async def test_the_peers_end_closes_the_stream(streams: Streams) -> None:
    """Unless the protocol wants it kept."""
    heard, peer = pair(streams)
    peer.close()
    await until(lambda: heard.told == ["eof", "lost"])


async def test_a_paused_stream_reads_nothing(streams: Streams) -> None:
    """And goes on where it was."""
    heard, peer = pair(streams)
    other, other_peer = pair(streams)
    with peer, other_peer:
        heard.stream.pause_reading()
        assert not heard.stream.is_reading()
        peer.send(b"later")
        other_peer.send(b"now")
        await until(lambda: other.data == b"now")
        assert heard.data == b""
        heard.stream.resume_reading()
        await until(lambda: heard.data == b"later")


async def test_a_broken_peer_of_a_paused_stream_is_noticed(streams: Streams) -> None:
    """It would turn the loop for ever otherwise: epoll can't be told not to say so."""
    heard, peer = pair(streams)
    heard.stream.pause_reading()
    peer.close()
    await until(lambda: heard.told == ["lost"])


async def test_a_protocol_that_fails_ends_its_own_stream_alone(streams: Streams) -> None:
    """The others go on; the loop's handler hears of it."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    heard, peer = pair(streams)
    other, other_peer = pair(streams)

    def fail(_: bytes) -> None:
        raise RuntimeError("a bug")

    heard.on_data = fail
    with peer, other_peer:
        peer.send(b"x")
        other_peer.send(b"y")
        await until(lambda: "lost" in heard.told and other.data == b"y")
    assert [str(one["exception"]) for one in failures] == ["a bug"]


async def _end_one_while_another_begins(streams: Streams, word: bytes) -> None:
    heard, peer = pair(streams)
    heard.on_data = lambda _: heard.stream.abort()
    peer.send(b"x")
    other, other_peer = pair(streams)
    other_peer.send(word)
    with peer, other_peer:
        await until(lambda: "lost" in heard.told and other.data)
        assert other.data == word


async def test_a_descriptor_given_out_again_is_another_stream(streams: Streams) -> None:
    """Streams that end while others begin never get each other's bytes."""
    for round_ in range(50):
        await _end_one_while_another_begins(streams, bytes([round_]))


def bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(128)
    return made


async def test_a_crowd_is_accepted(streams: Streams) -> None:
    """More than one batch, each with a protocol of its own; peers' addresses can be asked for."""
    came: list[Heard] = []

    def one() -> Heard:
        came.append(Heard())
        return came[-1]

    socket_ = bound()
    address = socket_.getsockname()
    listening = streams.listen(socket_, one)
    peers = [await asyncio.open_connection(*address) for _ in range(100)]
    await until(lambda: len(came) == 100)
    assert {heard.stream.get_extra_info("peername") for heard in came} == {
        writer.get_extra_info("sockname") for _, writer in peers
    }
    listening.close()
    for _, writer in peers:
        writer.close()
    await until(lambda: all(heard.told[-1:] == ["lost"] for heard in came))


async def test_no_descriptor_left_is_no_reason_to_spin(streams: Streams) -> None:
    """Accepting pauses and comes back; what is connected goes on."""
    came: list[Heard] = []

    def one() -> Heard:
        came.append(Heard())
        return came[-1]

    socket_ = bound()
    listening = streams.listen(socket_, one)
    heard, peer = pair(streams)
    with peer, socket.socket() as client:
        client.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            await asyncio.get_running_loop().sock_connect(client, socket_.getsockname())
            peer.send(b"still here")
            await until(lambda: heard.data == b"still here")
            assert came == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: came)
        listening.close()
