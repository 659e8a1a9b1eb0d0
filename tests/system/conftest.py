"""System tests run on the embedded parts, and the same on a real Kafka and Cassandra."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers import KafkaServer, Server
from tests.system.running import Running, running

REAL = pytest.param("kafka+cassandra", marks=[pytest.mark.kafka, pytest.mark.cassandra, pytest.mark.timeout(300)])


@pytest.fixture(params=["embedded", REAL])
def roads(request: pytest.FixtureRequest) -> list[str]:
    """Flags of `stagecast dev` that choose its log and store."""
    if request.param == "embedded":
        return []
    kafka: KafkaServer = request.getfixturevalue("kafka_server")
    cassandra: Server = request.getfixturevalue("cassandra_server")
    return ["--log", kafka.url, "--store", cassandra.url]


@pytest.fixture
async def stage(roads: list[str], tmp_path: Path) -> AsyncIterator[Running]:
    """A running Stagecast of two workers."""
    async with running(tmp_path / "data", "--workers", "2", *roads) as up:
        yield up


@pytest.fixture
def event() -> str:
    """An event id of this test's own: real servers are shared."""
    return f"e-{uuid.uuid4().hex[:12]}"
