"""Hostile handshakes against a real worker: Origin tricks, slow and half requests, smuggling, too many connections.

The defences stand in `pushy.handshake`, `pushy.connection` and `pushy.limits`: take one out, and the test of its name fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import h11
import pytest

from pushy.worker import Options
from tests.abuse.probe import NOISE, figure, holding, lively, reported, reset, resident, status, upgrade
from tests.pushy.rig import Raw, Rig, masked, worker


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with worker(tmp_path, origins=["https://tv.example", "http://127.0.0.1:8080"]) as one:
        yield one


ORIGINS = [
    ("https://tv.example", 101),
    ("http://127.0.0.1:8080", 101),
    ("https://evil.example", 403),
    ("https://tv.example.evil.example", 403),
    ("https://evil-tv.example", 403),
    ("https://eviltv.example", 403),
    ("https://sub.tv.example", 403),
    ("https://tv.exampl", 403),
    ("https://TV.example", 403),
    ("HTTPS://tv.example", 403),
    ("https://tv.example.", 403),
    ("https://tv.example:443", 403),
    ("https://tv.example:8443", 403),
    ("http://tv.example", 403),
    ("wss://tv.example", 403),
    ("https://tv.example/", 403),
    ("https://tv.example/x", 403),
    ("https://tv.example@evil.example", 403),
    ("https://evil.example#https://tv.example", 403),
    ("https://tv.example https://evil.example", 403),
    ("https://evil.example https://tv.example", 403),
    ("https://tv.example,https://evil.example", 403),
    ("https://tv%2eexample", 403),
    ("https://tv.example\xa0", 403),
    ("http://127.0.0.1", 403),
    ("http://127.0.0.1:80800", 403),
    ("http://localhost:8080", 403),
    ("http://2130706433:8080", 403),
    ("null", 403),
    ("file://", 403),
    ("about:blank", 403),
    ("*", 403),
    ("", 403),
]


async def test_origin_tricks(rig: Rig) -> None:
    """CWE-1385: only an exact Origin comes in, or the own host's; what merely looks like one gets 403 and never a 101."""
    for origin, expected in ORIGINS:
        assert await status(rig.address, upgrade(host="device.port", Origin=origin)) == expected, origin
    own = upgrade(host="device.port:81", Origin="http://device.port:81")
    assert await status(rig.address, own) == 101
    assert await status(rig.address, upgrade(host="device.port:81", Origin="http://device.port")) == 403


@pytest.mark.parametrize("first", ["https://tv.example", "https://evil.example"])
async def test_two_origins(rig: Rig, first: str) -> None:
    """Two Origin fields are no request at all, whichever comes first and however they are spelt."""
    for name in ("Origin", "origin", "ORIGIN"):
        request = upgrade("GET /ws HTTP/1.1", f"Origin: {first}", f"{name}: https://tv.example")
        assert await status(rig.address, request) == 400


