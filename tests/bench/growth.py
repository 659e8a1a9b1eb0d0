"""1,000 to 18,000 connections on one worker, all sizes at once beside floors of the same: does our cost grow as the floor's?"""

import statistics
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.measured import pss_bytes
from tests.bench.paired import Contender, Turns, arrive, compare, ratios, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, floor, host

SIZES = (1000, 5000, 10_000, 18_000)
STAGINGS, STAGINGS_FULL = 2, 5
ROUNDS = 6
PUBLISHES = 3
TURNS = 5
"""In which all devices connect."""


@dataclass
class Found:
    """One contender of one size."""

    rounds: list[Turns] = field(default_factory=list)
    connect: list[float] = field(default_factory=list)
    """µs of server CPU per connection, by turn."""
    pss: list[float] = field(default_factory=list)


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    ours, least = {size: Found() for size in SIZES}, {size: Found() for size in SIZES}
    all_ = [(size, found) for size in SIZES for found in (ours[size], least[size])]
    for _ in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = [
                await stack.enter_async_context(_staged(bench, size, found is ours[size])) for size, found in all_
            ]
            before = [pss_bytes(one.server.pids) for one in contenders]
            costs = await arrive(contenders, [size for size, _ in all_], TURNS)
            for (size, found), one, cost, pss in zip(all_, contenders, costs, before, strict=True):
                await settled(one.server)
                found.connect += cost
                found.pss.append((pss_bytes(one.server.pids) - pss) / size)
            await compare(contenders, ROUNDS, PUBLISHES)
            for (_, found), one in zip(all_, contenders, strict=True):
                found.rounds += one.rounds
    figures = []
    for size in SIZES:
        figures += _of(size, ours[size], least[size])
    return [*figures, *_growth(ours, least)]


@asynccontextmanager
async def _staged(bench: Bench, size: int, real: bool) -> AsyncIterator[Contender]:
    started = host(bench, connections=19_000) if real else floor(bench)
    async with started as server, devices(bench, server, size) as audience:
        yield Contender(f"{size} {'host' if real else 'floor'}", server, audience)


def _of(size: int, ours: Found, least: Found) -> list[Figure]:
    return [
        Figure(f"{size:,}: CPU per delivery", [one.cpu_us for one in ours.rounds], "µs", "",
               ratios(ours.rounds, least.rounds, lambda one: one.cpu_us), f"growth_cpu_{size}"),
        Figure(f"{size:,}: publish → last", [one.last_ms for one in ours.rounds], "ms", "",
               ratios(ours.rounds, least.rounds, lambda one: one.last_ms), f"growth_last_{size}"),
        Figure(f"{size:,}: connect, CPU", ours.connect, "µs", "", ratios(ours.connect, least.connect, float),
               f"growth_connect_{size}"),
        Figure(f"{size:,}: memory per idle connection", ours.pss, "B PSS"),
    ]  # fmt: skip


def beyond(small: list[float], large: list[float]) -> float:
    """By how much the ratio to the floor is greater with more connections, %."""
    return 100 * (statistics.median(large) / statistics.median(small) - 1)


def _growth(ours: dict[int, Found], least: dict[int, Found]) -> list[Figure]:
    """Against 1,000 connections, beyond the floor's own growth."""
    delivery = {size: ratios(ours[size].rounds, least[size].rounds, lambda one: one.cpu_us) for size in SIZES}
    connect = {size: ratios(ours[size].connect, least[size].connect, float) for size in SIZES}
    return [
        Figure(f"1,000 → {size:,}: {name} beyond the floor's growth", [beyond(of[SIZES[0]], of[size])], "%", "≤ 15",
               key=f"growth_beyond_{key}" if size == SIZES[-1] else "")
        for name, key, of in (("delivery", "delivery", delivery), ("connect", "connect", connect))
        for size in SIZES[1:]
    ]  # fmt: skip
