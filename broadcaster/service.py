"""The broadcaster as a process: opens store and log, builds the parts, runs them until SIGTERM or SIGINT."""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
import uvloop
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from broadcaster.api import http_api
from broadcaster.bodies import Health, Readiness
from broadcaster.cadence import Cadence
from broadcaster.console.app import with_console
from broadcaster.control import live
from broadcaster.explaining import Explaining
from broadcaster.firing import Firing
from broadcaster.heads import Heads
from broadcaster.metrics import Metrics
from broadcaster.parts import Parts
from broadcaster.planning import Planning
from broadcaster.problems import RETRY_AFTER
from broadcaster.producer import Producer
from broadcaster.publisher import Publisher
from broadcaster.receipts import KEEP_MS, Ledger, keep_ledger
from broadcaster.recording import REACH_MS, Curves
from broadcaster.rehearsal import Rehearsals
from broadcaster.roster import Roster, watch_log
from broadcaster.series import Recorder, times_of
from broadcaster.watching import Watching
from kv import KeyValue, StoreUnavailable, open_store
from stagecast.access import Gate
from stagecast.clock import Clock, SystemClock
from stagecast.event import Head
from stagecast.http import Problem, answer, serving
from stagecast.log import LogUnavailable, MessageLog, Topic, open_log
from stagecast.receipts import Progress
from stagecast.records import API_KEYS
from stagecast.settings import Settings

RETRY = 1.0
"""Seconds between attempts to open the store or the log."""
CLOSE_WAIT = 0.3
"""Seconds at the end for appends under way, for the log, for the store, each; HTTP has had 1 s before them."""
STARTING = 2.0
"""Seconds that a request waits for a process that is just starting, before it is answered 503; a restart is hardly seen so."""
FIRST_BEAT = 1.0
"""Seconds that the API waits for the log to take a first beat, so that the first answers do not say `late` of a healthy log."""
KEYS_REMEMBERED = 1000
_log = structlog.get_logger()
T = TypeVar("T")


def run_broadcaster(
    settings: Settings, http: str | socket.socket, *, forward: ASGIApp | None = None, forwarded: Sequence[str] = ()
) -> None:
    """Serves the HTTP API at `http` (HOST:PORT or a listening socket) and carries out plans and cadence, until SIGTERM or
    SIGINT; then returns within 2 s. Requests to paths that start with one of `forwarded` go to the ASGI app `forward`.

    A store or log that is down at the start is waited for, not ready meanwhile. Raises ValueError for a setting that can't
    be, OSError when the address can't be had.
    """
    uvloop.run(_main(settings, http, forward, forwarded))


class Front:
    """What answers at the port: from the first moment, though the API behind it may not be there yet."""

    def __init__(self, forward: ASGIApp | None = None, forwarded: Sequence[str] = ()) -> None:
        self._forward = forward
        self._forwarded = tuple(forwarded)
        self._api: ASGIApp | None = None
        self._opened = asyncio.Event()
        self.waits_for = "starting"

    def open(self, api: ASGIApp) -> None:
        """From here on `api` answers."""
        self._api = api
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if self._forward is not None and path.startswith(self._forwarded):
            await self._forward(scope, receive, send)
        elif self._api is not None:
            await self._api(scope, receive, send)
        elif path == "/healthz":
            await answer(Health(True))(scope, receive, send)
        elif path == "/readyz":
            standing = Readiness(False, "down", "late", self.waits_for)
            await answer(standing, 503)(scope, receive, send)
        else:
            await self._wait(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTING):
                await self._opened.wait()
        if self._api is not None:
            await self._api(scope, receive, send)
        else:
            problem = Problem(503, "Service Unavailable", f"not ready: {self.waits_for}", RETRY_AFTER)
            await problem.response()(scope, receive, send)


async def _main(
    settings: Settings, http: str | socket.socket, forward: ASGIApp | None, forwarded: Sequence[str]
) -> None:
    front = Front(forward, forwarded)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(_work(settings, front, stop))
    stopped = asyncio.create_task(stop.wait())
    try:
        async with serving(Starlette(routes=[Mount("/", app=front)]), http) as url:
            _log.info("broadcaster answers", url=url)
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work  # if it broke, this raises what broke it: the process ends, a supervisor starts it again
    _log.info("broadcaster stopped")


