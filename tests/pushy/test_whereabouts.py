"""The sessions of one host: who replaces whom."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pushy.link import Began, Ended, Replaced
from pushy.registry import Registry
from pushy.whereabouts import Late, Places, Whereabouts, holder_of, place_of

WALL = 1_764_000_000_000
HOLDER = holder_of("m1", "d1")
Change = Began | Ended


def test_a_later_session_elsewhere_replaces() -> None:
    """The worker of the earlier one is told; the same worker sees it by itself."""
    places = Places()
    assert places.began(HOLDER, 0, "s1", 100) is None
    assert places.began(HOLDER, 0, "s2", 200) is None
    assert places.began(HOLDER, 1, "s3", 300) == Late(0, 300)
    assert (places.count(0), places.count(1)) == (0, 1)


def test_a_session_told_late_is_the_one_replaced() -> None:
    """Two workers' words may arrive in the wrong order: the start decides, not the arrival."""
    places = Places()
    places.began(HOLDER, 1, "s2", 200)
    assert places.began(HOLDER, 0, "s1", 100) == Late(0, 200)
    places.ended(HOLDER, "s1")
    assert (places.count(0), places.count(1)) == (0, 1)
    places.ended(HOLDER, "s2")
    assert not places.known(HOLDER)
    assert (places.count(0), places.count(1)) == (0, 0)


def test_a_workers_death_forgets_its_sessions() -> None:
    places = Places()
    for device in ("d1", "d2"):
        places.began(holder_of("m1", device), 0, "s1", 100)
    places.began(holder_of("m2", "d3"), 1, "s1", 100)
    places.left(0)
    assert (places.count(0), places.count(1)) == (0, 1)
    assert [places.known(holder_of("m1", "d1")), places.known(holder_of("m2", "d3"))] == [False, True]


def test_a_place_is_whole_and_small() -> None:
    """Worker, id and start stand apart at their greatest too; of an everyday session it is as large as promised."""
    places, latest = Places(), (1 << 44) - 1
    places.began(HOLDER, 5000, "s1", latest - 1)
    assert places.began(HOLDER, 7, "s2", latest) == Late(5000, latest)
    assert (places.count(5000), places.count(7)) == (0, 1)
    assert (HOLDER.__sizeof__(), place_of(1023, "s1", WALL).__sizeof__()) == (32, 36)


def told(changes: Sequence[tuple[int, Change]], complete: bool) -> tuple[list[tuple[list[int], Replaced]], Registry]:
    """Who of three workers is told what, and the registry."""
    registry = Registry(60.0, "h1", "http://h1")
    whereabouts = Whereabouts(registry)
    replaced = [one for worker, change in changes for one in whereabouts.moved(worker, [change], complete)]
    return [([worker for worker in range(3) if one.concerns(worker)], one.message) for one in replaced], registry


def test_only_the_earlier_sessions_worker_is_told() -> None:
    """Once all sessions are known, a device that is new on this host concerns nobody."""
    first = (0, Began("m1", "d1", "s1", 100))
    assert told([first], True)[0] == []
    assert told([first, (2, Began("m1", "d1", "s2", 200))], True)[0] == [([0], Replaced("m1", "d1", 200))]


def test_a_young_feed_asks_every_other_worker() -> None:
    """Sessions from before its start are not told again, so an earlier one may be anywhere, unless one is known."""
    changes = [(1, Began("m1", "d1", "s1", 100)), (1, Began("m1", "d1", "s2", 200))]
    assert told(changes, False)[0] == [([0, 2], Replaced("m1", "d1", 100))]


def test_a_replaced_session_does_not_enter_the_registry() -> None:
    """Told late, it would hide the session that replaced it."""
    changes: list[tuple[int, Change]] = [
        (1, Began("m1", "d1", "s2", 200)),
        (0, Began("m1", "d1", "s1", 100)),
        (0, Ended("m1", "d1", "s1")),
    ]
    replaced, registry = told(changes, True)
    assert replaced == [([0], Replaced("m1", "d1", 200))]
    assert list(registry.take().values()) == [(1, Began("m1", "d1", "s2", 200))]


CHANGES = st.builds(
    lambda began, holder, sid, start: (
        Began(f"m{holder}", "d1", f"s{sid}", start) if began else Ended(f"m{holder}", "d1", f"s{sid}")
    ),
    st.sampled_from([True, True, True, False]), st.integers(0, 20), st.integers(0, 5), st.integers(1, 5),
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(CHANGES, max_size=6))))
def test_many_changes_at_once_are_as_one_by_one(messages: list[tuple[int, list[Change]]]) -> None:
    """Also where sessions that are all new go their short way: the same places, registry and replacements."""
    registries = [Registry(60.0, "h1", "http://h1", pending_max=9) for _ in range(2)]
    together, apart = map(Whereabouts, registries)
    for worker, changes in messages:
        # A feed that does not know all sessions goes the long way, and asks about new ones besides.
        longer = [one for change in changes for one in apart.moved(worker, [change], False)]
        assert [*together.moved(worker, changes, True)] == [one for one in longer if one.only is not None]
    assert vars(together.places) == vars(apart.places)
    assert [one.shed for one in registries] == [registries[0].shed] * 2
    kept = [list(one.take().items()) for one in registries]
    assert kept[0] == kept[1]


def test_a_session_that_comes_and_goes_at_once_is_removed() -> None:
    """Both in one message: the end is the last word."""
    whereabouts = Whereabouts(registry := Registry(60.0, "h1", "http://h1"))
    ended = Ended("m1", "d1", "s1")
    assert whereabouts.moved(0, [Began("m1", "d1", "s1", 100), ended], True) == []
    assert [change for _, change in registry.take().values()] == [ended]
    assert whereabouts.places.count(0) == 0
