"""Where the contract suites run: one function per adapter that makes a place for a test, and what the suites need to know of it.

To add an adapter: write its function here, name it in `LOGS` or `STORES`. A place that needs a server takes it lazily, by
`request.getfixturevalue("kafka_server")`, so that the tests skip where there is none; its name in the list then is a
`pytest.param(name, marks=…)`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its documented names, which it imports but doesn't export
    AdminClient,
    OffsetSpec,
)

from kv import StoreUnavailable
from stagecast.clock import ManualClock, SystemClock
from stagecast.log import Positions, Topic, open_log
from stagecast.log.embedded import EmbeddedLog
from tests.contracts.children import Child
from tests.servers import KafkaServer, Server

T = TypeVar("T")


@dataclass(frozen=True)
class LogPlace:
    """A log. It may hold records of other tests: use keys and positions of your own."""

    url: str
    crash: Callable[[Child], Awaitable[None]]
    """Kills, with SIGKILL, what can crash while the child writes: the writer itself, or the server behind it; a server is
    there again afterwards."""
    before_start: Callable[[Topic], Awaitable[Positions]]
    """Positions that the log no longer reaches back to."""
    crashes: int = 2
    """How often a test may crash it: a server takes seconds to come back."""


@dataclass(frozen=True)
class StorePlace:
    """A store, both ports. It may hold items of other tests: use records of your own."""

    url: str
    crash: Callable[[Child], Awaitable[None]]
    crashes: int = 2


LogMaker = Callable[[pytest.FixtureRequest, Path], LogPlace]
StoreMaker = Callable[[pytest.FixtureRequest, Path], StorePlace]


async def kill(child: Child) -> None:
    """The crash of an embedded adapter: it lives in the process that uses it."""
    child.kill()


def embedded_log(_: pytest.FixtureRequest, folder: Path) -> LogPlace:
    url = f"sqlite:///{folder / 'log.sqlite'}"

    async def before_start(topic: Topic) -> Positions:
        clock = ManualClock(SystemClock().now())
        log = await EmbeddedLog.open(url, clock)
        positions = await log.end(topic)
        await log.append(topic, "expired", b"")
        clock.advance(topic.retention + 1)
        await log.tidy()
        await log.close()
        return positions

    return LogPlace(url, kill, before_start)


def embedded_store(_: pytest.FixtureRequest, folder: Path) -> StorePlace:
    return StorePlace(f"sqlite:///{folder / 'kv.sqlite'}", kill)


def kafka_log(request: pytest.FixtureRequest, _: Path) -> LogPlace:
    server: KafkaServer = request.getfixturevalue("kafka_server")

    async def crash(_: Child) -> None:
        await asyncio.to_thread(restart, server)

    async def before_start(topic: Topic) -> Positions:
        log = await open_log(server.url)
        for n in range(50):  # so that every partition, most likely, has a record to lose; those without make no gap
            await log.append(topic, f"expired-{n}", b"")
        positions = {partition: max(0, offset - 1) for partition, offset in (await log.end(topic)).items()}
        await log.close()
        await asyncio.to_thread(delete_records, server.bootstrap, topic, positions)
        return positions

    return LogPlace(server.url, crash, before_start, crashes=1)


async def patiently(act: Callable[[], Awaitable[T]], within: float = 20.0) -> T:
    """What `act` gives once its store answers: after a crash of a server its clients take a moment to find it again."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await act()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def restart(server: Server) -> None:
    """Kills the server with SIGKILL, starts it again, and returns once it answers."""
    server.kill()
    server.start()


def delete_records(bootstrap: str, topic: str, positions: Positions) -> None:
    """Has the broker delete the record at each position and what is before it, as retention would."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    gone = [TopicPartition(topic, partition, offset + 1) for partition, offset in positions.items()]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ends = admin.list_offsets({TopicPartition(topic, partition): latest for partition in positions})
    held = {asked.partition for asked, found in ends.items() if found.result().offset > positions[asked.partition]}
    for deleted in admin.delete_records([one for one in gone if one.partition in held]).values():
        deleted.result()


LOGS: Mapping[str, LogMaker] = {"embedded": embedded_log, "kafka": kafka_log}


def cassandra_store(request: pytest.FixtureRequest, _: Path) -> StorePlace:
    server: Server = request.getfixturevalue("cassandra_server")

    async def crash(_: Child) -> None:
        await asyncio.to_thread(restart, server)

    return StorePlace(server.url, crash, crashes=1)


STORES: Mapping[str, StoreMaker] = {"embedded": embedded_store, "cassandra": cassandra_store}
MARKS: Mapping[str, list[pytest.MarkDecorator]] = {}
"""By adapter: what its tests are marked with."""
