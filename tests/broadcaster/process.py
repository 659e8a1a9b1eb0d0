"""A broadcaster as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

STAGECAST = str(Path(sys.executable).parent / "stagecast")


@dataclass
class Running:
    """Where it answers, and the process."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, method: str, path: str, key: str = "", body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(method, self.url + path, json=body, headers=headers, timeout=10, trust_env=False)

    def until_ready(self, ready: bool = True) -> dict[str, Any]:
        """The readiness, once it is what is wanted; fails after 15 s."""
        deadline = time.monotonic() + 15
        while True:
            said: dict[str, Any] = self.ask("GET", "/readyz").json()
            if said["ready"] == ready:
                return said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def stop(self) -> float:
        """SIGTERM; how long it took to end, in s."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        return time.monotonic() - began


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("STAGECAST_")}


@contextmanager
def broadcaster(data: Path, *options: str) -> Iterator[Running]:
    """`stagecast broadcaster` on the embedded parts in `data`, at a port of its choice."""
    command = [STAGECAST, "broadcaster", "--http", "127.0.0.1:0", "--data", str(data), *options]
    output = data / f"broadcaster-{time.monotonic_ns()}.log"
    with output.open("w") as log:
        process = subprocess.Popen(command, stderr=log, env=environment(), text=True, cwd=data)
    try:
        yield Running(_url(output, process), process)
    finally:
        process.kill()
        process.wait(10)


def _url(output: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        for line in output.read_text().splitlines():
            if '"url"' in line:
                url: str = json.loads(line)["url"]
                return url
        time.sleep(0.05)
    raise AssertionError(f"the broadcaster did not start: {output.read_text()}")


def operator_key(data: Path) -> str:
    """A new operator's key, as the command line makes it; also where `--data` finds it."""
    command = [STAGECAST, "key", "create", "--scope", "operator", "--data", str(data)]
    key = subprocess.run(command, env=environment(), text=True, stdout=subprocess.PIPE, check=True).stdout.strip()
    (data / "operator.key").write_text(key)
    return key
