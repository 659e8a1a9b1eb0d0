"""The feed on the real embedded log and store, with workers that speak the link."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kv import KeyValue, Put
from pushy.draining import FILE as DRAIN_FILE
from pushy.draining import Drains, Progress
from pushy.feed import update_of
from pushy.link import (
    AHEAD,
    CONNECTIONS,
    Began,
    Counted,
    Drain,
    Ended,
    Follow,
    Gauges,
    Hinted,
    Readiness,
    Refused,
    Replaced,
    Revoked,
    Sessions,
    Steer,
    Unfollow,
    Update,
)
from pushy.rfc6455 import server_frame
from stagecast.broadcast import encode_broadcast, for_welcome
from stagecast.clock import ManualClock
from stagecast.log import MessageLog, Topic
from stagecast.receipts import Receipt, decode_receipt
from stagecast.records import EVERYWHERE, REVOKED, Revocation, Session, encode_record, registry_record
from stagecast.wire.frames import Hint
from tests.pushy.hosting import (
    GEN,
    FaultyLog,
    FaultyStore,
    Host,
    beat,
    broadcast,
    head,
    put_head,
    roads,
    running,
    say,
    until,
)

Roads = tuple[MessageLog, KeyValue]
OLDER, NEWER = f"{GEN}-a", f"{GEN + 1}-a"


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Roads]:
    async with roads(tmp_path) as both:
        yield both


@pytest.fixture
async def host(tmp_path: Path, real: Roads) -> AsyncIterator[Host]:
    async with running(tmp_path, *real) as host:
        yield host


async def receipts(log: MessageLog, count: int) -> list[Receipt]:
    """The first `count` receipts of the log."""
    found: list[Receipt] = []
    batches = log.read(Topic.RECEIPTS, await log.since(Topic.RECEIPTS, 0))
    async with asyncio.timeout(10):
        async for batch in batches:
            found += [decode_receipt(record.value) for record in batch if record.key != EVERYWHERE]
            if len(found) >= count:
                break
    await batches.aclose()
    return found


def receipt(seq: int = 1, boot: str = "b1", worker: int = 0, audience: int = 5) -> Receipt:
    return Receipt("h1", boot, worker, GEN, "final", GEN, seq, audience, written=audience, subscribed=audience)


def test_an_update_is_the_broadcast_framed_once() -> None:
    """The frame carries the log's very bytes; the welcome's state asks for no ack."""
    said = broadcast(seq=3)
    update = update_of(said)
    assert (update.e, update.gen, update.seq, update.ack) == ("final", GEN, 3, 2**32)
    assert update.frame == server_frame(encode_broadcast(said))
    assert update.welcome == for_welcome(said)


async def test_a_worker_is_ready_once_the_end_is_resolved(host: Host) -> None:
    """The first word to a worker is whether to accept; it becomes true when the roads are."""
    worker = await host.join()
    await worker.until(Readiness, lambda one: one.ready)
    assert host.feed.standing().ready


async def test_the_first_subscriber_reads_the_head_from_the_store(host: Host) -> None:
    """An event that the log has not said anything about comes from the store."""
    await put_head(host.store, head(seq=7))
    worker = await host.join()
    worker.send(Follow(["final"]))
    update = await worker.until(Update)
    assert (update.gen, update.seq) == (GEN, 7)


async def test_an_event_that_does_not_exist_is_refused(host: Host) -> None:
    """No head in the store and none in the log: unknown, and not followed, even if it appears later."""
    worker = await host.join()
    worker.send(Follow(["nothing"]))
    assert await worker.until(Refused) == Refused("nothing", "unknown_event")
    assert host.feed.roads.heads.followed == 0


async def test_broadcasts_go_to_followers_newest_only(host: Host) -> None:
    """A greater (gen, seq) goes out; a repeat and an older one do not; a greater gen wins over any seq."""
    await put_head(host.store, head(seq=5))
    worker = await host.join()
    worker.send(Follow(["final"]))
    await worker.until(Update)
    for said in (broadcast(seq=5), broadcast(seq=4), broadcast(seq=6), broadcast(seq=6), broadcast(seq=1, gen=GEN + 1)):
        await say(host.log, said)
    await worker.until(Update, lambda one: one.gen == GEN + 1)
    assert [(one.gen, one.seq) for one in worker.seen if isinstance(one, Update)] == [
        (GEN, 5),
        (GEN, 6),
        (GEN + 1, 1),
    ]


async def test_an_event_unfollowed_is_not_sent(host: Host) -> None:
    """After Unfollow nothing more comes of that event."""
    for event in ("one", "two"):
        await put_head(host.store, head(event))
    worker = await host.join()
    worker.send(Follow(["one", "two"]), Unfollow(["one"]))
    await worker.until(Update, lambda one: one.e == "two")
    await say(host.log, broadcast("one", 2))
    await say(host.log, broadcast("two", 2))
    await worker.until(Update, lambda one: one.seq == 2)
    assert not [one for one in worker.seen if isinstance(one, Update) and (one.e, one.seq) == ("one", 2)]


async def test_a_thousand_followers_cost_one_read(tmp_path: Path, real: Roads) -> None:
    """Rule 7: the store is read once per event and host, however many workers ask, at once or later, and come back."""
    log, store = real[0], FaultyStore(real[1])
    await put_head(store, head())
    async with running(tmp_path, log, store) as host:
        store.heads_read.clear()
        workers = [await host.join(index) for index in range(50)]
        for worker in workers:
            worker.send(Follow(["final"]))
        for worker in workers:
            await worker.until(Update)
            for _ in range(20):
                worker.send(Unfollow(["final"]), Follow(["final"]))
                await worker.until(Update)
        await workers[0].close()
        back = await host.join(0, boot="b2")
        back.send(Follow(["final"]))
        await back.until(Update)
        assert store.heads_read == ["final"]


async def test_no_head_is_read_before_the_end_is_resolved(tmp_path: Path, real: Roads) -> None:
    """Rule 3: a broadcast accepted and appended while the feed starts is behind the end it resolves, and so must be in the head
    that it reads. Reading the head first would lose it."""
    log, store = FaultyLog(real[0]), FaultyStore(real[1])
    await put_head(store, head(seq=1))
    log.end_allowed.clear()
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        worker.send(Follow(["final"]))
        await until(lambda: log.ends and host.feed.roads.heads.known)
        await put_head(store, head(seq=2))
        await say(log, broadcast(seq=2))
        log.end_allowed.set()
        assert (await worker.until(Update)).seq == 2


async def test_a_broadcast_during_the_read_is_not_missed(tmp_path: Path, real: Roads) -> None:
    """Rule 3: what is accepted after the store has answered, and before the answer is here, comes by the log, and the answer of
    the subscriber is the greater of the two."""
    log, store = real[0], FaultyStore(real[1])
    await put_head(store, head(seq=1))
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        await worker.until(Readiness, lambda one: one.ready)
        store.answers.clear()
        worker.send(Follow(["final"]))
        await until(lambda: store.heads_read)
        await put_head(real[1], head(seq=2))
        await say(log, broadcast(seq=2))
        await until(lambda: host.feed.roads.counts.records)
        store.answers.set()
        assert (await worker.until(Update)).seq == 2


async def test_a_gap_is_answered_by_reading_the_heads_again(tmp_path: Path, real: Roads) -> None:
    """Rule 3: what a gap swallowed is in the store: the end is resolved anew, and every followed head read after it."""
    log, store = FaultyLog(real[0]), real[1]
    await put_head(store, head(seq=1))
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        worker.send(Follow(["final"]))
        await worker.until(Update)
        await put_head(store, head(seq=2))  # and its record is lost
        log.gap()
        assert (await worker.until(Update)).seq == 2
        await say(log, broadcast(seq=3))
        assert (await worker.until(Update)).seq == 3
        assert log.ends == 2


async def test_with_the_store_down_known_events_are_told(tmp_path: Path, real: Roads) -> None:
    """Rule 8: broadcasts still reach devices, what the log said is told to new followers, anything else is unavailable."""
    log, store = real[0], FaultyStore(real[1])
    await put_head(store, head("verified"))
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        worker.send(Follow(["verified"]))
        await worker.until(Update)
        store.down = True
        await say(log, broadcast("verified", 2))
        assert (await worker.until(Update)).seq == 2
        await say(log, broadcast("said", 4))
        await until(lambda: host.feed.roads.counts.records == 2)
        other = await host.join(1)
        other.send(Follow(["verified", "said", "other"]))
        assert (await other.until(Update)).seq == 2
        assert {(await other.until(Update | Refused)).e for _ in range(2)} == {"said", "other"}  # type: ignore[arg-type]
        assert Refused("other", "unavailable") in other.seen
        store.down = False
        assert host.feed.standing().ready


async def test_a_silent_log_is_replaced_by_the_store(tmp_path: Path, real: Roads) -> None:
    """Rule 8: after 15 s without a record of any kind, beats included, followed heads are read from the store every 15 s."""
    clock = ManualClock()
    log, store = real
    await put_head(store, head(seq=1))
    async with running(tmp_path, log, store, clock=clock) as host:
        worker = await host.join()
        worker.send(Follow(["final"]))
        await worker.until(Update)
        clock.advance(10)
        await beat(log)
        await until(lambda: host.feed.roads.counts.records)
        await put_head(store, head(seq=2))
        clock.advance(15)
        assert (await worker.until(Update)).seq == 2
        await put_head(store, head(seq=3))
        clock.advance(15)
        assert (await worker.until(Update)).seq == 3


async def test_a_revocation_comes_though_the_log_is_silent(tmp_path: Path, real: Roads) -> None:
    """Whoever revokes writes to the store first: a log that is silent, or a producer that died before its append, keeps no
    device connected."""
    clock = ManualClock()
    log, store = real
    async with running(tmp_path, log, store, clock=clock) as host:
        worker = await host.join()
        await worker.until(Readiness, lambda one: one.ready)
        revocation = Revocation("device", "d1", GEN)
        await store.put([Put(REVOKED, revocation.subject, msgspec.json.encode(revocation), 1000.0)])
        clock.advance(15)
        assert (await worker.until(Revoked)).revocations == [revocation]


async def test_both_roads_silent_stop_accepting(tmp_path: Path, real: Roads) -> None:
    """Rule 8: after 30 s without either road workers accept no more; one word from one of them, and they do again."""
    clock = ManualClock()
    log, store = real[0], FaultyStore(real[1])
    async with running(tmp_path, log, store, clock=clock) as host:
        worker = await host.join()
        await worker.until(Readiness, lambda one: one.ready)
        store.down = True
        clock.advance(29)
        assert host.feed.standing().ready
        clock.advance(1)
        await worker.until(Readiness, lambda one: not one.ready)
        assert host.feed.standing().reasons == ["log and store are silent"]
        await beat(log)
        await worker.until(Readiness, lambda one: one.ready)


async def test_hints_go_to_followers(host: Host) -> None:
    """A hint reaches the workers that follow its event; an older one reaches nobody."""
    await put_head(host.store, head())
    worker = await host.join()
    worker.send(Follow(["final"]))
    await worker.until(Update)
    for version in (NEWER, OLDER, NEWER):
        await host.log.append(Topic.EVENTS, "final", encode_record(Hint("final", GEN, version, 5000)))
    await say(host.log, broadcast(seq=2))
    await worker.until(Update)
    hints = [one for one in worker.seen if isinstance(one, Hinted)]
    assert len(hints) == 1
    assert NEWER.encode() in hints[0].frame


async def test_what_is_no_record_is_dropped(host: Host) -> None:
    """Bytes that are none of the log's records are counted, and the feed goes on."""
    await put_head(host.store, head())
    worker = await host.join()
    worker.send(Follow(["final"]))
    await worker.until(Update)
    for junk in (b"", b"\xff\xfe", b'{"t":"state","e":"final"}', b'{"t":"other"}', b"{" * 5000):
        await host.log.append(Topic.EVENTS, EVERYWHERE, junk)
    await say(host.log, broadcast(seq=2))
    assert (await worker.until(Update)).seq == 2
    assert host.feed.roads.counts.dropped == 5


