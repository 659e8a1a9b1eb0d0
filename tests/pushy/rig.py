"""What the worker's tests share: a small feed that speaks the link, a worker in a process of its own, and a device made of a
plain socket that knows nothing but PROTOCOL: its frames are made and read here, byte by byte."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

from pushy import native
from pushy.link import Follow, FromWorker, Joined, Readiness, Refused, ToWorker, Update, from_workers, pack
from pushy.rfc6455 import server_frame
from pushy.worker import Options, run_worker
from stagecast.broadcast import AckPolicy, Broadcast, encode_broadcast, for_welcome
from stagecast.clock import SystemClock
from stagecast.settings import Settings
from stagecast.tokens import create_keys, load_keys

T = TypeVar("T")
PATIENCE = 15.0
"""Seconds after which a condition that should have come true long ago fails the test."""
ALL = 2**32
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pushy.worker"])  # a worker starts in 20 ms, where its imports alone take 0.5 s


def broadcast(
    e: str, seq: int, stage: str = "live", gen: int = 1, p: int = ALL, version: str | None = None
) -> Broadcast:
    return Broadcast(e, gen, seq, stage, 1_764_000_000_000 + seq, version, 1000, AckPolicy(p, 2000) if p else None)


def update(e: str, seq: int, stage: str = "live", gen: int = 1, p: int = ALL, version: str | None = None) -> Update:
    head = broadcast(e, seq, stage, gen, p, version)
    return Update(e, gen, seq, head.map, p, server_frame(encode_broadcast(head)), for_welcome(head))


class Feed:
    """Answers Follow from `heads`; remembers all that the worker says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heads: dict[str, Update] = {}
        self.mute = False
        """Whether Follow goes unanswered."""
        self.said: list[FromWorker] = []
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """As a feed that dies: the links break, and nobody listens."""
        assert self._server is not None
        self._server.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.path.unlink(missing_ok=True)

    def send(self, *messages: ToWorker) -> None:
        assert self._writer is not None
        for message in messages:
            if isinstance(message, Update):
                self.heads[message.e] = message
            self._writer.write(pack(message))

    async def until(self, found: Callable[[], T]) -> T:
        """Waits until `found` gives something true."""
        async with asyncio.timeout(PATIENCE):
            while not (result := found()):
                self._news.clear()
                await self._news.wait()
        return result

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.said if isinstance(message, kind)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unpacker, self._writer = from_workers(), writer
        while data := await reader.read(1 << 16):
            for message in unpacker.feed(data):
                self.said.append(message)
                self._answer(message)
            self._news.set()
        writer.close()

    def _answer(self, message: FromWorker) -> None:
        match message:
            case Joined():
                self.send(Readiness(True))
            case Follow(events) if not self.mute:
                for e in events:
                    self.send(self.heads.get(e) or Refused(e, "unknown_event"))
            case _:
                pass


class Rig:
    """A worker with its feed, its keys and its address."""

    def __init__(
        self, folder: Path, settings: Settings, feed: Feed, address: tuple[str, int], process: ForkServerProcess
    ) -> None:
        assert process.pid is not None
        self.folder = folder
        self.settings = settings
        self.feed = feed
        self.address = address
        self.pid = process.pid
        self._process = process
        self._rng = random.Random(1)

    def token(
        self, device: str = "d1", member: str = "m1", events: list[str] | None = None, ttl: float = 3600.0
    ) -> str:
        keys = load_keys(self.settings.keys_file)
        return keys.mint(member, device, events or ["*"], ttl, SystemClock().now() / 1000, self._rng)

    async def ended(self) -> int | None:
        """Waits for the process; its exit status."""
        ended = asyncio.Event()
        loop, sentinel = asyncio.get_running_loop(), self._process.sentinel
        loop.add_reader(sentinel, ended.set)
        try:
            async with asyncio.timeout(PATIENCE):
                await ended.wait()
        finally:
            loop.remove_reader(sentinel)
        self._process.join()
        return self._process.exitcode

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def device(
        self, name: str = "d1", *, member: str = "m1", at: list[dict[str, Any]] | None = None, **more: Any
    ) -> "Raw":
        """A welcomed device."""
        raw = await Raw.connect(self.address, **more)
        raw.hello(
            self.token(name, member), name, at if at is not None else [{"e": "final", "gen": 0, "seq": 0, "map": None}]
        )
        welcome = await raw.frame()
        assert welcome["t"] == "welcome", welcome
        raw.welcome = welcome
        return raw


def built() -> Path:
    """Where the native path is, for the whole run; without a compiler there is none, and workers take Python's."""
    folder = Path(tempfile.gettempdir()) / f"stagecast-native-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not native.library(folder).exists():
        with contextlib.suppress(native.NotBuilt):
            native.build(folder, ["-Werror"])
    return folder


