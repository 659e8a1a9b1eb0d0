"""Recommenders: what decides which titles a member sees in each stage. Two are here; others plug in by entry point.

A plug-in is an async function registered in the entry point group `stagecast.recommenders`:

    [project.entry-points."stagecast.recommenders"]
    mine = "my_package:open_recommender"

    async def open_recommender(source: Source) -> Recommender: ...
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from msgspec import Struct

from kv import Store
from prefetch.stage_maps import StageMaps
from prefetch.tastes import ImportedMembers, MappedMembers, Member, Roster, load_titles
from prefetch.vectors import Catalogue
from stagecast.wire.frames import Payload

GROUP = "stagecast.recommenders"
STORED = "stored"
VECTORS = "vectors"
TOP = 20
"""Titles per stage: 20 ids of 8 bytes for a dozen stages are about 2.5 KB, mostly less."""


class RecommenderError(Exception):
    """The recommender can't work for this event; the text says what to do."""


class Recommendation(Struct, frozen=True):
    """What one member sees: any JSON per stage, and what any other stage shows."""

    stages: dict[str, Payload]
    default: Payload = None


@dataclass(frozen=True, slots=True)
class Source:
    """What a recommender may draw on."""

    store: Store
    event: str
    gen: int
    maps: StageMaps


class Recommender(Protocol):
    """Promised to it: `stages` are the plan's, in order; batches are bounded (at most 4,096 members); a member whose id starts
    with `cohort:` stands for all of a cohort, its vector being their mean."""

    async def recommend(self, stages: Sequence[str], members: Sequence[Member]) -> Sequence[Recommendation | None]:
        """For each member, in order, what it sees, or None if nothing is known for it. May raise RecommenderError."""
        ...


OpenRecommender = Callable[[Source], Awaitable[Recommender]]


class StoredMaps:
    """Hands out the maps that were imported (or computed before), unchanged."""

    def __init__(self, maps: StageMaps) -> None:
        self._maps = maps

    async def recommend(self, stages: Sequence[str], members: Sequence[Member]) -> Sequence[Recommendation | None]:
        found = [await self._maps.get(member.id) for member in members]
        return [Recommendation(one.stages, one.default) if one else None for one in found]


class Vectors:
    """Titles by the product of member and title vectors; a member without one gets the most popular."""

    def __init__(self, catalogue: Catalogue, top: int = TOP) -> None:
        self._catalogue = catalogue
        self._top = top

    async def recommend(self, stages: Sequence[str], members: Sequence[Member]) -> Sequence[Recommendation | None]:
        tops = await self._catalogue.top(stages, [(member.vector, member.seen) for member in members], self._top)
        return [
            Recommendation({stage: tops.stages[stage][i] for stage in stages}, tops.default[i])
            for i in range(len(members))
        ]


async def open_stored(source: Source) -> Recommender:
    return StoredMaps(source.maps)


async def open_vectors(source: Source) -> Recommender:
    """Raises RecommenderError when no titles were imported."""
    titles, weights = await load_titles(source.store, source.event)
    if not titles:
        raise RecommenderError(
            f"event {source.event!r} has no titles: `stagecast prefetch import {source.event} FILE --kind titles`"
        )
    return Vectors(Catalogue(titles, weights))


BUILT_IN: dict[str, OpenRecommender] = {STORED: open_stored, VECTORS: open_vectors}


def find_recommender(name: str) -> OpenRecommender:
    """The recommender's opening function. Raises RecommenderError naming the known ones."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted({*BUILT_IN, *found}))
        raise RecommenderError(f"no recommender is called {name!r}; there are: {known}")
    try:
        opener: OpenRecommender = found[name].load()
    except Exception as error:  # a plug-in's import may fail in any way
        raise RecommenderError(f"recommender {name!r} can't be loaded: {error}") from error
    return opener


def roster_for(name: str, source: Source) -> Roster:
    """Whom this recommender's campaign is for: the imported members, or for `stored` those with a map."""
    return MappedMembers(source.maps) if name == STORED else ImportedMembers(source.store, source.event)
