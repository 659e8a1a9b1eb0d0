"""18,000 connections on one worker: how long its loop does nothing else during a broadcast, and what of it is garbage collection.

Other devices ping the worker all the while and time its answers from outside (tests/bench/probe.py); the interpreter says when it
collects and for how long (tests/bench/watched.py). A full collection is ordered in the middle of a broadcast besides.
"""

import asyncio
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench.measured import Lines, waited_ns
from tests.bench.paired import Contender, settled
from tests.bench.probe import CONNECTIONS as PROBES
from tests.bench.table import Figure
from tests.bench.watched import collections
from tests.bench.world import Bench, devices, gauge, host

CONNECTIONS = 18_000
BROADCASTS = 10
FORCED = 5
ROUNDS, ROUNDS_FULL = 1, 5


@dataclass(frozen=True)
class Pauses:
    """ms; of a round the greatest."""

    at_rest: float
    """Median answer without a broadcast."""
    longest: list[float]
    """By broadcast: the longest that an answer took."""
    forced: list[float]
    """The same, when a full collection was ordered in the middle."""
    full: list[float]
    """What those collections took."""
    collected: float
    """The longest collection during the other broadcasts; 0: there was none."""
    waited: list[float]
    """By broadcast: how long the worker was ready and did not have its core, in all."""
    lag: float
    """As the worker reports it."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    rounds = options.rounds or (ROUNDS_FULL if options.full else ROUNDS)
    found = [await _round(bench) for _ in range(rounds)]
    longest = [pause for one in found for pause in one.longest]
    return [
        Figure(f"{CONNECTIONS:,}: longest pause of the loop in a broadcast", longest, "ms", "≤ 20", key="gc_pause"),
        Figure(
            "the same, a full collection ordered meanwhile", [ms for one in found for ms in one.forced], "ms", "≤ 20"
        ),
        Figure("of it that full collection", [ms for one in found for ms in one.full], "ms"),
        Figure("longest collection that came by itself", [one.collected for one in found], "ms"),
        Figure("waited for its core in a broadcast, in all", [ms for one in found for ms in one.waited], "ms"),
        Figure("an answer without a broadcast, median", [one.at_rest for one in found], "ms"),
        Figure("longest lag that the worker reported", [one.lag for one in found], "ms"),
    ]


async def _round(bench: Bench) -> Pauses:
    said = bench.fresh("collections")
    said.mkdir()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            host(bench, program=("tests.bench.watched", str(said)), connections=19_000)
        )
        audience = await stack.enter_async_context(devices(bench, server, CONNECTIONS - PROBES))
        await audience.go(CONNECTIONS - PROBES)
        await settled(server)
        assert server.issuer is not None
        hellos = server.issuer.hellos(server.event, PROBES, CONNECTIONS)
        probe = Lines(sys.executable, "-m", "tests.bench.probe", f"127.0.0.1:{server.port}", str(hellos))
        await stack.enter_async_context(probe)
        await probe.hear("ready")
        contender = Contender("host", server, audience)
        await contender.broadcast()
        at_rest = (await _probed(probe, asyncio.sleep(1)))[1]
        await gauge(server.admin, LAG)
        longest, waited, began = [], [], time.monotonic_ns()
        for _ in range(BROADCASTS):
            before = waited_ns(server.pids[1:])
            longest.append((await _probed(probe, contender.broadcast()))[0])
            waited.append((waited_ns(server.pids[1:]) - before) / 1e6)
        lag = 1000 * await gauge(server.admin, LAG)
        ended = time.monotonic_ns()
        forced = [(await _probed(probe, _collecting(contender)))[0] for _ in range(FORCED)]
        worker = collections(said, server.pids[1])
    return Pauses(
        at_rest, longest, forced,
        [one.ns / 1e6 for one in worker if one.began > ended and one.generation == 2],
        max((one.ns / 1e6 for one in worker if began <= one.began <= ended), default=0.0),
        waited, lag,
    )  # fmt: skip


LAG = "stagecast_loop_lag_seconds"


async def _probed(probe: Lines, meanwhile: Awaitable[object]) -> tuple[float, float]:
    """Longest and median answer, ms, while something is done."""
    probe.say("mark")
    await probe.hear("longest")
    await meanwhile
    await asyncio.sleep(0.05)
    probe.say("mark")
    longest, median, _ = await probe.hear("longest")
    return float(longest), float(median)


async def _collecting(contender: Contender) -> None:
    broadcasting = asyncio.create_task(contender.broadcast())
    await asyncio.sleep(0.03)
    os.kill(contender.server.pids[1], signal.SIGUSR2)
    await broadcasting
