"""A swarm: thousands of devices in one Locust user, on the event loop's own watchers, without a greenlet each.

Measured before: a greenlet and a WebSocket library per connection take 14 KB and 105 µs a message; a watcher takes 0.5 KB and
10 µs. Figures go to Locust once a second by its own merge path.
"""

import errno
import random
import socket as plain_socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import msgspec
from gevent import monkey
from locust.stats import RequestStats

from loadtest.oracle import Ended, Order
from loadtest.wire import CLOSE, PING, PONG, TEXT, Wire, WireError, client_frame, upgrade_request
from stagecast.retry import Reconnect, StayAway
from stagecast.wire.closing import CloseCode
from stagecast.wire.frames import Goaway, State, Welcome

_socket = monkey.get_original("socket", "socket")
READ, WRITE = 1, 2
PING_SLICE = 0.25
"""Seconds between two looks at whose ping is due."""
IP_BIND_ADDRESS_NO_PORT = 24

_decoder: msgspec.json.Decoder[Welcome | State | Goaway] = msgspec.json.Decoder(Welcome | State | Goaway)


class Connection:
    """One device."""

    __slots__ = ("at", "back", "greeted", "hello", "name", "ping_due", "since", "sock", "watcher", "went_back", "wire")

    def __init__(self, name: str, hello: Callable[[Order], bytes], back: Reconnect) -> None:
        self.name = name
        self.hello = hello
        self.back = back
        self.at: Order = (0, 0)
        self.went_back = 0
        self.greeted = False
        self.since = 0.0
        self.ping_due = 0.0
        self.sock: Any = None
        self.watcher: Any = None
        self.wire = Wire()


