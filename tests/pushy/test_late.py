"""A feed that starts while one of its roads is down."""

import asyncio
from pathlib import Path

import pytest

from kv import KeyValue, StoreUnavailable, open_store
from pushy.heads import KV_RETRY
from pushy.late import LateLog, LateStore
from pushy.link import Follow, Readiness, Update
from stagecast.clock import ManualClock
from stagecast.log import LogUnavailable, MessageLog, Topic, open_log
from tests.pushy.hosting import broadcast, head, put_head, roads, running, say, settings, until


class Openings:
    """Opens the real roads, once it is allowed."""

    def __init__(self, folder: Path) -> None:
        self._settings = settings(folder)
        self.allowed = False

    async def log(self) -> MessageLog:
        if not self.allowed:
            raise LogUnavailable("down")
        return await open_log(self._settings.log_url)

    async def store(self) -> KeyValue:
        if not self.allowed:
            raise StoreUnavailable("down")
        return await open_store(self._settings.store_url)


async def test_until_they_are_open_they_are_unavailable(tmp_path: Path) -> None:
    """Every call says so, as it would of a road that is down; then they are the real thing."""
    openings = Openings(tmp_path)
    log, store = LateLog(openings.log), LateStore(openings.store)
    assert not await log.open()
    assert not await store.open()
    with pytest.raises(LogUnavailable):
        await log.end(Topic.EVENTS)
    with pytest.raises(LogUnavailable):
        log.read(Topic.EVENTS, {0: 0})
    with pytest.raises(StoreUnavailable):
        await store.read("heads", "final")
    openings.allowed = True
    await log.keep_opening()
    await store.keep_opening()
    await put_head(store, head())
    await say(log, broadcast())
    await log.close()
    await store.close()


async def test_broadcasts_pass_while_the_store_is_not_open(tmp_path: Path) -> None:
    """Rule 8: a feed that was started again while the store is down tells its workers what the log says; it is ready for new
    devices when the store is there, since only then it knows who is revoked."""
    openings = Openings(tmp_path)
    async with roads(tmp_path) as (log, real):
        await put_head(real, head(seq=3))
        store = LateStore(openings.store)
        assert not await store.open()
        opening = asyncio.create_task(store.keep_opening())
        clock = ManualClock()
        async with running(tmp_path, log, store, clock=clock) as host:
            worker = await host.join()
            await until(lambda: host.feed.roads.counts.resolved)
            await say(log, broadcast(seq=2))
            await until(lambda: host.feed.roads.counts.records)
            worker.send(Follow(["final"]))
            assert (await worker.until(Update)).seq == 2
            assert "the standing revocations are not read yet" in host.feed.standing().reasons
            openings.allowed = True
            clock.advance(KV_RETRY)
            await worker.until(Readiness, lambda one: one.ready)
            clock.advance(KV_RETRY)
            assert (await worker.until(Update)).seq == 3
        await opening
        await store.close()
