"""The driver of imports: a stream of bytes into the store, batch by batch, with a resting place after each."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_never

import msgspec
from msgspec.structs import replace

from kv import Put, Store
from prefetch.events import EventView
from prefetch.importing import Imported, ImportState, Kind, Lines, Reader
from prefetch.stage_maps import DEVICE_JITTER, Keyed, StageMaps, jittered, map_version
from prefetch.tastes import Member, StageWeights, Title, member_put, title_put, weights_put
from stagecast.clock import Clock

BATCH_ITEMS = 500
BATCH_BYTES = 1 << 20
STATE_TTL = 7 * 24 * 3600.0
"""Seconds that a broken import can be resumed in."""


def imports_record(event: str, gen: int, kind: Kind) -> str:
    """Key = the file's digest → ImportState."""
    return f"imports/{event}/{gen}/{kind}"


def dims_record(event: str) -> str:
    """Key = `titles` or `members` → the length of their vectors, decimal."""
    return f"dims/{event}"


class NotThere(Exception):
    """The client goes on from another place than the import is at."""

    def __init__(self, state: ImportState) -> None:
        super().__init__(f"the import is at byte {state.bytes}")
        self.state = state


class Importer:
    """Imports files for one event. Two clients may import one file at once: they write the same items."""

    def __init__(self, store: Store, view: EventView, maps: StageMaps, clock: Clock) -> None:
        self._store = store
        self._view = view
        self._maps = maps
        self._clock = clock

    async def state(self, kind: Kind, digest: str) -> ImportState:
        """How far the file is in; a fresh state when nothing of it is."""
        found = (
            await self._store.get(imports_record(self._view.event, self._view.gen, kind), digest) if digest else None
        )
        if found:
            return msgspec.json.decode(found, type=ImportState)
        return ImportState(kind, digest, map_version(self._clock.now(), "import"))

    async def run(self, kind: Kind, digest: str, offset: int, chunks: AsyncIterator[bytes]) -> ImportState:
        """Imports `chunks`, the file's bytes from `offset` on (0 starts anew). Raises NotThere, StoreUnavailable, and whatever
        `chunks` raises: what was in a whole batch by then is in, and the state says so."""
        state = await self.state(kind, digest)
        if offset == 0:
            state = ImportState(kind, digest, map_version(self._clock.now(), "import"))
            state = replace(state, dims=await self._known_dims(kind))
        elif offset != state.bytes:
            raise NotThere(state)
        life = self._view.life(self._clock.now())
        reader = Reader(self._view.event, self._view.gen, state, jittered(life, DEVICE_JITTER, self._maps.rng))
        lines = Lines()
        batch: list[Imported] = []
        settled = state.bytes
        async for chunk in chunks:
            for line, length in lines.feed(chunk):
                _collect(batch, reader.read(line, length))
                if len(batch) >= BATCH_ITEMS or reader.state.bytes - settled >= BATCH_BYTES:
                    await self._settle(batch, reader.state, life)
                    batch, settled = [], reader.state.bytes
        for line, length in lines.end():
            _collect(batch, reader.read(line, length))
        done = replace(reader.state, complete=True)
        await self._settle(batch, done, life)
        return done

    async def _settle(self, batch: list[Imported], state: ImportState, life: float) -> None:
        """The batch, then the state that counts it: a break in between repeats the batch."""
        await self._maps.put((one for one in batch if isinstance(one, Keyed)), life)
        puts = list(self._tastes(batch, life))
        if state.dims:
            puts.append(Put(dims_record(self._view.event), state.kind, str(state.dims).encode(), life))
        if puts:
            await self._store.put(puts)
        if state.digest:
            record = imports_record(self._view.event, self._view.gen, state.kind)
            await self._store.put([Put(record, state.digest, msgspec.json.encode(state), STATE_TTL)])

    def _tastes(self, batch: list[Imported], life: float) -> Iterator[Put]:
        event = self._view.event
        for one in batch:
            match one:
                case Title():
                    yield title_put(event, one, life)
                case StageWeights():
                    yield weights_put(event, one, life)
                case Member():
                    yield member_put(event, one, life)
                case Keyed():
                    pass
                case _:
                    assert_never(one)

    async def _known_dims(self, kind: Kind) -> int:
        """Titles say how long vectors are, and a new file of them may say so anew; members follow."""
        if kind != "members":
            return 0
        known = await self._store.get(dims_record(self._view.event), "titles")
        return int(known) if known else 0


def _collect(batch: list[Imported], item: Imported | None) -> None:
    if item is not None:
        batch.append(item)
