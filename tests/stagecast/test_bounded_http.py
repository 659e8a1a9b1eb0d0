"""The bounds on a request's head, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stagecast.bounded_http import HEAD_BYTES_MAX
from stagecast.http import serving

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
DEADLINE = 0.3


async def root(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())}")


async def slow(_: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for _ in range(4):
            await asyncio.sleep(DEADLINE / 2)
            yield "line\n"

    return StreamingResponse(lines())


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def connect() -> AsyncIterator["type[Connecting]"]:
    app = Starlette(routes=[Route("/", root, methods=["GET", "POST"]), Route("/slow", slow)])
    async with serving(app, "127.0.0.1:0", DEADLINE) as url:
        Connecting.port = int(url.rsplit(":", 1)[1])
        yield Connecting


class Connecting:
    """An HTTP connection made of a socket."""

    port = 0

    async def __aenter__(self) -> Pair:
        self._pair = await asyncio.open_connection("127.0.0.1", self.port)
        return self._pair

    async def __aexit__(self, *_: object) -> None:
        self._pair[1].close()
        with contextlib.suppress(ConnectionError):
            await self._pair[1].wait_closed()


@pytest.mark.parametrize("begun", [b"", b"G", GET, GET + b"X: " + b"a" * 1000])
async def test_a_head_that_does_not_come_is_cut(connect: type[Connecting], begun: bytes) -> None:
    """Nothing, a byte, or all but the end: the connection is closed after the deadline, without an answer."""
    async with connect() as (reader, writer):
        writer.write(begun)
        assert await reader.read() == b""


async def test_a_dripping_head_is_cut(connect: type[Connecting]) -> None:
    """More bytes do not move the deadline."""
    async with connect() as (reader, writer):
        end = asyncio.create_task(reader.read())
        writer.write(GET)
        for i in range(200):
            if end.done():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(f"X-{i}: a\r\n".encode())
                await writer.drain()
            await asyncio.sleep(DEADLINE / 10)
        else:
            pytest.fail("it could go on for ever")
        with contextlib.suppress(ConnectionError):
            assert await end == b""


@pytest.mark.parametrize(
    "endless",
    [b"X: a\r\n" * 1000, b"GET /" + b"a" * 6000, b"X: " + b"a" * 6000],
    ids=["fields", "target", "one field"],
)
async def test_an_endless_head_is_431(connect: type[Connecting], endless: bytes) -> None:
    """Many fields, a long target or one long field: answered 431 and closed, long before the client is through."""
    async with connect() as (reader, writer):
        writer.write((b"" if endless.startswith(b"GET") else GET) + endless)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * HEAD_BYTES_MAX and not reader.at_eof():
                writer.write(b"X: a\r\n" * 1000 if endless.startswith(b"X: a\r\n") else b"a" * 6000)
                sent += 6000
                await writer.drain()
        assert sent < 100 * HEAD_BYTES_MAX
        with contextlib.suppress(ConnectionError):
            assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")


async def test_ordinary_requests_are_as_before(connect: type[Connecting]) -> None:
    """A large body is no head; a connection that is kept serves a second request after a pause; an answer that takes longer than
    the deadline is whole."""
    async with connect() as (reader, writer):
        body = b"b" * (4 * HEAD_BYTES_MAX)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert int(await reader.readexactly(len(str(len(body))))) == len(body)
        await asyncio.sleep(DEADLINE * 1.5)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).count(b"line") == 4


async def test_a_half_request_behind_does_not_cut_an_answer(connect: type[Connecting]) -> None:
    """A second request that never ends waits for the first one's answer, and is cut then."""
    async with connect() as (reader, writer):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        assert (await reader.read()).count(b"line") == 4