async def test_standing_revocations_come_at_the_join(tmp_path: Path, real: Roads) -> None:
    """A worker that joins hears of every revocation of the store, then of each new one, and of none twice."""
    log, store = real
    standing, later = Revocation("member", "m1", GEN), Revocation("device", "d1", GEN)
    await store.put([Put(REVOKED, standing.subject, msgspec.json.encode(standing), 1000.0)])
    await store.put([Put(REVOKED, "junk", b"junk", 1000.0)])
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        await worker.until(Readiness, lambda one: one.ready)
        assert host.feed.roads.revocations == [standing]
        for _ in range(2):
            await log.append(Topic.EVENTS, EVERYWHERE, encode_record(later))
        await worker.until(Revoked, lambda one: later in one.revocations)
        second = await host.join(1)
        assert set((await second.until(Revoked)).revocations) == {standing, later}
        assert [one for one in worker.seen if isinstance(one, Revoked)].count(Revoked([later])) == 1


async def test_receipts_reach_the_log(tmp_path: Path, real: Roads) -> None:
    """What a worker counted is appended under its event; and rule 11: nothing but receipts ever is."""
    log, store = FaultyLog(real[0]), real[1]
    await put_head(store, head())
    async with running(tmp_path, log, store) as host:
        worker = await host.join()
        worker.send(Follow(["final"]), Sessions([Began("m1", "d1", "s1", GEN)]), Counted([receipt(1), receipt(2)]))
        await worker.until(Update)
        assert {one.seq for one in await receipts(log, 2)} == {1, 2}
    assert set(log.appended) == {Topic.RECEIPTS}


