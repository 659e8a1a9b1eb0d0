"""The feed: the one process of a host that reads the log and the store, and feeds the host's workers over a Unix socket."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import assert_never

import structlog
import uvloop

from kv import KeyValue, open_store
from pushy.absent import Absent, Absentees
from pushy.admin import Standing, admin_app
from pushy.beating import beat
from pushy.delivery import Deliveries, Entry, Outcome
from pushy.draining import FILE as DRAIN_FILE
from pushy.draining import Drains, Progress
from pushy.explaining import Explaining
from pushy.feed_values import outgoing_values, roads_values
from pushy.heads import Refuse, Tell
from pushy.late import LateLog, LateStore
from pushy.link import (
    AHEAD,
    CONNECTIONS,
    Began,
    Counted,
    Delivered,
    Drain,
    Ended,
    Explained,
    Follow,
    FromWorker,
    Gauges,
    Happening,
    Hinted,
    Joined,
    Readiness,
    Refused,
    Revoked,
    Sessions,
    Steer,
    Unfollow,
    Update,
    pack,
)
from pushy.link_server import WorkerLink, listening_for_workers
from pushy.metrics import HostCollector
from pushy.outbox import Counted as CountedByWorker
from pushy.outbox import Outbox
from pushy.registry import GRACE, Registry
from pushy.rfc6455 import server_frame
from pushy.roads import Roads
from pushy.steering import CALM, Storm
from pushy.whereabouts import Whereabouts
from stagecast.access import Gate
from stagecast.broadcast import Broadcast, encode_broadcast, for_welcome
from stagecast.clock import Clock, SystemClock
from stagecast.http import base_url, listen, serving
from stagecast.log import MessageLog, open_log
from stagecast.receipts import HostBeat
from stagecast.records import API_KEYS, Revocation
from stagecast.settings import Settings
from stagecast.wire import codec
from stagecast.wire.frames import Hint

TICK = 0.1
REVOKED_CHUNK = 5000
"""Revocations in one message of the link."""
FLUSH = 0.4
"""Seconds at the end in which receipts and registry are still written."""
LAST_WORDS = 0.25
DRAIN_PATIENCE = 10.0
"""Seconds that a drain waits for workers that have not joined."""

_log = structlog.get_logger()


def update_of(head: Broadcast) -> Update:
    """A head as workers pass it on: built once, whatever the number of devices."""
    frame = server_frame(encode_broadcast(head))
    return Update(head.e, head.gen, head.seq, head.map, head.ack.p if head.ack else 0, frame, for_welcome(head))


class Feed:
    """One host: its roads, its workers' links, and what passes between them."""

    def __init__(
        self,
        settings: Settings,
        log: MessageLog,
        store: KeyValue,
        workers: int,
        admin_url: str,
        clock: Clock,
        drain_file: Path | None = None,
    ):
        self._settings = settings
        self._log = log
        self._store = store
        self._workers = workers
        self._clock = clock
        self._links: dict[int, WorkerLink] = {}
        self._absentees = Absentees()
        self._counted: dict[tuple[int, str], CountedByWorker] = {}
        self._storm = Storm(workers, settings.accept_rate)
        self._back = CALM
        self._started = clock.monotonic()
        self._lag = 0.0
        self._link_bytes = self._overflows = self._workers_lost = 0
        self.roads = Roads(log, store, self, clock)
        self.outbox = Outbox()
        self._host = settings.host or socket.gethostname()
        self.registry = Registry(settings.lifetime + GRACE, self._host, admin_url)
        self._admin_url = admin_url
        self._drains = Drains(drain_file, self._host)
        self._sessions = Whereabouts(self.registry)
        self.deliveries = Deliveries()
        self._explaining = Explaining()
        self.collector = HostCollector(self._own_values, self._worker_values)

    async def run(self) -> None:
        """Everything but the sockets, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.roads.run())
            group.create_task(self.outbox.run(self._log))
            group.create_task(self.registry.run(self._store))
            group.create_task(self._watch())
            group.create_task(beat(self._log, self._beat))

    async def flush(self) -> None:
        """The last receipts and registry changes, as far as FLUSH allows."""
        try:
            async with asyncio.timeout(FLUSH):
                while len(self.outbox) and await self.outbox.flush(self._log):
                    pass
                while len(self.registry) and await self.registry.flush(self._store):
                    pass
        except TimeoutError:
            _log.warning("not all written", receipts=len(self.outbox), registry=len(self.registry))

    async def last_words(self) -> None:
        """Waits for workers that stop as well, LAST_WORDS at most: their goodbyes belong into the log."""
        end = self._clock.monotonic() + LAST_WORDS
        while self._links and self._clock.monotonic() < end:  # noqa: ASYNC110 - at the very end, and short
            await asyncio.sleep(0.02)

    def hang_up(self) -> None:
        """Closes the links: workers keep their connections and join whoever listens next."""
        for link in list(self._links.values()):
            link.drop()

    # The admin port's side.

    def standing(self) -> Standing:
        """Whether a load balancer should send devices here."""
        reasons = self.roads.reasons()
        if self.draining:
            reasons.append("draining")
        if not self._joined():
            reasons.append("no worker has joined")
        return Standing(not reasons, reasons, len(self._joined()))

    @property
    def draining(self) -> bool:
        return self._drains.now is not None

    def drain(self, rate: float | None = None) -> Progress:
        """Closes all connections at `rate` a second and accepts no more. A second call changes the rate."""
        drain = self._drains.begin(rate or self._settings.drain_rate, self.connections(), self._clock.monotonic())
        _log.info("draining", connections=drain.connections, rate=drain.rate)
        for link in self._joined():
            self._drain(link)
        return self.drain_progress()

    def drain_progress(self) -> Progress:
        return self._drains.progress(self.connections(), self.drained())

    async def push(self, entries: list[Entry]) -> list[Outcome]:
        return await self.deliveries.push(entries, self._joined())

    async def explain(self, device: str) -> list[Happening]:
        """What this host's workers know of a device, oldest first."""
        return await self._explaining.ask(device, self._joined(), self._clock.now())

    def _beat(self) -> HostBeat:
        return HostBeat(
            self._host, self._clock.now(), self.connections(), self._settings.connections * self._workers,
            round(self.roads.silence.log_age(self._clock.monotonic()), 1), self.standing().ready,
            self._admin_url,
        )  # fmt: skip

    def connections(self) -> int:
        """Open connections, as the workers last said."""
        return sum(self._connections_of(link) for link in self._joined())

    def drained(self) -> bool:
        """Whether a drain is over: every worker has said so since it began."""
        drain = self._drains.now
        if drain is None:
            return False
        # A feed that came in the middle of a drain has to meet its workers first.
        joined, since = self._joined(), max(drain.since, self._started)
        if len(joined) < self._workers and self._clock.monotonic() - since < DRAIN_PATIENCE:
            return False
        return all(link.gauged > since for link in joined) and self.connections() == 0

    # The roads' side.

    def told(self, tell: Tell) -> None:
        self._send(tell.workers, pack(update_of(tell.head)))

    def refused(self, refuse: Refuse) -> None:
        self._send(refuse.workers, pack(Refused(refuse.event, refuse.code)))

    def hinted(self, hint: Hint, links: frozenset[int]) -> None:
        self._send(links, pack(Hinted(hint.e, server_frame(codec.encode(hint)))))

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        for link in self._joined():
            self._revoke(link, revocations)

    def readiness(self, ready: bool) -> None:
        _log.info("readiness", ready=ready, reasons=self.roads.reasons())
        for link in self._joined():
            link.send(Readiness(ready and not self.draining))

    # The links' side.

    def opened(self, link: WorkerLink) -> None:
        self._links[link.id] = link

    def overflowed(self, link: WorkerLink) -> None:
        self._overflows += 1

    def closed(self, link: WorkerLink) -> None:
        connections = self._connections_of(link)
        self._links.pop(link.id, None)
        self.roads.heads.left(link.id)
        self.deliveries.lost(link.id)
        self._explaining.lost(link.id)
        if link.joined is not None and all(other.worker != link.worker for other in self._joined()):
            self._absentees.lost(link.joined, connections, self._clock.monotonic())

    def received(self, link: WorkerLink, message: FromWorker) -> None:
        match message:
            case Joined():
                self._join(link, message)
            case Follow(events):
                self.roads.follow(link.id, events)
            case Unfollow(events):
                self.roads.heads.unfollow(link.id, events)
            case Counted(receipts):
                self.outbox.put(receipts)
                self._counted_by(link).put(receipts, self._clock.monotonic())
            case Sessions(changes):
                self._moved(link, changes)
            case Delivered():
                self.deliveries.delivered(link.id, message)
            case Explained():
                self._explaining.explained(link.id, message)
            case Gauges(values):
                self._gauge(link, values)
            case _:
                assert_never(message)

    def _join(self, link: WorkerLink, joined: Joined) -> None:
        for other in self._joined():
            if other is not link and other.joined is not None and other.worker == joined.worker:
                self._absentees.lost(other.joined, self._connections_of(other), self._clock.monotonic())
                other.drop()
        predecessor = self._absentees.joins(joined)
        if predecessor is not None:
            self._gone(predecessor)
        link.send(Readiness(self.roads.ready and not self.draining))
        link.send(Steer(self._back, self._settings.accept_rate / self._workers))
        self._revoke(link, self.roads.revocations)
        if self.draining:
            self._drain(link)

    def _moved(self, link: WorkerLink, changes: Sequence[Began | Ended]) -> None:
        assert link.joined is not None
        replaced = self._sessions.moved(link.joined.worker, changes, self._told_all())
        if not replaced:
            return
        for other in self._joined():
            assert other.joined is not None
            worker = other.joined.worker
            if told := b"".join(pack(one.message) for one in replaced if one.concerns(worker)):
                other.write(told)

    def _told_all(self) -> bool:
        """Whether no session can be at a worker that has not told it: see Whereabouts."""
        return self._workers == 1 or self._clock.monotonic() - self._started >= self._settings.lifetime

    def _gauge(self, link: WorkerLink, values: dict[str, float]) -> None:
        assert link.joined is not None
        ahead, before = values.get(AHEAD, 0.0), link.gauges.get(AHEAD, 0.0)
        if ahead > before:
            _log.error(
                "devices are ahead of the head: was the store restored? see `stagecast event regen`",
                worker=link.worker, devices=int(ahead - before),
            )  # fmt: skip
        link.gauges, link.gauged = values, self._clock.monotonic()

    async def _watch(self) -> None:
        """Looks after workers that were lost, and ends the storm when it is over."""
        while True:
            now = self._clock.monotonic()
            for absent in self._absentees.dead(_alive, now):
                self._gone(absent)
            if self._storm.over(now):
                self._steer(CALM)
            await asyncio.sleep(TICK)
            self._lag = max(self._lag, self._clock.monotonic() - now - TICK)

    def _gone(self, absent: Absent) -> None:
        """The worker is dead: its connections leave the sums, and its devices come back over time."""
        joined = absent.joined
        self._workers_lost += 1
        connections = max(absent.connections, self._sessions.places.count(joined.worker))
        self._sessions.places.left(joined.worker)
        counted = self._counted.pop((joined.worker, joined.boot), None)
        if counted is not None:
            self.outbox.put(counted.goodbyes())
        _log.info("worker gone", worker=joined.worker, pid=joined.pid, connections=connections)
        self._steer(self._storm.lost(connections, len(self._joined()), self._clock.monotonic()))

    def _steer(self, back: tuple[int, int]) -> None:
        if back != self._back:
            self._back = back
            for link in self._joined():
                link.send(Steer(back))

    def _drain(self, link: WorkerLink) -> None:
        assert self._drains.now is not None
        link.send(Readiness(False))
        link.send(Drain(self._drains.now.rate / self._workers, self._back))

    def _revoke(self, link: WorkerLink, revocations: Sequence[Revocation]) -> None:
        for start in range(0, len(revocations), REVOKED_CHUNK):
            link.send(Revoked(list(revocations[start : start + REVOKED_CHUNK])))

    def _send(self, links: frozenset[int], packed: bytes) -> None:
        for id in links:
            link = self._links.get(id)
            if link is not None:
                self._link_bytes += len(packed)
                link.write(packed)

    def _joined(self) -> list[WorkerLink]:
        return [link for link in self._links.values() if link.joined is not None]

    def _counted_by(self, link: WorkerLink) -> CountedByWorker:
        assert link.joined is not None
        return self._counted.setdefault((link.joined.worker, link.joined.boot), CountedByWorker())

    def _connections_of(self, link: WorkerLink) -> int:
        if link.joined is None:
            return 0
        return int(link.gauges.get(CONNECTIONS, self._sessions.places.count(link.joined.worker)))

    def _own_values(self) -> dict[str, float]:
        now, joined = self._clock.monotonic(), self._joined()
        lag, self._lag = self._lag, 0.0
        return {
            "stagecast_feed_ready": float(self.standing().ready),
            "stagecast_feed_workers": len(joined),
            "stagecast_feed_workers_expected": self._workers,
            "stagecast_feed_workers_lost_total": self._workers_lost,
            "stagecast_feed_link_bytes_total": self._link_bytes,
            "stagecast_feed_link_overflows_total": self._overflows,
            "stagecast_feed_accept_rate": self._settings.accept_rate,
            "stagecast_feed_back_seconds": self._back[1] / 1000,
            "stagecast_feed_loop_lag_seconds": lag,
            **{
                f'stagecast_feed_worker_report_age_seconds{{worker="{one.worker}"}}': now - one.gauged for one in joined
            },
            **self._drains.values(self.connections()),
            **roads_values(self.roads, now),
            **outgoing_values(self.outbox, self.registry, self.deliveries),
        }

    def _worker_values(self) -> list[tuple[int, dict[str, float]]]:
        return [(link.joined.worker, link.gauges) for link in self._joined() if link.joined is not None]


