"""The product's own objects as values: an object is its pickle, a call on it is a function from pickle to pickle.

So a state can hold them, and each call is made once however many states it is made from. Counters that only count are set back
after each call, so that equal behaviour is an equal state.
"""

import pickle
from collections.abc import Hashable
from functools import cache
from random import Random
from typing import Any, NamedTuple, cast

import msgspec

from pushy.heads import Action, Heads
from pushy.hub import Hub, Place, PythonLoops
from pushy.link import Update
from stagecast import event as rules
from stagecast.broadcast import Broadcast, encode_broadcast, for_welcome
from stagecast.event import Delivery, Head, Moved, Repeated, Request
from stagecast.plan import PlannedStage, plan_of
from stagecast.wire.client_session import ClientSession
from stagecast.wire.codec import encode
from stagecast.wire.frames import Position, State, Welcome

EVENT = "e"
PLAN = plan_of([PlannedStage(f"s{n}") for n in range(4)])
NOW = 1
"""The wall clock of every producer: it stands still, so `ts` rises by its own rule alone."""

Order = tuple[int, int]
Shown = tuple[int, int, str]
"""(gen, seq, stage)."""
NOTHING: Shown = (0, 0, "")


@cache
def _kept(data: bytes) -> bytes:
    """One object for equal bytes: comparing them is comparing pointers."""
    return data


def _frozen(one: object) -> bytes:
    return _kept(pickle.dumps(one))


# The table. A head is its JSON, as in the store.


@cache
def head_of(data: bytes) -> Head:
    return msgspec.json.decode(data, type=Head)


def order_of(data: bytes) -> Order:
    head = head_of(data)
    return head.gen, head.seq


def shown_of(data: bytes) -> Shown:
    head = head_of(data)
    return head.gen, head.seq, head.stage


@cache
def broadcast_of(data: bytes) -> Broadcast:
    return head_of(data).broadcast()


@cache
def created(gen: int, request: str) -> bytes:
    return _kept(msgspec.json.encode(rules.create(EVENT, "E", PLAN, gen, _request(request, "s0"), Delivery(), NOW)))


class Verdict(NamedTuple):
    head: bytes
    """What to set, or (accepted before) what to append again."""
    new: bool


@cache
def judged(data: bytes, request: str, remember: bool) -> Verdict | None:
    """What the table makes of a request: `rN` goes to stage sN, `dN` deletes. None: refused."""
    head = head_of(data)
    if request[0] == "d":
        outcome = rules.delete(head, _request(request, "gone"), Delivery(), NOW)
    else:
        outcome = rules.transition(head, PLAN, _request(request, f"s{request[1:]}"), Delivery(), NOW)
    match outcome:
        case Moved(moved):
            kept = moved if remember else msgspec.structs.replace(moved, accepted=())
            return Verdict(_kept(msgspec.json.encode(kept)), True)
        case Repeated():
            return Verdict(data, False)
        case _:
            return None


def active(data: bytes) -> bool:
    return rules.active(head_of(data), PLAN, NOW)


def _request(id: str, stage: str) -> Request:
    return Request(id, stage, "ann", urgent=True)


# A host's merging of log and store.


@cache
def new_feed() -> bytes:
    return _frozen(Heads())


@cache
def feed(frozen: bytes, call: str, *args: Hashable) -> tuple[bytes, tuple[Action, ...]]:
    """Calls a method of `Heads`."""
    heads: Heads = pickle.loads(frozen)
    actions = getattr(heads, call)(*args)
    heads.behind = 0
    return _frozen(heads), tuple(actions or ())


@cache
def update_of(head: Broadcast) -> Update:
    """As the feed builds it, without the WebSocket frame around the state."""
    return Update(head.e, head.gen, head.seq, head.map, 0, encode_broadcast(head), for_welcome(head))


# A worker: its hub, and an outlet per connection.


