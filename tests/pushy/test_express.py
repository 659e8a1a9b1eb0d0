"""The native path from accept to welcome: whatever a device sends, in whatever pieces, it leaves behind what Python leaves."""

import asyncio
import base64
import contextlib
import fcntl
import gc
import json
import os
import random
import select
import socket
import struct
import sys
import termios
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushy import native
from pushy.admission import Admission
from pushy.connection import Connection, Floor
from pushy.express import prepared, turning
from pushy.fanout import write_all
from pushy.followed import Followed, Lane, Place
from pushy.handshake import Door, Refusal, Upgrade
from pushy.happenings import Happenings
from pushy.hub import Hub, PythonLoops
from pushy.limits import PENDING_MAX, Crowd
from pushy.proxies import Proxies
from pushy.reception import Reception
from pushy.streams import Stream, Streams
from pushy.turnstile import Turnstile
from pushy.wheel import Slot, Wheel
from stagecast.clock import ManualClock
from stagecast.records import Revocation
from stagecast.tokens import Claims, KeysFile, create_keys
from stagecast.wire.closing import CloseCode
from stagecast.wire.server_session import Phase, Rules, ServerSession
from tests.pushy.rig import REQUEST, masked, update


@pytest.fixture(scope="session")
def hot(tmp_path_factory: pytest.TempPathFactory) -> native.Hot:
    folder = tmp_path_factory.mktemp("native")
    try:
        native.build(folder, ["-Werror"])
    except native.NotBuilt as why:
        pytest.skip(str(why))
    found = prepared(folder)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    create_keys(file)
    return file


@dataclass
class Desk:
    """What one worker has for its devices, and what was asked of the rest of it."""

    keys: Path
    hot: native.Hot | None
    batched: bool = False
    proxied: bool = False
    lifetime: float = 100.0
    room: int = 100
    """Sessions at most."""
    burst: int = 4
    """Devices let in at once."""
    fails: str = ""
    """Whose token's check raises what it should not."""
    said: list[Any] = field(default_factory=list)
    members: list[Connection] = field(default_factory=list)
    """In the order in which they came."""

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.hub = Hub(PythonLoops(write_all))
        self.admission = Admission(KeysFile(self.keys))
        rng = random.Random(1)
        crowd, turnstile = Crowd(self.room, 0), Turnstile(0.5, self.burst, 0.0)
        self.reception = Reception(0, crowd, turnstile, self.clock, rng, lambda: self.said.append("news"))
        rules = Rules(self.admit, self.hub.head, rng, node="0b", maps="http://maps/v1", lifetime=self.lifetime)
        self.floor = self.reception.floor = Floor(
            rules=rules, hub=self.hub, wheel=Wheel(0.0), door=Door(frozenset()), clock=self.clock,
            arrived=self.reception.arrived, busy=self.reception.busy, greeted=self.reception.greeted, wanted=self.wanted,
            left=self.left, happenings=Happenings(), gone=lambda one: crowd.gone(one.address),
            introduced=self.reception.introduced, proxies=Proxies.of(["127.0.0.0/8"] if self.proxied else [], False),
            handshake_deadline=5.0, slow_after=20.0,
        )  # fmt: skip
        self.hub.want(Connection(self.floor), ["final", "other"], 0.0)
        self.hub.update(update("final", 3, "live", gen=2, version=MAP), 0.0)
        self.hub.followed["final"].waiters.clear()
        turn = turning(self.hot, self.reception, self.admission, self.batched) if self.hot is not None else None
        self.streams = Streams(asyncio.get_running_loop(), turn)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self.door = self.streams.listen(self.listening, lambda: Connection(self.floor))

    def admit(self, token: str, wall: int) -> Claims:
        claims = self.admission.admit(token, wall)
        if claims.dev == self.fails:
            raise RuntimeError("no")
        return claims

    def look(self) -> None:
        """Notes who has come."""
        found = [one.get_protocol() for one in self.streams.all if isinstance(one, Stream)]
        self.members += [one for one in found if isinstance(one, Connection) and one not in self.members]

    def wanted(self, one: Connection, events: list[str]) -> None:
        self.said.append(("wanted", events, self.hub.want(one, events, self.clock.monotonic())))

    def left(self, one: Connection, why: str) -> None:
        self.said.append(("left", why))
        self.hub.leave(one, None, self.clock.monotonic(), why)
        self.reception.left(one)

    def close(self) -> None:
        self.door.close()
        self.streams.close()


