"""A state of the world, and the rules and faults of a scenario."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pushy.heads import Read
from pushy.link import Update
from stagecast.broadcast import Broadcast
from tests.model.parts import Order, Shown
from tests.model.search import Move

FAULTS = (
    "requests", "again", "delete", "create", "crash_p", "cas_lost", "cas_late", "append_lost", "append_late", "dup", "old",
    "loss", "crash_feed", "crash_worker", "gap", "stale", "kv_down", "cut", "linger",
)  # fmt: skip
"""What people and faults do, each with a budget: requests (and the same one again, to another producer), deleting and creating
the event; a producer crashing, a compare-and-set whose answer is lost or that lands late, an append that is lost, lands late or
appears twice, an old broadcast appended by a producer behind the times, an acknowledged record that the log loses; a host's feed
or worker crashing, its reader passed by retention, its read of the store being stale or failing; a connection cut, and a worker
that forgets the event, since nobody has followed it for long."""


@dataclass(frozen=True)
class Rules:
    """The design, and what can be taken from it."""

    producers: int = 1
    hosts: int = 1
    devices: int = 1
    cadence: bool = True
    silence: bool = False
    """Hosts read the heads of followed events while the log says nothing (rule 8)."""
    compare_and_set: bool = True
    gens: bool = True
    remember: bool = True
    """Accepted request ids are kept in the head."""
    end_first: bool = True
    """The log's end is resolved before the store is read."""
    end_explicit: bool = True
    """The log's end is resolved at `end`, not at the first read."""
    gap_noticed: bool = True
    gone_repeated: bool = True
    device_drops: bool = True
    hub_drops: bool = True
    asks_again: bool = True
    """A worker that was refused an event which it still serves asks for it again."""
    budget: tuple[int, ...] = (0,) * len(FAULTS)


class Producer(NamedTuple):
    at: str = "idle"
    """idle, read, set, append."""
    request: str = ""
    head: bytes = b""
    version: int = 0


class Asked(NamedTuple):
    """A question to the store, and the answer on its way."""

    read: Read
    answer: Broadcast | None


class Host(NamedTuple):
    feed: bytes
    position: int
    """In the log; UNRESOLVED, or LAZY (the mutation: resolved in name only)."""
    asked: tuple[Asked, ...]
    joined: bool
    link: tuple[Update | None, ...]
    """From feed to worker; None is a refusal."""
    worker: bytes
    order: Order
    """Of the head that the worker welcomes with."""
    told: Order = (0, 0)
    """What the feed told last."""
    again: bool = False
    """The worker was refused an event which it still serves."""


class Device(NamedTuple):
    host: int
    session: bytes
    shown: Shown
    refused: bool


class World(NamedTuple):
    head: bytes
    version: int
    before: bytes
    """The head's last value but one: what a stale replica gives."""
    gen: int
    accepted: frozenset[tuple[int, int, str]]
    flight: frozenset[tuple[str, int, bytes, str]]
    """Compare-and-sets and appends whose senders gave them up, and that may still land."""
    producers: tuple[Producer, ...]
    log: tuple[Broadcast, ...]
    """From the first record on that a reader has not passed."""
    hosts: tuple[Host, ...]
    devices: tuple[Device, ...]
    repaired: bool
    """The repair has run since the last fault: if it did not help, it never will."""
    budget: tuple[int, ...]


AWAY = -1
UNRESOLVED, LAZY = -1, -2
Moves = Iterator[Move[World]]


def with_producer(w: World, i: int, p: Producer) -> World:
    return w._replace(producers=(*w.producers[:i], p, *w.producers[i + 1 :]))


def with_host(w: World, i: int, h: Host) -> World:
    return w._replace(hosts=(*w.hosts[:i], h, *w.hosts[i + 1 :]))


def with_device(w: World, n: int, d: Device) -> World:
    return w._replace(devices=(*w.devices[:n], d, *w.devices[n + 1 :]))
