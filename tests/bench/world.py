"""What every benchmark starts: the floor, a real host, and its devices."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pushy import native
from pushy.fanout import chosen
from stagecast.broadcast import Broadcast, encode_broadcast
from stagecast.log import Topic, open_log
from tests.bench.audience import WINDOW, Audience, processes_for, shares
from tests.bench.hellos import Issuer
from tests.bench.measured import Lines, Unmeasurable, compiled

EVENT = "bench"
READY = 30.0
"""Seconds that a host may take to start."""
SETTINGS = {"ping": 600, "accept_burst": 10_000_000}
"""Rounds of connects follow one another faster than accept_rate, which is for hosts and not for what is measured here."""


@dataclass(frozen=True)
class Bench:
    """Programs, folders and keys of one run."""

    folder: Path
    devices: Path
    bare: Path
    fan_outs: list[str]
    """The ways to the sockets that there are here, as the setting `fan_out` calls them, the best first."""
    server_cores: frozenset[int]
    client_cores: frozenset[int]
    """Servers and devices never share a core; the same for every contender. Without a second core both are empty: any core."""
    issuers: dict[str, Issuer] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """1, 2, 3 …, of each name."""
        self.numbers[name] = self.numbers.get(name, 0) + 1
        return self.numbers[name]

    def fresh(self, name: str) -> Path:
        return self.folder / f"{name}-{self.number(name)}"

    def source(self) -> int:
        """Tells an audience's source addresses from those of the others that are up."""
        return 1 + self.number("source") % 250

    def issuer(self, algorithm: str = "HS256") -> Issuer:
        if algorithm not in self.issuers:
            self.issuers[algorithm] = Issuer(algorithm, self.folder)
        return self.issuers[algorithm]


def prepare(folder: Path, *, pinned: bool = True) -> Bench:
    """Builds what is in C, and goes to the devices' cores itself. `pinned` false: all run on any core. Raises Unmeasurable
    without a compiler."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    devices, bare = compiled("devices", folder), compiled("floor", folder)
    try:
        native.build()
    except native.NotBuilt as why:
        print(f"without the native fan-out: {why}", flush=True)
    cores = sorted(os.sched_getaffinity(0)) if pinned else []
    servers, clients = frozenset(cores[: len(cores) // 2]), frozenset(cores[len(cores) // 2 :])
    if servers:
        os.sched_setaffinity(0, clients)
    return Bench(folder, devices, bare, fan_outs(), servers, clients)


def fan_outs() -> list[str]:
    found = []
    for kind in ("batched", "native", "python"):
        try:
            chosen(kind)
        except ValueError as why:
            print(f"without fan_out {kind}: {why}", flush=True)
        else:
            found.append(kind)
    return found


@dataclass
class Server:
    """One contender's server."""

    port: int
    pids: list[int]
    """All its processes on the way of a broadcast."""
    publish: Callable[[int], Awaitable[None]]
    first_seq: int
    gen: int = 0
    data: Path | None = None
    admin: str = ""
    event: str = EVENT
    issuer: Issuer | None = None
    """Whose tokens its devices bring; None: it asks for none."""


@contextlib.asynccontextmanager
async def floor(bench: Bench, processes: int = 1, pinned: bool = True) -> AsyncIterator[Server]:
    """The bare C send() loop, in as many processes as a host would have workers."""
    cores = bench.server_cores if pinned else bench.server_cores | bench.client_cores
    async with contextlib.AsyncExitStack() as stack:
        port, children = free_port() if processes > 1 else 0, []
        for _ in range(processes):
            command = [str(bench.bare), str(port), *(["shared"] if processes > 1 else [])]
            lines = await stack.enter_async_context(Lines(*command, cores=cores))
            port = int((await lines.hear("port"))[0])
            children.append(lines)

        async def publish(seq: int) -> None:
            text = encode_broadcast(broadcast(1_764_000_000_000, seq)).decode()
            for lines in children:
                lines.say("send " + text)

        yield Server(port, [lines.pid for lines in children], publish, 2, issuer=bench.issuer())


