"""What recommenders work from: an event's titles and its members' tastes, kept in the store so that any prefetch process can run
a campaign, and the sweep over members that a campaign's cursor walks.

A vector is kept as little-endian float32, 4 bytes a number. Members are spread over shards so that no record grows past what
a store likes (100 M members of 64 numbers: 30 MB a shard).
"""

import asyncio
import math
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from kv import Put, Store
from prefetch.campaign import Cursor
from prefetch.stage_maps import DEFAULT_COHORT, StageMaps
from stagecast.names import MemberId, StageName
from stagecast.records import BUCKETS

SHARDS = 1024
AHEAD = 16
"""Shards read at once: most of a small audience's are nearly empty."""
SHARD_PAGE_BYTES = 256 << 10
DIMS_MAX = 2048

TitleId = Annotated[str, Meta(min_length=1, max_length=128)]
Cohort = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]


class Title(Struct, frozen=True):
    """A title that may be recommended."""

    id: TitleId
    vector: bytes
    popularity: float = 0.0
    genres: tuple[str, ...] = ()
    stages: dict[StageName, float] = {}
    """Stage → boost: added to the title's score in that stage."""


class StageWeights(Struct, frozen=True):
    """What a stage likes: genre → boost, added to the score of the titles of that genre."""

    stage: StageName
    genres: dict[str, float]


class Member(Struct, frozen=True):
    """Someone to recommend to. Without a vector only the popularity of titles is known; an id that starts with `cohort:` asks for
    the map that the cohort shares."""

    id: MemberId
    vector: bytes = b""
    cohort: Cohort = DEFAULT_COHORT
    seen: tuple[TitleId, ...] = ()
    """Titles not to recommend, unless nothing else is left."""


class _Kept(Struct, frozen=True, array_like=True):
    vector: bytes
    cohort: str
    seen: tuple[str, ...] = ()


class Stretch(Struct, frozen=True):
    """Members that follow each other in the sweep, and the cursor behind them."""

    members: Sequence[Member]
    cursor: Cursor


class Roster(Protocol):
    """Whom a campaign is for."""

    shards: int

    def sweep(self, cursor: Cursor, count: int) -> AsyncGenerator[Stretch, None]:
        """All members from `cursor` on, in stretches of about `count` (the last cursor is `shards`). Raises StoreUnavailable."""
        ...

    async def find(self, member: str) -> Member | None: ...


def pack(vector: Sequence[float]) -> bytes:
    """The vector as kept. Raises ValueError for none, too many, or numbers that float32 can't hold."""
    if not 0 < len(vector) <= DIMS_MAX:
        raise ValueError(f"a vector has 1 to {DIMS_MAX} numbers, not {len(vector)}")
    if not all(math.isfinite(x) and abs(x) < 3e38 for x in vector):
        raise ValueError("a vector's numbers are finite float32")
    return np.asarray(vector, dtype="<f4").tobytes()


def unpack(vector: bytes) -> NDArray[np.float32]:
    return np.frombuffer(vector, dtype="<f4")


def titles_record(event: str) -> str:
    """Key = title id → Title."""
    return f"titles/{event}"


def weights_record(event: str) -> str:
    """Key = stage → StageWeights."""
    return f"stage_weights/{event}"


def members_record(event: str, shard: int) -> str:
    """Key = member id → its taste."""
    return f"members/{event}/{shard}"


def member_shard(member: str) -> int:
    return zlib.crc32(member.encode()) % SHARDS


def title_put(event: str, title: Title, ttl: float) -> Put:
    return Put(titles_record(event), title.id, msgspec.msgpack.encode(title), ttl)


def weights_put(event: str, weights: StageWeights, ttl: float) -> Put:
    return Put(weights_record(event), weights.stage, msgspec.msgpack.encode(weights), ttl)