async def test_a_dead_worker_leaves_the_sums(host: Host) -> None:
    """A worker whose process is gone gets its goodbye from the feed, for every receipt it had given; and the others hear how
    far apart its devices should come back."""
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    other = await host.join(1)
    worker = await host.join(0, pid=dead.pid)
    worker.send(Counted([receipt(1), receipt(2)]), Gauges({CONNECTIONS: 4000.0}))
    await receipts(host.log, 2)
    await worker.close()
    left = [one for one in await receipts(host.log, 4) if one.left]
    assert {one.seq for one in left} == {1, 2}
    # 4,000 connections over half a host of 400 a second: 20 s.
    assert (await other.until(Steer, lambda one: one.back[1] > 5000)).back == (2000, 20_000)


async def test_a_worker_that_lost_its_link_is_not_dead(host: Host) -> None:
    """A living process that joins again with the same boot keeps its place in the sums."""
    worker = await host.join(0, pid=os.getpid())
    worker.send(Counted([receipt(1)]))
    await receipts(host.log, 1)
    await worker.close()
    back = await host.join(0, pid=os.getpid())
    await back.until(Readiness)
    back.send(Counted([receipt(2)]))
    assert not [one for one in await receipts(host.log, 2) if one.left]


async def test_a_new_boot_says_goodbye_for_the_old_one(host: Host) -> None:
    """A worker that was started again takes the place of its predecessor, whose receipts leave the sums."""
    worker = await host.join(0, boot="b1")
    worker.send(Counted([receipt(1, "b1")]))
    await receipts(host.log, 1)
    await host.join(0, boot="b2")
    await worker.ended()
    assert [one.boot for one in await receipts(host.log, 2) if one.left] == ["b1"]


