"""The arithmetic of the vector recommender: members × titles as one matrix product, then the best of each row. NumPy alone.

score(member, title, stage) = member · title + boost(title, stage)
boost(title, stage)         = the title's own `stages[stage]` + the sum of the stage's weights of its genres

Stages with equal boosts share one selection, so a catalogue without any costs one pass however many stages a plan has.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefetch.tastes import StageWeights, Title, unpack

Taste = tuple[bytes, Sequence[str]]
"""A packed vector (empty: none), and title ids that were seen: they come last."""
Floats = NDArray[np.float32]
Ranks = NDArray[np.intp]

SCORES_BYTES = 16 << 20
"""Of one block of scores: bounds memory (about three blocks live at once) and stays near the caches."""
INLINE = 16
"""Members up to which a product is faster than a thread hop."""


@dataclass(frozen=True, slots=True)
class Tops:
    """For each member, in order, title ids best first: per stage, and for any other."""

    stages: dict[str, list[list[str]]]
    default: list[list[str]]


class Catalogue:
    """An event's titles as a matrix. Titles whose vector has another length than most count as having none."""

    def __init__(
        self, titles: Sequence[Title], weights: Sequence[StageWeights] = (), block_bytes: int = SCORES_BYTES
    ) -> None:
        self._block_bytes = block_bytes
        sizes = [len(title.vector) for title in titles if title.vector]
        size = max(set(sizes), key=sizes.count, default=0)
        self._titles = titles
        self._ids = [title.id for title in titles]
        self._places = {title: place for place, title in enumerate(self._ids)}
        self._size = size
        zero = bytes(size)
        packed = b"".join(title.vector if len(title.vector) == size else zero for title in titles)
        self._matrix: Floats = np.ascontiguousarray(unpack(packed).reshape(len(titles), size // 4).T, dtype=np.float32)
        popularity = np.array([title.popularity for title in titles], dtype=np.float32)
        spread = float(np.ptp(popularity)) if len(titles) else 0.0
        self._popularity: Floats = (popularity - popularity.min()) / np.float32(spread or 1.0)
        self._weights = {one.stage: one.genres for one in weights}

    @property
    def dims(self) -> int:
        return self._size // 4

    def boosts(self, stage: str) -> Floats | None:
        """What the stage adds to each title's score; None for nothing."""
        liked = self._weights.get(stage, {})
        added = np.array(
            [
                title.stages.get(stage, 0.0) + sum(liked.get(genre, 0.0) for genre in title.genres)
                for title in self._titles
            ],
            dtype=np.float32,
        )
        return added if added.any() else None

    async def top(self, stages: Sequence[str], members: Sequence[Taste], k: int) -> Tops:
        """The best `k` titles of each member (by popularity without a vector, or with one of another length), per stage."""
        groups = self._groups(stages)
        step = max(1, self._block_bytes // (4 * len(self._ids)))
        found: list[list[list[str]]] = [[] for _ in groups]
        for start in range(0, len(members), step):
            block = members[start : start + step]
            if len(block) <= INLINE:
                best = self._block(block, groups, k)
            else:
                best = await asyncio.to_thread(self._block, block, groups, k)
            for ids, more in zip(found, best, strict=True):
                ids.extend(more)
        places = {stage: i for i, (_, named) in enumerate(groups) for stage in named}
        return Tops({stage: found[places[stage]] for stage in stages}, found[0])

    def _groups(self, stages: Sequence[str]) -> list[tuple[Floats | None, list[str]]]:
        """Stages by their boosts; the first group has none, and is the default's."""
        groups: dict[bytes, tuple[Floats | None, list[str]]] = {b"": (None, [])}
        for stage in stages:
            added = self.boosts(stage)
            groups.setdefault(added.tobytes() if added is not None else b"", (added, []))[1].append(stage)
        return list(groups.values())

    def _block(
        self, members: Sequence[Taste], groups: list[tuple[Floats | None, list[str]]], k: int
    ) -> list[list[list[str]]]:
        scores = self._scores([vector for vector, _ in members])
        seen = [(row, self._places[one]) for row, (_, ids) in enumerate(members) for one in ids if one in self._places]
        if seen:
            rows, columns = zip(*seen, strict=True)
            scores[rows, columns] = -np.inf
        best: list[list[list[str]]] = []
        for added, _ in groups:
            ranks = top_k(scores if added is None else scores + added, k)
            best.append([[self._ids[i] for i in row] for row in ranks.tolist()])
        return best

    def _scores(self, vectors: Sequence[bytes]) -> Floats:
        zero = bytes(self._size)
        known = np.array([len(vector) == self._size and self._size > 0 for vector in vectors])
        packed = b"".join(vector if is_known else zero for vector, is_known in zip(vectors, known, strict=True))
        members = unpack(packed).reshape(len(vectors), self.dims)
        scores: Floats = members @ self._matrix
        if not known.all():
            scores[~known] = self._popularity
        return scores


def top_k(scores: Floats, k: int) -> Ranks:
    """Per row the places of its `k` greatest, best first; of equal scores the earlier place wins among the chosen."""
    k = min(k, scores.shape[1])
    if k < scores.shape[1]:
        chosen = np.sort(np.argpartition(scores, -k, axis=1)[:, -k:], axis=1)
    else:
        chosen = np.broadcast_to(np.arange(k), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def mean(total: NDArray[np.float64], count: int) -> bytes:
    """The mean of `count` vectors that sum to `total`, packed."""
    return (total / count).astype("<f4").tobytes()