class Swarm:
    """Connects `connections` at most `window` at once to host:port and keeps them; they come back as the protocol says.

    `sources` are local addresses to connect from in turn: over 14,000 connections of one (source, destination) the kernel's
    search for a free port becomes the bottleneck.
    """

    def __init__(
        self,
        address: tuple[str, int],
        devices: Iterable[tuple[str, Callable[[Order], bytes]]],
        window: int,
        rng: random.Random,
    ) -> None:
        self.connections = [Connection(name, hello, Reconnect(rng)) for name, hello in devices]
        self.seen: set[Order] = set()
        self.stats = RequestStats(use_response_times_cache=False)
        self.counts: Counter[str] = Counter()
        self.welcomed = 0
        self.closing = False
        self._address = address
        self._request = upgrade_request(f"{address[0]}:{address[1]}")
        self._window = window
        self._flying = 0
        self._rng = rng
        self._sources = [f"127.0.1.{1 + i}" for i in range(4)] if address[0].startswith("127.") else [""]
        self._ping = 45.0
        self._loop = gevent.get_hub().loop

    # -- driving

    def connect_all(self) -> None:
        """Returns when every connection was started; at most `window` handshakes are in flight."""
        for number, connection in enumerate(self.connections):
            while self._flying >= self._window:
                gevent.sleep(0.001)
            self._start(connection, number)

    def keep(self) -> None:
        """Sends pings when they are due, for ever."""
        while True:
            gevent.sleep(PING_SLICE)
            now = time.monotonic()
            for connection in self.connections:
                if connection.greeted and now >= connection.ping_due:
                    connection.ping_due = now + self._ping * self._rng.uniform(0.8, 1.2)
                    self._send(connection, client_frame(b'{"t":"ping","c":%d}' % int(now * 1000)))

    def cut_all(self) -> None:
        """Breaks every connection at once, as a dying host would: a storm."""
        for connection in self.connections:
            if connection.greeted:
                self._ended(connection, CloseCode.ABNORMAL)

    def close(self) -> None:
        self.closing = True
        for connection in self.connections:
            if connection.sock is not None:
                self._send(connection, client_frame(b"\x03\xe8", CLOSE))
                self._drop(connection)

    def ended(self) -> list[Ended]:
        """Where the connections are now, for the oracle."""
        first, *rest = [Ended(one.name, one.greeted, one.at, one.went_back, set()) for one in self.connections]
        return [Ended(first.name, first.connected, first.at, first.went_back, set(self.seen)), *rest]

    # -- one connection

    def _start(self, connection: Connection, number: int = 0) -> None:
        if self.closing:
            return
        sock = connection.sock = _socket(plain_socket.AF_INET, plain_socket.SOCK_STREAM)
        sock.setblocking(False)
        if source := self._sources[number % len(self._sources)]:
            sock.setsockopt(plain_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        connection.wire = Wire()
        connection.since = time.monotonic()
        self._flying += 1
        error = sock.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            self._ended(connection, CloseCode.ABNORMAL)
            return
        connection.watcher = self._loop.io(sock.fileno(), WRITE)
        connection.watcher.start(self._on_connected, connection)

    def _on_connected(self, connection: Connection) -> None:
        connection.watcher.stop()
        connection.watcher.close()
        if connection.sock.getsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_ERROR):
            self._ended(connection, CloseCode.ABNORMAL)
            return
        self._send(connection, self._request)
        connection.watcher = self._loop.io(connection.sock.fileno(), READ)
        connection.watcher.start(self._on_readable, connection)

    def _on_readable(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
            upgraded = connection.wire.upgraded
            frames = connection.wire.receive(data) if data else []
        except BlockingIOError:
            return
        except (OSError, WireError) as error:
            self.counts[f"broken: {error}"] += 1
            self._ended(connection, CloseCode.ABNORMAL)
            return
        if connection.wire.upgraded and not upgraded:
            self._send(connection, client_frame(connection.hello(connection.at)))
        for opcode, payload in frames:
            if connection.sock is None:
                return
            self._on_frame(connection, opcode, payload)
        if not data and connection.sock is not None:
            self._ended(connection, CloseCode.ABNORMAL)

    def _on_frame(self, connection: Connection, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._on_text(connection, payload)
        elif opcode == PING:
            self._send(connection, client_frame(payload, PONG))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") or CloseCode.ABNORMAL
            self.counts[f"closed {code}"] += 1
            self._ended(connection, code)

    def _on_text(self, connection: Connection, payload: bytes) -> None:
        if not payload.startswith((b'{"t":"state"', b'{"t":"welcome"', b'{"t":"goaway"')):
            return
        match _decoder.decode(payload):
            case State() as state:
                self._on_state(connection, state, news=True)
            case Welcome() as welcome:
                self._welcome(connection, welcome)
            case Goaway(back=back):
                if back is not None:
                    connection.back.steer(back)

    def _welcome(self, connection: Connection, welcome: Welcome) -> None:
        now = time.monotonic()
        connection.greeted = True
        connection.back.steer(welcome.back)
        connection.back.welcomed()
        self.welcomed += 1
        self._flying -= 1
        self._ping = welcome.ping
        connection.ping_due = now + self._ping * self._rng.uniform(0.0, 1.2)
        self.stats.get("connect to welcome", "WS").log(round((now - connection.since) * 1000), len(self._request))
        for state in welcome.state:
            self._on_state(connection, state, news=False)

    def _on_state(self, connection: Connection, state: State, news: bool) -> None:
        if state.order > connection.at:
            connection.at = state.order
            self.seen.add(state.order)
            if news:
                late = max(0, round(time.time() * 1000) - state.ts)
                self.stats.get("publish to receive", "WS").log(late, 0)
        elif state.order < connection.at and news:
            connection.went_back += 1

    def _send(self, connection: Connection, data: bytes) -> None:
        try:
            sent = connection.sock.send(data)
        except OSError:
            sent = 0
        if sent != len(data):  # a node that does not take 200 bytes is gone or stuck
            self._ended(connection, CloseCode.ABNORMAL)

    def _ended(self, connection: Connection, code: int) -> None:
        """It is over; come back when the protocol says so."""
        if connection.sock is None:
            return
        stable = time.monotonic() - connection.since if connection.greeted else 0.0
        self._drop(connection)
        if self.closing:
            return
        self.stats.get("disconnected", "WS").log(round(stable * 1000), 0)
        what = connection.back.after(code, stable)
        if isinstance(what, StayAway):
            self.stats.log_error("WS", "disconnected", f"closed with {code}: it must not come back")
            return
        gevent.spawn_later(what.seconds, self._start, connection, self._rng.randrange(len(self._sources)))

    def _drop(self, connection: Connection) -> None:
        if connection.watcher is not None:
            connection.watcher.stop()
            connection.watcher.close()
            connection.watcher = None
        connection.sock.close()
        connection.sock = None
        if connection.greeted:
            connection.greeted = False
            self.welcomed -= 1
        else:
            self._flying -= 1
