"""`make bench`: one worker with 10,000 connections on loopback, beside a bare C send() loop, in the same run.

A round is: the floor (tests/bench/floor.c), then a host (feed and one worker) on the embedded log and store; fresh processes
each time, the same 10,000 C devices (tests/bench/devices.c), the same state frames. Broadcasts are appended straight to the log;
each waits until all devices have read it. Ratios are taken within a round, since machines are noisy: read those, not the figures.

CPU is that of all the server's processes. On loopback send() pays the receiver's TCP work too, for both.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from stagecast.broadcast import Broadcast, encode_broadcast
from stagecast.log import Topic, open_log
from stagecast.tokens import load_keys
from tests.bench.measured import Lines, Unmeasurable, compiled, cpu_ns, pss_bytes, rss_bytes, spread

EVENT = "bench"
WINDOW = 256
"""Handshakes in flight."""
SOURCES = 4
WARM_UPS = 5


@dataclass(frozen=True)
class Round:
    """What one server did in one round."""

    cpu_us: float
    """Server CPU per delivery."""
    last_ms: float
    """Publish → the last device has read it, median over the publishes."""
    connect_s: float
    connect_cpu_us: float
    overflows: int
    pss_bytes: float
    """Per idle connection, before any publish."""
    rss_bytes: float
    last_share: float
    """How often the most frequent last device was last."""


@dataclass(frozen=True)
class Server:
    port: int
    pids: list[int]
    publish: Callable[[int], Awaitable[None]]
    first_seq: int


@contextlib.asynccontextmanager
async def floor(program: Path) -> AsyncIterator[Server]:
    async with Lines(str(program), "0") as lines:
        port = int((await lines.hear("port"))[0])

        async def publish(seq: int) -> None:
            lines.say("send " + encode_broadcast(_broadcast(1_764_000_000_000, seq)).decode())

        yield Server(port, [lines.process.pid], publish, 2)


@contextlib.asynccontextmanager
async def host(folder: Path, workers: int) -> AsyncIterator[Server]:
    command = [sys.executable, "-m", "stagecast.cli", "dev", "--json", "--data", str(folder), "--workers", str(workers)]
    command += ["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ping", "600"]
    async with Lines(*command) as lines:
        assert lines.process.stdout is not None
        ready = json.loads(await asyncio.wait_for(lines.process.stdout.readline(), 30))
        key = (folder / "operator.key").read_text().strip()
        async with httpx.AsyncClient(base_url=ready["http"], headers={"Authorization": f"Bearer {key}"}) as api:
            body = {"id": EVENT, "title": "Benchmark", "plan": [{"stage": "upcoming"}, {"stage": "live"}]}
            made = (await api.post("/v1/events", json=body)).raise_for_status().json()
        log = await open_log(f"sqlite:///{folder}/log.sqlite")

        async def publish(seq: int) -> None:
            await log.append(Topic.EVENTS, EVENT, encode_broadcast(_broadcast(made["gen"], seq)))

        try:
            port = int(ready["ws"].rsplit(":", 1)[1].removesuffix("/ws"))
            yield Server(port, [ready["pids"]["feed"], *ready["pids"]["workers"]], publish, made["seq"] + 1)
        finally:
            await log.close()


def _broadcast(gen: int, seq: int) -> Broadcast:
    return Broadcast(EVENT, gen, seq, "live" if seq % 2 else "upcoming", gen + seq, None, 30_000, None)


def write_hellos(keys_folder: Path, file: Path, count: int) -> None:
    keys, rng, now = load_keys(keys_folder / "keys.json"), random.Random(1), time.time()
    with file.open("w") as out:
        for i in range(count):
            token = keys.mint(f"member-{i}", f"device-{i}", [EVENT], 3600, now, rng)
            at = [{"e": EVENT, "gen": 0, "seq": 0, "map": None}]
            hello = {"t": "hello", "token": token, "device": f"device-{i}", "app": "bench", "at": at}
            out.write(json.dumps(hello) + "\n")


async def measure(server: Server, devices: Path, hellos: Path, connections: int, publishes: int) -> Round:
    cpu, pss, rss = cpu_ns(server.pids), pss_bytes(server.pids), rss_bytes(server.pids)
    arguments = [str(connections), str(WINDOW), str(SOURCES), str(hellos)]
    async with Lines(str(devices), "127.0.0.1", str(server.port), *arguments) as lines:
        seconds, _, overflows = await lines.hear("ready", 120)
        connect_cpu = cpu_ns(server.pids) - cpu
        pss, rss = pss_bytes(server.pids) - pss, rss_bytes(server.pids) - rss
        lasts: list[float] = []
        whos: list[str] = []
        for seq in range(server.first_seq, server.first_seq + WARM_UPS + publishes):
            if seq == server.first_seq + WARM_UPS:
                cpu, lasts, whos = cpu_ns(server.pids), [], []
            start = time.monotonic_ns()
            await server.publish(seq)
            while True:  # a late line of an earlier seq can't be: each waits for all
                got = await lines.hear("seq")
                if int(got[0]) == seq:
                    break
            lasts.append((int(got[5]) - start) / 1e6)
            whos.append(got[6])
        cpu = cpu_ns(server.pids) - cpu
    return Round(
        cpu_us=cpu / publishes / connections / 1000,
        last_ms=sorted(lasts)[len(lasts) // 2],
        connect_s=float(seconds),
        connect_cpu_us=connect_cpu / connections / 1000,
        overflows=int(overflows),
        pss_bytes=pss / connections,
        rss_bytes=rss / connections,
        last_share=max(whos.count(who) for who in set(whos)) / len(whos),
    )


async def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="stagecast-bench-") as made:
        folder = Path(made)
        devices, bare = compiled("devices", folder), compiled("floor", folder)
        pairs: list[tuple[Round, Round]] = []
        for number in range(1, options.rounds + 1):
            data, hellos = folder / f"data-{number}", folder / f"hellos-{number}"
            async with host(data, options.workers) as server:
                write_hellos(data, hellos, options.connections)
                async with floor(bare) as least:
                    floored = await measure(least, devices, hellos, options.connections, options.publishes)
                ours = await measure(server, devices, hellos, options.connections, options.publishes)
            pairs.append((floored, ours))
            print(
                f"round {number}: {ours.cpu_us:.2f} µs per delivery, floor {floored.cpu_us:.2f}; "
                f"last of all {ours.last_ms:.0f} ms, floor {floored.last_ms:.0f}",
                flush=True,
            )
    report(pairs, options)


def report(pairs: list[tuple[Round, Round]], options: argparse.Namespace) -> None:
    def row(name: str, value: Callable[[Round], float], digits: int = 2) -> None:
        ours, least = [value(ours) for _, ours in pairs], [value(least) for least, _ in pairs]
        ratios = [a / b for a, b in zip(ours, least, strict=True)] if min(least) > 0 else []
        print(
            f"{name:<40} {spread(ours, digits):>26} {spread(least, digits):>24} {spread(ratios) if ratios else '-':>20}"
        )

    print(
        f"\n{options.connections:,} connections, {options.workers} worker(s), {options.publishes} broadcasts a round, "
        f"{len(pairs)} rounds: median [least–greatest]\n"
    )
    print(f"{'':<40} {'Stagecast':>26} {'C send() loop':>24} {'ratio in a round':>20}")
    row("server CPU per delivery, µs", lambda r: r.cpu_us)
    row("publish → last device, ms", lambda r: r.last_ms, 1)
    row("connect, upgrade, hello: CPU each, µs", lambda r: r.connect_cpu_us, 1)
    row("handshakes per second", lambda r: options.connections / r.connect_s, 0)
    row("accept queue overflows", lambda r: r.overflows, 0)
    row("PSS per idle connection, bytes", lambda r: r.pss_bytes, 0)
    row("RSS per idle connection, bytes", lambda r: r.rss_bytes, 0)
    row("share of the most frequent last device", lambda r: r.last_share)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--publishes", type=int, default=20, help="broadcasts measured in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except Unmeasurable as why:
        print(f"bench: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
