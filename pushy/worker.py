"""A worker process: one event loop, thousands of connections. It listens beside its siblings on one port, gets heads, hints and
parcels from its host's feed over a Unix socket, and says what became of them.

It decides nothing about heads and never reads log or store. Without its feed it keeps its connections and what it knows.
"""

import asyncio
import contextlib
import gc
import os
import random
import resource
import signal
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never, cast

import msgspec
import structlog
import uvloop

from pushy import native
from pushy.admission import Admission, boot_id
from pushy.connection import HANDSHAKE_DEADLINE, OPEN, Connection, Floor
from pushy.doorway import Doorway
from pushy.echo import Echo
from pushy.express import prepared, turning
from pushy.fanout import chosen as chosen_fan_out
from pushy.feed_link import FeedLink
from pushy.followed import Outlet
from pushy.gauges import Fanouts, connection_values, process_values, quietest
from pushy.handshake import Door
from pushy.happenings import Happenings, standing
from pushy.hub import Hub
from pushy.limits import Crowd
from pushy.link import (
    Counted,
    Delivered,
    Drain,
    Explain,
    Explained,
    Follow,
    Gauges,
    Happening,
    Hinted,
    Joined,
    Parcel,
    Push,
    Readiness,
    Refused,
    Replaced,
    Revoked,
    Steer,
    ToWorker,
    Unfollow,
    Update,
)
from pushy.proxies import Proxies
from pushy.reception import Reception
from pushy.turnstile import Turnstile
from pushy.wheel import TICK, Wheel
from stagecast.clock import Clock, SystemClock
from stagecast.receipts import Receipt
from stagecast.records import Revocation
from stagecast.settings import Settings
from stagecast.tokens import KeysFile
from stagecast.wire.closing import CloseCode
from stagecast.wire.frames import HELLO_DEADLINE, ErrCode
from stagecast.wire.server_session import Rules

