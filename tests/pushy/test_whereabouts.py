"""The sessions of one host: who replaces whom."""

from collections.abc import Callable

from pushy.link import Began, Ended
from pushy.registry import Registry
from pushy.whereabouts import Late, Place, Places, Whereabouts


def test_a_later_session_elsewhere_replaces() -> None:
    """The worker of the earlier one is told; the same worker sees it by itself."""
    places, holder = Places(), ("m1", "d1")
    assert places.began(holder, Place(0, "s1", 100)) is None
    assert places.began(holder, Place(0, "s2", 200)) is None
    assert places.began(holder, Place(1, "s3", 300)) == Late(0, 300)
    assert (places.count(0), places.count(1)) == (0, 1)


def test_a_session_told_late_is_the_one_replaced() -> None:
    """Two workers' words may arrive in the wrong order: the start decides, not the arrival."""
    places, holder = Places(), ("m1", "d1")
    places.began(holder, Place(1, "s2", 200))
    assert places.began(holder, Place(0, "s1", 100)) == Late(0, 200)
    places.ended(holder, "s1")
    assert (places.count(0), places.count(1)) == (0, 1)


def test_a_workers_death_forgets_its_sessions() -> None:
    places = Places()
    for device in ("d1", "d2"):
        places.began(("m1", device), Place(0, "s1", 100))
    places.began(("m2", "d3"), Place(1, "s1", 100))
    places.left(0)
    assert (places.count(0), places.count(1)) == (0, 1)


class Replacements:
    """Takes down who is told to close what, of three workers."""

    def __init__(self, complete: bool) -> None:
        self.registry = Registry(60.0)
        self.told: list[tuple[list[int], str, int]] = []
        self.whereabouts = Whereabouts("h1", "http://h1", self.registry, lambda: complete, self._replace)

    def _replace(self, which: Callable[[int], bool], change: Began, start: int) -> None:
        self.told.append(([worker for worker in range(3) if which(worker)], change.device, start))


def test_only_the_earlier_sessions_worker_is_told() -> None:
    """Once all sessions are known, a device that is new on this host concerns nobody."""
    one = Replacements(complete=True)
    one.whereabouts.began(0, Began("m1", "d1", "s1", 100))
    assert one.told == []
    one.whereabouts.began(2, Began("m1", "d1", "s2", 200))
    assert one.told == [([0], "d1", 200)]


def test_a_young_feed_asks_every_other_worker() -> None:
    """Sessions from before its start are not told again, so an earlier one may be anywhere."""
    one = Replacements(complete=False)
    one.whereabouts.began(1, Began("m1", "d1", "s1", 100))
    assert one.told == [([0, 2], "d1", 100)]


def test_a_replaced_session_does_not_enter_the_registry() -> None:
    """Told late, it would hide the session that replaced it."""
    one = Replacements(complete=True)
    one.whereabouts.began(1, Began("m1", "d1", "s2", 200))
    one.whereabouts.began(0, Began("m1", "d1", "s1", 100))
    assert one.told == [([0], "d1", 200)]
    one.whereabouts.ended(Ended("m1", "d1", "s1"))
    assert [change.sid for _, change in one.registry.take()] == ["s2"]
