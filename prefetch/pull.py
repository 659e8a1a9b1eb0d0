"""The pull: what a device that asks for its stage map gets. Its own, or one made on the spot, or its cohort's: never a 503."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from kv import StoreError
from prefetch.admission import Admission
from prefetch.campaign import Stamp, frozen
from prefetch.events import FRESH, EventView, read_view
from prefetch.making import Maker, open_maker
from prefetch.memory import Flights, Memory
from prefetch.parts import Parts
from prefetch.recommenders import RecommenderError
from prefetch.stage_maps import (
    DEFAULT_COHORT,
    DEVICE_JITTER,
    Keyed,
    PulledMap,
    StageMaps,
    cohort_key,
    is_cohort,
    jittered,
)
from prefetch.tastes import ImportedMembers
from stagecast.wire.frames import StageMap

REFRESH_OWN = 3600.0
"""Seconds, ± 20 %, after which a device that has its own map asks again: hints come sooner."""
REFRESH_COHORT = 300.0
"""Seconds, ± 20 %, for a device that got its cohort's because it has none of its own."""
COHORT_FRESH = 5.0
MAKERS = 16
"""Recommenders kept open (a catalogue of 4,000 titles of 64 numbers is 1 MB)."""

Got = Literal["own", "made", "cohort", "deferred", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    got: Got
    map: PulledMap | None = None


class Pull:
    """Answers devices of one process. Reads of events, cohort maps and recommenders are shared by all who ask together."""

    def __init__(self, parts: Parts, admission: Admission) -> None:
        clock = parts.clock
        self._parts = parts
        self._admission = admission
        self._views: Memory[str, EventView | None] = Memory(self._read_view, clock.monotonic, FRESH)
        self._cohorts: Memory[tuple[str, int, str], StageMap | None] = Memory(
            self._read_cohort, clock.monotonic, COHORT_FRESH
        )
        self._makers: Memory[Stamp, Maker] = Memory(self._open_maker, clock.monotonic, float("inf"), MAKERS)
        self._making: Flights[tuple[Stamp, str], Keyed | None] = Flights()

    async def answer(self, event: str, member: str) -> Answer:
        """The member's answer. Raises StoreError only when kv is down and nothing is known here of this event."""
        view = await self._views.get(event)
        if view is None or view.head.gone:
            return Answer("none")
        if not self._admission.take(self._parts.clock.monotonic()):
            found = await self._cohort(view, DEFAULT_COHORT)
            after = self._admission.refresh_after(self._parts.rng)
            return Answer("deferred", _pulled(found, after)) if found else Answer("none")
        try:
            return await self._own(view, member)
        except StoreError:
            return await self._shared(view, DEFAULT_COHORT)

    async def _own(self, view: EventView, member: str) -> Answer:
        if is_cohort(member):
            return await self._shared(view, DEFAULT_COHORT)
        own = await self._maps(view).get(member)
        if own is not None:
            return Answer("own", _pulled(own, self._jittered(REFRESH_OWN)))
        campaign = view.campaign
        if (
            campaign is not None
            and campaign.phase in ("running", "done")
            and not frozen(campaign, self._parts.clock.now())
        ):
            stamp = campaign.stamp
            made = await self._making.join((stamp, member), lambda: self._make(view, stamp, member))
            if made is not None:
                return Answer("made", _pulled(made.map, self._jittered(REFRESH_OWN)))
        known = await ImportedMembers(self._parts.store, view.event).find(member)
        return await self._shared(view, known.cohort if known else DEFAULT_COHORT)

    async def _make(self, view: EventView, stamp: Stamp, member: str) -> Keyed | None:
        """The first fetch of a member that the campaign has not come to (or that came after it)."""
        try:
            maker = await self._makers.get(stamp)
            found = await maker.roster.find(member)
            made = await maker.make(view, [found]) if found is not None else []
        except RecommenderError:
            return None
        return made[0] if made else None

    async def _shared(self, view: EventView, cohort: str) -> Answer:
        found = await self._cohort(view, cohort)
        if found is None and cohort != DEFAULT_COHORT:
            found = await self._cohort(view, DEFAULT_COHORT)
        return Answer("cohort", _pulled(found, self._jittered(REFRESH_COHORT))) if found else Answer("none")

    async def _cohort(self, view: EventView, cohort: str) -> StageMap | None:
        return await self._cohorts.get((view.event, view.gen, cohort))

    async def _read_view(self, event: str) -> EventView | None:
        return await read_view(self._parts.store, event)

    async def _read_cohort(self, key: tuple[str, int, str]) -> StageMap | None:
        event, gen, cohort = key
        return await StageMaps(self._parts.store, event, gen, self._parts.rng).get(cohort_key(cohort))

    async def _open_maker(self, stamp: Stamp) -> Maker:
        return await open_maker(self._parts, stamp)

    def _maps(self, view: EventView) -> StageMaps:
        return StageMaps(self._parts.store, view.event, view.gen, self._parts.rng)

    def _jittered(self, seconds: float) -> float:
        return jittered(seconds, DEVICE_JITTER, self._parts.rng)


def _pulled(found: StageMap, refresh_after: float) -> PulledMap:
    return PulledMap(**msgspec.structs.asdict(found), refresh_after=round(refresh_after, 3))
