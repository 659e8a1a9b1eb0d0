"""The demo's audience: simulated devices in this process, and what they say of every transition."""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from stagecast.changes import Change
from stagecast.client import Device
from stagecast.tokens import Keys

CONNECTING = 50
"""Devices that connect at once."""
TITLES_LIKED = 3


def tastes(titles: Sequence[dict[str, Any]], count: int, rng: random.Random) -> list[dict[str, Any]]:
    """So many members with a taste each: near a few titles they like. As the lines of a members import."""
    members = []
    for i in range(count):
        liked = rng.sample(titles, TITLES_LIKED)
        vector = [
            round(sum(one["vector"][d] for one in liked) / TITLES_LIKED + rng.gauss(0, 0.05), 4)
            for d in range(len(liked[0]["vector"]))
        ]
        members.append({"id": f"member-{i:04}", "vector": vector})
    return members


class Tally:
    """How devices took one transition."""

    def __init__(self, gen: int, seq: int, stage: str) -> None:
        self.gen = gen
        self.seq = seq
        self.stage = stage
        self.latencies: list[int] = []
        """ms from the accepted ts until a device had switched; those that caught up later are not in it."""
        self.switched = 0
        self.with_payload = 0

    def add(self, change: Change) -> None:
        self.switched += 1
        self.with_payload += change.result == "switched"
        if not change.caught_up:
            self.latencies.append(change.applied_at - change.ts)

    def within(self, share: float) -> int | None:
        """ms until this share of those who were connected had switched."""
        ordered = sorted(self.latencies)
        return ordered[max(0, round(share * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a played plan ended: how many devices are where the event is."""

    right: int
    devices: int

    @classmethod
    def of(cls, positions: Sequence[tuple[int, int]], head: tuple[int, int]) -> "Ending":
        """From where the devices are and where the event was just before, each (gen, seq)."""
        return cls(sum(at >= head for at in positions), len(positions))

    @property
    def status(self) -> int:
        """The exit status: 1 if any device is on a wrong stage."""
        return int(self.right < self.devices)


class Audience:
    """Devices, one per member; each is read all the time. Use it as a context."""

    def __init__(self, ws: str, keys: Keys, members: Sequence[str], event: str) -> None:
        self._event = event
        self._http = httpx.AsyncClient(trust_env=False)
        rng, now = random.Random(7), time.time()
        self.devices = {
            f"tv-{i:04}": Device(
                ws,
                keys.mint(member, f"tv-{i:04}", [event], 24 * 3600, now, rng),
                device=f"tv-{i:04}",
                events=[event],
                app="demo",
                http=self._http,
            )
            for i, member in enumerate(members)
        }
        self.tallies: dict[tuple[int, int], Tally] = {}
        self.newest: Tally | None = None
        self.caught_up: list[tuple[str, Change]] = []
        """(device, what it switched to in a welcome after it had been away)."""
        self.changed = asyncio.Event()
        """Set whenever a device switched; whoever waits clears it."""
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Audience":
        return self

    async def connect(self, said: asyncio.Event | None = None) -> None:
        """Connects all, some at a time."""
        gate = asyncio.Semaphore(CONNECTING)

        async def one(name: str, device: Device) -> None:
            async with gate:
                await device.__aenter__()
                self._readers.append(asyncio.create_task(self._read(name, device)))
                await device.until_connected()
                if said is not None:
                    said.set()

        await asyncio.gather(*(one(name, device) for name, device in self.devices.items()))

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(device.close() for device in self.devices.values()), return_exceptions=True)
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._http.aclose()

    async def _read(self, name: str, device: Device) -> None:
        first = True
        async for change in device.stages():
            if change.caught_up and not first:
                self.caught_up.append((name, change))
            key = (change.gen, change.seq)
            tally = self.tallies.setdefault(key, Tally(*key, change.stage))
            tally.add(change)
            if self.newest is None or key > (self.newest.gen, self.newest.seq):
                self.newest = tally
            first = False
            self.changed.set()

    @property
    def connected(self) -> int:
        return sum(device.connected for device in self.devices.values())

    @property
    def holding(self) -> int:
        """Devices that hold a stage map of their own."""
        maps = (device.stage_map(self._event) for device in self.devices.values())
        return sum(held is not None and not held.cohort for held in maps)

    @property
    def fetches(self) -> int:
        """Requests that devices made to a server, so far."""
        return sum(device.fetches for device in self.devices.values())

    def ending(self, gen: int, seq: int) -> Ending:
        """Where the devices are, for a head of this order."""
        positions = (device.position(self._event) for device in self.devices.values())
        return Ending.of([(at.gen, at.seq) for at in positions], (gen, seq))
