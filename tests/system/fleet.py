"""A small fleet of real processes on one log and store: a broadcaster, hosts of the pushy tier, and a balancer before them."""

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from stagecast.cli.credentials import create_api_key
from stagecast.client import Device
from stagecast.settings import Settings
from stagecast.tokens import create_keys, load_keys
from tests.system.running import CLI, until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Host:
    """`stagecast pushy` at an address of its own, which it keeps when it is started again."""

    def __init__(self, name: str, data: Path, flags: tuple[str, ...]) -> None:
        self.name = name
        self.ws = ("127.0.0.1", free_port())
        self.admin = f"http://127.0.0.1:{free_port()}"
        self.healthy = False
        """As the balancer last saw."""
        self.accepted: list[float] = []
        """When the balancer gave it a connection (monotonic)."""
        self._command = [
            *CLI, "pushy", "--data", str(data), "--host", name, "--ws", f"{self.ws[0]}:{self.ws[1]}",
            "--admin", self.admin.removeprefix("http://"), *flags,
        ]  # fmt: skip
        self.process: asyncio.subprocess.Process

    async def start(self, log: Path) -> None:
        self.process = await started(self._command, log)

    def busiest(self, window: float) -> int:
        """Most connections given to it within any `window` seconds."""
        times = self.accepted
        return max((sum(start <= one < start + window for one in times) for start in times), default=0)


async def started(command: list[str], log: Path) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECAST_")}
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out, env=environment)


class _Half(asyncio.Protocol):
    """One side of a connection through the balancer: passes on what it hears, and its end."""

    def __init__(self, other: asyncio.Transport | None = None) -> None:
        self.other = other
        self.early = b""

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class Fleet:
    """The hosts in turn, as a load balancer goes by their readiness."""

    def __init__(self, data: Path, key: str, http: str, hosts: list[Host]) -> None:
        self.data, self.key, self.http, self.hosts = data, key, http, hosts
        self.log = data / "processes.log"
        self.api = httpx.AsyncClient(
            base_url=http, headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False
        )
        self.ws = ""
        self._keys = load_keys(data / "keys.json")
        self._turn = 0
        self._passing: set[asyncio.Task[None]] = set()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        got = await self.api.request(method, path, json=body)
        assert got.is_success, f"{method} {path}: {got.status_code} {got.text}"
        return got.json()

    async def metric(self, host: Host, name: str) -> float:
        """Sum over labels; `name` may have some."""
        text = (await self.api.get(f"{host.admin}/metrics")).text
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", name + "{"))
        )

    async def ready(self, host: Host) -> bool:
        assert host.process.returncode is None, self.log.read_text()
        return await self.answers(host.admin)

    async def answers(self, base: str) -> bool:
        """Whether the service at this URL is ready."""
        with contextlib.suppress(httpx.TransportError):
            return (await self.api.get(f"{base}/readyz")).is_success
        return False

    def device(self, name: str, *events: str) -> Device:
        token = self._keys.mint(f"m-{name}", name, list(events), 3600, time.time(), random.Random())
        return Device(self.ws, token, device=name, events=list(events))

    @contextlib.asynccontextmanager
    async def devices(self, count: int, rate: float, *events: str) -> AsyncIterator[list[Device]]:
        """So many, coming in at `rate` per second."""
        async with contextlib.AsyncExitStack() as stack:
            made = []
            for i in range(count):
                made.append(await stack.enter_async_context(self.device(f"d{i}", *events)))
                await asyncio.sleep(1 / rate)
            await until(lambda: all(device.connected for device in made), f"{count} devices are connected")
            yield made

    # the balancer

    def _client(self) -> asyncio.Protocol:
        fleet = self

        class Client(_Half):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                task = asyncio.get_running_loop().create_task(fleet._pass_on(self, transport))
                fleet._passing.add(task)
                task.add_done_callback(fleet._passing.discard)

        return Client()

    async def _pass_on(self, client: _Half, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        for _ in self.hosts:
            self._turn += 1
            host = self.hosts[self._turn % len(self.hosts)]
            if not host.healthy:
                continue
            try:
                back, _ = await loop.create_connection(lambda: _Half(transport), *host.ws)
            except ConnectionError:
                continue
            host.accepted.append(time.monotonic())
            client.other = back
            back.write(client.early)
            if transport.is_closing():
                back.close()
            return
        transport.close()

    async def look(self) -> None:
        """Goes by /readyz, for ever."""
        while True:
            for host in self.hosts:
                with contextlib.suppress(httpx.TransportError):
                    host.healthy = (await self.api.get(f"{host.admin}/readyz")).is_success
                    continue
                host.healthy = False
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def fleet(data: Path, hosts: int, *flags: str) -> AsyncIterator[Fleet]:
    """Running, the broadcaster and all hosts ready. `flags` are the hosts'."""
    data.mkdir()  # noqa: ASYNC240 - a test's own folder
    create_keys(data / "keys.json")
    key = await create_api_key(Settings(data=str(data)), "operator")
    http = f"127.0.0.1:{free_port()}"
    made = Fleet(data, key, f"http://{http}", [Host(f"h{i}", data, flags) for i in range(hosts)])
    broadcaster = await started([*CLI, "broadcaster", "--data", str(data), "--http", http], made.log)
    server = await asyncio.get_running_loop().create_server(made._client, "127.0.0.1", 0)
    made.ws = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
    looking = asyncio.create_task(made.look())
    try:
        for host in made.hosts:
            await host.start(made.log)
        for host in made.hosts:
            await until(lambda host=host: made.ready(host), f"{host.name} is ready")  # type: ignore[misc]
        await until(lambda: made.answers(made.http), "the broadcaster is ready")
        yield made
    finally:
        looking.cancel()
        server.close()
        for process in (broadcaster, *(host.process for host in made.hosts)):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await made.api.aclose()
