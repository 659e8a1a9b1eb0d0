"""Contenders side by side: all are up at once with all their devices, and take turns of one broadcast.

A machine's noise lasts some seconds: it lands in the turns of all, and not in the ratio between them. Who begins rotates. Since
the others' turns come between, nobody finds its sockets in a cache.
"""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.bench.audience import Audience, shares
from tests.bench.measured import cpu_ns, softirq_threads
from tests.bench.world import Server

T = TypeVar("T")

WARM_UPS = 5
"""Broadcasts before the first round."""
AFTERWARDS = 0.02
"""Seconds in which a server ends what it does after the last device has read."""
SETTLE = 0.4
"""Seconds in which a settled server uses less than 3 % of a core."""
SETTLE_MAX = 60.0


@dataclass(frozen=True)
class Turns:
    """What one contender did in its turns of one round."""

    cpu_us: float
    """Server CPU per delivery, all processes."""
    softirq_us: float
    """The same, with what the kernel's threads did of interrupts on the server's cores: the devices' and all others' too."""
    last_ms: float
    """Publish → the last device has read it, median over the round's publishes."""
    client_us: float
    """The devices' CPU per delivery."""
    client_busy: float
    """Their share of the time from publish to last, in cores."""


@dataclass
class Contender:
    name: str
    server: Server
    audience: Audience
    seq: int = field(init=False)
    """Of the next broadcast."""
    rounds: list[Turns] = field(default_factory=list)
    last: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often each device was the last."""

    def __post_init__(self) -> None:
        self.seq = self.server.first_seq
        self._softirqs = softirq_threads(os.sched_getaffinity(self.server.pids[0]))

    async def broadcast(self) -> float:
        """One broadcast; ms until the last device has read it."""
        began, self.seq = time.monotonic_ns(), self.seq + 1
        await self.server.publish(self.seq - 1)
        heard = await self.audience.read(self.seq - 1)
        self.last[heard.who] += 1
        return (heard.last - began) / 1e6

    async def turn(self) -> "_Turn":
        pids = (self.server.pids, self._softirqs, self.audience.pids)
        before = [cpu_ns(one) for one in pids]
        last = await self.broadcast()
        await asyncio.sleep(AFTERWARDS)
        server, softirq, client = (cpu_ns(one) - was for one, was in zip(pids, before, strict=True))
        return _Turn(server, softirq, client, last)

    def counted(self, turns: Sequence["_Turn"]) -> Turns:
        deliveries = len(turns) * self.audience.connections
        client, last = sum(one.client_ns for one in turns), [one.last_ms for one in turns]
        return Turns(
            cpu_us=sum(one.server_ns for one in turns) / deliveries / 1e3,
            softirq_us=sum(one.server_ns + one.softirq_ns for one in turns) / deliveries / 1e3,
            last_ms=statistics.median(last),
            client_us=client / deliveries / 1e3,
            client_busy=client / sum(last) / 1e6,
        )


@dataclass(frozen=True)
class _Turn:
    server_ns: int
    softirq_ns: int
    client_ns: int
    last_ms: float


async def arrive(contenders: Sequence[Contender], counts: Sequence[int], turns: int) -> list[list[float]]:
    """All devices connect, `counts` of them to each contender, in turns. µs of server CPU per connection, by contender and
    turn."""
    found: list[list[float]] = [[] for _ in contenders]
    for turn in range(turns):
        for i in rotated(range(len(contenders)), turn):
            one, more = contenders[i], shares(counts[i], turns)[turn]
            before = cpu_ns(one.server.pids)
            await one.audience.go(more)
            found[i].append((cpu_ns(one.server.pids) - before) / more / 1e3)
            await asyncio.sleep(AFTERWARDS)
    return found


async def compare(contenders: Sequence[Contender], rounds: int, publishes: int) -> None:
    """Adds `rounds` rounds to each contender, of `publishes` turns each."""
    for contender in contenders:
        for _ in range(WARM_UPS):
            await contender.broadcast()
    for number in range(rounds):
        turns: dict[str, list[_Turn]] = {contender.name: [] for contender in contenders}
        for turn in range(publishes):
            for contender in rotated(contenders, number * publishes + turn):
                turns[contender.name].append(await contender.turn())
        for contender in contenders:
            contender.rounds.append(contender.counted(turns[contender.name]))


def rotated(things: Sequence[T], number: int) -> list[T]:
    """The same order, begun one place later each time, and backwards every other time round: each comes before each other one as
    often as after it."""
    at = number % len(things)
    order = [*things[at:], *things[:at]]
    return order[::-1] if number // len(things) % 2 else order


def ratios(ours: Sequence[T], least: Sequence[T], value: Callable[[T], float]) -> list[float]:
    """Within each pair."""
    return [value(a) / value(b) for a, b in zip(ours, least, strict=True)]


async def settled(server: Server) -> None:
    """Waits until the server has nothing left to do: sessions go to the registry after their welcome."""
    async with asyncio.timeout(SETTLE_MAX):
        while True:
            before = cpu_ns(server.pids)
            await asyncio.sleep(SETTLE)
            if cpu_ns(server.pids) - before < 0.03 * SETTLE * 1e9:
                return