async def test_sessions_reach_the_registry(host: Host) -> None:
    """A session's place is written behind, and deleted when it ends."""
    worker = await host.join(1)
    worker.send(Sessions([Began("m1", "d1", "s1", GEN)]))
    await until(lambda: host.store.get(registry_record("m1"), "d1"))
    kept = await host.store.get(registry_record("m1"), "d1")
    assert kept is not None
    assert msgspec.json.decode(kept, type=Session) == Session("s1", "h1", "http://127.0.0.1:1", 1, GEN)
    worker.send(Sessions([Ended("m1", "d1", "s1")]))
    await until(lambda: _absent(host.store))


async def _absent(store: KeyValue) -> bool:
    return await store.get(registry_record("m1"), "d1") is None


async def test_a_later_session_replaces_the_earlier_one(host: Host) -> None:
    """A device that came to another worker: the worker with the earlier session is told, and no other."""
    first, second = await host.join(0), await host.join(1)
    first.send(Sessions([Began("m1", "d1", "s1", GEN)]))
    await until(lambda: host.feed.connections() == 1)
    second.send(Sessions([Began("m1", "d1", "s2", GEN + 1)]))
    assert await first.until(Replaced) == Replaced("m1", "d1", GEN + 1)


async def test_devices_ahead_of_the_head_raise_an_alarm(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Rule 6: a worker that saw positions greater than the head makes the feed say so, aloud."""
    worker = await host.join()
    worker.send(Gauges({CONNECTIONS: 1.0, AHEAD: 3.0}))
    await until(lambda: host.feed.connections() == 1)
    assert "ahead of the head" in capsys.readouterr().out


async def test_a_drain_ends_when_every_worker_says_so(host: Host) -> None:
    """Draining: workers accept no more and get their share of the rate; it is over when all say 0 connections after it began."""
    workers = [await host.join(index) for index in range(2)]
    for worker in workers:
        worker.send(Gauges({CONNECTIONS: 10.0}))
        await worker.until(Readiness, lambda one: one.ready)
    await until(lambda: host.feed.connections() == 20)
    drained = host.feed.drain(100.0)
    assert (drained.connections, drained.rate, drained.seconds) == (20, 100.0, 0.2)
    for worker in workers:
        await worker.until(Readiness, lambda one: not one.ready)
        assert (await worker.until(Drain)).rate == 50.0
    workers[0].send(Gauges({CONNECTIONS: 0.0}))
    await until(lambda: host.feed.connections() == 10)
    assert not host.feed.drained()
    workers[1].send(Gauges({CONNECTIONS: 0.0}))
    await until(host.feed.drained)
    assert host.feed.standing().reasons == ["draining"]


async def test_a_feed_in_the_middle_of_a_drain_goes_on_with_it(tmp_path: Path) -> None:
    """It is not ready, tells workers the pace, and is not drained before it has heard from every worker."""
    Drains(tmp_path / DRAIN_FILE).begin(100.0, 50, 0.0)
    async with roads(tmp_path) as (log, store), running(tmp_path, log, store) as host:
        assert host.feed.standing().reasons[-2:] == ["draining", "no worker has joined"]
        assert not host.feed.drained()
        first = await host.join(0)
        assert (await first.until(Drain)).rate == 50.0
        assert [message.ready for message in first.seen if isinstance(message, Readiness)] == [False, False]
        first.send(Gauges({CONNECTIONS: 0.0}))
        second = await host.join(1)
        await second.until(Drain)
        assert not host.feed.drained()
        second.send(Gauges({CONNECTIONS: 7.0}))
        await until(lambda: host.feed.connections() == 7)
        assert host.feed.drain_progress() == Progress(True, 50, 7, 100.0, 0.07, host="h1")
        second.send(Gauges({CONNECTIONS: 0.0}))
        await until(host.feed.drained)
        assert host.feed.drain_progress().empty
