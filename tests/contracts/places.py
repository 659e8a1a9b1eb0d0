"""Where the contract suites run: one function per adapter that makes a place for a test, and what the suites need to know of it.

To add an adapter: write its function here, name it in `LOGS` or `STORES`. A place that needs a server takes it lazily, by
`request.getfixturevalue("kafka_server")`, so that the tests skip where there is none; its name in the list then is a
`pytest.param(name, marks=…)`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stagecast.clock import ManualClock, SystemClock
from stagecast.log import Positions, Topic
from stagecast.log.embedded import EmbeddedLog
from tests.contracts.children import Child


@dataclass(frozen=True)
class LogPlace:
    """A log. It may hold records of other tests: use keys and positions of your own."""

    url: str
    crash: Callable[[Child], Awaitable[None]]
    """Kills, with SIGKILL, what can crash while the child writes: the writer itself, or the server behind it; a server is
    there again afterwards."""
    before_start: Callable[[Topic], Awaitable[Positions]]
    """Positions that the log no longer reaches back to."""


@dataclass(frozen=True)
class StorePlace:
    """A store, both ports. It may hold items of other tests: use records of your own."""

    url: str
    crash: Callable[[Child], Awaitable[None]]


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


LOGS: Mapping[str, LogMaker] = {"embedded": embedded_log}
STORES: Mapping[str, StoreMaker] = {"embedded": embedded_store}
MARKS: Mapping[str, list[pytest.MarkDecorator]] = {}
"""By adapter: what its tests are marked with."""
