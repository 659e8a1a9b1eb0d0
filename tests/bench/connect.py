"""Connecting: with a token verified the first time, again with a remembered check, and without a check, beside the floor's.

500 devices at a time, in turns, until each contender has 10,000: then all leave and come again. Four turns of each are a round.
What the registry writes after the last welcome of a turn is counted apart.
"""

import asyncio
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from stagecast.tokens import load_keys
from tests.bench.audience import Audience
from tests.bench.hellos import Issuer, spoiled
from tests.bench.measured import cpu_ns
from tests.bench.paired import ratios, rotated, settled
from tests.bench.table import Figure
from tests.bench.world import EVENT, Bench, Server, devices, floor, host

ROUNDS = 5
TURNS = 4
STAGINGS, STAGINGS_FULL = 1, 4
KINDS = ("floor", "HS256", "ES256", "unchecked")
TOKENS = 1000
SETTLE = 2.0
"""Seconds in which the ends of the connections before are worked off."""
AFTERWARDS = 0.2
"""Seconds after a turn in which the registry is written."""


@dataclass
class Connecting:
    """One contender; µs of CPU per connection, by round."""

    name: str
    server: Server
    devices: Audience
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    """The server's after the last welcome of each turn."""
    client: list[float] = field(default_factory=list)

    async def turn(self, count: int) -> tuple[int, int, int]:
        """ns of the server's CPU until the last welcome and afterwards, and of the devices'."""
        before, client = cpu_ns(self.server.pids), cpu_ns(self.devices.pids)
        await self.devices.go(count)
        ready, client = cpu_ns(self.server.pids), cpu_ns(self.devices.pids) - client
        await asyncio.sleep(AFTERWARDS)
        return ready - before, cpu_ns(self.server.pids) - ready, client

    def count(self, turns: list[tuple[int, int, int]], count: int, into: list[float]) -> None:
        cpu, behind, client = (sum(column) / count / len(turns) / 1000 for column in zip(*turns, strict=True))
        into.append(cpu)
        if into is self.first:
            self.behind.append(behind)
            self.client.append(client)


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found: dict[str, list[Connecting]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = [await stack.enter_async_context(_staged(bench, kind, options.connections)) for kind in KINDS]
            await _twice(contenders, options.connections // ROUNDS // TURNS)
            for one in contenders:
                found[one.name].append(one)
    return _figures(found) + _alone(bench)


@asynccontextmanager
async def _staged(bench: Bench, kind: str, count: int) -> AsyncIterator[Connecting]:
    if kind == "unchecked":
        hellos = spoiled(bench.issuer().hellos(EVENT, count))
        async with (
            host(bench, program=("tests.bench.unchecked", str(hellos))) as server,
            Audience(
                bench.devices, server.port, [hellos], [count], cores=bench.client_cores, number=bench.source()
            ) as there,
        ):
            yield Connecting(kind, server, there)
        return
    started = floor(bench) if kind == "floor" else host(bench, algorithm=kind)
    async with started as server, devices(bench, server, count) as there:
        yield Connecting(kind, server, there)


async def _twice(contenders: list[Connecting], count: int) -> None:
    await _connect(contenders, count, "first")
    for one in contenders:
        await one.devices.close()
    await asyncio.sleep(SETTLE)
    for one in contenders:
        await settled(one.server)
    await _connect(contenders, count, "again")


async def _connect(contenders: list[Connecting], count: int, which: str) -> None:
    for number in range(ROUNDS):
        turns: dict[str, list[tuple[int, int, int]]] = {one.name: [] for one in contenders}
        for turn in range(TURNS):
            for one in rotated(contenders, number * TURNS + turn):
                turns[one.name].append(await one.turn(count))
        for one in contenders:
            one.count(turns[one.name], count, getattr(one, which))


def _figures(found: dict[str, list[Connecting]]) -> list[Figure]:
    def rounds(kind: str, which: str = "first") -> list[float]:
        return [cost for one in found[kind] for cost in getattr(one, which)]

    def beside(name: str, kind: str, which: str, goal: str, key: str) -> Figure:
        costs = rounds(kind, which)
        return Figure(name, costs, "µs", goal, ratios(costs, rounds("floor", which), float), key)

    check = [a - b for a, b in zip(rounds("HS256"), rounds("unchecked"), strict=True)]
    return [
        beside("connect, HS256 verified: server CPU", "HS256", "first", "≤ 120", "connect_cpu_jwt"),
        beside("connect, ES256 verified: server CPU", "ES256", "first", "", "connect_cpu_es256"),
        beside("connect again, the check remembered: server CPU", "HS256", "again", "≤ 75", "connect_cpu_again"),
        beside("connect, the check a look-up: server CPU", "unchecked", "first", "≤ 60", "connect_cpu"),
        Figure("so the check of HS256 costs there", check, "µs"),
        Figure("written behind after the last welcome: server CPU", rounds("HS256", "behind"), "µs"),
        Figure("floor: connect, server CPU", rounds("floor"), "µs"),
        Figure("devices: CPU per connect", rounds("HS256", "client"), "µs", "below the server's"),
    ]


def _alone(bench: Bench) -> list[Figure]:
    return [
        Figure(f"the check alone in a loop, {algorithm}", [_check(bench.issuer(algorithm))], "µs")
        for algorithm in ("HS256", "ES256", "EdDSA", "RS256")
    ]


def _check(issuer: Issuer) -> float:
    """µs of CPU for one token, of many different ones."""
    keys, now = load_keys(issuer.keys), time.time()
    tokens = [issuer.token(number, [EVENT], now) for number in range(TOKENS)]
    began = time.process_time_ns()
    for token in tokens:
        keys.verify(token, now)
    return (time.process_time_ns() - began) / TOKENS / 1000