PLAIN = (bool, int, float, str, bytes, type(None))


def laid_open(one: Any, desk: Desk, inside: bool = False) -> Any:
    """All of an object that could be told apart, without its address."""
    if isinstance(one, PLAIN):
        return one
    if isinstance(one, tuple | list):
        return [laid_open(part, desk, inside) for part in one]
    if isinstance(one, Counter | dict):
        return sorted((repr(laid_open(key, desk)), repr(laid_open(value, desk, True))) for key, value in one.items())
    if isinstance(one, Slot):
        return ["slot", one.number, sorted(desk.members.index(connection) for connection in one)]
    if isinstance(one, Followed):
        return ["event", one.e]
    if isinstance(one, Connection) and inside:
        return ["connection", desk.members.index(one)]
    if isinstance(one, Connection | Stream | ServerSession | Place | Lane):
        return [type(one).__name__, *(shown(one, name, desk) for name in type(one).__slots__)]
    return type(one).__name__


NUMBERED = {"_socket", "descriptor"}
"""Which number a socket gets is the kernel's affair."""
UPWARD = {"_protocol", "_streams", "_floor", "_rules", "outlet"}


def shown(one: Any, name: str, desk: Desk) -> Any:
    value: Any = getattr(one, name, "unset")
    if name in NUMBERED:
        return value >= 0
    return type(value).__name__ if name in UPWARD else laid_open(value, desk)


def everything(desk: Desk) -> dict[str, Any]:
    hub, floor, followed = desk.hub, desk.floor, desk.hub.followed["final"]
    return {
        "connections": [laid_open(one, desk) for one in desk.members],
        "places": [laid_open(place, desk) for place in followed.places],
        "lanes": [laid_open(lane, desk) for lane in (followed.states, followed.hints)],
        "counted": [laid_open(part, desk) for part in (followed.orders, followed.maps, hub.apps)],
        "waiting": [len(one.waiters) for one in hub.followed.values()],
        "hub": [hub.ahead, hub.deliveries, hub.stale],
        "floor": [floor.accepts, floor.upgraded, floor.stalls, floor.sent, floor.refusals, floor.closes],
        "wheel": sorted(repr(laid_open(slot, desk)) for slot in floor.wheel.slots.values()),
        "checks": [desk.admission.checks, len(desk.admission.remembered)],
        "here": [
            laid_open(desk.reception.directory.by_member, desk),
            laid_open(desk.reception.directory.by_device, desk),
        ],
        "news": [repr(change) for change in desk.reception.news.changes],
        "crowd": [desk.reception.crowd.tcp, *(getattr(desk.reception.turnstile, name) for name in Turnstile.__slots__)],
        "happened": [repr(floor.happenings.of(device)) for device in "abct"],
        "said": desk.said,
    }


