"""Pushing stage maps to the devices that are connected: registry look-up, then `POST /push` of their hosts, batched by host.

The push is an accelerator and the pull is the net: whatever can't be delivered in a few tries is counted and left.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from kv import Store
from prefetch.metrics import Metrics
from prefetch.stage_maps import Keyed, encode_map
from stagecast.clock import Clock
from stagecast.records import Session, registry_record

LOOKUPS = 32
HOSTS = 8
"""Hosts pushed to at once; each takes one batch at a time."""
ENTRIES = 250
BODY_BYTES = 512 << 10
TRIES = 3
PAUSE = (0.1, 0.5)
"""Seconds between tries, drawn at random and doubled each time."""
TIMEOUT = 5.0
AVOIDED = 5.0
"""Seconds that a host which did not answer is left alone."""

_log = structlog.get_logger("prefetch.push")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to: devices that took it, devices that stayed busy, members that no host had."""

    pushed: int = 0
    busy: int = 0
    absent: int = 0


class _Entry(Struct, frozen=True, omit_defaults=True):
    frame: msgspec.Raw
    member: str | None = None
    device: str | None = None


class _Status(Struct, frozen=True):
    i: int
    status: int
    member: str | None = None
    device: str | None = None


class _Tally:
    """Per member what its devices answered."""

    def __init__(self, members: Sequence[str]) -> None:
        self.pushed = 0
        self.busy = 0
        self._missing = set(members)

    def took(self, member: str) -> None:
        self.pushed += 1
        self._missing.discard(member)

    def stayed_busy(self, member: str) -> None:
        self.busy += 1
        self._missing.discard(member)

    def result(self) -> Pushed:
        return Pushed(self.pushed, self.busy, len(self._missing))


class Pusher:
    """Pushes through hosts' admin ports with a service API key; without one it pushes nothing."""

    def __init__(self, store: Store, key: str | None, clock: Clock, rng: random.Random, metrics: Metrics) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._avoid: dict[str, float] = {}
        self._http = httpx.AsyncClient(
            timeout=TIMEOUT,
            trust_env=False,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            limits=httpx.Limits(max_connections=2 * HOSTS, max_keepalive_connections=HOSTS),
        )

    async def push(self, maps: Sequence[Keyed]) -> Pushed:
        """Pushes each map to all devices of its member. Raises StoreUnavailable; a host's failure is only counted."""
        tally = _Tally([one.key for one in maps])
        if self._key is not None and maps:
            by_host = await self._by_host(maps)
            turn = asyncio.Semaphore(HOSTS)
            await asyncio.gather(*(self._host(turn, admin, todo, tally) for admin, todo in by_host.items()))
        result = tally.result()
        self._metrics.pushes.labels("pushed").inc(result.pushed)
        self._metrics.pushes.labels("busy").inc(result.busy)
        self._metrics.pushes.labels("absent").inc(result.absent)
        return result

    async def close(self) -> None:
        await self._http.aclose()

    async def _by_host(self, maps: Sequence[Keyed]) -> dict[str, list[tuple[str, bytes]]]:
        """Admin URL → (member, map) of those with a session there."""
        found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for start in range(0, len(maps), LOOKUPS):
            some = maps[start : start + LOOKUPS]
            for one, hosts in zip(some, await asyncio.gather(*(self._hosts(one.key) for one in some)), strict=True):
                for admin in hosts:
                    found[admin].append((one.key, encode_map(one.key, one.map)))
        return found

    async def _hosts(self, member: str) -> set[str]:
        page = await self._store.page(registry_record(member))
        return {msgspec.json.decode(item.value, type=Session).admin for item in page.items}

    async def _host(self, turn: asyncio.Semaphore, admin: str, todo: list[tuple[str, bytes]], tally: _Tally) -> None:
        async with turn:
            for batch in _batches(todo):
                await self._batch(admin, [_Entry(msgspec.Raw(frame), member) for member, frame in batch], tally)

    async def _batch(self, admin: str, entries: list[_Entry], tally: _Tally) -> None:
        """One batch to one host, the busy of it again."""
        owners = [entry.member or "" for entry in entries]
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._rng.uniform(*PAUSE) * 2 ** (attempt - 1))
            statuses = await self._post(admin, entries)
            busy: list[tuple[str, _Entry]] = []
            for status in statuses:
                if not 0 <= status.i < len(entries):
                    continue
                if status.status == 200:
                    tally.took(owners[status.i])
                elif status.status == 503:
                    busy.append((owners[status.i], _addressed(entries[status.i], status)))
            owners, entries = [owner for owner, _ in busy], [entry for _, entry in busy]
            if not busy:
                return
        for owner in owners:
            tally.stayed_busy(owner)

    async def _post(self, admin: str, entries: list[_Entry]) -> list[_Status]:
        if self._avoid.get(admin, 0.0) > self._clock.monotonic():
            self._metrics.pushes.labels("unreachable").inc(len(entries))
            return []
        try:
            got = await self._http.post(
                f"{admin}/push", content=msgspec.json.encode(entries), headers={"Content-Type": "application/json"}
            )
            got.raise_for_status()
            return msgspec.json.decode(got.content, type=list[_Status])
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            self._avoid = {one: until for one, until in self._avoid.items() if until > self._clock.monotonic()}
            self._avoid[admin] = self._clock.monotonic() + AVOIDED
            self._metrics.pushes.labels("unreachable").inc(len(entries))
            _log.warning("push failed", host=admin, error=f"{type(error).__name__}: {error}")
            return []


def _addressed(entry: _Entry, status: _Status) -> _Entry:
    """The same frame again for the device that was busy alone: its member's others have it."""
    return replace(entry, member=None, device=status.device) if status.device else entry


def _batches(todo: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """At most ENTRIES and about BODY_BYTES each: a host refuses bodies over 1 MiB."""
    batch: list[tuple[str, bytes]] = []
    size = 0
    for member, frame in todo:
        if batch and (len(batch) == ENTRIES or size + len(frame) > BODY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((member, frame))
        size += len(frame) + len(member) + 32
    if batch:
        yield batch
