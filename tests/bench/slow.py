"""Stalled readers among the others: what 2,000 broadcasts of one event, appended at once, take; what stalled ones hold."""

import asyncio
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.measured import pss_bytes
from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import EVENT, Bench, Server, all_read, devices, host, write_hellos

BROADCASTS = 2000
MAPS = 250
MAP_BYTES = 4096
AT_ONCE = 50
"""Appends, or pushed maps in one request."""
STALLED, STALLED_FULL = (0, 100), (0, 100, 500)


@dataclass(frozen=True)
class Stalls:
    seconds: float
    """First append → all who read have the last state."""
    pss: int
    kernel: int
    live: int
    closed: int
    broken: int


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    sizes = STALLED_FULL if options.full else STALLED
    found: dict[int, list[Stalls]] = {stalled: [] for stalled in sizes}
    for _ in range(options.rounds):
        for stalled in sizes:
            found[stalled].append(await _once(bench, options.connections, stalled))
    figures = [Figure("nobody stalled: all have the last state", [r.seconds for r in found[0]], "s")]
    for stalled in sizes[1:]:
        ours = found[stalled]
        control = found[0]
        times = [a.seconds / b.seconds for a, b in zip(ours, control, strict=True)]
        memory = [(a.pss - b.pss) / stalled / 1024 for a, b in zip(ours, control, strict=True)]
        kernel = [(a.kernel - b.kernel) / stalled / 1024 for a, b in zip(ours, control, strict=True)]
        last = stalled == sizes[-1]
        figures += [
            Figure(f"{stalled} stalled: the others' time", times, "× nobody stalled", "≤ 1.1",
                   key="slow_readers_time" if last else ""),
            Figure(f"{stalled} stalled: user memory each", memory, "KiB", "≤ 16",
                   key="slow_readers_memory" if last else ""),
            Figure(f"{stalled} stalled: kernel memory each, both ends", kernel, "KiB", "by SO_SNDBUF"),
            Figure(f"{stalled} stalled: live again with the newest state", [float(r.live) for r in ours], ""),
            Figure(f"{stalled} stalled: closed with a code meanwhile", [float(r.closed) for r in ours], ""),
            Figure(f"{stalled} stalled: something else than frames", [float(r.broken) for r in ours], "", "0"),
        ]  # fmt: skip
    return figures


async def _once(bench: Bench, connections: int, stalled: int) -> Stalls:
    async with host(bench) as server:
        hellos = write_hellos(bench, server, connections)
        async with devices(bench, server, hellos, connections, small=stalled) as lines:
            await lines.hear("ready", 120)
            await settled(server)
            pss, kernel = pss_bytes(server.pids), tcp_bytes()
            lines.say(f"stall {stalled}")
            await asyncio.sleep(0.1)
            began = time.monotonic_ns()
            last = server.first_seq + BROADCASTS - 1
            appending = asyncio.create_task(_append(server, last))
            got = await all_read(lines, last, 120)
            seconds = (int(got[5]) - began) / 1e9
            await appending
            await _push_maps(server, stalled)
            pss, kernel = pss_bytes(server.pids) - pss, tcp_bytes() - kernel
            if not stalled:
                return Stalls(seconds, pss, kernel, 0, 0, 0)
            lines.say("resume")
            live, closed, broken = await lines.hear("live", 60, skipping="seq")
    return Stalls(seconds, pss, kernel, int(live), int(closed), int(broken))


async def _append(server: Server, last: int) -> None:
    for seq in range(server.first_seq, last + 1, AT_ONCE):
        await asyncio.gather(*(server.publish(one) for one in range(seq, min(seq + AT_ONCE, last + 1))))


async def _push_maps(server: Server, stalled: int) -> None:
    """250 maps of 4 KB to each stalled device: not kept for those who have bytes unsent."""
    assert server.data is not None
    key = (server.data / "service.key").read_text().strip()
    frame = {
        "t": "map", "e": EVENT, "gen": 1, "map": "1764000000000-a", "ttl": 60,
        "stages": {"live": "x" * MAP_BYTES}, "default": None, "cohort": False,
    }  # fmt: skip
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        for _ in range(MAPS):
            for first in range(0, stalled, AT_ONCE):
                entries = [
                    {"device": f"device-{i}", "frame": frame} for i in range(first, min(first + AT_ONCE, stalled))
                ]
                (await client.post(f"{server.admin}/push", json=entries)).raise_for_status()


def tcp_bytes() -> int:
    """What the kernel's TCP holds in buffers, of this whole machine (/proc/net/sockstat, in pages)."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.rsplit(" ", 1)[1]) * 4096
