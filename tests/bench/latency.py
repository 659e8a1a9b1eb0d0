"""From the log to a device's socket, at a low rate: append called → the first byte is there, embedded and with Kafka.

With Kafka in turns with plain produce → consume of the same broker: a producer whose caller polls, a thread that polls
a consumer. When a byte comes to a socket the kernel notes: the devices read only once a worker has written to all of them, if
cores are few; when the first has read is said too.
"""

import asyncio
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measured import on_cores
from tests.bench.paired import Contender, settled
from tests.bench.table import Figure
from tests.bench.world import Bench, devices, host

if TYPE_CHECKING:
    from tests.bench.kafka_latency import Plain
    from tests.servers import KafkaServer

CONNECTIONS = 100
SAMPLES = 300
WARM_UPS = 20
GAP = 0.01
"""Seconds between broadcasts."""
ROUNDS, ROUNDS_FULL = 1, 5


@dataclass
class Samples:
    """ms."""

    durable: list[float] = field(default_factory=list)
    """Append called → acknowledged."""
    arrived: list[float] = field(default_factory=list)
    """Append called → its first byte is at a device's socket."""
    read: list[float] = field(default_factory=list)
    """Append called → the first device has read it."""
    plain: list[float] = field(default_factory=list)
    """Produce called → consumed, of the broker itself."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    rounds = options.rounds or (ROUNDS_FULL if options.full else ROUNDS)
    embedded = [await _embedded(bench) for _ in range(rounds)]
    kafka = await _with_kafka(bench, rounds)
    return [*_added(kafka), *_embedded_figures(embedded, not kafka)]


def _embedded_figures(found: list[Samples], keys: bool) -> list[Figure]:
    def quantiles(read: str, share: float) -> list[float]:
        return [quantile(getattr(one, read), share) for one in found]

    prefix = "log_to_socket" if keys else "log_to_socket_embedded"
    return [
        Figure(
            "embedded: append called → first byte at a socket, p50",
            quantiles("arrived", 0.5),
            "ms",
            key=f"{prefix}_p50",
        ),
        Figure(
            "embedded: append called → first byte at a socket, p99",
            quantiles("arrived", 0.99),
            "ms",
            "≤ 5",
            key=f"{prefix}_p99",
        ),
        Figure("embedded: append called → first device has read it, p50", quantiles("read", 0.5), "ms"),
        Figure("embedded: append called → first device has read it, p99", quantiles("read", 0.99), "ms"),
        Figure("embedded: of it, until it is durable (the disk), p50", quantiles("durable", 0.5), "ms"),
        Figure("embedded: of it, until it is durable (the disk), p99", quantiles("durable", 0.99), "ms"),
    ]


def _added(found: list[Samples]) -> list[Figure]:
    figures: list[Figure] = []
    for name, share, goal in (("p50", 0.5, "≤ 2"), ("p99", 0.99, "≤ 10")):
        ours, read, plain = ([quantile(values, share) for values in of] for of in _columns(found))
        more = [a - b for a, b in zip(ours, plain, strict=True)]
        if found:
            figures += [
                Figure(f"Kafka: append called → first byte at a socket, {name}", ours, "ms"),
                Figure(f"Kafka: append called → first device has read it, {name}", read, "ms"),
                Figure(f"Kafka: plain produce → consume, {name}", plain, "ms"),
                Figure(f"Kafka: more than plain, {name}", more, "ms", goal, key=f"log_to_socket_{name}"),
            ]
    return figures


def _columns(found: list[Samples]) -> tuple[list[list[float]], ...]:
    return [one.arrived for one in found], [one.read for one in found], [one.plain for one in found]


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


async def _embedded(bench: Bench) -> Samples:
    found = Samples()
    async with (
        host(bench, pinned=False) as server,
        devices(bench, server, CONNECTIONS, pinned=False) as audience,
    ):
        await audience.go(CONNECTIONS)
        audience.stamp()
        await settled(server)
        contender = Contender("embedded", server, audience)
        for number in range(WARM_UPS + SAMPLES):
            await _one(contender, found if number >= WARM_UPS else Samples())
    return found


async def _one(contender: Contender, found: Samples) -> None:
    began, contender.seq = time.monotonic_ns(), contender.seq + 1
    await contender.server.publish(contender.seq - 1)
    found.durable.append((time.monotonic_ns() - began) / 1e6)
    heard = await contender.audience.read(contender.seq - 1)
    found.arrived.append((heard.came - began) / 1e6)
    found.read.append((heard.first - began) / 1e6)
    await asyncio.sleep(GAP)


async def _with_kafka(bench: Bench, rounds: int) -> list[Samples]:
    """Nothing where a broker can't be had; why is said."""
    try:
        from tests.bench.kafka_latency import Plain, new_topic
        from tests.servers import Unavailable, start_kafka
    except ImportError as error:
        print(f"  without Kafka: {error}", flush=True)
        return []
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        try:
            broker = await asyncio.to_thread(lambda: _anywhere(bench, start_kafka, Path(folder)))
        except (Unavailable, RuntimeError) as why:
            print(f"  without Kafka: {why}", flush=True)
            return []
        try:
            found = [Samples() for _ in range(rounds)]
            for number, samples in enumerate(found):
                async with (
                    host(bench, pinned=False, log=broker.url) as server,
                    devices(bench, server, CONNECTIONS, pinned=False) as audience,
                ):
                    await audience.go(CONNECTIONS)
                    audience.stamp()
                    await settled(server)
                    plain = Plain(broker.bootstrap, *new_topic(broker.bootstrap, f"plain-{number}"))
                    try:
                        await _in_turns(Contender("kafka", server, audience), plain, samples)
                    finally:
                        plain.close()
            return found
        finally:
            broker.close()


def _anywhere(bench: Bench, start: Callable[[Path], "KafkaServer"], folder: Path) -> "KafkaServer":
    """Of a thread of its own: a broker on any core."""
    with on_cores(bench.server_cores | bench.client_cores):
        return start(folder)


async def _in_turns(contender: Contender, plain: "Plain", found: Samples) -> None:
    for number in range(WARM_UPS + SAMPLES):
        into = found if number >= WARM_UPS else Samples()  # the first ones connect
        into.plain.append(1000 * await asyncio.to_thread(plain.once))
        await asyncio.sleep(GAP)
        await _one(contender, into)
