"""A worker with all devices is killed, and all go to another host's one worker: kill → the last welcome with the current head.

Unpaced, all at once, as if they knew no better: then the accept queue decides. Paced by the `back` of their welcome, as devices
do. Not pinned to cores: it is the wall clock of several processes.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from tests.bench.measured import Lines, Unmeasurable, cpu_ns
from tests.bench.paired import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, devices, free_port, gauge, host

ROUNDS, ROUNDS_FULL = {"again": 2, "paced": 1}, {"again": 5, "paced": 3}


@dataclass(frozen=True)
class Storm:
    seconds: float
    dropped: int
    """By the kernel at listening sockets (ListenDrops): full accept queues, SYNs."""
    refused: int
    """Connects that had to be tried again."""
    reads: int
    """Of heads from the store, by the host that took them all."""
    client_busy: float
    """The devices' share of that time, in cores."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found: dict[str, list[Storm]] = {"again": [], "paced": []}
    for how, rounds in (ROUNDS_FULL if options.full else ROUNDS).items():
        for _ in range(options.rounds or rounds):
            found[how].append(await _storm(bench, options.connections, how))
    unpaced, paced = found["again"], found["paced"]
    return [
        Figure("unpaced: kill → the last of all welcomed", [one.seconds for one in unpaced], "s", "≤ 1.5", key="storm"),
        *_figures("unpaced", unpaced, ""),
        Figure("devices: busy meanwhile", [100 * one.client_busy for one in unpaced], "% of a core", "< 100"),
        Figure("paced: kill → the last of all welcomed", [one.seconds for one in paced], "s", "hi of `back`: 5",
               key="storm_paced"),
        *_figures("paced", paced, "0"),
    ]  # fmt: skip


def _figures(how: str, storms: list[Storm], dropped: str) -> list[Figure]:
    return [
        Figure(f"{how}: dropped at the accept queue", [float(one.dropped) for one in storms], "", dropped),
        Figure(f"{how}: connects tried again", [float(one.refused) for one in storms], "", "none for good"),
        Figure(f"{how}: heads read from the store", [float(one.reads) for one in storms], "", "≤ events × hosts: 1"),
    ]


async def _storm(bench: Bench, connections: int, how: str) -> Storm:
    async with (
        host(bench, pinned=False, host="first") as first,
        devices(bench, first, connections, pinned=False) as all_,
    ):
        await all_.go(connections)
        async with beside(bench, first) as (port, admin):
            await settled(first)
            await first.publish(first.first_seq)
            await all_.read(first.first_seq)
            reads = await gauge(admin, READS)
            all_.say(f"{how} {port}")
            await asyncio.sleep(0.2)
            client, began = cpu_ns(all_.pids), time.monotonic_ns()
            os.kill(first.pids[1], signal.SIGKILL)
            ((last, refused, dropped, least),) = await all_.hear("back", 60)
            if int(least) < first.first_seq:
                raise Unmeasurable(f"a welcome brought seq {least}, the head is {first.first_seq}")
            took = int(last) - began
            return Storm(
                took / 1e9, int(dropped), int(refused), round(await gauge(admin, READS) - reads),
                (cpu_ns(all_.pids) - client) / took,
            )  # fmt: skip


READS = "stagecast_feed_kv_reads_total"


@contextlib.asynccontextmanager
async def beside(bench: Bench, first: Server) -> AsyncIterator[tuple[int, str]]:
    """A second host with one worker, on the same log and store: its port and its admin URL."""
    assert first.issuer is not None
    port, admin = free_port(), f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "stagecast.cli", "pushy", "--data", str(first.data), "--host", "second"]
    command += [
        "--ws",
        f"127.0.0.1:{port}",
        "--admin",
        admin,
        "--ping",
        "600",
        "--drain-rate",
        "1000000",
        "--keys",
        str(first.issuer.keys),
    ]
    cores = bench.server_cores | bench.client_cores
    async with (
        Lines(*command, errors=bench.folder / "errors.txt", cores=cores),
        httpx.AsyncClient(base_url=f"http://{admin}") as client,
    ):
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        yield port, f"http://{admin}"
