"""A node as PROTOCOL's pages describe it, for tests of the device SDK: the `websockets` server and plain JSON, none of our code.

It does what the test says and nothing by itself, but for the `welcome` and the `pong`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

GEN = 1764000000000
WITHIN = 10.0
"""Seconds that a test waits for what must come."""
Frame = dict[str, Any]


def state(seq: int, stage: str, *, gen: int = GEN, event: str = "final", **more: Any) -> Frame:
    """A `state` frame that asks for nothing."""
    base = {"t": "state", "e": event, "gen": gen, "seq": seq, "stage": stage, "ts": GEN + seq, "map": None}
    return {**base, "fetch": 60_000, "ack": None, **more}


def stage_map(suffix: str, stages: dict[str, Any], *, gen: int = GEN, event: str = "final", **more: Any) -> Frame:
    """A `map` frame; versions order by `suffix`."""
    version = f"1764000000000-{suffix}"
    return {"t": "map", "e": event, "gen": gen, "map": version, "stages": stages, "ttl": 3600, **more}


class Session:
    """One connection as the node sees it."""

    def __init__(self, ws: ServerConnection, hello: Frame) -> None:
        self.ws = ws
        self.hello = hello
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.ws.send(json.dumps(frame))

    async def expect(self, kind: str) -> Frame:
        """The next frame of this type; others before it are passed over."""
        async with asyncio.timeout(WITHIN):
            while (frame := await self._frames.get()) is not None:
                if frame["t"] == kind:
                    return frame
        raise AssertionError(f"the connection ended without a {kind}")

    async def ended(self) -> int:
        """The close code that came from the device, or 1006."""
        async with asyncio.timeout(WITHIN):
            await self.ws.wait_closed()
        return self.ws.close_code or 1006

    async def read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.ws:
                assert isinstance(text, str), "the protocol has text frames alone"
                frame = json.loads(text)
                if frame["t"] == "ping":
                    await self.send({"t": "pong", "c": frame["c"], "now": GEN})
                self._frames.put_nowait(frame)
        self._frames.put_nowait(None)


class Node:
    """Takes devices. What it says in a welcome can be changed at any time."""

    def __init__(self) -> None:
        self.states: list[Frame] = []
        self.welcome: Frame = {"ping": 45, "back": [0, 10], "refresh": None, "maps": None}
        self.greet: Callable[[Session], Awaitable[bool]] | None = None
        """Called with each hello; says whether a welcome follows."""
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.subprotocols: list[Subprotocol] | None = [Subprotocol("stagecast.v1")]
        self.handshakes = 0
        self._arrived: asyncio.Queue[Session] = asyncio.Queue()
        self._server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self) -> None:
        """Listens; again at the same port after `kill`."""
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, subprotocols=self.subprotocols,
            compression=None, ping_interval=None, close_timeout=1, process_request=self._handshake,
        )  # fmt: skip
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def kill(self) -> None:
        """Ends as a killed process does: every connection is reset, nothing listens."""
        if self._server:
            for ws in self._server.connections:
                ws.transport.abort()
        await self.stop()

    async def session(self) -> Session:
        """The next connection that said hello."""
        async with asyncio.timeout(WITHIN):
            return await self._arrived.get()

    def _handshake(self, ws: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        if self.refuse is None:
            return None
        status, headers = self.refuse
        response = ws.respond(HTTPStatus(status), "")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    async def _serve(self, ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            session = Session(ws, json.loads(await ws.recv()))
            if self.greet is None or await self.greet(session):
                await session.send({"t": "welcome", "sid": "s", "now": GEN, "state": self.states, **self.welcome})
            self._arrived.put_nowait(session)
            await session.read()


@contextlib.asynccontextmanager
async def running_node() -> AsyncIterator[Node]:
    node = Node()
    await node.start()
    try:
        yield node
    finally:
        await node.kill()
