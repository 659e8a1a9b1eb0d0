"""Making stage maps: a recommender's answers, stamped with a campaign's version, into the store."""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog

from kv import StoreError
from prefetch.campaign import Stamp
from prefetch.events import EventView
from prefetch.parts import Parts
from prefetch.recommenders import (
    Recommendation,
    Recommender,
    RecommenderError,
    Source,
    find_recommender,
    roster_for,
)
from prefetch.stage_maps import (
    DEVICE_JITTER,
    Keyed,
    MapTooLarge,
    StageMaps,
    cohort_version,
    encode_map,
    is_cohort,
    jittered,
)
from prefetch.tastes import Member, Roster
from stagecast.wire.frames import StageMap

T = TypeVar("T")
_log = structlog.get_logger("prefetch.making")


class Maker:
    """Makes the maps of one campaign's version. Use `open_maker`."""

    def __init__(self, parts: Parts, stamp: Stamp, maps: StageMaps, recommender: Recommender, roster: Roster) -> None:
        self._parts = parts
        self._stamp = stamp
        self._maps = maps
        self._recommender = recommender
        self.roster = roster

    async def make(self, view: EventView, members: Sequence[Member]) -> list[Keyed]:
        """Computes and stores the maps of these members (or cohorts); those the recommender knows nothing for, and those too
        large for a frame, are left out and counted. Raises RecommenderError, StoreUnavailable."""
        name = self._stamp.recommender
        made = await guarded(name, self._recommender.recommend(view.stages, members))
        if len(made) != len(members):
            raise RecommenderError(f"recommender {name!r} gave {len(made)} answers for {len(members)} members")
        maps = [
            one
            for member, found in zip(members, made, strict=True)
            if found is not None and self._fits(one := self._stamped(view, member, found))
        ]
        metrics = self._parts.metrics
        metrics.skipped.labels("unknown").inc(sum(found is None for found in made))
        metrics.large.inc(await self._maps.put(maps, view.life(self._parts.clock.now())))
        metrics.maps.inc(len(maps))
        return maps

    def _stamped(self, view: EventView, member: Member, found: Recommendation) -> Keyed:
        cohort = is_cohort(member.id)
        version = cohort_version(self._stamp.map) if cohort else self._stamp.map
        ttl = jittered(view.life(self._parts.clock.now()), DEVICE_JITTER, self._parts.rng)
        return Keyed(
            member.id, StageMap(view.event, view.gen, version, found.stages, found.default, round(ttl), cohort)
        )

    def _fits(self, one: Keyed) -> bool:
        try:
            encode_map(one.key, one.map)
        except MapTooLarge as error:
            self._parts.metrics.skipped.labels("too_large").inc()
            _log.warning("stage map left out", of=one.map.e, error=str(error))
            return False
        except (TypeError, ValueError) as error:
            raise RecommenderError(
                f"recommender {self._stamp.recommender!r}: its payload for {one.key!r} is no JSON: {error}"
            ) from error
        return True


async def open_maker(parts: Parts, stamp: Stamp) -> Maker:
    """Raises RecommenderError when the campaign's recommender is not there or can't work, StoreUnavailable."""
    maps = StageMaps(parts.store, stamp.event, stamp.gen, parts.rng)
    source = Source(parts.store, stamp.event, stamp.gen, maps)
    recommender = await guarded(stamp.recommender, find_recommender(stamp.recommender)(source))
    return Maker(parts, stamp, maps, recommender, roster_for(stamp.recommender, source))


async def guarded(name: str, work: Awaitable[T]) -> T:
    """A plug-in's work: whatever else it raises becomes RecommenderError."""
    try:
        return await work
    except (RecommenderError, StoreError):
        raise
    except Exception as error:
        raise RecommenderError(f"recommender {name!r} failed: {type(error).__name__}: {error}") from error