QUIETEST_EVERY = 10.0
"""Seconds between two looks at which session was longest unheard: 2 ms with 18,000 of them."""
ALIVE = 5.0
"""Seconds between receipts without news."""
REPORT = 1.0
"""Seconds between receipts with news, and between gauges."""
SESSIONS_AFTER = 0.05
"""Seconds after which sessions that began or ended go to the feed, together."""
STOP_DEADLINE = 1.2
"""Seconds that a stopping worker gives its connections for the closing handshake."""
SETTLED_AT_ONCE = 64
"""Connections welcomed before the loop gets its turn, when many waited for one head: 4 ms."""
DRAIN_TICK = 0.05
FLUSH_DEADLINE = 0.2
"""Seconds for the last words to the feed."""
FREEZE_EVERY = 1000
"""New connections after which they are taken out of the garbage collector's sight: a full collection over 18,000 connections
would hold the loop for 60 ms. They hold no cycles once closed."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """What only tests and operators in need set otherwise. Seconds and bytes."""

    handshake_deadline: float = HANDSHAKE_DEADLINE
    hello_deadline: float = HELLO_DEADLINE
    slow_after: float = 20.0
    send_buffer: int = 32 * 1024
    """SO_SNDBUF (the kernel doubles it): what a stalled device can hold in kernel memory."""
    linger: float = 30.0
    """How long an event that nobody follows is still kept."""
    head_wait: float = 5.0
    """How long a hello waits for heads before it is told `unavailable`."""
    feed_absent: float = 5.0
    """How long the worker accepts devices without its feed."""
    per_address_on_loopback: bool = False
    echo: bool = False
    native: Path = native.FOLDER
    """Where the native fan-out has been built."""


def run_worker(
    settings: Settings,
    index: int,
    ws: tuple[str, int],
    link: Path,
    *,
    echo: bool = False,
    options: Options | None = None,
) -> None:
    """Serves devices at `ws` until SIGTERM or SIGINT, fed by the feed that listens at `link`; gone within 2 s then.

    `echo` adds the route /echo, for conformance tests.
    """
    chosen = options or Options(echo=echo)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    uvloop.run(Worker(settings, index, ws, link, chosen, SystemClock(), random.Random()).run())


class Worker:
    """The composition of one worker, and what passes between its connections and its feed."""

    def __init__(
        self,
        settings: Settings,
        index: int,
        ws: tuple[str, int],
        link: Path,
        options: Options,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._index = index
        self._options = options
        self._clock = clock
        self._boot = boot_id(rng)
        self._admission = Admission(KeysFile(settings.keys_file))
        self._hub = Hub(chosen_fan_out(settings.fan_out, options.native))
        self._link = FeedLink(link, self._joined, self._received, self._feed_lost, rng)
        # Its share of the host's rate comes from the feed, which knows how many workers there are.
        burst = settings.accept_burst or settings.connections
        turnstile = Turnstile(settings.accept_rate, burst, clock.monotonic())
        crowd = Crowd(settings.connections, settings.connections_per_address, options.per_address_on_loopback)
        self._reception = Reception(index, crowd, turnstile, clock, rng, self._news_wait)
        self.floor = self._reception.floor = Floor(
            rules=Rules(
                admit=self._admission.admit,
                head=self._hub.head,
                rng=rng,
                node=f"{index}{self._boot}",
                ping=settings.ping,
                lifetime=settings.lifetime,
                hello_deadline=options.hello_deadline,
                maps=settings.maps or None,
            ),
            hub=self._hub,
            wheel=Wheel(clock.monotonic()),
            door=Door(frozenset(settings.origins)),
            clock=clock,
            arrived=self._reception.arrived,
            busy=self._reception.busy,
            greeted=self._reception.greeted,
            wanted=self._wanted,
            left=self._left,
            happenings=Happenings(),
            gone=self._gone,
            introduced=self._reception.introduced,
            proxies=Proxies.of(settings.trusted_proxies, settings.proxy_protocol),
            handshake_deadline=options.handshake_deadline,
            slow_after=options.slow_after,
            echo=Echo if options.echo else None,
        )
        hot = prepared(options.native) if settings.fan_out != "python" else None
        turn = turning(hot, self._reception, self._admission, settings.fan_out != "native") if hot is not None else None
        self._doorway = Doorway(ws, options.send_buffer, 3 * options.slow_after, lambda: Connection(self.floor), turn)
        self._fanouts = Fanouts()
        self._empty = asyncio.Event()
        self._settling: deque[tuple[Connection, str, ErrCode | None]] = deque()
        """Connections whose awaited head is settled, each taking its turn."""
        self._lag = self._quietest = 0.0
        self._looked = clock.monotonic()
        self._stepping = self._stopping = False
        self._refollow: set[str] = set()
        """Events that the feed could not follow again when it came back."""
        self._draining: asyncio.Task[None] | None = None
        self._feed_lost_at: float | None = None
        self._frozen_at = 0
        self._blank = Receipt(settings.host or socket.gethostname(), self._boot, index, 0, "", 0, 0)

    async def run(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as group:
            running = (self._link.run(), self._doorway.run(), self._turn(), self._report())
            tasks = [group.create_task(one) for one in running]
            await stop.wait()
            await self._stop()
            for task in tasks:
                task.cancel()

    # the feed

    def _joined(self) -> None:
        self._feed_lost_at = None
        self._refollow.clear()
        self._link.send(Joined(self._index, self._boot, os.getpid()))
        if events := self._hub.events:
            self._link.send(Follow(events))
        self._flush_sessions()

    def _feed_lost(self) -> None:
        self._feed_lost_at = self._clock.monotonic()

    def _received(self, message: ToWorker) -> None:  # noqa: C901 - a case per message
        now = self._clock.monotonic()
        match message:
            case Update():
                self._settle(message.e, self._hub.update(message, now), None)
                self._step()
            case Hinted():
                self._hub.hint(message)
                self._step()
            case Push(number, parcels):
                self._push(number, parcels)
            case Explain(number, device):
                self._link.send(Explained(number, self._explained(device)))
            case Refused(event, code):
                self._settle(event, self._hub.refused(event), code)
                if self._hub.head(event) is not None:
                    self._refollow.add(event)
            case Readiness(ready):
                self._doorway.open(ready and self._draining is None and not self._stopping)
            case Revoked(revocations):
                self._revoke(revocations)
            case Replaced(member, device, start):
                earlier = [
                    c
                    for c in self._reception.directory.device(device)
                    if c.member == member and c.session.start < start
                ]
                self._reception.end(earlier, CloseCode.REPLACED, "replaced by a later session")
            case Steer(back, accept_rate):
                self.floor.rules.back = back
                if accept_rate:
                    self._reception.turnstile.pace(accept_rate)
            case Drain(rate, back):
                self.floor.rules.back = back
                self._drain(rate)
            case _:
                assert_never(message)

    def _settle(self, event: str, waiters: Iterable[Outlet], code: ErrCode | None) -> None:
        self._settling.extend((cast("Connection", waiter), event, code) for waiter in waiters)
        self._step_soon()

    def _explained(self, device: str) -> list[Happening]:
        wall = self._clock.now()
        now = [
            Happening(wall, "connected", standing(one, one.session.sid, self._index))
            for one in self._reception.directory.device(device)
        ]
        return self.floor.happenings.of(device) + now

    def _push(self, number: int, parcels: list[Parcel]) -> None:
        statuses: list[tuple[int, str, int]] = []
        for i, parcel in enumerate(parcels):
            if parcel.device is not None:
                found = self._reception.directory.device(parcel.device)
            else:
                found = self._reception.directory.member(parcel.member or "")
            statuses += [
                (i, connection.device, self._hub.deliver(connection, parcel.frame))
                for connection in found
                if parcel.e is None or connection.claims.allows(parcel.e)
            ]
        self._link.send(Delivered(number, statuses))

    def _revoke(self, revocations: Iterable[Revocation]) -> None:
        self._admission.revoke(revocations)
        for one in revocations:
            find = self._reception.directory.device if one.kind == "device" else self._reception.directory.member
            void = [connection for connection in find(one.id) if self._admission.revoked(connection.claims)]
            self._reception.end(void, CloseCode.UNAUTHORIZED, "revoked")

    # work in chunks, so that no fan-out and no storm holds the loop

    def _step(self) -> None:
        """One chunk, and the next when the loop has looked at its sockets."""
        self._stepping = False
        now, wall = self._clock.monotonic(), self._clock.now()
        for _ in range(min(len(self._settling), SETTLED_AT_ONCE)):
            connection, event, code = self._settling.popleft()
            connection.settle(event, code, now, wall)
            if connection.phase != OPEN:
                self._hub.leave(connection, [event], now)
        done = self._hub.step()
        if done is not None:
            self._fanouts.took(self._clock.monotonic() - done.began)
        self._step_soon()

    def _step_soon(self) -> None:
        if not self._stepping and (self._hub.working or self._settling):
            self._stepping = True
            asyncio.get_running_loop().call_soon(self._step)

    # connections

    def _gone(self, connection: Connection) -> None:
        self._reception.crowd.gone(connection.address)
        if self._stopping and not self._reception.crowd.tcp:
            self._empty.set()

    def _wanted(self, connection: Connection, events: list[str]) -> None:
        now, wall = self._clock.monotonic(), self._clock.now()
        new, over = self._hub.want(connection, events, now)
        if new and self._link.up:
            self._link.send(Follow(new))
        for event in over:
            connection.settle(event, "unavailable", now, wall)

    def _left(self, connection: Connection, why: str) -> None:
        self._hub.leave(connection, None, self._clock.monotonic(), why)
        self._reception.left(connection)

    def _news_wait(self) -> None:
        asyncio.get_running_loop().call_later(SESSIONS_AFTER, self._flush_sessions)

    def _flush_sessions(self) -> None:
        if self._link.up and (sessions := self._reception.news.take()):
            self._link.send(sessions)

    # time

    async def _turn(self) -> None:
        """Looks at the connections whose time has come."""
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(TICK)
            now, wall = self._clock.monotonic(), self._clock.now()
            self._lag = max(self._lag, now - before - TICK)
            for connection in self.floor.wheel.turn(now):
                connection.expire(now, wall)

    async def _report(self) -> None:
        """Once a second: keys, heads that don't come, events nobody follows; receipts and gauges to the feed."""
        while True:
            await asyncio.sleep(REPORT)
            now = self._clock.monotonic()
            if self._admission.look(now):
                gone = [one for one in self._sessions() if not self._admission.holds(one.claims)]
                self._reception.end(gone, CloseCode.UNAUTHORIZED, "the token's key is gone")
            for event in self._hub.overdue(now - self._options.head_wait):
                self._settle(event, self._hub.refused(event), "unavailable")
                self._link.send(Unfollow([event]))
            if abandoned := self._hub.abandoned(now - self._options.linger):
                self._link.send(Unfollow(abandoned))
            if self._refollow and self._link.up:
                self._link.send(Follow(sorted(self._refollow)))
                self._refollow.clear()
            if self._feed_lost_at is not None and now - self._feed_lost_at > self._options.feed_absent:
                self._doorway.open(False)
            self._send_receipts(now)
            if now - self._looked >= QUIETEST_EVERY:
                self._looked, self._quietest = now, quietest(self._sessions(), now)
            self._link.send(Gauges(self._values()))
            if self.floor.accepts - self._frozen_at >= FREEZE_EVERY:
                self._frozen_at = self.floor.accepts
                gc.freeze()

    def _sessions(self) -> list[Connection]:
        """Connections past their hello."""
        return [c for c in self.floor.wheel.things() if c.phase == OPEN and c.session.claims is not None]

    def _send_receipts(self, now: float, left: bool = False) -> None:
        if not self._link.up:
            return
        blank = msgspec.structs.replace(self._blank, ts=self._clock.now(), left=left)
        if receipts := self._hub.receipts(blank, now, ALIVE):
            self._link.send(Counted(receipts))

    def _values(self) -> dict[str, float]:
        values = connection_values(self.floor, self._reception.crowd.tcp) | self._fanouts.values() | process_values()
        values["stagecast_connections_limit"] = self._settings.connections
        values["stagecast_ping_age_seconds"] = self._quietest
        values["stagecast_loop_lag_seconds"], self._lag = self._lag, 0.0
        values["stagecast_token_checks_total"] = self._admission.checks
        values["stagecast_link_dropped_total"] = self._link.dropped + self._reception.news.dropped
        return values

    # the end

    def _drain(self, rate: float) -> None:
        self._doorway.open(False)
        self._reception.leaving = True
        if self._draining is not None:
            self._draining.cancel()
        self._draining = asyncio.get_running_loop().create_task(self._drain_at(rate))

    async def _drain_at(self, rate: float) -> None:
        """Sends connections away at `rate` a second, until there is none."""
        while True:
            waiting = [connection for connection in self.floor.wheel.things() if connection.phase == OPEN]
            begun, sent = self._clock.monotonic(), 0
            while sent < len(waiting):
                due = int((self._clock.monotonic() - begun) * rate) + 1
                now, wall = self._clock.monotonic(), self._clock.now()
                for connection in waiting[sent:due]:
                    connection.go_away(CloseCode.DRAIN, "drain", now, wall)
                sent = max(sent, min(due, len(waiting)))
                await asyncio.sleep(DRAIN_TICK)
            await asyncio.sleep(DRAIN_TICK)

    async def _stop(self) -> None:
        """Says goodbye to all, for STOP_DEADLINE at most."""
        self._stopping = self._reception.leaving = True
        self._doorway.open(False)
        if self._draining is not None:
            self._draining.cancel()
        now, wall = self._clock.monotonic(), self._clock.now()
        connections = self.floor.wheel.things()
        for connection in connections:
            connection.go_away(CloseCode.GOING_AWAY, "restart", now, wall)
        if self._reception.crowd.tcp:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_DEADLINE)
        for connection in connections:
            connection.transport.abort()
        self._send_receipts(now, left=True)
        self._flush_sessions()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._link.flush(), FLUSH_DEADLINE)
        self._link.close()
