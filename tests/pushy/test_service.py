"""A host of the pushy tier as its own processes: what keeps it from starting, and how it ends."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from pushy.service import CannotStart, reserve
from stagecast.tokens import create_keys, load_keys

pytestmark = pytest.mark.system
STARTS = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def command(folder: Path, ws: int, admin: int, *options: str) -> list[str]:
    run = [sys.executable, "-c", "from stagecast.cli import main; main()", "pushy", "--data", str(folder)]
    return [*run, "--ws", f"127.0.0.1:{ws}", "--admin", f"127.0.0.1:{admin}", *options]


class RunningHost:
    """A host with its devices."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.devices = ExitStack()
        self.ws, self.admin = free_port(), free_port()
        create_keys(folder / "keys.json")
        self.process = subprocess.Popen(command(folder, self.ws, self.admin, *options), stderr=subprocess.PIPE)

    def until_ready(self, workers: int) -> None:
        end = time.monotonic() + STARTS
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()[1].decode()
            try:
                answer = httpx.get(f"http://127.0.0.1:{self.admin}/readyz", timeout=1.0)
                if answer.status_code == 200 and answer.json()["workers"] == workers:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError("not ready")

    def until_draining(self) -> None:
        end = time.monotonic() + STARTS
        while httpx.get(f"http://127.0.0.1:{self.admin}/readyz").json()["reasons"] != ["draining"]:
            assert time.monotonic() < end
            time.sleep(0.02)

    def device(self, name: str) -> ClientConnection:
        """A device that has been welcomed."""
        keys, rng = load_keys(self.folder / "keys.json"), random.Random(1)
        token = keys.mint("m1", name, ["*"], 3600.0, time.time(), rng)
        end = time.monotonic() + STARTS
        while (device := self._connected()) is None:  # workers listen a moment after the host is ready
            assert time.monotonic() < end
            time.sleep(0.02)
        device.send(json.dumps({"t": "hello", "token": token, "device": name}))
        assert json.loads(device.recv(10))["t"] == "welcome"
        return device

    def _connected(self) -> ClientConnection | None:
        url = f"ws://127.0.0.1:{self.ws}/ws"
        try:
            return self.devices.enter_context(
                connect(url, subprotocols=[Subprotocol("stagecast.v1")], compression=None)
            )
        except ConnectionRefusedError:
            return None

    def children(self) -> dict[str, int]:
        """The processes of this host, by what the kernel says."""
        return {
            entry: int(entry)
            for entry in os.listdir("/proc")
            if entry.isdigit() and _parent(int(entry)) == self.process.pid
        }


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


@contextmanager
def host(folder: Path, *options: str) -> Iterator[RunningHost]:
    running = RunningHost(folder, *options)
    try:
        with running.devices:
            yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=10)


def closing(device: ClientConnection) -> tuple[list[str], int]:
    """The types of what a device still gets, and the code it is closed with."""
    seen: list[str] = []
    try:
        while True:
            seen.append(json.loads(device.recv(10))["t"])
    except ConnectionClosed as closed:
        return seen, closed.rcvd.code if closed.rcvd else 1006


def test_sigterm_drains_and_then_the_host_ends(tmp_path: Path) -> None:
    """Devices hear goaway and 4000, at the drain rate; the host ends with status 0 when it is empty."""
    with host(tmp_path, "--workers", "2", "--drain-rate", "4") as running:
        running.until_ready(2)
        devices = [running.device(f"d{i}") for i in range(4)]
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        for device in devices:
            assert closing(device) == (["goaway"], 4000)
        assert time.monotonic() - began > 0.2  # not all at once
        assert running.process.wait(10) == 0


def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    """The rest is closed with 1001, and every process is gone within 2 s."""
    with host(tmp_path, "--drain-rate", "0.01") as running:
        running.until_ready(1)
        devices = [running.device(f"d{i}") for i in range(3)]
        children = running.children()
        assert len(children) == 2
        running.process.send_signal(signal.SIGTERM)
        running.until_draining()
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        codes = [closing(device)[1] for device in devices]
        assert running.process.wait(10) == 0
        assert time.monotonic() - began < 2.0
        assert sorted(codes) in ([1001, 1001, 1001], [1001, 1001, 4000])  # the drain had just begun
        assert not [pid for pid in children.values() if _parent(pid) is not None]


def test_a_killed_feed_keeps_the_connections(tmp_path: Path) -> None:
    """SIGKILL of the feed: devices stay connected, a new feed comes, and the workers join it."""
    with host(tmp_path) as running:
        running.until_ready(1)
        device = running.device("d1")
        before = running.children()
        # The feed is the one that listens at the admin port's requests; the worker holds the device. Kill the first forked.
        os.kill(min(before.values()), signal.SIGKILL)
        end = time.monotonic() + STARTS
        while len(running.children()) < 2 or running.children() == before:
            assert time.monotonic() < end
            time.sleep(0.02)
        running.until_ready(1)
        device.send(json.dumps({"t": "ping", "c": 1}))
        assert json.loads(device.recv(10))["t"] == "pong"


@pytest.mark.parametrize("taken", ["ws", "admin"])
def test_an_address_in_use_is_one_line(tmp_path: Path, taken: str) -> None:
    """Status 2, and a line that names the option and the address."""
    create_keys(tmp_path / "keys.json")
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"ws": free_port(), "admin": free_port()} | {taken: other.getsockname()[1]}
        assert refusal(tmp_path, **ports) == f"pushy: --{taken} 127.0.0.1:{ports[taken]}: Address already in use"


def test_no_keys_file_is_one_line(tmp_path: Path) -> None:
    """Named with its path, and what makes one."""
    said = refusal(tmp_path, free_port(), free_port())
    assert said == f"pushy: {tmp_path / 'keys.json'}: No such file or directory; `stagecast key device` makes one"


def test_a_name_that_no_resolver_knows() -> None:
    """Said in the resolver's words, not as a number of another list."""
    with pytest.raises(CannotStart, match=r"^--ws nohost\.invalid:80: (?!Unknown error)[^(]+$"):
        reserve("nohost.invalid:80")


@pytest.mark.parametrize("road", ["log", "store"])
def test_a_road_that_cannot_be_opened_is_one_line(tmp_path: Path, road: str) -> None:
    """Named with its URL; another program's database is not taken for ours."""
    create_keys(tmp_path / "keys.json")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE somebody_elses (id INTEGER)")
    other.close()
    url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    said = refusal(tmp_path, free_port(), free_port(), f"--{road}", url)
    assert said.startswith(f"pushy: {road} {url}: ")


def refusal(folder: Path, ws: int, admin: int, *options: str) -> str:
    """What a host says that can't start."""
    done = subprocess.run(command(folder, ws, admin, *options), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_another_hosts_devices_are_not_shared() -> None:
    """SO_REUSEPORT would let two hosts share a port in silence: the second is refused. Port 0 becomes a number."""
    with reserve("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        assert port
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            with pytest.raises(CannotStart, match="Address already in use"):
                reserve(f"127.0.0.1:{port}")
