"""`stagecast dev`: every tier on this machine, as one supervisor and its children, on embedded parts unless told otherwise."""

import contextlib
import fcntl
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from stagecast.cli.api import DEV_FILE, OPERATOR_KEY
from stagecast.cli.options import settings_options
from stagecast.http import base_url, listen
from stagecast.settings import Settings

SERVICE_KEY = "service.key"
STAGE_MAP_PATHS = ("/v1/stage-maps", "/v1/campaigns")
"""Served by prefetch; under `dev` reached on the broadcaster's port too."""


@dataclass(frozen=True)
class Addresses:
    """Where a dev listens. The HTTP sockets listen from the start: whoever calls while a child is replaced waits for the next."""

    http: socket.socket
    maps: socket.socket
    admin: socket.socket
    ws: tuple[str, int]

    @property
    def ws_url(self) -> str:
        host, port = self.ws
        return f"ws://[{host}]:{port}/ws" if ":" in host else f"ws://{host}:{port}/ws"


@click.command()
@click.option("--http", default="127.0.0.1:8080", show_default=True, help="HOST:PORT of the HTTP APIs; port 0: any")
@click.option("--ws", default="127.0.0.1:8081", show_default=True, help="HOST:PORT of devices")
@click.option("--admin", default="127.0.0.1:8082", show_default=True, help="HOST:PORT of the host's admin port")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="worker processes")
@click.option("--json", "as_json", is_flag=True, help="one line of JSON on stdout once everything answers")
@settings_options()
def dev(settings: Settings, http: str, ws: str, admin: str, workers: int, as_json: bool) -> None:
    """Run every tier here: broadcaster, stage maps, one host of N workers. Ctrl-C stops it.

    Data, keys and an operator's API key are kept in --data; the other commands find it there.
    """
    from stagecast.cli.logs import log_to_stderr

    log_to_stderr()
    with _folder(settings.data_dir), _addresses(http, ws, admin) as addresses:
        raise SystemExit(_run(_completed(settings, addresses), addresses, workers, as_json))


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The data folder, this dev's own until the end."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise click.ClickException(
                f"a `stagecast dev` already runs in {folder}; stop it, or choose another --data"
            ) from error
        try:
            yield
        finally:
            (folder / DEV_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _addresses(http: str, ws: str, admin: str) -> Iterator[Addresses]:
    with contextlib.ExitStack() as stack:

        def bound(option: str, address: str, make: Callable[[str], socket.socket]) -> socket.socket:
            try:
                return stack.enter_context(make(address))
            except ValueError as error:
                raise click.UsageError(f"{option}: {error}") from error
            except OSError as error:
                raise click.ClickException(f"{option} {address}: {error.strerror}; choose another address") from error

        from pushy.worker import reserve

        yield Addresses(
            bound("--http", http, listen),
            bound("--http", "127.0.0.1:0", listen),
            bound("--admin", admin, listen),
            bound("--ws", ws, reserve).getsockname()[:2],
        )


def _completed(settings: Settings, addresses: Addresses) -> Settings:
    """The settings with what only a dev knows: its own addresses. Pages of its HTTP address may hold sockets."""
    port = addresses.http.getsockname()[1]
    own = [base_url(addresses.http), f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    return msgspec.structs.replace(
        settings,
        maps=settings.maps or base_url(addresses.http),
        advertise=settings.advertise or base_url(addresses.admin),
        origins=list(dict.fromkeys([*settings.origins, *own])),
    )


def _run(settings: Settings, addresses: Addresses, workers: int, as_json: bool) -> int:
    from pushy.supervisor import Supervisor

    made = os.fork()  # a store may start threads, and the parent of workers must have none
    if made == 0:
        os._exit(_make_credentials(settings))
    if os.waitstatus_to_exitcode(os.waitpid(made, 0)[1]):
        return 1
    announce = _Announcement(settings, addresses, as_json)
    return Supervisor(_children(settings, addresses, workers), tick=announce.tick).run()


def _make_credentials(settings: Settings) -> int:
    """What a dev needs of keys, made once: the device token keys, an operator's and a service's API key."""
    import asyncio

    from kv import StoreError
    from stagecast.cli.credentials import create_api_key
    from stagecast.tokens import create_keys

    try:
        create_keys(settings.keys_file)
        for name, scope in ((OPERATOR_KEY, "operator"), (SERVICE_KEY, "service")):
            file = settings.data_dir / name
            if not file.exists():
                text = asyncio.run(create_api_key(settings, scope))
                with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
                    out.write(text + "\n")
    except (StoreError, ValueError, OSError) as error:
        print(f"Error: {settings.store_url}: {error}", file=sys.stderr)
        return 1
    return 0
