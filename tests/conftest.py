"""What tests share: the real servers, and a word at the end about what was skipped.

STAGECAST_REQUIRE (a comma list of kafka, cassandra, browser) asks for what takes long or needs more than Python. What it names
runs, or fails if this machine can't; what it doesn't name is skipped, and no server is started.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.servers import (
    KafkaServer,
    SecuredCassandra,
    SecuredKafka,
    Server,
    Unavailable,
    start_cassandra,
    start_kafka,
    start_secured_cassandra,
    start_secured_kafka,
)

REQUIRABLE = {"kafka", "cassandra", "browser"}
SERVER_FIXTURES = {"kafka": ("kafka_server", "kafka_secured"), "cassandra": ("cassandra_server", "cassandra_secured")}

S = TypeVar("S")


def required() -> set[str]:
    """What STAGECAST_REQUIRE names."""
    return {name.strip() for name in os.environ.get("STAGECAST_REQUIRE", "").split(",") if name.strip()}


def pytest_configure() -> None:
    if unknown := required() - REQUIRABLE:
        names = ", ".join(sorted(REQUIRABLE))
        raise pytest.UsageError(f"STAGECAST_REQUIRE: {', '.join(sorted(unknown))} is none of {names}")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what uses a server by its name, and gives it the time that a first fetch of the jars may take.

    Under xdist all of them go to one process, so that one Kafka and one Cassandra serve the run; and they go first, since
    they take longest.
    """
    for item in items:
        for kind, fixtures in SERVER_FIXTURES.items():
            if set(fixtures) & set(getattr(item, "fixturenames", ())):
                item.add_marker(kind)
        if item.get_closest_marker("timeout") is None and any(
            item.get_closest_marker(kind) for kind in SERVER_FIXTURES
        ):
            item.add_marker(pytest.mark.timeout(300))
        if any(item.get_closest_marker(kind) for kind in SERVER_FIXTURES):
            item.add_marker(pytest.mark.xdist_group("servers"))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was skipped and why, each reason once with its count."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped, and why")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5} × {reason}")


def started(kind: str, folder: Path, start: Callable[[Path], S]) -> S:
    """The server, or the end of the test: a skip when nobody asked for it, a failure when it can't be had."""
    if kind not in required():
        pytest.skip(f"{kind}: not asked for; STAGECAST_REQUIRE={kind} runs this")
    try:
        return start(folder)
    except Unavailable as why:
        pytest.fail(f"{kind}: {why}", pytrace=False)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A Kafka broker for the whole run: use topics or keys of your own. Leave it running."""
    server = started("kafka", tmp_path_factory.mktemp("kafka"), start_kafka)
    yield server
    server.close()


@pytest.fixture(scope="session")
def kafka_secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka broker that wants TLS and a login, and obeys ACLs. Topics are not there yet: `user` makes them."""
    secured = started("kafka", tmp_path_factory.mktemp("kafka-secured"), start_secured_kafka)
    yield secured
    secured.server.close()


@pytest.fixture(scope="session")
def cassandra_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Cassandra node for the whole run: use partition keys of your own. Leave it running."""
    server = started("cassandra", tmp_path_factory.mktemp("cassandra"), start_cassandra)
    yield server
    server.close()


@pytest.fixture(scope="session")
def cassandra_secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCassandra]:
    """A Cassandra node that wants TLS and a login."""
    secured = started("cassandra", tmp_path_factory.mktemp("cassandra-secured"), start_secured_cassandra)
    yield secured
    secured.server.close()