@contextlib.asynccontextmanager
async def host(
    bench: Bench,
    *,
    program: Sequence[str] = ("stagecast.cli",),
    pinned: bool = True,
    event: str = EVENT,
    algorithm: str = "HS256",
    pad: bool = False,
    **settings: object,
) -> AsyncIterator[Server]:
    """`stagecast dev`, whose host is that of `stagecast pushy`, with the event at its first stage. `pad`: states as long as they
    may be."""
    folder, issuer = bench.fresh("data"), bench.issuer(algorithm)
    command = [sys.executable, "-m", *program, "dev", "--json", "--data", str(folder), "--keys", str(issuer.keys)]
    command += ["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    for name, value in (SETTINGS | settings).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    cores = bench.server_cores if pinned else bench.server_cores | bench.client_cores
    async with Lines(*command, errors=bench.folder / "errors.txt", cores=cores) as lines:
        ready = await _ready(lines, bench.folder / "errors.txt")
        key = (folder / "operator.key").read_text().strip()
        async with httpx.AsyncClient(base_url=ready["http"], headers={"Authorization": f"Bearer {key}"}) as api:
            body = {"id": event, "title": "Benchmark", "plan": [{"stage": "upcoming"}, {"stage": "live"}]}
            made = (await api.post("/v1/events", json=body)).raise_for_status().json()
        log = await open_log(str(settings.get("log") or f"sqlite:///{folder}/log.sqlite"))

        async def publish(seq: int) -> None:
            await log.append(Topic.EVENTS, event, encode_broadcast(broadcast(made["gen"], seq, event, pad)))

        try:
            port = int(ready["ws"].rsplit(":", 1)[1].removesuffix("/ws"))
            pids = [ready["pids"]["feed"], *ready["pids"]["workers"]]
            yield Server(
                port, pids, publish, made["seq"] + 1, made["gen"], folder, ready["admin"], event, issuer
            )  # fmt: skip
        finally:
            await log.close()


async def _ready(lines: Lines, errors: Path) -> dict[str, Any]:
    """What a host says of itself when it is ready. Raises Unmeasurable when it ends instead, or takes too long."""
    assert lines.process.stdout is not None
    try:
        said = await asyncio.wait_for(lines.process.stdout.readline(), READY)
    except TimeoutError:
        said = b""
    if not said:
        raise Unmeasurable(f"the host did not start: {last_words(errors)}")
    found: dict[str, Any] = json.loads(said)
    return found


def last_words(errors: Path) -> str:
    return errors.read_text()[-500:]


def broadcast(gen: int, seq: int, event: str = EVENT, pad: bool = False) -> Broadcast:
    """A state of some 120 bytes; padded some 300, near the 367 that its schema allows."""
    stage, version = ("live" if seq % 2 else "upcoming"), None
    if pad:
        stage, version = stage.ljust(64, "-"), "1764000000000-".ljust(62, "a")
    return Broadcast(event, gen, seq, stage, gen + seq, version, 30_000, None)


def devices(
    bench: Bench, server: Server, most: int, *, pinned: bool = True, window: int = WINDOW, small: int = 0
) -> Audience:
    """Up to `most` devices of this server, not yet connected."""
    parts = shares(most, processes_for(most))
    hellos = None
    if server.issuer is not None:
        hellos = [server.issuer.hellos(server.event, part, sum(parts[:i])) for i, part in enumerate(parts)]
    cores = bench.client_cores if pinned else bench.server_cores | bench.client_cores
    return Audience(
        bench.devices, server.port, hellos, parts, cores=cores, window=window, small=small, number=bench.source()
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def gauge(admin: str, name: str) -> float:
    """A value of a host's metrics, summed over workers."""
    return sum((await gauges(admin, name)).values())


async def gauges(admin: str, name: str) -> dict[str, float]:
    """A host's metric, by its labels."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{admin}/metrics")).text
    found = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return {labels: float(value) for labels, value in found}
