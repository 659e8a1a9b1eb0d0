"""A host's drain: its progress, and that it outlives the feed which began it."""

from pathlib import Path

import msgspec

from pushy.catalogue import CATALOGUE
from pushy.draining import FILE, Drain, Drains, Progress


def test_without_a_drain_nothing_is_left_to_do() -> None:
    """The connections are those of now, and there is no pace."""
    drains = Drains()
    assert drains.progress(7) == Progress(False, 7, 7, 0.0, 0.0)
    assert drains.values(7)["stagecast_feed_drain_left"] == 0


def test_progress_counts_from_where_it_began() -> None:
    """What is left, and how long that takes at the pace."""
    drains = Drains()
    drains.begin(50.0, 1000, 5.0)
    assert drains.progress(400) == Progress(True, 1000, 400, 50.0, 8.0)
    assert drains.progress(1001).connections == 1001  # somebody's handshake was under way


def test_a_new_pace_keeps_the_beginning() -> None:
    """Since when it runs, and with how many it began, stay."""
    drains = Drains()
    drains.begin(50.0, 1000, 5.0)
    assert drains.begin(10.0, 400, 9.0) == Drain(10.0, 5.0, 1000)


def test_the_next_feed_goes_on_with_it(tmp_path: Path) -> None:
    """By the file; without one, or with half of one, there is no drain."""
    file = tmp_path / FILE
    assert Drains(file).now is None
    begun = Drains(file).begin(50.0, 1000, 5.0)
    assert Drains(file).now == begun
    file.write_bytes(msgspec.json.encode(begun)[:-3])
    assert Drains(file).now is None


def test_every_value_is_described() -> None:
    """In the catalogue, as a gauge."""
    assert {CATALOGUE[name].kind for name in Drains().values(0)} == {"gauge"}
