"""Idle connections that do nothing but ping every 45 s: CPU of the worker and of the feed."""

import asyncio
import time
from argparse import Namespace

from tests.bench.measured import cpu_ns
from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, host, write_hellos

CONNECTIONS = 18_000
PING = 45.0
SECONDS = 15.0


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    worker, feed = [], []
    for _ in range(min(options.rounds, 2)):
        async with host(bench, ping=PING, connections=19_000) as server:
            hellos = write_hellos(bench, server, CONNECTIONS)
            async with devices(bench, server, hellos, CONNECTIONS) as lines:
                await lines.hear("ready", 120)
                await settled(server)
                lines.say(f"ping {int(1000 * PING)}")
                await asyncio.sleep(2)
                began, before = time.monotonic_ns(), [cpu_ns([pid]) for pid in server.pids]
                await asyncio.sleep(SECONDS)
                wall = time.monotonic_ns() - began
                shares = [100 * (cpu_ns([pid]) - was) / wall for pid, was in zip(server.pids, before, strict=True)]
                feed.append(shares[0])
                worker.append(shares[1])
    return [
        Figure(f"a worker with {CONNECTIONS:,} pinging connections", worker, "% of a core", "≤ 3", key="idle_cpu"),
        Figure("its feed", feed, "% of a core"),
    ]