class Outlet:
    """A connection that takes what it is given, or (`unsent`) holds it back."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.app = "tv"
        self.unsent = False
        self.places: tuple[Place, ...] = ()
        self.welcomed = False
        self.sent: list[bytes] = []

    def write(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


def write_all(frame: bytes, places: list[Place]) -> list[Place]:
    return [place for place in places if not place.outlet.write(frame)]


class Worker:
    """What connection and worker do around the hub: welcome at once what is known, else ask the feed."""

    def __init__(self) -> None:
        self.hub = Hub(PythonLoops(write_all))
        self.outlets: dict[str, Outlet] = {}
        self.follow = self.unfollow = False

    def hello(self, device: str) -> None:
        """A device connects, or asks again for a refused event."""
        outlet = self.outlets.setdefault(device, Outlet(device))
        if self.hub.head(EVENT) is not None:
            self._tell(outlet)
        else:
            new, _ = self.hub.want(outlet, [EVENT], 0.0)
            self.follow = bool(new)

    def update(self, update: Update) -> None:
        for waiter in self.hub.update(update, 0.0) or ():
            self._tell(cast("Outlet", waiter))
        while self.hub.working:
            self.hub.step()

    def take_any(self, update: Update) -> None:
        """The mutation: a hub without the rule that older states are dropped."""
        fresh = Hub(PythonLoops(write_all))
        for outlet in self.outlets.values():
            outlet.places = ()
            fresh.want(outlet, [EVENT], 0.0)
        self.hub = fresh
        self.update(update)

    def linger(self) -> None:
        """Long after: events that nobody follows are forgotten, and the feed is told."""
        self.unfollow = bool(self.hub.abandoned(1.0))

    def refused(self) -> None:
        for waiter in self.hub.refused(EVENT):
            self._welcome(cast("Outlet", waiter), b"")

    def gone(self, device: str) -> None:
        outlet = self.outlets.pop(device)
        self.hub.leave(outlet, [EVENT], 0.0)  # what it may still wait for
        self.hub.leave(outlet, None, 0.0)

    def _tell(self, outlet: Outlet) -> None:
        head = self.hub.head(EVENT)
        assert head is not None
        if outlet.welcomed:
            outlet.write(head)
        else:
            self._welcome(outlet, head)
        self.hub.join(outlet, [Position(EVENT)], 0.0)

    def _welcome(self, outlet: Outlet, head: bytes) -> None:
        states = [msgspec.json.decode(head, type=State)] if head else []
        if not outlet.welcomed:
            outlet.write(encode(Welcome("s", 0, 45.0, (0, 1), None, None, states)))
        outlet.welcomed = True


class Said(NamedTuple):
    """What a call on a worker brought."""

    worker: bytes
    order: Order
    """Of the head it welcomes with."""
    follow: bool
    """It asks the feed for the event."""
    unfollow: bool
    frames: tuple[tuple[int, bytes], ...]
    """To which device went what."""


@cache
def new_worker() -> bytes:
    return _frozen(Worker())


@cache
def worker(frozen: bytes, call: str, *args: Hashable) -> Said:
    """Calls a method of `Worker`."""
    one: Worker = pickle.loads(frozen)
    getattr(one, call)(*args)
    frames = tuple((int(device), frame) for device, outlet in one.outlets.items() for frame in outlet.sent)
    follow, unfollow = one.follow, one.unfollow
    one.follow = one.unfollow = False
    for outlet in one.outlets.values():
        outlet.sent = []
    hub = one.hub
    hub.deliveries = hub.superseded = hub.stale = hub.hinted = hub.refused_busy = 0
    head = hub.head(EVENT)
    order = msgspec.json.decode(head, type=State).order if head else (0, 0)
    return Said(_frozen(one), order, follow, unfollow, frames)


@cache
def followed(frozen: bytes) -> tuple[str, ...]:
    one: Worker = pickle.loads(frozen)
    return tuple(one.hub.events)


# A device's session.


class Least:
    """Draws the least of every range."""

    def uniform(self, low: float, high: float) -> float:
        return low


@cache
def new_device() -> bytes:
    return _frozen(ClientSession("d", [EVENT], cast("Random", Least())))


@cache
def device(frozen: bytes, call: str, *args: Hashable) -> tuple[bytes, Shown]:
    """Calls a method of `ClientSession` at time 0; gives what the device shows then."""
    session: ClientSession = pickle.loads(frozen)
    getattr(session, call)(*args, 0.0)
    state = session.followed(EVENT).state
    return _frozen(session), (state.gen, state.seq, state.stage) if state else NOTHING


@cache
def forgetful(frozen: bytes, frame: bytes) -> tuple[bytes, Shown]:
    """The mutation: a device that takes whatever comes, since it forgot where it is."""
    session: ClientSession = pickle.loads(frozen)
    fresh: Any = ClientSession("d", [EVENT], cast("Random", Least()))
    fresh.opened("t", 0.0)
    if session.phase.value == "open":
        fresh.receive(encode(Welcome("s", 0, 45.0, (0, 1), None, None, [])), 0.0)
    return device(_frozen(fresh), "receive", frame)
