"""The vector recommender's arithmetic, against a naive one."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.tastes import StageWeights, Title, pack
from prefetch.vectors import Catalogue, top_k

whole = st.integers(-9, 9)


def naive(titles: Sequence[Title], stage: str, member: Sequence[int], liked: dict[str, float], k: int) -> list[float]:
    """Scores best first, one multiplication at a time. Whole numbers: float32 adds them exactly."""
    scores = []
    for title in titles:
        numbers = np.frombuffer(title.vector, dtype="<f4").tolist()
        score = sum(a * b for a, b in zip(member, numbers, strict=True))
        score += title.stages.get(stage, 0.0) + sum(liked.get(genre, 0.0) for genre in title.genres)
        scores.append(score)
    return sorted(scores, reverse=True)[:k]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[Title], list[list[int]]]:
    dims = draw(st.integers(1, 4))
    vector = st.lists(whole, min_size=dims, max_size=dims)
    genres = st.sets(st.sampled_from(["a", "b"])).map(lambda found: tuple(sorted(found)))
    boost = st.dictionaries(st.sampled_from(["live", "ended"]), whole.map(float))
    titles = draw(
        st.lists(
            st.builds(Title, id=st.just("t"), vector=vector.map(pack), genres=genres, stages=boost),
            min_size=1,
            max_size=12,
        )
    )
    numbered = [Title(f"t{i}", one.vector, 0.0, one.genres, one.stages) for i, one in enumerate(titles)]
    return numbered, draw(st.lists(vector, min_size=1, max_size=20))


@given(catalogues(), st.integers(1, 15))
@settings(max_examples=60)
async def test_the_matrix_product_gives_what_a_loop_would(case: tuple[list[Title], list[list[int]]], k: int) -> None:
    """For each member and stage: as many titles as asked (or there are), none twice, and their scores the greatest in order."""
    titles, members = case
    liked = {"a": 2.0, "b": -3.0}
    tops = await Catalogue(titles, [StageWeights("live", liked)]).top(
        ["upcoming", "live", "ended"], [(pack(member), ()) for member in members], k
    )
    by_id = {title.id: title for title in titles}
    for i, member in enumerate(members):
        for stage, weights in (("upcoming", {}), ("live", liked), ("ended", {})):
            chosen = tops.stages[stage][i]
            assert len(set(chosen)) == len(chosen) == min(k, len(titles))
            scores = [naive([by_id[one]], stage, member, weights, 1)[0] for one in chosen]
            assert scores == naive(titles, stage, member, weights, k)
        assert tops.default[i] == tops.stages["upcoming"][i]


def test_top_k_orders_best_first() -> None:
    """Also when all are wanted, and more than there are."""
    scores = np.array([[1, 3, 2, 3]], dtype=np.float32)
    assert top_k(scores, 2).tolist() == [[1, 3]]
    assert top_k(scores, 9).tolist() == [[1, 3, 2, 0]]


async def test_a_member_without_a_vector_gets_the_most_popular() -> None:
    """And so does one whose vector has another length: it belongs to another import."""
    titles = [Title("dull", pack([9, 9]), 1.0), Title("hit", pack([0, 0]), 7.0)]
    tops = await Catalogue(titles).top(["live"], [(b"", ()), (pack([1, 2, 3]), ()), (pack([1, 1]), ())], 2)
    assert tops.stages["live"] == [["hit", "dull"], ["hit", "dull"], ["dull", "hit"]]


async def test_titles_without_vectors_are_ranked_by_popularity() -> None:
    """A catalogue may have no vectors at all."""
    tops = await Catalogue([Title("a", b"", 1.0), Title("b", b"", 2.0)]).top(
        ["live"], [(b"", ()), (pack([1.0]), ())], 5
    )
    assert tops.stages["live"] == [["b", "a"], ["b", "a"]]


async def test_blocks_bound_memory_and_change_nothing() -> None:
    """More members than one block holds give the same answers, in order."""
    rng = np.random.default_rng(1)
    titles = [Title(f"t{i}", row.tobytes()) for i, row in enumerate(rng.standard_normal((50, 8)).astype("<f4"))]
    members = [(row.tobytes(), ()) for row in rng.standard_normal((90, 8)).astype("<f4")]
    together = await Catalogue(titles).top(["live"], members, 5)
    assert await Catalogue(titles, block_bytes=4 * 50 * 20).top(["live"], members, 5) == together


async def test_what_was_seen_comes_last() -> None:
    """Only when nothing else is left; titles that are not in the catalogue mean nothing."""
    titles = [Title("a", pack([3.0])), Title("b", pack([2.0])), Title("c", pack([1.0]))]
    tops = await Catalogue(titles).top(["live"], [(pack([1.0]), ("a", "z")), (pack([1.0]), ())], 2)
    assert tops.stages["live"] == [["b", "c"], ["a", "b"]]
    assert (await Catalogue(titles).top(["live"], [(pack([1.0]), ("a",))], 3)).default == [["b", "c", "a"]]
