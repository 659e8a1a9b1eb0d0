"""Hostile WebSocket frames against a real worker: oversize, fragments, floods of control frames, unmasked and reserved ones.

The defences stand in `pushy.rfc6455` and `pushy.connection`: take one out, and the test of its name fails.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.abuse.probe import CLIENT_BYTES_MAX, NOISE, ending, figure, holding, lively, pour, reported, resident
from tests.pushy.rig import Raw, Rig, masked, update, worker


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with worker(tmp_path) as one:
        yield one


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"), 1009),
        (b"\x81\xff" + ((1 << 64) - 1).to_bytes(8, "big"), 1002),
        (masked(b"a" * 8193)[:8], 1009),
        (masked(b"a" * 8000, fin=False) + masked(b"a" * 193, opcode=0)[:8], 1009),
    ],
    ids=["2^40", "2^63-1", "2^64-1", "one over", "fragments over"],
)
async def test_an_oversize_message_ends_by_its_declared_length(rig: Rig, data: bytes, code: int) -> None:
    """The header alone is enough: nothing of the payload is sent, waited for, or made room for."""
    before = resident(rig.pid)
    async with await rig.device() as raw:
        raw.put(data)
        assert await ending(raw) == code
    assert resident(rig.pid) - before < NOISE


@pytest.mark.parametrize(
    "fragment",
    [masked(b"", opcode=0, fin=False), masked(b"x", opcode=0, fin=False)],
    ids=["empty", "one byte"],
)
async def test_a_million_fragments_end_early(rig: Rig, fragment: bytes) -> None:
    """Fragments without an end, empty ones too, are cut after 64: neither the loop's time nor memory is theirs."""
    before = resident(rig.pid)
    async with await rig.device() as raw:
        raw.put(masked(b"", fin=False))
        for _ in range(70):  # one by one: what ends it is their number, not the size of a read
            raw.put(fragment)
        assert await ending(raw) == 1009
    async with await rig.device() as raw:
        raw.put(masked(b"", fin=False))
        await pour(raw, fragment * 1000, 1000)
        assert await ending(raw) in (1008, 1009, None)
    assert resident(rig.pid) - before < NOISE
    await lively(rig)


@pytest.mark.parametrize("opcode", [9, 10], ids=["pings", "pongs"])
async def test_a_flood_of_control_frames_is_cut(rig: Rig, opcode: int) -> None:
    """500,000 pings whose pongs nobody reads, or pongs that nobody asked for: closed as any flood, memory bounded, and another
    device is served meanwhile."""
    before = resident(rig.pid)
    async with await rig.device("other", member="other") as other, await rig.device(receive_buffer=4096) as raw:
        flood = asyncio.create_task(pour(raw, masked(b"x" * 125, opcode=opcode) * 500, 1000))
        rig.feed.send(update("final", 2))
        assert (await other.frame())["seq"] == 2
        assert await flood < 50 << 20, "it was cut long before the end"
        assert await ending(raw) in (1008, 4029, None)
        figures = await reported(rig.feed)
        closes = sum(figures[f'stagecast_closes_total{{code="{code}"}}'] for code in ("1008", "4029"))
        assert closes == 1, figures
        assert resident(rig.pid) - before < NOISE


async def test_pings_within_the_rate_are_answered_by_one_pong(rig: Rig) -> None:
    """RFC 6455 §5.5.3: of pings that come together only the latest is owed a pong, so answers never outgrow questions."""
    async with await rig.device() as raw:
        raw.put(b"".join(masked(bytes([i]), opcode=9) for i in range(15)))
        assert await raw.raw_frame() == (10, bytes([14]))
        raw.json(t="ping", c=1)
        assert (await raw.frame())["t"] == "pong"


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_reserved_opcodes_end_with_1002(rig: Rig, opcode: int) -> None:
    """RFC 6455 §5.2: an opcode that means nothing fails the connection."""
    async with await rig.device() as raw:
        raw.put(masked(b"", opcode=opcode))
        assert await ending(raw) == 1002


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x70], ids=["RSV1", "RSV2", "RSV3", "all"])
async def test_reserved_bits_end_with_1002(tmp_path: Path, bits: int) -> None:
    """§5.2: no extension is agreed on, even when it is offered, so a "compressed" frame is a violation and never inflated."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    async with worker(tmp_path) as rig, await Raw.open(rig.address) as raw:
        await raw.send(raw.request(more=offer))
        assert b"extensions" not in (await raw.head()).lower()
        frame = masked(b"\x00" * 100)
        raw.put(bytes([frame[0] | bits]) + frame[1:])
        assert await ending(raw) == 1002


async def test_unmasked_frames_end_with_1002(rig: Rig) -> None:
    """§5.1: a client that does not mask could make a proxy's cache hold what it wants."""
    for frame in (b"\x81\x02{}", b"\x89\x00", b"\x88\x02\x03\xe8"):
        async with await rig.device() as raw:
            raw.put(frame)
            assert await ending(raw) == 1002


async def test_a_client_costs_no_more_than_the_bound(rig: Rig) -> None:
    """200 clients that each hold as much as the limits let them: half a request, or half a message in 60 fragments with half a
    frame behind; and 100 that try to make it 128 KiB, which are cut. None costs more than CLIENT_BYTES_MAX."""
    half_request = b"GET /ws HTTP/1.1\r\nX: "
    with holding() as held:
        for i in range(20):  # what the first connections cost once
            held.append(await rig.device(f"w{i}", member=f"w{i}"))
        before = resident(rig.pid)
        for i in range(200):
            if i % 2:
                held.append(raw := await Raw.open(rig.address))
                await raw.send(half_request + b"a" * 7800)
            else:
                held.append(raw := await rig.device(f"d{i}", member=f"m{i}"))
                await raw.send(masked(b"{", fin=False) + masked(b"a" * 60, opcode=0, fin=False) * 60)
                await raw.send(masked(b"b" * 4000, opcode=0, fin=False)[:-1])
        within = len(held)
        for i in range(100):
            held.append(raw := await (Raw.connect(rig.address) if i % 2 else Raw.open(rig.address)))
            head = b"\x01\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) if i % 2 else half_request
            await pour(raw, head + b"a" * (128 << 10), 1)
        most = resident(rig.pid) - before
        assert most / 300 < CLIENT_BYTES_MAX, most
        await figure(rig.feed, "stagecast_connections", within)
        assert (resident(rig.pid) - before) / 200 < CLIENT_BYTES_MAX
