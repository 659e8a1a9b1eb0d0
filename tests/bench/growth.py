"""1,000 to 18,000 connections on one worker: costs against the floor's own growth, and the longest pause of the loop."""

import asyncio
from argparse import Namespace

from tests.bench.rounds import measure, ratios
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, floor, gauge, host, write_hellos

SIZES = (1000, 5000, 10_000, 18_000)


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    figures: list[Figure] = []
    for size in SIZES:
        ours, least, lags = [], [], []
        for _ in range(options.rounds):
            async with host(bench, connections=19_000) as server:
                hellos = write_hellos(bench, server, size)
                async with floor(bench) as bare:
                    least.append(await measure(bench, bare, hellos, size, options.publishes))
                watching = asyncio.create_task(_longest(server))
                ours.append(await measure(bench, server, hellos, size, options.publishes))
                watching.cancel()
                lags.append(await watching)
        figures += [
            Figure(f"{size:,}: CPU per delivery", [r.cpu_us for r in ours], "µs", "even in ratio ± 15 %",
                   ratios(ours, least, lambda r: r.cpu_us)),
            Figure(f"{size:,}: publish → last", [r.last_ms for r in ours], "ms", "",
                   ratios(ours, least, lambda r: r.last_ms)),
            Figure(f"{size:,}: connect, CPU", [r.connect_cpu_us for r in ours], "µs", "",
                   ratios(ours, least, lambda r: r.connect_cpu_us)),
            Figure(f"{size:,}: memory per idle connection", [r.pss_bytes for r in ours], "B PSS"),
            Figure(f"{size:,}: longest pause of the loop", [1000 * lag for lag in lags], "ms", "≤ 20 at 18,000",
                   key="gc_pause" if size == SIZES[-1] else ""),
        ]  # fmt: skip
    return figures


async def _longest(server: Server) -> float:
    """The greatest loop lag that a worker reports, until cancelled: connecting, broadcasts and collections together."""
    most = 0.0
    while True:
        try:
            await asyncio.sleep(0.5)
            most = max(most, await gauge(server, "stagecast_loop_lag_seconds"))
        except asyncio.CancelledError:
            return most