async def play(desk: Desk, devices: list[list[bytes]], waits: list[float]) -> tuple[dict[str, Any], list[bytes]]:
    """Devices one after the other send their pieces, each read before the next; what stands then, and what each of them got."""
    answers: list[bytes] = []
    socks: list[socket.socket] = []
    for pieces in devices:
        sock = socket.create_connection(desk.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks.append(sock)
        for piece, wait in zip(pieces, waits * len(pieces), strict=False):
            sock.sendall(piece.replace(b"PORT", str(desk.address[1]).encode()))
            await quiet(desk, sock)
            desk.look()
            desk.clock.advance(wait)
        sock.setblocking(False)
    await quiet(desk)
    found = everything(desk)
    for sock in socks:
        try:
            answers.append(sock.recv(1 << 16))
        except BlockingIOError:
            answers.append(b"nothing")
        except ConnectionError:
            answers.append(b"reset")
        sock.close()
    await quiet(desk)
    desk.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return found, answers


async def quiet(desk: Desk, sock: socket.socket | None = None) -> None:
    """All that `sock` sent has come, and the loop has looked at it and at what that brought about."""
    turns = 0
    while turns < 3:
        await asyncio.sleep(0)
        waiting = select.select([desk.streams.epoll], [], [], 0)[0] or (sock is not None and unacknowledged(sock))
        turns = 0 if waiting else turns + 1


def unacknowledged(sock: socket.socket) -> bool:
    """tcp(7), SIOCOUTQ."""
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return bool(left)


MAP = "1764000000000-m1"
KEY = base64.b64encode(bytes(range(16))).decode()


def request(key: str = KEY, more: str = "") -> bytes:
    return REQUEST.format(path="/ws", host="127.0.0.1", port="PORT", key=key, more=more).encode()


AT = {"e": "final", "gen": 2, "seq": 3, "map": MAP}


class Tokens:
    def __init__(self, keys: Path) -> None:
        self._keys = KeysFile(keys).keys
        self._now = ManualClock().now() / 1000

    def mint(self, device: str, events: list[str], ttl: float = 3600.0) -> str:
        return self._keys.mint(f"m-{device}", device, events, ttl, self._now, random.Random(device))


ATS = st.lists(
    st.sampled_from(
        [AT, {"e": "final"}, {**AT, "seq": 9}, {**AT, "gen": 1, "map": None}, {"e": "other"}, {"e": "nix"}]
    ),
    max_size=2,
)
FAULTS = (
    "token", "device", "stranger", "short", "é", "early ping", "split", "glued", "twice", "broken", "not utf-8", "inside",
    "pings", "odd pings", "flood", "ack",
)  # fmt: skip
KEYS = st.sampled_from([KEY, base64.b64encode(b"0123456789abcdef").decode(), "AAAA", KEY[:-1] + "A", "*" * 22 + "=="])


@st.composite
def a_device(draw: Any) -> tuple[str, str, list[dict[str, Any]], str, str, str]:
    """(key, more header fields, positions, app, fault, device)"""
    return (
        draw(KEYS), draw(st.sampled_from(["", "", "Origin: http://127.0.0.1:PORT\r\n", "Origin: http://evil\r\n"])),
        draw(ATS), draw(st.sampled_from(["", "tv", "web"])), draw(st.sampled_from(["", "", *FAULTS])),
        draw(st.sampled_from("abc")),
    )  # fmt: skip


def pieces_of(tokens: Tokens, one: tuple[str, str, list[dict[str, Any]], str, str, str]) -> list[bytes]:
    key, more, at, app, fault, device = one
    token = {"token": "no.tok.en", "stranger": tokens.mint(device, ["elsewhere"])}.get(
        fault, tokens.mint(device, ["fin*", "other"] if app else ["final"], 40.0 if fault == "short" else 3600.0)
    )
    said = {"t": "hello", "token": token, "device": "z" if fault == "device" else device, "app": app, "at": at}
    text = json.dumps(said, separators=(",", ":") if app else None, ensure_ascii=False)
    if fault == "é":
        text = text.replace('"t"', '"x":"é","t"')
    octets = text.encode()[: -1 if fault == "broken" else None]
    if fault == "not utf-8":  # in a field that no decoder looks at
        octets = octets.replace(b'"t"', b'"x":"\xff","t"')
    hello, open_ = masked(octets), request(key, more)
    match fault:
        case "early ping":
            return [open_, masked(b"hi", 9), hello]
        case "split":
            return [open_[:40], open_[40:], hello[:9], hello[9:]]
        case "glued":
            return [open_ + hello]
        case "pings":
            return [
                open_,
                hello,
                *(masked(b'{"t":"ping","c":%b}' % c) for c in (b"0", b"-7", b"9007199254740991", b"1234.5")),
            ]
        case "odd pings":
            odd = [
                b"1e300",
                b"-0.0",
                b"0.0000001",
                b"9007199254740993",
                b"null",
                b'1,"at":[{"e":"final","gen":2,"seq":3}]',
            ]
            return [open_, hello, *(masked(b'{"t": "ping", "c": %b}' % c) for c in odd)]
        case "flood":
            return [open_, hello, *[masked(b'{"t":"ping","c":1}')] * 25]
        case "ack":
            return [open_, hello, masked(b'{"t":"ack","e":"final","gen":2,"seq":3,"r":"switched","ms":5}')]
        case "inside":
            return [open_, masked(b"{", fin=False), hello]
        case "twice":
            return [open_, hello, hello]
        case _:
            return [open_, hello]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    devices=st.lists(a_device(), min_size=1, max_size=5),
    waits=st.lists(st.sampled_from([0.0, 0.3, 2.0]), min_size=1, max_size=3),
    proxied=st.sampled_from([False, False, False, True]),
    batched=st.booleans(),
    room=st.sampled_from([100, 100, 2]),
    lifetime=st.sampled_from([100.0, 2.0]),
)
def test_both_ways_leave_the_same_behind(
    hot: native.Hot,
    keys: Path,
    devices: list[Any],
    waits: list[float],
    proxied: bool,
    batched: bool,
    room: int,
    lifetime: float,
) -> None:
    """Objects, counters, the wheel, what was asked of whom, and the bytes that devices got: equal to the last field."""
    asyncio.run(same_behind(hot, keys, devices, waits, proxied=proxied, batched=batched, room=room, lifetime=lifetime))


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_leaves_the_same_behind(hot: native.Hot, keys: Path, fault: str) -> None:
    """The same for every fault there is in an otherwise usual device, without chance."""
    await same_behind(hot, keys, [(KEY, "", [AT], "tv", fault, "a"), (KEY, "", [AT], "tv", "", "b")], [0.0])


