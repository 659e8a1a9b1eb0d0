"""What a test holds of a server: where it is, and what can be done to it."""

import random
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

HOST = "127.0.0.1"

START_TIMEOUT = 120.0
"""Seconds. A first start takes 2 to 12 s on two busy cores."""
END_TIMEOUT = 60.0
"""Seconds. Cassandra takes 5 s from SIGTERM after writes."""


class Process(Protocol):
    """What carries a server: a JVM of this machine or a container."""

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it does not run."""
        ...

    def launch(self) -> None:
        """Starts it, with the data it had. Does not wait until it answers."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """No effect on one that does not run."""
        ...

    def output(self) -> str:
        """What it has printed."""
        ...

    def remove(self) -> None:
        """Frees what it holds once it has ended."""
        ...


class Probe(NamedTuple):
    """One request of the server's own protocol, and what tells that an answer is one."""

    request: bytes
    answered: Callable[[bytes], bool]

    def answers(self, port: int, tls: Path | None, timeout: float = 1.0) -> bool:
        """Whether the server on `port` answers; over TLS if `tls` (the authority's certificate) is given."""
        try:
            with socket.create_connection((HOST, port), timeout) as plain:
                conn = (
                    plain
                    if tls is None
                    else ssl.create_default_context(cafile=tls).wrap_socket(plain, server_hostname=HOST)
                )
                with conn:
                    conn.settimeout(timeout)
                    conn.sendall(self.request)
                    return self.answered(conn.recv(64))
        except OSError:
            return False


class Server:
    """One server, on loopback. Who kills or stops it in a shared fixture starts or continues it again in a `finally`."""

    host = HOST

    def __init__(self, process: Process, port: int, url: str, probe: Probe, tls: Path | None = None) -> None:
        self.port = port
        self.url = url
        self._process = process
        self._probe = probe
        self._tls = tls

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it does not run."""
        return self._process.pid

    def start(self) -> None:
        """Starts it if it does not run, with the data it had, and returns once it answers. Raises RuntimeError if it won't."""
        if self.pid is None:
            self._process.launch()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._probe.answers(self.port, self._tls):
            if self.pid is None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.url} did not come up:\n{self._process.output()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._end(signal.SIGKILL)

    def term(self) -> None:
        """SIGTERM, and waits until it is gone (up to 60 s)."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        self._process.signal(number)
        self._process.signal(signal.SIGCONT)  # a stopped process would keep SIGTERM for later
        deadline = time.monotonic() + END_TIMEOUT
        while self.pid is not None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.url} did not end")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGSTOP, and waits until every thread has stopped: it is silent with its sockets open, as in a network partition."""
        self._process.signal(signal.SIGSTOP)
        deadline = time.monotonic() + END_TIMEOUT
        while not _stopped(self.pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.url} did not stop")
            time.sleep(0.005)

    def cont(self) -> None:
        """SIGCONT, after `stop`."""
        self._process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it for good."""
        self.kill()
        self._process.remove()


def _stopped(pid: int | None) -> bool:
    """Whether all of a process's threads are stopped: the kernel tells a busy process's threads one after the other."""
    if pid is None:
        return True
    states = (
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    )
    return all(state in "tT" for state in states)


def free_ports(count: int) -> list[int]:
    """Different loopback ports nobody listens on now.

    Below the range the kernel gives to outgoing connections: a client that tries again and again to reach a killed server
    could otherwise be given the server's own port and connect to itself, and the server could not come back.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in ports and _binds(probe, port):
                ports.append(port)
    return ports


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((HOST, port))
    except OSError:
        return False
    return True
