"""One round: devices connect, then broadcasts, each of which waits until all have read it."""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measured import cpu_ns, pss_bytes
from tests.bench.world import Bench, Server, all_read, devices

WARM_UPS = 5
SETTLE = 0.4
"""Seconds in which a settled server uses less than 3 % of a core."""
SETTLE_MAX = 60.0


@dataclass(frozen=True)
class Round:
    """What one server did."""

    cpu_us: float
    """Server CPU per delivery, all processes."""
    last_ms: float
    """Publish → the last device has read it, median over the publishes."""
    connect_s: float
    connect_cpu_us: float
    overflows: int
    pss_bytes: float
    """Per idle connection, before any publish."""
    shares: tuple[float, ...]
    """Of the connections' CPU, by process: how even workers are."""
    last_share: float
    """How often the most frequent last device was last."""
    client_cpu_us: float
    """Of the devices' process, per delivery: it must not be what is measured."""


async def measure(bench: Bench, server: Server, hellos: Path, connections: int, publishes: int) -> Round:
    cpu, pss = cpu_ns(server.pids), pss_bytes(server.pids)
    each = [cpu_ns([pid]) for pid in server.pids]
    async with devices(bench, server, hellos, connections) as lines:
        seconds, _, overflows = await lines.hear("ready", 120)
        connect_cpu = cpu_ns(server.pids) - cpu
        await settled(server)
        pss = pss_bytes(server.pids) - pss
        lasts: list[float] = []
        whos: list[str] = []
        client = 0
        for seq in range(server.first_seq, server.first_seq + WARM_UPS + publishes):
            if seq == server.first_seq + WARM_UPS:
                cpu, lasts, whos = cpu_ns(server.pids), [], []
                each, client = [cpu_ns([pid]) for pid in server.pids], cpu_ns([lines.process.pid])
            start = time.monotonic_ns()
            await server.publish(seq)
            got = await all_read(lines, seq)
            lasts.append((int(got[5]) - start) / 1e6)
            whos.append(got[6])
        cpu, client = cpu_ns(server.pids) - cpu, cpu_ns([lines.process.pid]) - client
        workers = [cpu_ns([pid]) - before for pid, before in zip(server.pids, each, strict=True)][1:]
    return Round(
        cpu_us=cpu / publishes / connections / 1000,
        last_ms=statistics.median(lasts),
        connect_s=float(seconds),
        connect_cpu_us=connect_cpu / connections / 1000,
        overflows=int(overflows),
        pss_bytes=pss / connections,
        shares=tuple(one / sum(workers) for one in workers),
        last_share=max(whos.count(who) for who in set(whos)) / len(whos),
        client_cpu_us=client / publishes / connections / 1000,
    )


async def settled(server: Server) -> None:
    """Waits until the server has nothing left to do: sessions go to the registry after their welcome."""
    async with asyncio.timeout(SETTLE_MAX):
        while True:
            before = cpu_ns(server.pids)
            await asyncio.sleep(SETTLE)
            if cpu_ns(server.pids) - before < 0.03 * SETTLE * 1e9:
                return


def ratios(ours: list[Round], least: list[Round], value: Callable[[Round], float]) -> list[float]:
    """Within each pair."""
    return [value(a) / value(b) for a, b in zip(ours, least, strict=True)]
