"""Idle connections that do nothing but ping every 45 s, as devices do: CPU of the worker and of the feed."""

import asyncio
import time
from argparse import Namespace

from tests.bench.measured import cpu_ns
from tests.bench.paired import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, host

CONNECTIONS = 18_000
PING = 45.0
"""Seconds: the default of the setting `ping`."""
SECONDS = 15.0
ROUNDS, ROUNDS_FULL = 1, 5
WINDOWS = 3
"""Of SECONDS altogether: one figure each."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    worker: list[float] = []
    feed: list[float] = []
    for _ in range(options.rounds or (ROUNDS_FULL if options.full else ROUNDS)):
        async with (
            host(bench, ping=PING, connections=19_000) as server,
            devices(bench, server, CONNECTIONS) as audience,
        ):
            await audience.go(CONNECTIONS)
            await settled(server)
            audience.say(f"ping {int(1000 * PING)}")
            await asyncio.sleep(2)
            for _ in range(WINDOWS):
                began, before = time.monotonic_ns(), [cpu_ns([pid]) for pid in server.pids]
                await asyncio.sleep(SECONDS / WINDOWS)
                wall = time.monotonic_ns() - began
                shares = [100 * (cpu_ns([pid]) - was) / wall for pid, was in zip(server.pids, before, strict=True)]
                feed.append(shares[0])
                worker.append(shares[1])
    return [
        Figure(f"a worker with {CONNECTIONS:,} pinging connections", worker, "% of a core", "≤ 3", key="idle_cpu"),
        Figure("its feed", feed, "% of a core"),
    ]