def run_feed(
    settings: Settings, admin: str | socket.socket, link: Path, workers: int, drain_flag: int | None = None
) -> None:
    """The feed process: blocks until SIGTERM or SIGINT, or until it is drained.

    `admin` is HOST:PORT or a listening socket; `link` the Unix socket for `workers` workers. `drain_flag` is an eventfd: once it
    is not zero the host is drained, and this returns when its last connection is gone. Log and store may come later. Raises
    OSError, ValueError when it can't start.
    """
    gc.set_threshold(10_000, 20, 100)  # a batch for the registry is thousands of tuples and no cycle
    uvloop.run(_serve(settings, admin, link, workers, drain_flag))


async def _serve(
    settings: Settings, admin: str | socket.socket, link: Path, workers: int, drain_flag: int | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        log = LateLog(lambda: open_log(settings.log_url, settings.log_password))
        store = LateStore(lambda: open_store(settings.store_url, settings.store_password))
        stack.push_async_callback(log.close)
        stack.push_async_callback(store.close)
        await asyncio.gather(log.open(), store.open())
        listening = listen(admin) if isinstance(admin, str) else admin
        drain_file = link.with_name(DRAIN_FILE)
        feed = Feed(settings, log, store, workers, admin_url(settings, listening), clock, drain_file)
        gate = Gate(lambda digest: store.get(API_KEYS, digest), clock.monotonic)
        stack.push_async_callback(feed.flush)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one) for one in (feed.run(), log.keep_opening(), store.keep_opening())]
            if drain_flag is not None:
                running.append(group.create_task(_drain_when_told(feed, drain_flag, stop)))
            async with listening_for_workers(link, feed), serving(admin_app(feed, gate, feed.collector), listening):
                await stop.wait()
                await feed.last_words()
            feed.hang_up()
            for task in running:
                task.cancel()


async def _drain_when_told(feed: Feed, flag: int, stop: asyncio.Event) -> None:
    """The flag is looked at and not read: it stays up for a feed that is started again in the middle of a drain."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(flag, told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(flag)
    if not feed.draining:  # by order, or by the feed before this one: then it keeps its pace
        feed.drain()
    while not feed.drained():  # noqa: ASYNC110 - what it looks at has no event of its own
        await asyncio.sleep(TICK)
    stop.set()


def admin_url(settings: Settings, listening: socket.socket) -> str:
    """Where other services reach this host's admin port: as set, else where it listens."""
    if settings.advertise:
        return settings.advertise.rstrip("/")
    host, port = listening.getsockname()[:2]
    return f"http://{socket.gethostname()}:{port}" if host in ("0.0.0.0", "::") else base_url(listening)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
