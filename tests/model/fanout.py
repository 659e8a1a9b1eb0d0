"""The hub alone: a fan-out in chunks of one, to connections that are slow, leave and come, while newer states overtake it."""

import pickle
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, cast

from pushy.hub import Hub, Place, PythonLoops
from pushy.link import Hinted, Update
from stagecast.receipts import Receipt
from stagecast.wire.frames import Position
from tests.model.parts import EVENT
from tests.model.search import Move, Result, search

BLANK = Receipt("h", "b", 0, 0, EVENT, 0, 0)


class Socket:
    """A connection: what its device has got, and what waits in this process while the kernel takes no more."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.app = "tv"
        self.full = False
        self.waiting: list[bytes] = []
        self.places: tuple[Place, ...] = ()
        self.got = 0
        """The greatest seq that reached the device."""
        self.went_back = self.twice = False
        self.hinted = False
        self.unsent = False

    def write(self, frame: bytes) -> bool:
        if self.full or self.waiting:
            self.waiting.append(frame)
            self.unsent = True
            return False
        self.take(frame)
        return True

    def take(self, frame: bytes) -> None:
        if frame == b"hint":
            self.hinted = True
        else:
            self.went_back |= int(frame) < self.got
            self.twice |= int(frame) == self.got
            self.got = int(frame)


def write_all(frame: bytes, places: list[Place]) -> list[Place]:
    return [place for place in places if not place.outlet.write(frame)]


class Fanout:
    """A hub with its sockets, and the calls that a connection and a link make on them."""

    def __init__(self, sockets: int) -> None:
        self.hub = Hub(PythonLoops(write_all))
        self.sockets = {str(n): Socket(str(n)) for n in range(sockets)}
        self.connected: set[str] = set()
        self.seq = 0
        for name in self.sockets:
            self.hub.want(self.sockets[name], [EVENT], 0.0)
        self.update(1)

    def update(self, seq: int) -> None:
        self.seq = max(self.seq, seq)
        state = str(seq).encode()
        for waiter in self.hub.update(Update(EVENT, 1, seq, None, 0, state, state), 0.0) or ():
            self._seat(cast("Socket", waiter))

    def connect(self, name: str) -> None:
        socket = self.sockets[name] = Socket(name)
        self.hub.want(socket, [EVENT], 0.0)
        self._seat(socket)

    def leave(self, name: str) -> None:
        self.connected.remove(name)
        self.hub.leave(self.sockets[name], None, 0.0)

    def fill(self, name: str) -> None:
        self.sockets[name].full = True

    def read(self, name: str, told: bool) -> None:
        socket = self.sockets[name]
        socket.full = socket.unsent = False
        waiting, socket.waiting = socket.waiting, []
        for frame in waiting:
            socket.take(frame)
        if told and waiting:
            self.hub.drained(socket)

    def hint(self) -> None:
        for name in self.connected:
            self.sockets[name].hinted = False
        self.hub.hint(Hinted(EVENT, b"hint"))

    def step(self) -> None:
        self.hub.step(1)

    def _seat(self, socket: Socket) -> None:
        head = self.hub.head(EVENT)
        assert head is not None
        socket.take(head)
        socket.hinted = True
        self.hub.join(socket, [Position(EVENT)], 0.0)
        self.connected.add(socket.device)


class Seen(NamedTuple):
    """What can be told of a frozen Fanout."""

    frozen: bytes
    seq: int
    working: bool
    sockets: tuple[tuple[str, bool, bool, int], ...]
    """Per connected socket: name, full or unsent, whether it has the newest of all, how many frames wait."""
    broken: str | None
    pending: int


@cache
def start(sockets: int) -> Seen:
    return _seen(Fanout(sockets))


@cache
def call(frozen: bytes, name: str, *args: str | int | bool) -> Seen:
    one: Fanout = pickle.loads(frozen)
    getattr(one, name)(*args)
    return _seen(one)


def _seen(one: Fanout) -> Seen:
    hub = one.hub
    hub.deliveries = hub.superseded = hub.stale = hub.hinted = hub.refused_busy = hub.sent = 0
    frozen = pickle.dumps(one)
    broken = None
    receipts = pickle.loads(frozen).hub.receipts(BLANK, 0.0, 0.0)
    for r in receipts:
        if r.audience != r.written + r.pending + r.superseded + r.closed or min(r.pending, r.written) < 0:
            broken = f"F2 {r.audience} ≠ {r.written} + {r.pending} + {r.superseded} + {r.closed}"
    sockets = []
    for name in sorted(one.connected):
        socket = one.sockets[name]
        if socket.went_back:
            broken = f"S1 socket {name} was given an older state"
        if socket.twice:
            broken = f"F3 socket {name} was given a state twice"
        if len(socket.waiting) > 1:
            broken = f"F1 {len(socket.waiting)} frames wait for socket {name}"
        current = socket.got == one.seq and socket.hinted
        sockets.append((name, socket.full or socket.unsent, current, len(socket.waiting)))
    return Seen(frozen, one.seq, hub.working, tuple(sockets), broken, sum(r.pending for r in receipts))


class State(NamedTuple):
    seen: Seen
    budget: tuple[int, ...]
    """Updates, hints, leavers (who may come back), times that a socket fills up."""


class Wish(NamedTuple):
    """What may happen to the hub: its place in the budget, and the call."""

    costs: int
    label: str
    call: str
    args: tuple[str | int, ...]


@dataclass(frozen=True)
class FanoutModel:
    sockets: int = 3
    updates: int = 1
    hints: int = 0
    leavers: int = 0
    fills: int = 0
    told: bool = True
    """The hub is told when a socket has drained."""

    def run(self) -> Result:
        first = State(start(self.sockets), (self.updates, self.hints, self.leavers, self.fills))
        return search(first, self.moves, lambda _, to: to.seen.broken, self.unfinished)

    def moves(self, s: State) -> list[Move[State]]:
        seen, frozen = s.seen, s.seen.frozen
        found = []
        if seen.working:
            found.append(Move(True, "one chunk", s._replace(seen=call(frozen, "step"))))
        for name, stuck, _, _ in seen.sockets:
            if stuck:
                found.append(
                    Move(True, f"socket {name} drains", s._replace(seen=call(frozen, "read", name, self.told)))
                )
        for wish in self._wishes(seen):
            if s.budget[wish.costs]:
                left = list(s.budget)
                left[wish.costs] -= 1
                found.append(Move(False, wish.label, State(call(frozen, wish.call, *wish.args), tuple(left))))
        return found

    def _wishes(self, seen: Seen) -> list[Wish]:
        there = {name for name, *_ in seen.sockets}
        return [
            Wish(0, f"state {seen.seq + 1} comes", "update", (seen.seq + 1,)),
            Wish(0, "an older state comes", "update", (1,)),
            Wish(1, "a hint comes", "hint", ()),
            *(Wish(2, f"socket {name} leaves", "leave", (name,)) for name in sorted(there)),
            *(Wish(2, f"socket {n} comes", "connect", (str(n),)) for n in range(self.sockets) if str(n) not in there),
            *(Wish(3, f"socket {name} fills up", "fill", (name,)) for name, stuck, *_ in seen.sockets if not stuck),
        ]

    def unfinished(self, s: State) -> str | None:
        late = [name for name, _, current, _ in s.seen.sockets if not current]
        if late or s.seen.pending:
            return f"L1 quiescent, sockets {late} have not got the newest; {s.seen.pending} pending"
        return None
