"""One worker: CPU per delivery and publish → last by every way to the sockets, beside the floor; memory at rest."""

import statistics
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.audience import Connected
from tests.bench.measured import pss_bytes
from tests.bench.paired import Contender, Turns, compare, ratios, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, devices, floor, host

STAGINGS, STAGINGS_FULL = 2, 5
"""Fresh processes of all contenders: what a start decides by chance (where memory lies, which ports) is not measured once."""
ROUNDS, ROUNDS_FULL = 6, 15
"""Of each staging."""
PUBLISHES = 4
"""Turns of each contender in a round."""


@dataclass
class Found:
    """All rounds of one contender, and what it was at rest."""

    rounds: list[Turns] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    """Bytes per idle connection, before any publish."""
    connected: list[Connected] = field(default_factory=list)
    frequent: list[float] = field(default_factory=list)
    """Share of the broadcasts in which the most frequent last device was the last, %."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    kinds = ["floor", *bench.fan_outs]
    found = {kind: Found() for kind in kinds}
    for number in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = [await stack.enter_async_context(_staged(bench, kind, options, found[kind])) for kind in kinds]
            await compare(contenders, ROUNDS_FULL if options.full else ROUNDS, PUBLISHES)
            for one in contenders:
                found[one.name].rounds += one.rounds
                found[one.name].frequent.append(100 * max(one.last.values()) / one.last.total())
        print(f"  staging {number + 1}: µs per delivery {_said(contenders)}", flush=True)
    return [
        *(figure for kind in kinds[1:] for figure in _beside(kind, found[kind], found["floor"], kind == kinds[1])),
        *_rest(found[kinds[1]], found["floor"]),
    ]


@asynccontextmanager
async def _staged(bench: Bench, kind: str, options: Namespace, found: Found) -> AsyncIterator[Contender]:
    server: Server
    async with floor(bench) if kind == "floor" else host(bench, fan_out=kind) as server:
        pss = pss_bytes(server.pids)
        async with devices(bench, server, options.connections) as audience:
            found.connected.append(await audience.go(options.connections))
            await settled(server)
            found.pss.append((pss_bytes(server.pids) - pss) / options.connections)
            yield Contender(kind, server, audience)


def _said(contenders: list[Contender]) -> str:
    middles = {one.name: statistics.median(turns.cpu_us for turns in one.rounds) for one in contenders}
    return ", ".join(f"{name} {middle:.2f}" for name, middle in middles.items())


def _beside(kind: str, ours: Found, least: Found, first: bool) -> list[Figure]:
    goals = ("≤ 1.35 × floor", "") if kind == "python" else ("≤ 1.10 × floor", "≤ 1.15 × floor")
    return [
        Figure(
            f"{kind}: server CPU per delivery", [one.cpu_us for one in ours.rounds], "µs", goals[0],
            ratios(ours.rounds, least.rounds, lambda one: one.cpu_us),
            "cpu_per_delivery" if first else f"cpu_per_delivery_{kind}",
        ),
        Figure(
            f"{kind}: the same, with ksoftirqd on the servers' cores", [one.softirq_us for one in ours.rounds], "µs", "",
            ratios(ours.rounds, least.rounds, lambda one: one.softirq_us),
            "cpu_per_delivery_softirq" if first else "",
        ),
        Figure(
            f"{kind}: publish → last device", [one.last_ms for one in ours.rounds], "ms", goals[1],
            ratios(ours.rounds, least.rounds, lambda one: one.last_ms),
            "publish_to_last" if first else f"publish_to_last_{kind}",
        ),
    ]  # fmt: skip


def _rest(ours: Found, least: Found) -> list[Figure]:
    return [
        Figure("floor: CPU per delivery", [one.cpu_us for one in least.rounds], "µs"),
        Figure("floor: publish → last device", [one.last_ms for one in least.rounds], "ms"),
        Figure("devices: CPU per delivery", [one.client_us for one in ours.rounds], "µs", "below the server's"),
        Figure("devices: busy until the last has read", [100 * one.client_busy for one in ours.rounds], "%", "< 100"),
        Figure("the most frequent last device was last", ours.frequent, "%", "nobody is always last"),
        Figure("memory per idle connection", ours.pss, "B PSS", "≤ 1,800", key="memory_idle"),
        Figure("connecting all at once, 256 in flight", [one.seconds for one in ours.connected], "s"),
        Figure("dropped at the accept queue", [float(one.dropped) for one in ours.connected], "", "0"),
    ]