@contextlib.asynccontextmanager
async def worker(
    folder: Path, options: Options | None = None, run: Callable[..., None] = run_worker, **settings: Any
) -> AsyncIterator[Rig]:
    """A worker process, ready for devices; the event `final` is at seq 1. `run` is what the process runs."""
    chosen = Settings(**{"data": str(folder), "host": "rig", **settings})
    create_keys(chosen.keys_file)
    feed = Feed(folder / "link.sock")
    feed.heads["final"] = update("final", 1, "upcoming")
    await feed.start()
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()
        process = _processes.Process(
            target=run,
            args=(chosen, 0, address, feed.path),
            kwargs={"options": dataclasses.replace(options or Options(), native=built())},
        )
        process.start()
        rig = Rig(folder, chosen, feed, address, process)
        try:
            await feed.until(lambda: feed.all(Joined))
            await listening(address)
            yield rig
        finally:
            process.kill()
            await rig.ended()
            process.close()
            await feed.stop()


async def listening(address: tuple[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection(*address)
            except ConnectionError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            return


async def refusing(address: tuple[str, int]) -> None:
    """Waits until nobody listens any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                raw = await Raw.open(address)
            except ConnectionError:
                return
            raw.sock.close()


REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: stagecast.v1\r\n{more}\r\n"
)


class Closed(Exception):
    """The node closed: `code` of its Close frame, None without one."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code


def masked(payload: bytes, opcode: int = 1, fin: bool = True, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """A client's frame, by RFC 6455 §5.2, octet by octet."""
    size = len(payload)
    first = (0x80 if fin else 0) | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Raw:
    """A device made of a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.welcome: dict[str, Any] = {}
        self._buffer = b""

    @classmethod
    async def connect(
        cls,
        address: tuple[str, int],
        *,
        more: str = "",
        path: str = "/ws",
        receive_buffer: int | None = None,
        source: str = "",
    ) -> "Raw":
        """Past the 101. Raises AssertionError with the answer otherwise."""
        raw = await cls.open(address, receive_buffer=receive_buffer, source=source)
        await raw.send(raw.request(path, more))
        answer = await raw.head()
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return raw

    @classmethod
    async def open(cls, address: tuple[str, int], *, receive_buffer: int | None = None, source: str = "") -> "Raw":
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def request(self, path: str = "/ws", more: str = "") -> bytes:
        host, port = self.sock.getpeername()[:2]
        key = base64.b64encode(b"0123456789abcdef").decode()
        return REQUEST.format(path=path, host=host, port=port, key=key, more=more).encode()

    async def __aenter__(self) -> "Raw":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def put(self, data: bytes) -> None:
        """Sends what surely fits into the kernel's buffer."""
        assert self.sock.send(data) == len(data)

    def json(self, **fields: Any) -> None:
        self.put(masked(json.dumps(fields).encode()))

    def hello(self, token: str, device: str, at: list[dict[str, Any]]) -> None:
        self.json(t="hello", token=token, device=device, app="rig", at=at)

    async def _more(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        if not data:
            raise Closed(None)
        self._buffer += data

    async def head(self) -> bytes:
        """The HTTP answer's head."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    async def rest(self) -> bytes:
        """All until the node's EOF."""
        with contextlib.suppress(Closed, ConnectionError):
            while True:
                await self._more()
        return self._buffer

    async def raw_frame(self) -> tuple[int, bytes]:
        """The node's next frame: opcode and payload, whatever it is."""
        while True:
            if (found := self._cut()) is not None:
                return found
            await self._more()

    def _cut(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        assert data[0] & 0x70 == 0, "reserved bits"
        assert data[0] & 0x80, "the node never fragments"
        assert not data[1] & 0x80, "a server must not mask"
        size, at = data[1] & 0x7F, 2
        if size == 126:
            at, size = 4, int.from_bytes(data[2:4], "big")
        elif size == 127:
            at, size = 10, int.from_bytes(data[2:10], "big")
        if len(data) < at + size:
            return None
        self._buffer = data[at + size :]
        return data[0] & 0x0F, data[at : at + size]

    async def frame(self) -> dict[str, Any]:
        """The next JSON object from the node. Raises Closed."""
        opcode, payload = await self.raw_frame()
        if opcode == 8:
            raise Closed(int.from_bytes(payload[:2], "big") if payload else None, payload[2:].decode())
        assert opcode == 1, (opcode, payload)
        frame: dict[str, Any] = json.loads(payload.decode())
        return frame

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            frame = await self.frame()
            if frame["t"] == kind:
                return frame

    async def closed(self) -> int | None:
        """The code that the node closes with; what comes before it is skipped."""
        try:
            while True:
                await self.raw_or_closed()
        except Closed as closed:
            return closed.code

    async def raw_or_closed(self) -> None:
        opcode, payload = await self.raw_frame()
        if opcode == 8:
            raise Closed(int.from_bytes(payload[:2], "big") if payload else None)
