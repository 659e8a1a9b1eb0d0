"""Whose word about a client's address a worker takes: peers in `trusted_proxies`, by preamble or header, and nobody else."""

from pathlib import Path
from typing import Any

import pytest

from pushy.link import CONNECTIONS, Gauges
from pushy.worker import Options
from tests.pushy.rig import Closed, Raw, Rig, worker
from tests.pushy.test_proxies import preamble

TRUSTED, STRANGER = "127.0.0.1", "127.0.0.9"
LIMITS: dict[str, Any] = {"trusted_proxies": [f"{TRUSTED}/32"], "connections_per_address": 1}
ON_LOOPBACK = Options(per_address_on_loopback=True, handshake_deadline=30.0)


async def answer(rig: Rig, source: str, before: bytes = b"", more: str = "") -> tuple[Raw, str]:
    """A connection from `source`, and the status that its handshake gets; empty when it is cut."""
    raw = await Raw.open(rig.address, source=source)
    try:
        await raw.send(before + raw.request(more=more))
        return raw, (await raw.head()).split()[1].decode()
    except (Closed, ConnectionError):
        return raw, ""


async def statuses(rig: Rig, *asked: tuple[str, bytes, str]) -> list[str]:
    """The connections stay open until all are answered."""
    answers = [await answer(rig, *one) for one in asked]
    for raw, _ in answers:
        raw.sock.close()
    return [status for _, status in answers]


async def test_a_trusted_proxys_header_is_the_client(tmp_path: Path) -> None:
    """One connection of each client, however many come from the proxy; without a header they are not counted."""
    async with worker(tmp_path, ON_LOOPBACK, **LIMITS) as rig:
        first, second = "X-Forwarded-For: 203.0.113.1\r\n", "X-Forwarded-For: 8.8.8.8, 203.0.113.2\r\n"
        asked = [(TRUSTED, b"", header) for header in (first, first, second, second, "", "")]
        assert await statuses(rig, *asked) == ["101", "503", "101", "503", "101", "101"]


async def test_a_strangers_header_is_not_read(tmp_path: Path) -> None:
    """It is counted by its own address, whatever it claims."""
    async with worker(tmp_path, ON_LOOPBACK, **LIMITS) as rig:
        asked = [(STRANGER, b"", f"X-Forwarded-For: 203.0.113.{i}\r\n") for i in range(2)]
        assert await statuses(rig, *asked) == ["101", "503"]


async def test_a_preamble_is_the_client(tmp_path: Path) -> None:
    """Of a trusted proxy; the header inside is the client's own and says nothing. IPv6 clients are counted by their /64."""
    async with worker(tmp_path, ON_LOOPBACK, proxy_protocol=True, **LIMITS) as rig:
        forged = "X-Forwarded-For: 198.51.100.1\r\n"
        sources = ["203.0.113.1", "203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
        asked = [(TRUSTED, preamble(source), forged) for source in sources]
        assert await statuses(rig, *asked) == ["101", "503", "101", "101", "503", "101"]
        health = [(TRUSTED, preamble("10.0.0.1", command=0x20), "")] * 2
        assert await statuses(rig, *health) == ["101", "101"]


async def test_a_strangers_preamble_is_refused(tmp_path: Path) -> None:
    """It is no request (400); without one it is served as what it is."""
    async with worker(tmp_path, ON_LOOPBACK, proxy_protocol=True, **LIMITS) as rig:
        assert await statuses(rig, (STRANGER, preamble("203.0.113.1"), "")) == ["400"]
        assert await statuses(rig, (STRANGER, b"", "")) == ["101"]


@pytest.mark.parametrize("before", [b"", b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n"], ids=["none", "version 1"])
async def test_a_trusted_proxy_without_its_preamble_is_cut(tmp_path: Path, before: bytes) -> None:
    """And counted: else all its clients would be one address, in silence."""
    async with worker(tmp_path, ON_LOOPBACK, proxy_protocol=True, **LIMITS) as rig:
        assert await statuses(rig, (TRUSTED, before, "")) == [""]
        name = 'stagecast_refusals_total{reason="proxy"}'
        await rig.feed.until(lambda: any(one.values[name] >= 1 for one in rig.feed.all(Gauges)))


async def test_who_leaves_is_not_counted_any_more(tmp_path: Path) -> None:
    """The count by a told address ends with the connection."""
    async with worker(tmp_path, ON_LOOPBACK, proxy_protocol=True, **LIMITS) as rig:
        for _ in range(3):
            raw, status = await answer(rig, TRUSTED, preamble("203.0.113.1"))
            assert status == "101"
            raw.sock.close()
            rig.feed.said.clear()
            await rig.feed.until(lambda: any(one.values[CONNECTIONS] == 0 for one in rig.feed.all(Gauges)))


async def test_a_preamble_that_drips_in(tmp_path: Path) -> None:
    """Byte by byte, and the request right behind it."""
    async with worker(tmp_path, ON_LOOPBACK, proxy_protocol=True, **LIMITS) as rig, await Raw.open(rig.address) as raw:
        for byte in preamble("203.0.113.1"):
            raw.put(bytes([byte]))
        raw.put(raw.request())
        assert (await raw.head()).startswith(b"HTTP/1.1 101 ")


async def test_over_the_rate_each_gets_a_moment_of_its_own(tmp_path: Path) -> None:
    """503 before any token is looked at, and a Retry-After that grows from one to the next."""
    async with worker(tmp_path, accept_rate=0.1, accept_burst=2) as rig:
        answers = []
        for _ in range(5):
            async with await Raw.open(rig.address) as raw:
                raw.put(raw.request())
                answers.append(await raw.head())
        refused = [one for one in answers if one.startswith(b"HTTP/1.1 503 ")]
        waits = [int(one.partition(b"Retry-After: ")[2].split(b"\r\n")[0]) for one in refused]
        assert len(refused) == 3
        assert waits == sorted(set(waits))
        assert waits[-1] >= 20
        name = 'stagecast_refusals_total{reason="rate"}'
        await rig.feed.until(lambda: any(one.values[name] == 3 for one in rig.feed.all(Gauges)))