def member_put(event: str, member: Member, ttl: float) -> Put:
    kept = msgspec.msgpack.encode(_Kept(member.vector, member.cohort, member.seen))
    return Put(members_record(event, member_shard(member.id)), member.id, kept, ttl)


async def load_titles(store: Store, event: str) -> tuple[list[Title], list[StageWeights]]:
    """The event's catalogue, in the order of ids. Raises StoreUnavailable."""
    titles = [msgspec.msgpack.decode(data, type=Title) async for _, data in _items(store, titles_record(event))]
    weights = [
        msgspec.msgpack.decode(data, type=StageWeights) async for _, data in _items(store, weights_record(event))
    ]
    return titles, weights


async def _items(store: Store, record: str) -> AsyncIterator[tuple[str, bytes]]:
    after: str | None = None
    while True:
        page = await store.page(record, after)
        for item in page.items:
            yield item.key, item.value
        if page.after is None:
            return
        after = page.after


class ImportedMembers:
    """The members imported for an event."""

    shards = SHARDS

    def __init__(self, store: Store, event: str) -> None:
        self._store = store
        self._event = event

    async def find(self, member: str) -> Member | None:
        data = await self._store.get(members_record(self._event, member_shard(member)), member)
        return _member(member, data) if data else None

    async def page(self, shard: int, after: str | None) -> tuple[Sequence[Member], str | None]:
        page = await self._store.page(members_record(self._event, shard), after, SHARD_PAGE_BYTES)
        return [_member(item.key, item.value) for item in page.items], page.after

    def sweep(self, cursor: Cursor, count: int) -> AsyncGenerator[Stretch, None]:
        return _sweep(self, cursor, count)


class MappedMembers:
    """The members that have a stage map already: whom ready maps were imported for."""

    shards = BUCKETS

    def __init__(self, maps: StageMaps) -> None:
        self._maps = maps

    async def find(self, member: str) -> Member | None:
        return Member(member) if await self._maps.get(member) else None

    async def page(self, shard: int, after: str | None) -> tuple[Sequence[Member], str | None]:
        maps, further = await self._maps.page(shard, after)
        return [Member(one.key) for one in maps], further

    def sweep(self, cursor: Cursor, count: int) -> AsyncGenerator[Stretch, None]:
        return _sweep(self, cursor, count)


class _Paged(Protocol):
    @property
    def shards(self) -> int: ...

    async def page(self, shard: int, after: str | None) -> tuple[Sequence[Member], str | None]: ...


async def _sweep(roster: _Paged, cursor: Cursor, count: int) -> AsyncGenerator[Stretch, None]:
    gathered: list[Member] = []
    async for shard, members, behind in _pages(roster, cursor):
        start = 0
        while start < len(members):
            taken = members[start : start + count - len(gathered)]
            gathered.extend(taken)
            start += len(taken)
            if len(gathered) == count:
                yield Stretch(gathered, behind if start == len(members) else Cursor(shard, gathered[-1].id))
                gathered = []
    if gathered:
        yield Stretch(gathered, Cursor(roster.shards))


async def _pages(roster: _Paged, cursor: Cursor) -> AsyncIterator[tuple[int, Sequence[Member], Cursor]]:
    """Pages in order: their shard, their members, the cursor behind them. AHEAD shards are read at once."""
    shard, after = cursor.shard, cursor.after
    while shard < roster.shards:
        wanted = range(shard, min(shard + AHEAD, roster.shards))
        firsts = await asyncio.gather(*(roster.page(one, after if one == shard else None) for one in wanted))
        for one, (members, further) in zip(wanted, firsts, strict=True):
            while further is not None:
                yield one, members, Cursor(one, further)
                members, further = await roster.page(one, further)
            yield one, members, Cursor(one + 1)
        shard, after = wanted[-1] + 1, None


def _member(key: str, data: bytes) -> Member:
    kept = msgspec.msgpack.decode(data, type=_Kept)
    return Member(key, kept.vector, kept.cohort, kept.seen)