async def _work(settings: Settings, front: Front, stopping: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as opened:
        front.waits_for = "the store does not answer"
        store = await _patiently(lambda: open_store(settings.store_url, settings.store_password), "store")
        opened.push_async_callback(_close, store.close)
        front.waits_for = "the log does not answer"
        log = await _patiently(lambda: open_log(settings.log_url, settings.log_password), "log")
        opened.push_async_callback(_close, log.close)
        async with broadcasting(store, log, SystemClock(), settings, stopping) as api:
            front.open(api)
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def broadcasting(
    store: KeyValue,
    log: MessageLog,
    clock: Clock,
    settings: Settings | None = None,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[Starlette]:
    """The whole tier on this store and log: plans fire, the cadence runs, API and console answer while it is open. A part that
    breaks ends it with an ExceptionGroup. Streams end once `stopping` is set."""
    parts, cadence, firing = compose(store, log, clock, stopping, settings)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(keep_ledger(parts.ledger, log, clock, reach=REACH_MS)),
            tasks.create_task(parts.curves.run()),
            tasks.create_task(_watch(parts.roster, log)),
            tasks.create_task(cadence.run()),
            tasks.create_task(firing.run()),
        ]
        try:
            await asyncio.wait([tasks.create_task(parts.publisher.beat())], timeout=FIRST_BEAT)
            gate = Gate(remembering(store), clock.monotonic)
            yield with_console(http_api(parts, gate), store, gate, clock, settings or Settings())
        finally:
            await parts.rehearsals.close()
            for task in running:
                task.cancel()
            await parts.curves.finish(CLOSE_WAIT)
            await parts.publisher.drain(CLOSE_WAIT)


def compose(
    store: KeyValue,
    log: MessageLog,
    clock: Clock,
    stopping: asyncio.Event | None = None,
    settings: Settings | None = None,
) -> tuple[Parts, Cadence, Firing]:
    """The parts of one broadcaster, nothing running yet."""
    heads, ledger = Heads(store), Ledger()
    roster, publisher = Roster(heads, clock), Publisher(log, clock)

    def census(head: Head) -> Progress:
        return ledger.progress(head.event, head.gen, head.seq, clock.now())

    producer = Producer(heads, roster, publisher, clock, census)
    cadence, firing = Cadence(heads, roster, publisher, clock), Firing(producer, roster, clock)

    def ready() -> Readiness:
        well = cadence.store_answers
        return Readiness(well and publisher.standing == "ok", "ok" if well else "down", publisher.standing)

    def since(event: str, order: tuple[int, int]) -> int | None:
        known = roster.get(event)
        return None if known is None else times_of(known.head).get(order)

    async def look(event: str) -> bytes:
        return await live(parts, event)

    recorder = Recorder(ledger, since, clock.now() - (REACH_MS - KEEP_MS))
    curves = Curves(store, recorder, clock)
    watching = Watching(look, stopping or asyncio.Event())
    metrics = Metrics(producer, publisher, cadence, firing, roster, ledger, recorder, curves, watching, {})
    parts = Parts(
        store, heads, roster, producer, Planning(producer, heads, clock), publisher, ledger, recorder,
        curves, watching, Rehearsals(producer, store, settings, clock, random.Random()),
        Explaining(store, heads, clock, settings.service_key if settings else None, ledger.admins), metrics, clock, ready,
    )  # fmt: skip
    return parts, cadence, firing


async def _watch(roster: Roster, log: MessageLog) -> None:
    positions = await _patiently(lambda: log.end(Topic.EVENTS), "log")
    await watch_log(roster, log, positions)


async def _patiently(attempt: Callable[[], Awaitable[T]], what: str) -> T:
    """The result, as soon as there is one."""
    while True:
        try:
            return await attempt()
        except (StoreUnavailable, LogUnavailable) as error:
            _log.warning(f"{what} does not answer", error=str(error))
            await asyncio.sleep(RETRY)


def remembering(store: KeyValue) -> Callable[[str], Awaitable[bytes | None]]:
    """Reads API keys; one that was good goes on being good while the store is down."""
    good: dict[str, bytes] = {}

    async def read(digest: str) -> bytes | None:
        try:
            kept = await store.get(API_KEYS, digest)
        except StoreUnavailable:
            if digest in good:
                return good[digest]
            raise
        if kept is None:
            good.pop(digest, None)
        elif len(good) < KEYS_REMEMBERED:
            good[digest] = kept
        return kept

    return read


async def _close(close: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WAIT):
            await close()
