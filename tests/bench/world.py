"""What every benchmark starts: the floor, a real host, and devices."""

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pushy import native
from stagecast.broadcast import Broadcast, encode_broadcast
from stagecast.log import Topic, open_log
from stagecast.tokens import load_keys
from tests.bench.measured import Lines, Unmeasurable, compiled

EVENT = "bench"
WINDOW = 256
"""Handshakes in flight."""
PER_SOURCE = 3000
"""Connections from one source address: far from the end of its ports."""


@dataclass(frozen=True)
class Bench:
    """Programs and folders of one run."""

    folder: Path
    devices: Path
    bare: Path
    native: bool
    """Whether the C fan-out has been built."""
    numbers: list[int] = field(default_factory=lambda: [0])

    def fresh(self, name: str) -> Path:
        self.numbers[0] += 1
        return self.folder / f"{name}-{self.numbers[0]}"


def prepare(folder: Path) -> Bench:
    """Builds what is in C. Raises Unmeasurable without a compiler."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    devices, bare = compiled("devices", folder), compiled("floor", folder)
    try:
        native.build()
    except native.NotBuilt as why:
        print(f"without the native fan-out: {why}", flush=True)
    return Bench(folder, devices, bare, native.load() is not None)


@dataclass(frozen=True)
class Server:
    port: int
    pids: list[int]
    """All its processes on the way of a broadcast."""
    publish: Callable[[int], Awaitable[None]]
    first_seq: int
    gen: int = 0
    data: Path | None = None
    admin: str = ""


@contextlib.asynccontextmanager
async def floor(bench: Bench) -> AsyncIterator[Server]:
    async with Lines(str(bench.bare), "0") as lines:
        port = int((await lines.hear("port"))[0])

        async def publish(seq: int) -> None:
            lines.say("send " + encode_broadcast(broadcast(1_764_000_000_000, seq)).decode())

        yield Server(port, [lines.process.pid], publish, 2)


@contextlib.asynccontextmanager
async def host(bench: Bench, *, workers: int = 1, fan_out: str = "auto", **settings: object) -> AsyncIterator[Server]:
    """`stagecast dev` on the embedded log and store, with the event at its first stage."""
    folder = bench.fresh("data")
    command = [sys.executable, "-m", "stagecast.cli", "dev", "--json", "--data", str(folder), "--workers", str(workers)]
    command += ["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--fan-out", fan_out]
    # Rounds of connects follow one another faster than accept_rate, which is for hosts and not for what is measured here.
    for name, value in ({"ping": 600, "accept_burst": 10_000_000} | settings).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    async with Lines(*command, errors=bench.folder / "errors.txt") as lines:
        assert lines.process.stdout is not None
        ready = json.loads(await asyncio.wait_for(lines.process.stdout.readline(), 30))
        key = (folder / "operator.key").read_text().strip()
        async with httpx.AsyncClient(base_url=ready["http"], headers={"Authorization": f"Bearer {key}"}) as api:
            body = {"id": EVENT, "title": "Benchmark", "plan": [{"stage": "upcoming"}, {"stage": "live"}]}
            made = (await api.post("/v1/events", json=body)).raise_for_status().json()
        log = await open_log(f"sqlite:///{folder}/log.sqlite")

        async def publish(seq: int, pad: int = 0) -> None:
            await log.append(Topic.EVENTS, EVENT, encode_broadcast(broadcast(made["gen"], seq)))

        try:
            port = int(ready["ws"].rsplit(":", 1)[1].removesuffix("/ws"))
            pids = [ready["pids"]["feed"], *ready["pids"]["workers"]]
            yield Server(port, pids, publish, made["seq"] + 1, made["gen"], folder, ready["admin"])
        finally:
            await log.close()


def broadcast(gen: int, seq: int) -> Broadcast:
    return Broadcast(EVENT, gen, seq, "live" if seq % 2 else "upcoming", gen + seq, None, 30_000, None)


def write_hellos(bench: Bench, server: Server, count: int) -> Path:
    """A hello for each device, with a token of the host's own key."""
    assert server.data is not None
    keys, rng, now = load_keys(server.data / "keys.json"), random.Random(1), time.time()
    file = bench.fresh("hellos")
    with file.open("w") as out:
        for i in range(count):
            token = keys.mint(f"member-{i}", f"device-{i}", [EVENT], 3600, now, rng)
            at = [{"e": EVENT, "gen": 0, "seq": 0, "map": None}]
            hello = {"t": "hello", "token": token, "device": f"device-{i}", "app": "bench", "at": at}
            out.write(json.dumps(hello) + "\n")
    return file


def devices(bench: Bench, server: Server, hellos: Path, count: int, *, window: int = WINDOW, small: int = 0) -> Lines:
    """`count` devices that connect and say hello at once."""
    sources = max(4, -(-count // PER_SOURCE))
    return Lines(
        str(bench.devices),
        "127.0.0.1",
        str(server.port),
        str(count),
        str(window),
        str(sources),
        str(hellos),
        str(small),
    )


async def all_read(lines: Lines, seq: int, timeout: float = 60) -> list[str]:
    """Waits until all devices have a state of `seq`."""
    while True:
        got = await lines.hear("seq", timeout)
        if int(got[0]) == seq:
            return got
        if int(got[0]) > seq:
            raise Unmeasurable(f"seq {got[0]} came before {seq}")


async def gauge(server: Server, name: str) -> float:
    """A value of the host's metrics, summed over workers."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{server.admin}/metrics")).text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )
