"""Stalled readers among the others: 100, then 500 of 10,000 stop reading, with a receive buffer of 8 KB.

2,000 broadcasts of one event, as long as they may be, are appended straight to the log as fast as it takes them; then 250 `map`
frames of 4 KB to each of them. Beside it, in turns, a run in which the same devices read on: the others' time is compared with
it, and so is memory, at the same points of both runs: after the broadcasts, and after every 25 maps.
"""

import asyncio
import json
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench.measured import pss_bytes
from tests.bench.paired import rotated, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, devices, gauge, host

BROADCASTS = 2000
MAPS = 250
MAP_BYTES = 4096
AT_ONCE = 50
"""Appends, or pushed maps in one request."""
STALLED, STALLED_FULL = (100,), (100, 500)
ROUNDS, ROUNDS_FULL = 2, 5
EVENT = "bench-".ljust(64, "x")
LOOK_EVERY = 25
"""Maps between two looks at memory."""


@dataclass
class Run:
    seconds: float = 0.0
    """First append → all who read have the last state."""
    fanned: float = 0.0
    """States that a device got on average: the others were superseded by newer ones."""
    pss: list[int] = field(default_factory=list)
    """Bytes in use beyond those at first, at each look."""
    kernel: list[int] = field(default_factory=list)
    """The same of the kernel's TCP buffers, both ends, of the whole machine."""
    stalls: int = 0
    """How often a connection could not take a whole frame."""
    gone: list[int] = field(default_factory=list)
    """Closed with a code while they were still stalled, at each look."""
    live: int = 0
    closed: int = 0
    broken: int = 0


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    figures: list[Figure] = []
    rounds = options.rounds or (ROUNDS_FULL if options.full else ROUNDS)
    sizes = STALLED_FULL if options.full else STALLED
    for stalled in sizes:
        pairs: list[dict[str, Run]] = []
        for number in range(rounds):
            pair = {}
            for which in rotated(["control", "stalled"], number):
                pair[which] = await _once(bench, options.connections, stalled, which == "stalled")
            pairs.append(pair)
        figures += _figures(stalled, [(pair["stalled"], pair["control"]) for pair in pairs], stalled == sizes[-1])
    return figures


def most(ours: list[int], control: list[int], gone: list[int], stalled: int) -> float:
    """KiB more per connection that is still stalled, at the look where that is most."""
    looks = zip(ours, control, gone, strict=True)
    return max(((a - b) / (stalled - lost) for a, b, lost in looks if lost < stalled), default=0.0) / 1024


def _figures(stalled: int, pairs: list[tuple[Run, Run]], last: bool) -> list[Figure]:
    ours = [a for a, _ in pairs]
    keys = ("slow_readers_time", "slow_readers_memory") if last else ("", "")
    return [
        Figure(f"{stalled} read on: all have the last state", [b.seconds for _, b in pairs], "s"),
        Figure(f"{stalled} stalled: the others' time", [a.seconds / b.seconds for a, b in pairs], "× nobody stalled", "≤ 1.1",
               key=keys[0]),
        Figure(f"{stalled} stalled: user memory each", [most(a.pss, b.pss, a.gone, stalled) for a, b in pairs], "KiB", "≤ 16",
               key=keys[1]),
        Figure(f"{stalled} stalled: kernel memory each, both ends",
               [most(a.kernel, b.kernel, a.gone, stalled) for a, b in pairs], "KiB", "by SO_SNDBUF"),
        Figure(f"{stalled} stalled: of {BROADCASTS:,} states a device got", [a.fanned for a in ours], ""),
        Figure(f"{stalled} stalled: frames that were not taken whole", [float(a.stalls) for a in ours], ""),
        Figure(f"{stalled} stalled: closed with 4002 before they read again", [float(a.gone[-1]) for a in ours], ""),
        Figure(f"{stalled} stalled: then live with the newest state", [float(a.live) for a in ours], ""),
        Figure(f"{stalled} stalled: then closed with a code", [float(a.closed) for a in ours], ""),
        Figure(f"{stalled} stalled: something else than whole frames", [float(a.broken) for a in ours], "", "0"),
    ]  # fmt: skip


async def _once(bench: Bench, connections: int, count: int, stall: bool) -> Run:
    """`count` devices have small buffers; whether they read on is `stall`."""
    found = Run()
    async with (
        host(bench, event=EVENT, pad=True) as server,
        devices(bench, server, connections, small=count) as audience,
    ):
        await audience.go(connections)
        await settled(server)
        pss, kernel = pss_bytes(server.pids), tcp_bytes()

        def look(gone: int) -> None:
            found.pss.append(pss_bytes(server.pids) - pss)
            found.kernel.append(tcp_bytes() - kernel)
            found.gone.append(gone)

        if stall:
            audience.say(f"stall {count}")
            await asyncio.sleep(0.1)
        began = time.monotonic_ns()
        last = server.first_seq + BROADCASTS - 1
        appending = asyncio.create_task(_append(server, last))
        found.seconds = ((await audience.read(last, 120)).last - began) / 1e9
        await appending
        found.fanned = await gauge(server.admin, "stagecast_deliveries_total") / connections
        look(0)
        await _push_maps(server, count, look)
        found.stalls = round(await gauge(server.admin, "stagecast_stalls_total"))
        if stall:
            audience.say("resume")
            ((live, closed, broken),) = await audience.hear("live", 60, skipping="seq")
            found.live, found.closed, found.broken = int(live), int(closed), int(broken)
    return found


async def _append(server: Server, last: int) -> None:
    for seq in range(server.first_seq, last + 1, AT_ONCE):
        await asyncio.gather(*(server.publish(one) for one in range(seq, min(seq + AT_ONCE, last + 1))))


async def _push_maps(server: Server, count: int, look: Callable[[int], None]) -> None:
    """250 maps of 4 KB to each: not kept for those who have bytes unsent (503), and 404 for those who are gone. Looks at memory
    every 25."""
    assert server.data is not None
    key = (server.data / "service.key").read_text().strip()
    frame = {
        "t": "map", "e": server.event, "gen": 1, "map": "1764000000000-a", "ttl": 60,
        "stages": {"live": "x" * MAP_BYTES}, "default": None, "cohort": False,
    }  # fmt: skip
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        bodies = [
            json.dumps([{"device": f"device-{i}", "frame": frame} for i in range(first, min(first + AT_ONCE, count))])
            for first in range(0, count, AT_ONCE)
        ]
        for number in range(MAPS):
            gone = 0
            for body in bodies:
                answer = (await client.post(f"{server.admin}/push", content=body)).raise_for_status()
                gone += sum(one["status"] == 404 for one in answer.json())
            if (number + 1) % LOOK_EVERY == 0:
                look(gone)


def tcp_bytes() -> int:
    """What the kernel's TCP holds in buffers, of this whole machine (/proc/net/sockstat, in pages)."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.rsplit(" ", 1)[1]) * 4096