GET = "GET /ws HTTP/1.1"
SMUGGLING: list[tuple[str, bytes, int]] = [
    ("good", upgrade(), 101),
    ("good with a query", upgrade("GET /ws?a=b HTTP/1.1"), 101),
    ("another path", upgrade("GET /ws/ HTTP/1.1"), 404),
    ("a path that climbs", upgrade("GET /ws/../admin HTTP/1.1"), 404),
    ("an encoded path", upgrade("GET /%77s HTTP/1.1"), 404),
    ("absolute form", upgrade("GET http://tv.example/ws HTTP/1.1"), 400),
    ("authority form", upgrade("CONNECT tv.example:80 HTTP/1.1"), 400),
    ("asterisk form", upgrade("OPTIONS * HTTP/1.1"), 400),
    ("POST", upgrade("POST /ws HTTP/1.1"), 400),
    ("lower case method", upgrade("get /ws HTTP/1.1"), 400),
    ("HTTP/1.0", upgrade("GET /ws HTTP/1.0"), 400),
    ("HTTP/1.2", upgrade("GET /ws HTTP/1.2"), 400),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("HTTP/0.9", b"GET /ws\r\n\r\n", 400),
    ("TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),
    ("two spaces", upgrade("GET  /ws HTTP/1.1"), 400),
    ("tab for space", upgrade("GET\t/ws HTTP/1.1"), 400),
    ("NUL in the path", upgrade("GET /ws\x00 HTTP/1.1"), 400),
    ("blank line before", b"\r\n" + upgrade(), 400),
    ("no Host", upgrade(without="Host"), 400),
    ("two Hosts", upgrade(GET, "Host: evil.example"), 400),
    ("a list of Hosts", upgrade(host="tv.example, evil.example"), 400),
    ("Host with user", upgrade(host="x@tv.example"), 400),
    ("Host with path", upgrade(host="tv.example/x"), 400),
    ("Content-Length with body", upgrade(GET, "Content-Length: 5") + b"hello", 400),
    ("Content-Length signed", upgrade(GET, "Content-Length: +0"), 400),
    ("Content-Length hex", upgrade(GET, "Content-Length: 0x0"), 400),
    ("Content-Length list", upgrade(GET, "Content-Length: 0, 0"), 400),
    ("Content-Length twice", upgrade(GET, "Content-Length: 0", "Content-Length: 5") + b"hello", 400),
    ("chunked", upgrade(GET, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    ("chunked, odd case", upgrade(GET, "transfer-ENCODING: cHuNkEd") + b"0\r\n\r\n", 400),
    ("chunked and length", upgrade(GET, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    ("chunked, hidden by a tab", upgrade(GET, "Transfer-Encoding:\tchunked") + b"0\r\n\r\n", 400),
    ("chunked, space before the colon", upgrade(GET, "Transfer-Encoding : chunked") + b"0\r\n\r\n", 400),
    ("chunked, folded", upgrade(GET, "X: a\r\n Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    ("chunked, vertical tab", upgrade(GET, "Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n", 400),
    ("obs-fold", upgrade(GET, "X: a\r\n b"), 400),
    ("fold on the first field", upgrade("GET /ws HTTP/1.1\r\n X: a"), 400),
    ("bare LF in a field", upgrade(GET, "X: a\nHost: evil.example"), 400),
    ("bare CR in a field", upgrade(GET, "X: a\rHost: evil.example"), 400),
    ("bare LF everywhere", upgrade(end="\n") + b"\r\n\r\n", 400),
    ("NUL in a field", upgrade(GET, "X: a\x00b"), 400),
    ("no colon", upgrade(GET, "X"), 400),
    ("no name", upgrade(GET, ": x"), 400),
    ("a name with a space", upgrade(GET, "X y: z"), 400),
    ("a name of Latin-1", upgrade(GET, "X\xe9: z"), 400),
    ("101 fields", upgrade(GET, *(f"X-{i}: a" for i in range(101))), 400),
    ("9 KB in one field", upgrade(GET, "X: " + "a" * 9000), 400),
    ("200 KB in one field", upgrade(GET, "X: " + "a" * 200_000), 400),
    ("Upgrade of h2c", upgrade(Upgrade="h2c"), 400),
    ("no Upgrade in Connection", upgrade(Connection="keep-alive"), 400),
    ("two keys", upgrade(GET, "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="), 400),
    ("a key of 15 bytes", upgrade(Sec_WebSocket_Key="MDEyMzQ1Njc4OWFiY2Rl"), 400),
    ("version 8", upgrade(Sec_WebSocket_Version="8"), 426),
    ("two versions", upgrade(GET, "Sec-WebSocket-Version: 8"), 400),
    ("no subprotocol", upgrade(without="Sec-WebSocket-Protocol"), 400),
    ("a token alone as subprotocol", upgrade(Sec_WebSocket_Protocol="bearer.abc"), 400),
]


async def test_smuggled_requests(rig: Rig) -> None:
    """Requests that two parsers could read in two ways get one answer, the expected one, and then the end."""
    for name, request, expected in SMUGGLING:
        assert await status(rig.address, request) == expected, name
    await lively(rig)


def test_what_h11_refuses_is_refused() -> None:
    """The corpus against another strict parser: what h11 calls an error, or reads a body in, is never let in here."""
    for name, request, expected in SMUGGLING:
        server, refused = h11.Connection(h11.SERVER), False
        try:
            server.receive_data(request)
            event: object = None
            while not isinstance(event, h11.EndOfMessage) and event not in (h11.NEED_DATA, h11.PAUSED):
                event = server.next_event()
                refused |= isinstance(event, h11.Data)
        except h11.RemoteProtocolError:
            refused = True
        assert not refused or expected != 101, name


async def test_what_follows_the_request_is_frames_and_no_request(rig: Rig) -> None:
    """A second request sent along is never answered as HTTP: after the 101 there is nothing but frames."""
    async with await Raw.open(rig.address) as raw:
        await raw.send(upgrade() + upgrade("GET /healthz HTTP/1.1"))
        assert (await raw.head()).startswith(b"HTTP/1.1 101 ")
        assert await raw.closed() == 1002
    async with await Raw.open(rig.address) as raw:
        await raw.send(upgrade("GET /other HTTP/1.1") + upgrade())
        assert (await raw.rest()).count(b"HTTP/1.1 ") == 1


async def test_the_token_is_not_echoed(rig: Rig) -> None:
    """A client that offers a token beside the subprotocol gets the subprotocol's name back, and nothing of the token."""
    async with await Raw.open(rig.address) as raw:
        await raw.send(upgrade("GET /ws?token=CANARY HTTP/1.1", Sec_WebSocket_Protocol="bearer.CANARY, stagecast.v1"))
        head = await raw.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Protocol: stagecast.v1\r\n" in head + b"\r\n"
        assert b"CANARY" not in head


async def test_half_handshakes_do_not_keep_others_out(tmp_path: Path) -> None:
    """500 connections that send nothing, or half a request, hold nobody up; they are all gone when their time is over, and their
    memory with them."""
    async with worker(tmp_path, Options(handshake_deadline=3)) as rig:
        await lively(rig)
        before = resident(rig.pid)
        with holding() as idle:
            for i in range(500):
                idle.append(raw := await Raw.open(rig.address))
                if i % 2:
                    raw.put(raw.request()[:100])
            await lively(rig)
            assert (await reported(rig.feed))["stagecast_connections"] == 500, "it was served while they waited"
            await figure(rig.feed, 'stagecast_refusals_total{reason="slow"}', 500)
            await figure(rig.feed, "stagecast_connections", 0)
            assert resident(rig.pid) - before < NOISE


async def test_slow_headers_are_cut_however_they_drip(tmp_path: Path) -> None:
    """A field line every 50 ms: the deadline counts from the start and not from the last byte."""
    async with worker(tmp_path, Options(handshake_deadline=0.5)) as rig, await Raw.open(rig.address) as slow:
        end = asyncio.create_task(slow.rest())
        slow.put(slow.request()[:-2])
        for i in range(95):
            if end.done():
                break
            with contextlib.suppress(ConnectionError):
                slow.put(f"X-{i}: a\r\n".encode())
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it could go on for ever")
        assert await end == b""
        await figure(rig.feed, 'stagecast_refusals_total{reason="slow"}', 1)


async def test_one_address_takes_its_share_and_no_more(tmp_path: Path) -> None:
    """The limit per address: the next one gets 503 with Retry-After before any token is looked at, whatever X-Forwarded-For it
    claims; another address is served; who leaves makes room."""
    options = Options(per_address_on_loopback=True)
    async with worker(tmp_path, options, connections_per_address=5) as rig:
        with holding() as held:
            for _ in range(5):
                held.append(await Raw.connect(rig.address, source="127.0.0.5"))
            for i in range(3):
                request = upgrade(GET, f"X-Forwarded-For: 10.0.0.{i}", f"Forwarded: for=10.0.0.{i}")
                assert await status(rig.address, request, "127.0.0.5") == 503
            async with await Raw.open(rig.address, source="127.0.0.5") as over:
                over.put(over.request())
                assert b"\r\nRetry-After: " in await over.head()
            assert await status(rig.address, upgrade(), "127.0.0.6") == 101
            held.pop().sock.close()
            await figure(rig.feed, "stagecast_sessions", 4)
            assert await status(rig.address, upgrade(), "127.0.0.5") == 101
            assert (await reported(rig.feed))["stagecast_token_checks_total"] == 0


async def test_idle_tcp_of_one_address_is_cut(tmp_path: Path) -> None:
    """An address can't hold the worker's descriptors with connections that never become sessions: beyond its share they are cut
    at once."""
    options = Options(per_address_on_loopback=True)
    async with worker(tmp_path, options, connections_per_address=5) as rig:
        with holding() as held:
            for _ in range(60):
                held.append(await Raw.open(rig.address, source="127.0.0.5"))
            figures = await reported(rig.feed)
            assert figures['stagecast_refusals_total{reason="address"}'] == 60 - (2 * 5 + 16)
            assert figures["stagecast_connections"] == 2 * 5 + 16
            await lively(rig)


async def test_the_total_is_limited(tmp_path: Path) -> None:
    """Over the worker's connections: 503; the rest goes on as before."""
    async with worker(tmp_path, connections=10) as rig:
        with holding() as held:
            for i in range(10):
                held.append(await rig.device(f"d{i}", member=f"m{i}"))
            for _ in range(20):
                assert await status(rig.address, upgrade()) == 503
            assert (await reported(rig.feed))["stagecast_token_checks_total"] == 10
            held[0].json(t="ping", c=1)
            assert (await held[0].frame())["t"] == "pong"


async def test_a_thousand_abrupt_ends_leave_nothing(tmp_path: Path) -> None:
    """Resets in every phase — no byte, half a request, upgraded, welcomed, in mid-message — and every count is 0 again: the
    address has its whole share, and memory is where it was."""
    options = Options(per_address_on_loopback=True)
    async with worker(tmp_path, options, connections_per_address=5) as rig:
        await lively(rig)
        before = resident(rig.pid)
        for i in range(1000):
            match i % 5:
                case 0:
                    raw = await Raw.open(rig.address, source="127.0.0.5")
                case 1:
                    raw = await Raw.open(rig.address, source="127.0.0.5")
                    raw.put(raw.request()[:50])
                case 2:
                    raw = await Raw.open(rig.address, source="127.0.0.5")
                    raw.put(raw.request())
                case 3:
                    raw = await rig.device(source="127.0.0.5")
                case _:
                    raw = await rig.device(source="127.0.0.5")
                    raw.put(masked(b"{" * 100, fin=False)[:-1])
            reset(raw)
        await figure(rig.feed, "stagecast_connections", 0)
        assert (await reported(rig.feed))["stagecast_sessions"] == 0
        with holding() as held:
            for _ in range(5):
                held.append(await Raw.connect(rig.address, source="127.0.0.5"))
            assert await status(rig.address, upgrade(), "127.0.0.5") == 503
            assert resident(rig.pid) - before < NOISE
