"""From the log to a device's socket, on the embedded log, at a low rate: append called → the first device has read it."""

import asyncio
import time
from argparse import Namespace

from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, all_read, devices, host, write_hellos

CONNECTIONS = 100
SAMPLES = 200
WARM_UPS = 10
GAP = 0.02
"""Seconds between broadcasts."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    p50, p99, durable50, durable99 = [], [], [], []
    for _ in range(min(options.rounds, 2)):
        appends, arrivals = await _samples(bench)
        p50.append(_quantile(arrivals, 0.5))
        p99.append(_quantile(arrivals, 0.99))
        durable50.append(_quantile(appends, 0.5))
        durable99.append(_quantile(appends, 0.99))
    return [
        Figure("append called → first device, p50", p50, "ms", key="log_to_socket_p50"),
        Figure("append called → first device, p99", p99, "ms", "≤ 5", key="log_to_socket_p99"),
        Figure("of it, append called → durable (the disk's part), p50", durable50, "ms"),
        Figure("of it, append called → durable (the disk's part), p99", durable99, "ms"),
    ]


async def _samples(bench: Bench) -> tuple[list[float], list[float]]:
    """ms until each append was acknowledged, and until the first device had read it."""
    appends, arrivals = [], []
    async with host(bench) as server:
        hellos = write_hellos(bench, server, CONNECTIONS)
        async with devices(bench, server, hellos, CONNECTIONS) as lines:
            await lines.hear("ready", 120)
            await settled(server)
            for seq in range(server.first_seq, server.first_seq + WARM_UPS + SAMPLES):
                began = time.monotonic_ns()
                await server.publish(seq)
                appends.append((time.monotonic_ns() - began) / 1e6)
                arrivals.append((int((await all_read(lines, seq))[2]) - began) / 1e6)
                await asyncio.sleep(GAP)
    return appends[WARM_UPS:], arrivals[WARM_UPS:]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]