async def same_behind(hot: native.Hot, keys: Path, devices: list[Any], waits: list[float], **more: Any) -> None:
    tokens = Tokens(keys)
    pieces = [pieces_of(tokens, one) for one in ((KEY, "", [AT], "tv", "", "t"), *devices)]
    ours = await play(Desk(keys, hot, **more), pieces, waits)
    python = await play(Desk(keys, None, **more), pieces, waits)
    for part, found in ours[0].items():
        assert found == python[0][part], part
    assert ours[1] == python[1]


async def test_the_usual_case_is_taken(hot: native.Hot, keys: Path) -> None:
    """From the second device of an app on neither the handshake nor the session in Python is asked."""
    tokens, asked = Tokens(keys), list[str]()
    desk = Desk(keys, hot)

    class Asked(Door):
        def check(self, upgrade: Upgrade) -> Refusal | None:
            asked.append("door")
            return super().check(upgrade)

    def head(event: str) -> bytes | None:
        asked.append("head")
        return desk.hub.head(event)

    desk.floor.door, desk.floor.rules.head = Asked(frozenset()), head
    devices = [pieces_of(tokens, (KEY, "", [AT], "tv", "", name)) for name in "abc"]
    found, answers = await play(desk, devices, [0.0])
    assert [b'"t":"welcome"' in one for one in answers] == [True] * 3
    assert len(found["places"]) == 3
    assert asked == ["door"]


async def test_a_connection_too_many_is_cut(hot: native.Hot, keys: Path) -> None:
    """Beyond all limits a stream is aborted before a byte of it is read."""
    desk = Desk(keys, hot, room=-PENDING_MAX)
    found, answers = await play(desk, [[request()]], [0.0])
    assert found["floor"][4] == Counter(full=1)
    assert answers in ([b""], [b"reset"])


async def test_a_revoked_token_ends_the_connection(hot: native.Hot, keys: Path) -> None:
    """Revocations are looked at for every hello, also of a token whose check is remembered."""
    tokens = Tokens(keys)
    desk = Desk(keys, hot)
    hello = pieces_of(tokens, (KEY, "", [AT], "tv", "", "a"))
    desk.admission.admit(json.loads(unmasked(hello[1]))["token"], desk.clock.now())
    desk.admission.revoke([Revocation("device", "a", desk.clock.now() + 1)])
    _, answers = await play(desk, [pieces_of(tokens, (KEY, "", [AT], "tv", "", "t")), hello], [0.0])
    assert b"welcome" in answers[0]
    assert b"\x11\x31" in answers[1]  # 4401
    assert b"revoked" in answers[1]


