"""`stagecast dev`: every tier on this machine, as one supervisor and its children, on embedded parts unless told otherwise."""

import contextlib
import fcntl
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from broadcaster.service import run_broadcaster
from prefetch.service import run_prefetch
from pushy.service import CannotStart, host_children, reserve
from pushy.supervisor import Child, Supervisor
from stagecast.cli.api import DEV_FILE, OPERATOR_KEY, spelt
from stagecast.cli.forward import Forward
from stagecast.cli.logs import log_to_stderr
from stagecast.cli.options import listening, settings_options, wants_echo
from stagecast.cli.viewer import Viewer, below
from stagecast.http import base_url
from stagecast.scratch import scratch_folder
from stagecast.settings import SERVICE_KEY, Settings

STAGE_MAP_PATHS = ("/v1/stage-maps", "/v1/campaigns")
"""Served by prefetch; under `dev` reached on the broadcaster's port too."""
DEMO_PATH = "/demo"


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
    log_to_stderr()
    with _folder(settings.data_dir), _addresses(http, ws, admin) as addresses:
        raise SystemExit(_run(_completed(settings, addresses), addresses, workers, as_json))


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The data folder, this dev's own until the end."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = (folder / "lock").open("w")
    except OSError as error:
        raise click.ClickException(f"--data {folder}: {error.strerror}; choose another folder") from error
    with opened as lock:
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
        try:
            held = stack.enter_context(reserve(ws))
        except CannotStart as error:
            raise click.ClickException(f"{error}; choose another address") from error
        http_, maps, admin_ = (
            stack.enter_context(listening(option, address))
            for option, address in (("--http", http), ("--http", "127.0.0.1:0"), ("--admin", admin))
        )
        yield Addresses(http_, maps, admin_, held.getsockname()[:2])


def _completed(settings: Settings, addresses: Addresses) -> Settings:
    """The settings with what only a dev knows: its own addresses. Pages of its HTTP address may hold sockets."""
    port = addresses.http.getsockname()[1]
    own = [base_url(addresses.http), f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    return msgspec.structs.replace(
        settings,
        maps=settings.maps or base_url(addresses.http),
        device_url=settings.device_url or addresses.ws_url,
        advertise=settings.advertise or base_url(addresses.admin),
        origins=list(dict.fromkeys([*settings.origins, *own])),
    )


def _run(settings: Settings, addresses: Addresses, workers: int, as_json: bool) -> int:
    made = os.fork()  # a store may start threads, and the parent of workers must have none
    if made == 0:
        os._exit(_make_credentials(settings))
    if os.waitstatus_to_exitcode(os.waitpid(made, 0)[1]):
        return 1
    with scratch_folder() as folder:
        announcement = _Announcement(settings, addresses, as_json)
        children = _children(settings, addresses, workers, folder / "link")
        announcement.supervisor = Supervisor(children, tick=announcement.tick)
        return announcement.supervisor.run()


def _children(settings: Settings, addresses: Addresses, workers: int, link: Path) -> list[Child]:
    def broadcaster() -> None:
        neighbours = below(DEMO_PATH, Viewer(settings, addresses.ws_url).app(), Forward(base_url(addresses.maps)))
        run_broadcaster(settings, addresses.http, forward=neighbours, forwarded=(*STAGE_MAP_PATHS, DEMO_PATH))

    def prefetch() -> None:
        run_prefetch(settings, addresses.maps, key_file=settings.data_dir / SERVICE_KEY)

    host = host_children(settings, addresses.ws, addresses.admin, link, workers, echo=wants_echo())
    return [Child("broadcaster", broadcaster), Child("prefetch", prefetch), *host]


def _make_credentials(settings: Settings) -> int:
    """What a dev needs of keys, made once: the device token keys, an operator's and a service's API key. What can't be had, or
    is there and no good, is said in one line, before anything starts that would try again for ever."""
    import asyncio

    from kv import StoreError
    from stagecast.cli.credentials import create_api_key
    from stagecast.log import LogError, open_log
    from stagecast.tokens import create_keys, load_keys

    async def open_and_close_log() -> None:
        await (await open_log(settings.log_url, settings.log_password)).close()

    what = str(settings.keys_file)
    try:
        create_keys(settings.keys_file)
        load_keys(settings.keys_file)
        what = settings.log_url
        asyncio.run(open_and_close_log())
        what = settings.store_url
        for name, scope in ((OPERATOR_KEY, "operator"), (SERVICE_KEY, "service")):
            file = settings.data_dir / name
            if not file.exists():
                text = asyncio.run(create_api_key(settings, scope))
                with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
                    out.write(text + "\n")
    except (StoreError, LogError, ValueError, OSError) as error:
        print(f"Error: {what}: {str(error).removeprefix(what + ': ')}", file=sys.stderr)
        return 1
    return 0


class _Announcement:
    """Says once that everything answers, and keeps the dev file's pids true when a child was replaced. `tick` is for a
    supervisor's loop."""

    supervisor: Supervisor

    def __init__(self, settings: Settings, addresses: Addresses, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._addresses = addresses
        self._waiting = {
            "the HTTP API": base_url(addresses.http),
            "the stage-map API": base_url(addresses.maps),
            "the host": base_url(addresses.admin),
        }
        self._due = time.monotonic()
        self._grumble = self._due + 10
        self._restarts = 0

    def tick(self) -> bool:
        if self._waiting:
            self._look(time.monotonic())
        elif self.supervisor.restarts != self._restarts:
            self._write()
        return False

    def _look(self, now: float) -> None:
        if now < self._due:
            return
        self._waiting = {name: base for name, base in self._waiting.items() if not _is_ready(base)}
        self._due = time.monotonic() + 0.05
        if not self._waiting:
            self._write()
            self._say()
        elif now > self._grumble:
            self._grumble = now + 10
            click.echo(f"still waiting for {', '.join(self._waiting)}", err=True)

    def _write(self) -> None:
        self._restarts = self.supervisor.restarts
        file = self._settings.data_dir / DEV_FILE
        new = file.with_suffix(".new")
        new.write_text(json.dumps({**self._said(), "maps": base_url(self._addresses.maps)}) + "\n")
        new.replace(file)

    def _said(self) -> dict[str, Any]:
        pids = dict(self.supervisor.pids)
        workers = [pids.pop(name) for name in list(pids) if name.startswith("worker-")]
        return {
            "ready": True,
            "http": base_url(self._addresses.http),
            "ws": self._addresses.ws_url,
            "admin": base_url(self._addresses.admin),
            "data": str(self._settings.data_dir.absolute()),
            "pids": {"supervisor": os.getpid(), **pids, "workers": workers},
        }

    def _say(self) -> None:
        said = self._said()
        if self._as_json:
            click.echo(json.dumps(said))
            return
        stagecast, where = spelt(self._settings.data_dir)
        click.echo(f"""\
Stagecast is up.
  HTTP     {said["http"]}   (console: /console/, operator's key: {self._settings.data_dir / OPERATOR_KEY})
  devices  {said["ws"]}
  admin    {said["admin"]}
Try, in another terminal:
  {stagecast} event create{where} final --stages upcoming,live,ended
  {stagecast} device watch{where} final
  {stagecast} event go{where} final live
Ctrl-C stops it.""")


def _is_ready(base: str) -> bool:
    host, port = base.removeprefix("http://").rsplit(":", 1)
    asking = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=0.3)
    try:
        asking.request("GET", "/readyz")
        return asking.getresponse().status == 200
    except OSError:
        return False
    finally:
        asking.close()
