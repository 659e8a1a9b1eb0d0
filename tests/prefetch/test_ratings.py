"""On real ratings: the maps of a campaign foretell what members watch next better than what is popular does.

STAGECAST_RATINGS names a folder with `ratings.csv.gz` (member, title, rating, ts) and `titles.csv.gz` (title, name, year,
genres).
"""

import asyncio
import csv
import gzip
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from prefetch.stage_maps import StageMaps
from tests.prefetch.conftest import Caller, ndjson, set_event
from tests.prefetch.test_runner import until

DIMS = 16
K = 20
HELD_OUT = 5
"""Of each member's ratings every fifth, the latest, is held out."""
RATINGS = os.environ.get("STAGECAST_RATINGS", "")
pytestmark = pytest.mark.skipif(not RATINGS, reason="ratings: STAGECAST_RATINGS=FOLDER runs this")


def rows(name: str) -> list[dict[str, str]]:
    with gzip.open(Path(RATINGS) / name, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def split(ratings: Sequence[Mapping[str, str]]) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Per member what it rated, in time, and what it rated last: nothing of the latter is seen by what follows."""
    by_member: dict[str, list[str]] = defaultdict(list)
    for one in sorted(ratings, key=lambda row: (int(row["ts"]), row["title"])):
        by_member[one["member"]].append(one["title"])
    cut = {member: len(titles) - max(1, len(titles) // HELD_OUT) for member, titles in by_member.items()}
    return (
        {member: titles[: cut[member]] for member, titles in by_member.items()},
        {member: set(titles[cut[member] :]) for member, titles in by_member.items()},
    )


def factors(known: Mapping[str, list[str]], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Member and title vectors: the first singular vectors of who watched what, each member's row of length one."""
    place = {title: i for i, title in enumerate(titles)}
    watched = np.zeros((len(known), len(titles)))
    for row, seen in enumerate(known.values()):
        watched[row, [place[title] for title in seen]] = 1 / np.sqrt(max(len(seen), 1))
    values, vectors = np.linalg.eigh(watched @ watched.T)  # members are few: their Gram matrix is the small one
    left = vectors[:, -DIMS:]
    return left * np.sqrt(values[-DIMS:]), watched.T @ left / np.sqrt(values[-DIMS:])


def recall(shown: Mapping[str, Sequence[str]], held_out: Mapping[str, set[str]]) -> float:
    """Mean share of what a member watched next (at most K of it) that was among the K shown to it."""
    shares = [len(later & set(shown[member][:K])) / min(len(later), K) for member, later in held_out.items()]
    return float(np.mean(shares))


@pytest.mark.timeout(120)
async def test_maps_beat_what_is_popular(caller: Caller) -> None:
    """All members' maps, made by a campaign from imported vectors: at least 1.4 times the recall of the most popular titles that
    the member has not rated yet."""
    known, held_out = await asyncio.to_thread(split, await asyncio.to_thread(rows, "ratings.csv.gz"))
    catalogue = await asyncio.to_thread(rows, "titles.csv.gz")
    ids = [one["title"] for one in catalogue]
    members, titles = await asyncio.to_thread(factors, known, ids)
    watched = [title for seen in known.values() for title in seen]
    popularity = Counter(watched)

    await set_event(caller.site.store, "final")
    lines = [
        {
            "id": one["title"],
            "vector": vector.tolist(),
            "genres": one["genres"].split("|"),
            "popularity": popularity[one["title"]],
        }
        for one, vector in zip(catalogue, titles, strict=True)
    ]
    people = [
        {"id": member, "vector": vector.tolist(), "seen": known[member]}
        for member, vector in zip(known, members, strict=True)
    ]
    for kind, content in (("titles", lines), ("members", people)):
        got = (await caller.import_(kind, ndjson(*content))).json()
        assert (got["imported"], got["bad"]) == (len(content), [])
    await caller.http.post("/v1/campaigns/final", json={"budget": 100_000})
    done = await until(caller.site, "done")
    assert (done.done, done.skipped) == (len(known), 0)

    maps = StageMaps(caller.site.store, "final", 1, caller.site.parts().rng)
    shown: dict[str, Sequence[str]] = {}
    for member in known:
        found = await maps.get(member)
        assert found is not None
        assert found.map == done.map
        shown[member] = found.stages["live"]
        assert not set(shown[member]) & set(known[member])
    best = sorted(popularity, key=lambda title: -popularity[title])
    popular = {member: [title for title in best if title not in seen][:K] for member, seen in _sets(known).items()}
    ours, theirs = recall(shown, held_out), recall(popular, held_out)
    print(f"recall@{K}: stage maps {ours:.4f}, most popular {theirs:.4f}, {len(known)} members, {len(ids)} titles")
    assert ours > 1.4 * theirs


def _sets(known: Mapping[str, list[str]]) -> dict[str, set[str]]:
    return {member: set(seen) for member, seen in known.items()}
