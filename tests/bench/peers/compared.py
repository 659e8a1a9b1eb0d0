"""The floor, our host and every peer that can be had, all up at once, in turns."""

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from stagecast.broadcast import encode_broadcast
from tests.bench.audience import Audience
from tests.bench.measured import Lines, Unmeasurable, children, pss_bytes
from tests.bench.paired import Contender, Turns, arrive, compare, ratios
from tests.bench.peers.installed import Peer, install
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, broadcast, devices, floor, free_port, host

STAGINGS, STAGINGS_FULL = 1, 3
ROUNDS = 6
PUBLISHES = 4
TURNS = 10
"""In which all devices connect."""
GEN = 1_764_000_000_000
CENTRIFUGE_HELLO = json.dumps({"id": 1, "connect": {"data": {"t": "hello", "device": "x" * 100}}})
STARTED = 30.0
"""Seconds that a peer may take to listen."""


@dataclass
class Found:
    title: str
    rounds: list[Turns] = field(default_factory=list)
    connect: list[float] = field(default_factory=list)
    """µs of server CPU per connection, by turn."""
    pss: list[float] = field(default_factory=list)
    """Bytes per idle connection."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    folder = bench.fresh("peers")
    folder.mkdir()
    peers = await asyncio.to_thread(install, folder, bench.server_cores | bench.client_cores)
    found = {"floor": Found("the floor"), "stagecast": Found("Stagecast, verified token and all")}
    found |= {peer.name: Found(peer.title) for peer in peers}
    for number in range(options.rounds or (STAGINGS_FULL if options.full else STAGINGS)):
        async with AsyncExitStack() as stack:
            contenders = [
                await stack.enter_async_context(_ours(bench, name, options.connections)) for name in list(found)[:2]
            ]
            contenders += [await stack.enter_async_context(_peer(bench, peer, options.connections)) for peer in peers]
            await _connect(contenders, found, options.connections)
            await compare(contenders, ROUNDS, PUBLISHES)
            for one in contenders:
                found[one.name].rounds += one.rounds
            print(f"  staging {number + 1} done", flush=True)
    least = found.pop("floor")
    return [figure for name, one in found.items() for figure in _figures(name, one, least)]


async def _connect(contenders: list[Contender], found: dict[str, Found], count: int) -> None:
    """All devices, and what they cost at rest."""
    before = {one.name: pss_bytes(one.server.pids) for one in contenders}
    costs = await arrive(contenders, [count] * len(contenders), TURNS)
    await asyncio.sleep(3)  # what they still do after the last welcome
    for one, cost in zip(contenders, costs, strict=True):
        found[one.name].connect += cost
        found[one.name].pss.append((pss_bytes(one.server.pids) - before[one.name]) / count)


def _figures(name: str, ours: Found, least: Found) -> list[Figure]:
    return [
        Figure(f"{ours.title}: CPU per delivery", [one.cpu_us for one in ours.rounds], "µs", "",
               ratios(ours.rounds, least.rounds, lambda one: one.cpu_us), f"peer_{name}_cpu"),
        Figure(f"{ours.title}: the same, with ksoftirqd", [one.softirq_us for one in ours.rounds], "µs", "",
               ratios(ours.rounds, least.rounds, lambda one: one.softirq_us), f"peer_{name}_cpu_softirq"),
        Figure(f"{ours.title}: publish → last", [one.last_ms for one in ours.rounds], "ms", "",
               ratios(ours.rounds, least.rounds, lambda one: one.last_ms), f"peer_{name}_last"),
        Figure(f"{ours.title}: connect", ours.connect, "µs", "", ratios(ours.connect, least.connect, float),
               f"peer_{name}_connect"),
        Figure(f"{ours.title}: memory per idle connection", ours.pss, "B PSS", "", key=f"peer_{name}_memory"),
    ]  # fmt: skip


@asynccontextmanager
async def _ours(bench: Bench, name: str, count: int) -> AsyncIterator[Contender]:
    started = floor(bench) if name == "floor" else host(bench)
    async with started as server, devices(bench, server, count) as audience:
        yield Contender(name, server, audience)


@asynccontextmanager
async def _peer(bench: Bench, peer: Peer, count: int) -> AsyncIterator[Contender]:
    start = _nginx if peer.name == "nchan" else _talking
    hellos = _hellos(bench, peer.name, count)
    async with (
        start(bench, peer) as server,
        Audience(
            bench.devices, server.port, hellos, [count], cores=bench.client_cores, number=bench.source()
        ) as audience,
    ):
        yield Contender(peer.name, server, audience)


def _hellos(bench: Bench, name: str, count: int) -> list[Path] | None:
    """What a device says first: to nchan nothing, to centrifuge its own protocol's connect, to the others any message."""
    if name == "nchan":
        return None
    if name != "centrifuge":
        return [bench.issuer().hellos("bench", count)]
    file = bench.fresh("hellos-centrifuge")
    file.write_text(f"{CENTRIFUGE_HELLO}\n" * count)
    return [file]


@asynccontextmanager
async def _talking(bench: Bench, peer: Peer) -> AsyncIterator[Server]:
    """A server that talks in lines as the floor does."""
    errors = bench.folder / "errors.txt"
    async with Lines(*peer.command, errors=errors, cores=bench.server_cores, cwd=peer.folder) as lines:
        port = int((await lines.hear("port", STARTED))[0])

        async def publish(seq: int) -> None:
            lines.say("send " + encode_broadcast(broadcast(GEN, seq)).decode())

        yield Server(port, [lines.pid], publish, 2)


@asynccontextmanager
async def _nginx(bench: Bench, peer: Peer) -> AsyncIterator[Server]:
    """nginx: a master and one worker; publishing is a POST."""
    port, config = free_port(), peer.folder / "nginx.conf"
    text = config.read_text()
    config.write_text(text.replace("PORT", str(port)))
    try:
        async with (
            Lines(
                *peer.command, errors=bench.folder / "errors.txt", cores=bench.server_cores, cwd=peer.folder
            ) as lines,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            await _listening(port)
            (worker,) = children(lines.pid)

            async def publish(seq: int) -> None:
                body = encode_broadcast(broadcast(GEN, seq))
                (await client.post("/publish", content=body)).raise_for_status()

            yield Server(port, [worker, lines.pid], publish, 2)
    finally:
        config.write_text(text)


async def _listening(port: int) -> None:
    for _ in range(int(STARTED / 0.1)):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise Unmeasurable(f"nothing listens at port {port}")
