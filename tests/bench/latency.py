"""From the log to a device's socket, on the embedded log, at a low rate: append called → the first device has read it."""

import asyncio
import time
from argparse import Namespace

from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, all_read, devices, host, write_hellos

CONNECTIONS = 100
SAMPLES = 200
GAP = 0.02
"""Seconds between broadcasts."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    p50, p99 = [], []
    for _ in range(min(options.rounds, 2)):
        async with host(bench) as server:
            hellos = write_hellos(bench, server, CONNECTIONS)
            async with devices(bench, server, hellos, CONNECTIONS) as lines:
                await lines.hear("ready", 120)
                await settled(server)
                took = []
                for seq in range(server.first_seq, server.first_seq + SAMPLES):
                    began = time.monotonic_ns()
                    await server.publish(seq)
                    took.append((int((await all_read(lines, seq))[2]) - began) / 1e6)
                    await asyncio.sleep(GAP)
                took = sorted(took[10:])
                p50.append(took[len(took) // 2])
                p99.append(took[len(took) * 99 // 100])
    return [
        Figure("append called → first device, p50", p50, "ms", "", key="log_to_socket_p50"),
        Figure(
            "append called → first device, p99", p99, "ms", "≤ 5 (durable append included)", key="log_to_socket_p99"
        ),
    ]
