"""1, 2 and 4 workers of one host, beside one another: CPU per delivery, and how evenly the connections are shared."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.measured import cpu_ns
from tests.bench.paired import Contender, Turns, compare, ratios, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, gauges, host

COUNTS = (1, 2, 4)
STAGINGS, STAGINGS_FULL = 1, 5
ROUNDS = 6
PUBLISHES = 4


@dataclass
class Found:
    rounds: list[Turns] = field(default_factory=list)
    connections: list[list[float]] = field(default_factory=list)
    """Each worker's share, by staging; of 1."""
    cpu: list[list[float]] = field(default_factory=list)
    """Each worker's share of the workers' CPU for the broadcasts."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found = {count: Found() for count in COUNTS}
    for _ in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = {
                count: await stack.enter_async_context(_staged(bench, count, options.connections, found[count]))
                for count in COUNTS
            }
            before = {count: _cpu(one) for count, one in contenders.items()}
            await compare(list(contenders.values()), ROUNDS, PUBLISHES)
            for count, one in contenders.items():
                spent = [now - then for now, then in zip(_cpu(one), before[count], strict=True)]
                found[count].cpu.append(_shares(spent))
                found[count].rounds += one.rounds
    return [
        Figure("1 worker: CPU per delivery", [one.cpu_us for one in found[1].rounds], "µs"),
        *(figure for count in COUNTS[1:] for figure in _figures(count, found)),
    ]


@asynccontextmanager
async def _staged(bench: Bench, count: int, connections: int, found: Found) -> AsyncIterator[Contender]:
    async with host(bench, workers=count) as server, devices(bench, server, connections) as audience:
        await audience.go(connections)
        await settled(server)
        found.connections.append(_shares(list((await gauges(server.admin, "stagecast_sessions")).values())))
        yield Contender(f"{count} workers", server, audience)


def _cpu(contender: Contender) -> list[int]:
    return [cpu_ns([pid]) for pid in contender.server.pids[1:]]


def _shares(values: list[float] | list[int]) -> list[float]:
    return [value / sum(values) for value in values]


def uneven(shares: list[list[float]]) -> list[float]:
    """How far the farthest is from an even share, in points."""
    return [100 * max(abs(share - 1 / len(one)) for share in one) for one in shares]


def _figures(count: int, found: dict[int, Found]) -> list[Figure]:
    ours, single = found[count], found[1]
    more = [100 * (ratio - 1) for ratio in ratios(ours.rounds, single.rounds, lambda one: one.cpu_us)]
    last = count == COUNTS[-1]
    return [
        Figure(f"{count} workers: CPU per delivery", [one.cpu_us for one in ours.rounds], "µs"),
        Figure(f"{count} workers: more than one worker", more, "%", "≤ 10", key=f"workers_cpu_{count}"),
        Figure(f"{count} workers: connections, farthest from an even share", uneven(ours.connections), "points", "≤ 5",
               key="workers_even" if last else ""),
        Figure(f"{count} workers: CPU, farthest from an even share", uneven(ours.cpu), "points", "≤ 5"),
    ]  # fmt: skip
