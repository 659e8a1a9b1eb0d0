"""The sweep of a campaign: members batch by batch through the recommender, into the store, to the devices, at its pace."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

import msgspec
import numpy as np
import structlog
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from kv import Put
from prefetch import campaign as rules
from prefetch.campaign import Counts, Cursor
from prefetch.events import EventView, read_view
from prefetch.held import Held
from prefetch.making import Maker, open_maker
from prefetch.parts import Parts
from prefetch.push import Pusher
from prefetch.recommenders import RecommenderError
from prefetch.stage_maps import DEFAULT_COHORT, cohort_key
from prefetch.tastes import Member, Roster, Stretch, unpack
from prefetch.vectors import mean
from stagecast.names import Millis
from stagecast.records import RequiredMap, required_map_record

BATCH = 1000
BATCH_SECONDS = 0.5
"""A batch is about this much of the pace, so that little is repeated when a process is killed."""
SAMPLE = 100_000
"""Members looked at before the sweep: counts smaller audiences exactly, and gives the cohorts' mean tastes."""
COHORTS_MAX = 1000
"""Cohorts with a map of their own; members of further ones share the default's."""

_log = structlog.get_logger("prefetch.campaign")


class Stopped(Exception):
    """The campaign can't go on; the text says why and what to do."""


class Sweep:
    """One campaign's work, from its cursor on."""

    def __init__(self, parts: Parts, pusher: Pusher, held: Held) -> None:
        self._parts = parts
        self._pusher = pusher
        self._held = held

    async def run(self) -> None:
        """Works until the campaign is no longer running. Raises held.Lost, StoreError."""
        try:
            await self._run()
        except (Stopped, RecommenderError) as error:
            why = str(error)
            _log.warning("campaign failed", of=self._held.campaign.event, error=why)
            await self._held.write(lambda held: rules.fail(held, why, self._now()))

    async def _run(self) -> None:
        view = await self._view()
        maker = await open_maker(self._parts, self._held.campaign.stamp)
        if self._held.campaign.total == 0:
            await self._survey(view, maker)
        async with contextlib.aclosing(self._stretches(maker.roster)) as stretches:
            async for stretch in stretches:
                if rules.frozen(self._held.campaign, self._now()):
                    await self._held.write(lambda held: rules.freeze(held, self._parts.serving_rate, self._now()))
                    return
                await self._batch(maker, stretch)
        view = await self._view()
        await self._require(view)
        await self._held.write(lambda held: rules.finish(held, self._parts.serving_rate, self._now()))

    async def _survey(self, view: EventView, maker: Maker) -> None:
        """Counts the audience and gives every cohort its map, before any member is done: the answer to whoever asks early."""
        surveyed = await survey(maker.roster)
        if not surveyed.total:
            event = self._held.campaign.event
            raise Stopped(
                f"event {event!r} has no members: `stagecast prefetch import {event} FILE --kind members|maps`"
            )
        await maker.make(view, surveyed.cohorts)
        await self._held.write(lambda held: replace(held, total=surveyed.total))

    def _stretches(self, roster: Roster) -> AsyncGenerator[Stretch, None]:
        rate = rules.pace(self._held.campaign, self._now())
        return roster.sweep(self._held.campaign.cursor, max(1, min(BATCH, int(rate * BATCH_SECONDS))))

    async def _batch(self, maker: Maker, stretch: Stretch) -> None:
        """One batch: made, stored, pushed, then counted with the cursor behind it; and the pause that keeps the pace."""
        started = self._parts.clock.monotonic()
        maps = await maker.make(await self._view(), stretch.members)
        got = await self._pusher.push(maps)
        count = len(stretch.members)
        counts = Counts(count, got.pushed, got.busy, got.absent, count - len(maps))
        rate = rules.pace(self._held.campaign, self._now())
        await self._held.write(lambda held: rules.advance(held, stretch.cursor, counts, rate, self._now()))
        await asyncio.sleep(max(0.0, started + count / rate - self._parts.clock.monotonic()))

    async def _require(self, view: EventView) -> None:
        """From here on broadcasts ask devices to hold this map."""
        held = self._held.campaign
        required = msgspec.json.encode(RequiredMap(held.map, self._parts.serving_rate))
        await self._parts.store.put(
            [Put(required_map_record(held.event), str(held.gen), required, view.life(self._now()))]
        )

    async def _view(self) -> EventView:
        held = self._held.campaign
        view = await read_view(self._parts.store, held.event)
        if view is None or view.head.gone or view.gen != held.gen:
            raise Stopped(f"event {held.event!r} was deleted or created again; a campaign is for one gen of it")
        return view

    def _now(self) -> Millis:
        return self._parts.clock.now()


class Survey(Struct, frozen=True):
    """What a look at the audience gave."""

    total: int
    """Exact for what a sample holds, else estimated from the shards looked at: members are spread evenly over them."""
    cohorts: Sequence[Member]
    """For each cohort its mean member."""


async def survey(roster: Roster, sample: int = SAMPLE) -> Survey:
    """Looks at up to `sample` members. Raises StoreUnavailable."""
    seen = 0
    cursor = Cursor()
    sums = _Means()
    async with contextlib.aclosing(roster.sweep(cursor, BATCH)) as stretches:
        async for stretch in stretches:
            seen += len(stretch.members)
            sums.add(stretch.members)
            cursor = stretch.cursor
            if seen >= sample and 0 < cursor.shard < roster.shards:
                return Survey(seen * roster.shards // cursor.shard, sums.members())
    return Survey(seen, sums.members())


class _Means:
    """Running means of vectors, per cohort and of all (the default cohort)."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, members: Sequence[Member]) -> None:
        by_cohort: dict[str, list[bytes]] = defaultdict(list)
        for member in members:
            by_cohort[DEFAULT_COHORT].append(member.vector)
            if member.cohort != DEFAULT_COHORT:
                by_cohort[member.cohort].append(member.vector)
        for cohort, vectors in by_cohort.items():
            self._add(cohort, [vector for vector in vectors if vector])

    def _add(self, cohort: str, vectors: list[bytes]) -> None:
        if cohort not in self._counts and len(self._counts) > COHORTS_MAX:
            return
        size = len(vectors[0]) if vectors else 0
        alike = [vector for vector in vectors if len(vector) == size]
        self._counts.setdefault(cohort, 0)
        if not alike:
            return
        total = unpack(b"".join(alike)).reshape(len(alike), size // 4).sum(axis=0, dtype=np.float64)
        if cohort in self._sums and len(self._sums[cohort]) != len(total):
            return
        self._sums[cohort] = self._sums[cohort] + total if cohort in self._sums else total
        self._counts[cohort] += len(alike)

    def members(self) -> list[Member]:
        return [
            Member(cohort_key(cohort), mean(self._sums[cohort], count) if count else b"", cohort)
            for cohort, count in self._counts.items()
        ]
