"""The prefetch process: its parts put together, run until SIGTERM or SIGINT."""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import structlog
import uvloop

from kv import open_store
from prefetch.admission import Admission
from prefetch.api import Api
from prefetch.cors import Origins
from prefetch.metrics import Metrics
from prefetch.parts import Parts
from prefetch.pull import Pull
from prefetch.push import Pusher
from prefetch.revoked import Revocations
from prefetch.runner import Runner
from stagecast.clock import Clock, SystemClock
from stagecast.http import serving
from stagecast.log import open_log
from stagecast.settings import Settings
from stagecast.tokens import KeysFile

_log = structlog.get_logger("prefetch")


def run_prefetch(settings: Settings, http: str | socket.socket, *, key_file: Path | None) -> None:
    """Serves the stage-map API at `http` (HOST:PORT, or a socket that listens) and works on campaigns until SIGTERM or SIGINT.

    `key_file` holds an API key of scope `service`, for pushing to hosts; without one nothing is pushed and devices pull. Raises
    KeysError, StoreUnavailable, LogUnavailable, OSError when it can't start.
    """
    key = key_file.read_text().strip() if key_file else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_told(settings, http, key))


async def _until_told(settings: Settings, http: str | socket.socket, key: str | None) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, told.set)
    async with prefetch_service(settings, http, key=key) as url:
        _log.info("prefetch is up", http=url, pushes=key is not None)
        await told.wait()


@contextlib.asynccontextmanager
async def prefetch_service(
    settings: Settings, http: str | socket.socket, *, key: str | None, clock: Clock | None = None
) -> AsyncIterator[str]:
    """The service while the context is open; yields its base URL."""
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(settings.store_url, settings.store_password)
        stack.push_async_callback(store.close)
        log = await open_log(settings.log_url, settings.log_password)
        stack.push_async_callback(log.close)
        parts = Parts(store, log, clock, random.Random(), settings.map_rate, Metrics())
        pusher = Pusher(store, key, clock, parts.rng, parts.metrics)
        stack.push_async_callback(pusher.close)
        revoked = Revocations(store, log)
        await revoked.load()
        runner = Runner(parts, pusher)
        stack.push_async_callback(runner.close)
        await stack.enter_async_context(_background(revoked.follow()))
        await stack.enter_async_context(_background(runner.run()))
        pull = Pull(parts, Admission(settings.map_rate, clock.monotonic()))
        api = Api(parts, pull, runner, KeysFile(settings.keys_file), revoked)
        yield await stack.enter_async_context(serving(api.app(Origins(settings.origins)), http))


@contextlib.asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
