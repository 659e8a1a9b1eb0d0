"""What the hostile clients share: a look at a worker's figures and memory, and clients that break the rules."""

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from pushy.link import Gauges
from tests.pushy.rig import PATIENCE, Closed, Feed, Raw, Rig

CLIENT_BYTES_MAX = 24 * 1024
"""User memory that one client may cost a worker, whatever it does: a whole request or message of 8 KiB in the making, twice for
buffers that grow ahead, and what every connection costs."""
NOISE = 4 << 20
"""Bytes by which a worker's memory moves by itself: arenas, caches of the interpreter, copied pages of the fork."""


def resident(pid: int) -> int:
    """Bytes of memory that are the process's own, its share of what is shared included."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def newest(feed: Feed) -> dict[str, float]:
    """The worker's figures as it told them last."""
    gauges = feed.all(Gauges)
    return gauges[-1].values if gauges else {}


async def figure(feed: Feed, name: str, value: float) -> None:
    """Waits until the worker says that `name` is `value`."""
    try:
        await feed.until(lambda: newest(feed).get(name) == value)
    except TimeoutError:
        raise AssertionError(f"{name} is {newest(feed).get(name)}, not {value}") from None


async def reported(feed: Feed) -> dict[str, float]:
    """Figures of after now."""
    seen = len(feed.all(Gauges))
    await feed.until(lambda: len(feed.all(Gauges)) > seen + 1)
    return newest(feed)


async def pour(raw: Raw, chunk: bytes, times: int) -> int:
    """Sends `chunk` over and over, as far as the other side takes it, and never reads. Gives the bytes taken."""
    loop, taken = asyncio.get_running_loop(), 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(times):
            async with asyncio.timeout(1):
                await loop.sock_sendall(raw.sock, chunk)
            taken += len(chunk)
    return taken


async def ending(raw: Raw) -> int | None:
    """The code that the node closes with; a reset, as it comes to who sends on after the end, is the end as well."""
    try:
        return await raw.closed()
    except ConnectionError:
        return None


async def status(address: tuple[str, int], request: bytes, source: str = "") -> int:
    """The status of the answer to `request` as it is; 0 for an end without an answer."""
    async with await Raw.open(address, source=source) as raw:
        await raw.send(request)
        try:
            head = await raw.head()
        except (Closed, ConnectionError):
            return 0
        if not head.startswith(b"HTTP/1.1 101 "):
            assert b" 101 " not in head + await raw.rest(), "no 101 comes after a refusal"
        return int(head.split(b" ")[1])


def reset(raw: Raw) -> None:
    """Ends as a client that was killed, or a middlebox, would: a reset."""
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.sock.close()


@contextlib.contextmanager
def holding() -> Iterator[list[Raw]]:
    """A list for connections that are closed at the end, however that comes."""
    held: list[Raw] = []
    try:
        yield held
    finally:
        for raw in held:
            raw.sock.close()


async def lively(rig: Rig, name: str = "honest") -> None:
    """Somebody honest is served: welcomed with the head, within the patience of a device."""
    async with asyncio.timeout(PATIENCE):
        device = await rig.device(name, member=name)
    assert device.welcome["state"][0]["e"] == "final"
    device.sock.close()


def upgrade(
    line: str = "GET /ws HTTP/1.1",
    *more: str,
    without: str = "",
    host: str = "tv.example",
    end: str = "\r\n",
    **fields: str,
) -> bytes:
    """A good request, changed: fields of other values, further lines, one field left out, another end of lines."""
    all_ = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "stagecast.v1",
    }
    all_ |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [line, *(f"{name}: {value}" for name, value in all_.items() if name != without), *more, "", ""]
    return end.join(lines).encode("latin-1")
