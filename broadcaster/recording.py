"""Curves in the store: written while they grow, read for progress and report. The points are `series`' affair.

Promised: what the receipts log told of a state is in the store within SAVE_EVERY of being told; an instance that was away for
less than REACH leaves no hole, and none is left as long as any instance runs. Not promised: a curve's last seconds, should all
instances be away for longer; a point of a transition that was followed by another within the same second.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import msgspec
import structlog

from broadcaster.receipts import KEEP_MS
from broadcaster.series import GRACE_MS, Chunk, Order, Point, Recorder
from broadcaster.together import together
from kv import KeyValue, Put, StoreError
from stagecast.clock import Clock
from stagecast.records import HISTORY_TTL, series_record

TICK = 1.0
SAVE_EVERY = 5
"""Ticks between two writes of a curve that grows."""
REACH = 60
"""Seconds before its start that an instance makes points of, too."""
REACH_MS = KEEP_MS + REACH * 1000
"""How far back the receipts log is read for that: a sum needs the receipts of the KEEP_MS before it."""
_points = msgspec.json.Decoder(list[Point])
_log = structlog.get_logger()


class Curves:
    """One process's access to the curves in the store."""

    def __init__(self, store: KeyValue, recorder: Recorder, clock: Clock) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self.written = 0
        self.failed = 0
        self._failing = False

    async def run(self) -> None:
        """Makes points as time passes and writes them, for ever. A store that is down is no matter: points are kept meanwhile, as
        many as a curve has."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            ticks += 1
            self._recorder.pass_time(self._clock.now())
            if ticks % SAVE_EVERY == 0:
                await self.save()

    async def finish(self, timeout: float) -> None:
        """What was told so far is written, as far as `timeout` seconds allow."""
        self._recorder.pass_time(self._clock.now() + GRACE_MS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.save()

    async def save(self) -> None:
        """Writes what is not in the store yet; first learns what the store has of curves that began before this process did."""
        try:
            await together(self._load, self._recorder.unloaded())
            await together(self._write, self._recorder.unsaved())
        except StoreError as error:
            self.failed += 1
            if not self._failing:
                _log.warning("curves not written", error=str(error))
            self._failing = True
        else:
            self._failing = False

    async def of_gen(self, event: str, gen: int) -> dict[int, list[Point]]:
        """seq → points in order, of all curves of this gen: the store's, and those not written yet. Raises StoreError."""
        found: dict[int, dict[int, Point]] = {}
        for chunk in self._recorder.unsaved():
            if chunk.event == event and chunk.order[0] == gen:
                _into(found, chunk.order[1], chunk.points)
        async for seq, points in self._read(event, gen, None):
            _into(found, seq, points)
        return {seq: [by_ts[ts] for ts in sorted(by_ts)] for seq, by_ts in sorted(found.items())}

    async def _load(self, wanted: tuple[str, Order]) -> None:
        event, order = wanted
        stored: list[Point] = []
        async for seq, points in self._read(event, order[0], order[1]):
            if seq != order[1]:
                break
            stored += points
        curve = self._recorder.curve(event, order)
        if curve is not None:
            curve.load(stored)

    async def _read(self, event: str, gen: int, seq: int | None) -> AsyncIterator[tuple[int, list[Point]]]:
        after = None if seq is None else f"{seq:016}"
        while True:
            page = await self._store.page(series_record(event, gen), after)
            for item in page.items:
                yield int(item.key.partition("-")[0]), _points.decode(item.value)
            after = page.after
            if after is None:
                return

    async def _write(self, chunk: Chunk) -> None:
        gen, seq = chunk.order
        points = list(chunk.points)
        value = msgspec.json.encode(points)
        key = f"{seq:016}-{chunk.number:06}"
        await self._store.put([Put(series_record(chunk.event, gen), key, value, HISTORY_TTL)])
        self.written += 1
        self._recorder.saved(Chunk(chunk.event, chunk.order, chunk.number, points))


def _into(found: dict[int, dict[int, Point]], seq: int, points: Iterable[Point]) -> None:
    found.setdefault(seq, {}).update((point.ts, point) for point in points)
