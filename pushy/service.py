"""A host of the pushy tier in production: one feed and N workers under a supervisor."""

import os
import socket
import sys
from pathlib import Path

import uvloop

from kv import open_store
from pushy.feed import run_feed
from pushy.supervisor import Child, Supervisor, check
from pushy.worker import run_worker
from stagecast.http import listen, parse_address, why_not
from stagecast.log import open_log
from stagecast.scratch import scratch_folder
from stagecast.settings import Settings
from stagecast.tokens import load_keys

ROADS_TIMEOUT = 25.0
"""Seconds that log and store get to answer at the start."""
LINK = "link.sock"


class CannotStart(Exception):
    """The text says what is in the way, in one line."""


def serve_host(settings: Settings, ws: str, admin: str, workers: int, *, echo: bool = False) -> int:
    """Serves devices at `ws` and the admin port at `admin` (both HOST:PORT) until SIGTERM or SIGINT; the exit status.

    The first SIGTERM drains the host at `settings.drain_rate` connections per second, and it ends when the last one is gone; a
    second SIGTERM, or SIGINT, ends it within 2 s. Without a start: one line on stderr, and status 2.
    """
    try:
        load_keys(settings.keys_file)
        reserved = reserve(ws)
        listening = _listen(admin)
        check_roads(settings)
    except (CannotStart, ValueError) as error:
        hint = "" if settings.keys_file.exists() else "; `stagecast key device` makes one"
        print(f"pushy: {error}{hint}", file=sys.stderr)
        return 2
    flag = os.eventfd(0)
    with scratch_folder() as folder, reserved, listening:
        host, port = reserved.getsockname()[:2]
        children = host_children(settings, (host, port), listening, folder / LINK, workers, flag, echo=echo)
        return Supervisor(children, drain=lambda: os.eventfd_write(flag, 1)).run()


def host_children(
    settings: Settings,
    ws: tuple[str, int],
    admin: socket.socket,
    link: Path,
    workers: int,
    drain_flag: int | None = None,
    *,
    echo: bool = False,
) -> list[Child]:
    """The processes of one host: `feed`, `worker-0` … `worker-N`. `link` is the Unix socket between them. `echo` adds the route
    /echo for conformance tests."""
    feed = Child("feed", lambda: run_feed(settings, admin, link, workers, drain_flag), phase=1)
    return [feed, *(_worker(settings, i, ws, link, echo) for i in range(workers))]


def _worker(settings: Settings, index: int, ws: tuple[str, int], link: Path, echo: bool) -> Child:
    return Child(f"worker-{index}", lambda: run_worker(settings, index, ws, link, echo=echo), phase=0)


def reserve(ws: str) -> socket.socket:
    """The devices' address, bound and not listening: nobody else gets the port while workers come and go, and port 0 becomes a
    number. Workers bind it too, by SO_REUSEPORT. Raises CannotStart if anybody listens there, another host included."""
    try:
        with listen(ws) as probe:  # without SO_REUSEPORT, which would share the port with another host in silence
            host, port = probe.getsockname()[:2]
        reserved = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
    except (OSError, ValueError) as error:
        raise CannotStart(f"--ws {ws}: {why_not(error)}") from error
    return reserved


def _listen(admin: str) -> socket.socket:
    try:
        parse_address(admin)
        return listen(admin)
    except (OSError, ValueError) as error:
        raise CannotStart(f"--admin {admin}: {why_not(error)}") from error


def check_roads(settings: Settings) -> None:
    """Opens log and store once, in a process of its own. Raises CannotStart naming which does not answer."""
    for name, url, run in (
        ("log", settings.log_url, lambda: uvloop.run(_try_log(settings))),
        ("store", settings.store_url, lambda: uvloop.run(_try_store(settings))),
    ):
        problem = check(run, ROADS_TIMEOUT)
        if problem is not None:
            raise CannotStart(f"{name} {url}: {problem}")


async def _try_log(settings: Settings) -> None:
    await (await open_log(settings.log_url, settings.log_password)).close()


async def _try_store(settings: Settings) -> None:
    await (await open_store(settings.store_url, settings.store_password)).close()