def unmasked(frame: bytes) -> bytes:
    """Of a frame of 126 bytes and more."""
    return bytes(byte ^ frame[4 + i % 4] for i, byte in enumerate(frame[8:]))


async def test_an_exception_costs_its_own_connection_alone(hot: native.Hot, keys: Path) -> None:
    """What a callback raises reaches the loop's handler; the stream is aborted, the next device is served."""
    tokens, handled = Tokens(keys), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: handled.append(repr(context["exception"])))
    desk = Desk(keys, hot, fails="b")
    devices = [pieces_of(tokens, (KEY, "", [AT], "tv", "", name)) for name in "abc"]
    _, answers = await play(desk, devices, [0.0])
    assert [b"welcome" in one for one in answers] == [True, False, True]
    assert handled == ["RuntimeError('no')"]


@pytest.mark.parametrize("batched", [False, True])
async def test_many_answers_of_one_turn_are_each_whole(hot: native.Hot, keys: Path, batched: bool) -> None:
    """Eighty devices whose requests wait together, then their hellos; to some there is nothing more to be written, of one
    the socket is full: it gets its welcome when it has read, and the others at once."""
    tokens, desk = Tokens(keys), Desk(keys, hot, batched=batched, burst=1000, room=1000)
    names = ["t", *(f"d{i}" for i in range(80))]
    pieces = {name: pieces_of(tokens, (KEY, "", [AT], "tv", "", name)) for name in names}
    socks = {name: socket.create_connection(desk.address) for name in names}
    filled = 0
    for turn in range(2):
        for name in names:
            socks[name].sendall(pieces[name][turn].replace(b"PORT", str(desk.address[1]).encode()))
            if name in ("t", "d79"):
                await quiet(desk, socks[name])
        if not turn:
            desk.look()
            filled = fill(desk.members[7].transport.descriptor)
            names.remove("d9")
            socks.pop("d9").close()
    answers = {name: await all_of(desk, sock) for name, sock in socks.items()}
    desk.close()
    await asyncio.sleep(0)
    stuck = [name for name, got in answers.items() if b"xxx" in got]
    assert len(stuck) == 1
    assert len(answers[stuck[0]]) > filled
    for got in answers.values():
        assert got.startswith(b"HTTP/1.1 101")
        assert got.count(b'"t":"welcome"') == 1
        assert got.endswith(b"}]}")
    for sock in socks.values():
        sock.close()


def fill(descriptor: int) -> int:
    """Writes past everybody until the socket takes no more; how much it took."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += os.write(descriptor, b"x" * 4096)
    return taken


async def all_of(desk: Desk, sock: socket.socket) -> bytes:
    """What the device gets until nothing more comes."""
    got = b""
    sock.setblocking(False)
    async with asyncio.timeout(10):
        while not got.endswith(b"}]}"):
            with contextlib.suppress(BlockingIOError):
                got += sock.recv(1 << 20)
            await quiet(desk)
    return got


async def test_no_reference_is_lost_or_kept(hot: native.Hot, keys: Path) -> None:
    """What all connections share is held as often after a hundred have come and gone as before."""
    tokens = Tokens(keys)
    usual = [
        pieces_of(tokens, (KEY, "", [AT], "tv", fault, name)) for name in "abc" for fault in ("", "token", "device")
    ]
    shared = (None, True, False, 0, 1, Phase.OPEN, Phase.READY, CloseCode.FORBIDDEN, b"", (), "tv", hot)

    async def counted() -> tuple[list[int], int]:
        for _ in range(10):
            await play(Desk(keys, hot, burst=100), usual, [0.0])
        gc.collect()
        return [sys.getrefcount(one) for one in shared], len(gc.get_objects())

    seen = [await counted() for _ in range(5)]
    moved = [
        min(abs(a - b) for a, b in pairwise(one)) for one in zip(*(references for references, _ in seen), strict=True)
    ]  # what others do meanwhile is not in every pair
    assert max(moved) < 25, seen
    assert abs(seen[-1][1] - seen[-2][1]) < 100
