"""A SIGKILL of each process in turn, while 200 devices stay connected: every device ends on the last accepted stage."""

import asyncio
import os
import signal
from pathlib import Path

import apsw
import pytest

from tests.servers import KafkaServer
from tests.system.running import Running, until

DEVICES = 200


@pytest.mark.parametrize("victim", ["broadcaster", "prefetch", "feed", "worker"])
async def test_a_killed_process_costs_nobody_the_stage(stage: Running, event: str, victim: str) -> None:
    """Transitions before, while it is down and after; reconnects cost at most one kv read per event and host."""
    await stage.create(event, "upcoming", "one", "two", "three")
    async with stage.devices(DEVICES, event) as devices:
        await stage.go(event, "one")
        reads = await stage.metric("stagecast_feed_kv_reads_total")
        killed = asyncio.create_task(stage.kill(victim))
        await stage.go(event, "two")
        await killed
        last = await stage.go(event, "three")
        await until(lambda: all(d.position(event).seq == last["seq"] for d in devices), "all at the last stage")
        if victim != "feed":  # a new feed counts anew: its first reads are below
            assert await stage.metric("stagecast_feed_kv_reads_total") - reads == 0
        else:
            assert await stage.metric("stagecast_feed_kv_reads_total") <= 2


async def test_killed_between_compare_and_set_and_append(
    stage: Running, event: str, request: pytest.FixtureRequest
) -> None:
    """It was accepted, so it arrives: by the cadence of whoever comes next."""
    await stage.create(event, "upcoming", "live")
    async with stage.devices(DEVICES, event) as devices:
        with _log_blocked(stage, request):
            accepted = await stage.go(event, "live")
            os.kill(stage.pids["broadcaster"], signal.SIGKILL)
            assert not any(d.position(event).seq == accepted["seq"] for d in devices)
        await until(lambda: all(d.position(event).seq == accepted["seq"] for d in devices), "all got it")


class _log_blocked:
    """Nobody can append to the log: a write lock on the file, or a stopped broker."""

    def __init__(self, stage: Running, request: pytest.FixtureRequest) -> None:
        self._file: Path = stage.data / "log.sqlite"
        self._kafka: KafkaServer | None = None if self._file.exists() else request.getfixturevalue("kafka_server")

    def __enter__(self) -> None:
        if self._kafka is not None:
            self._kafka.stop()
        else:
            self._lock = apsw.Connection(str(self._file))
            self._lock.set_busy_timeout(5000)
            self._lock.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        if self._kafka is not None:
            self._kafka.cont()
        else:
            self._lock.execute("ROLLBACK")
            self._lock.close()
