"""A whole Stagecast of real processes for tests: `stagecast dev`, its API, its devices, and what can be done to it."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from stagecast.client import Device
from stagecast.tokens import load_keys

CLI = [sys.executable, "-m", "stagecast.cli"]
CONVERGE = 30.0
"""Seconds within which every device must be where it belongs: the cadence is 5 s, a reconnect 5 s, and the machine is small."""


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str, within: float = CONVERGE) -> None:
    """Waits for a condition. Fails naming it."""
    deadline = time.monotonic() + within
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.02)


class Running:
    """A `stagecast dev` and its operator."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any], log: Path) -> None:
        self.process = process
        self.data = Path(ready["data"])
        self.ws: str = ready["ws"]
        self.admin: str = ready["admin"]
        self.http: str = ready["http"]
        self.output = log
        self._key = (self.data / "operator.key").read_text().strip()
        self._keys = load_keys(self.data / "keys.json")
        self.api = httpx.AsyncClient(
            base_url=self.http, headers={"Authorization": f"Bearer {self._key}"}, timeout=20, trust_env=False
        )

    @property
    def pids(self) -> dict[str, Any]:
        """As of now: children that were replaced have new ones."""
        pids: dict[str, Any] = json.loads((self.data / "dev.json").read_text())["pids"]
        return pids

    def token(self, member: str, device: str, *events: str) -> str:
        return self._keys.mint(member, device, list(events), 3600, time.time(), random.Random())

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        got = await self.api.request(method, path, json=body, headers=headers)
        assert got.is_success, f"{method} {path}: {got.status_code} {got.text}"
        return got.json()

    async def create(self, event: str, *stages: str | dict[str, Any]) -> Any:
        plan = [{"stage": one} if isinstance(one, str) else one for one in stages]
        return await self.call("POST", "/v1/events", {"id": event, "title": event.title(), "plan": plan})

    async def go(self, event: str, stage: str, **more: Any) -> Any:
        """A transition as a careful producer asks for it: under a key of its own, again if the answer is lost or 503."""
        body, key = {"stage": stage, "urgent": True, **more}, {"Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + CONVERGE
        while True:
            with contextlib.suppress(httpx.TransportError):
                got = await self.api.post(f"/v1/events/{event}/transitions", json=body, headers=key)
                assert got.is_success or got.status_code == 503, got.text
                if got.is_success:
                    return got.json()
            assert time.monotonic() < deadline, "the broadcaster does not answer"
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def devices(self, count: int, *events: str) -> AsyncIterator[list[Device]]:
        """So many devices, connected."""
        async with contextlib.AsyncExitStack() as stack:
            made = [
                Device(self.ws, self.token(f"m-{i}", f"d-{i}", *events), device=f"d-{i}", events=list(events))
                for i in range(count)
            ]
            for device in made:
                await stack.enter_async_context(device)
            await until(lambda: all(device.connected for device in made), f"{count} devices are connected")
            yield made

    async def metric(self, name: str) -> float:
        """Sum of a metric over its labels, from the admin port. A worker's are there once it has told them, each second."""
        deadline = time.monotonic() + CONVERGE
        while True:
            text = (await self.api.get(f"{self.admin}/metrics")).text
            if lines := [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]:
                return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
            assert time.monotonic() < deadline, f"no metric {name} in:\n{text}"
            await asyncio.sleep(0.1)

    async def kill(self, name: str) -> None:
        """SIGKILL of a child (worker: the first one), and waits until it was replaced and all answer."""
        before = self.pids
        old: int = before["workers"][0] if name == "worker" else before[name]
        os.kill(old, signal.SIGKILL)

        def replaced() -> bool:
            now = self.pids
            alive = [now.get("broadcaster"), now.get("prefetch"), now.get("feed"), *now["workers"]]
            return old not in alive and None not in alive and len(now["workers"]) == len(before["workers"])

        await until(replaced, f"{name} is replaced")
        await until(self._ready, "all answer again")

    async def _ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return all([(await self.api.get(f"{base}/readyz")).is_success for base in (self.http, self.admin)])
        return False

    async def stop(self) -> float:
        """SIGTERM. Seconds until it was gone."""
        await self.api.aclose()
        if self.process.returncode is not None:
            return 0.0
        start = time.monotonic()
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 15)
        return time.monotonic() - start


@contextlib.asynccontextmanager
async def running(data: Path, *options: str, **more: str) -> AsyncIterator[Running]:
    """A `stagecast dev` on free ports, with its data in `data`; `more` goes to its environment, and nothing else that is
    Stagecast's."""
    ports = [flag for name in ("--http", "--ws", "--admin") for flag in (name, "127.0.0.1:0")]
    log = data.with_suffix(".log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECAST_")} | more
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *CLI, "dev", "--json", "--data", str(data), *ports, *options, stdout=asyncio.subprocess.PIPE, stderr=out,
            env=environment,
        )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line, f"it ended before it was ready:\n{log.read_text()}"
    stage = Running(process, json.loads(line), log)
    try:
        yield stage
    finally:
        await stage.stop()
