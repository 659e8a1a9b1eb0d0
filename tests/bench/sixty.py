"""60,000 connections on a host of four workers, beside four C loops on one port.

Four processes of devices, each with source addresses of its own. Not pinned to cores: four workers want all there are.
"""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.audience import Connected
from tests.bench.measured import cpu_ns, pss_bytes
from tests.bench.paired import Contender, Turns, compare, ratios, rotated, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, floor, host

CONNECTIONS = 60_000
WORKERS = 4
WINDOW = 896
"""Handshakes in flight: 224 of each process."""
STAGINGS, STAGINGS_FULL = 1, 3
ROUNDS, ROUNDS_FULL = 5, 5
PUBLISHES = 2


@dataclass
class Found:
    rounds: list[Turns] = field(default_factory=list)
    connected: list[Connected] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """µs of server CPU per connection."""
    pss: list[float] = field(default_factory=list)


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found = {"floor": Found(), "host": Found()}
    for number in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = [
                await stack.enter_async_context(_staged(bench, name, found[name]))
                for name in rotated(list(found), number)
            ]
            await compare(contenders, ROUNDS, PUBLISHES)
            for one in contenders:
                found[one.name].rounds += one.rounds
    ours, least = found["host"], found["floor"]
    return [
        Figure("60,000: all connected", [one.seconds for one in ours.connected], "s", "≤ 4",
               [a.seconds / b.seconds for a, b in zip(ours.connected, least.connected, strict=True)], "sixty_connected"),
        Figure("60,000: dropped at the accept queues", [float(one.dropped) for one in ours.connected], "", "0"),
        Figure("60,000: connect, server CPU", ours.cpu, "µs", "", ratios(ours.cpu, least.cpu, float)),
        Figure("60,000: publish → last", [one.last_ms for one in ours.rounds], "ms", "≤ 1.15 × floor",
               ratios(ours.rounds, least.rounds, lambda one: one.last_ms), "sixty_publish_to_last"),
        Figure("60,000: CPU per delivery", [one.cpu_us for one in ours.rounds], "µs", "",
               ratios(ours.rounds, least.rounds, lambda one: one.cpu_us), "sixty_cpu_per_delivery"),
        Figure("60,000: memory per idle connection", ours.pss, "B PSS"),
        Figure("floors: all connected", [one.seconds for one in least.connected], "s"),
        Figure("floors: publish → last", [one.last_ms for one in least.rounds], "ms"),
    ]  # fmt: skip


@asynccontextmanager
async def _staged(bench: Bench, name: str, found: Found) -> AsyncIterator[Contender]:
    real = host(bench, pinned=False, workers=WORKERS, connections=19_000)
    async with real if name == "host" else floor(bench, WORKERS, pinned=False) as server:
        pss, cpu = pss_bytes(server.pids), cpu_ns(server.pids)
        async with devices(bench, server, CONNECTIONS, pinned=False, window=WINDOW) as audience:
            found.connected.append(await audience.go(CONNECTIONS))
            found.cpu.append((cpu_ns(server.pids) - cpu) / CONNECTIONS / 1000)
            await settled(server)
            found.pss.append((pss_bytes(server.pids) - pss) / CONNECTIONS)
            yield Contender(name, server, audience)
