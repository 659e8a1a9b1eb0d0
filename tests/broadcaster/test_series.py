"""Curves: a point a second while something changes, the same from any start of reading."""

import pytest

from broadcaster.receipts import KEEP_MS, Ledger
from broadcaster.series import GRACE_MS, WORKERS_PER_STEP, Chunk, Curve, Point, Recorder, grain, reached
from stagecast.log import Record
from stagecast.receipts import Receipt, encode_receipt

NOW = 1_764_000_000_000
MINUTE = 60_000


def record(ms: int, at: int, *, seq: int = 2, worker: int = 0, n: int = 10) -> Record:
    """What a worker of `n` devices counted `ms` after NOW: `at` of them are at it."""
    receipt = Receipt("h", "b", worker, NOW + ms, "final", 7, seq, n, n, subscribed=n, at_or_past=at)
    return Record(0, ms, NOW + ms, "final", encode_receipt(receipt))


def recorder(complete_from: int = 0) -> tuple[Ledger, Recorder]:
    ledger = Ledger()
    return ledger, Recorder(ledger, lambda event, order: NOW if event == "final" else None, complete_from)


def shares(made: Recorder) -> list[tuple[int, int, int]]:
    """(ms, at_or_past, subscribed) of every point."""
    curve = made.curve("final", (7, 2))
    return [(p.ts - NOW, p.at_or_past, p.subscribed) for p in curve.points] if curve else []


def test_a_point_is_of_a_full_second() -> None:
    """It is stamped with the end of the second its receipts fell into, and made when a later record comes."""
    ledger, made = recorder()
    ledger.read([record(100, 1), record(900, 4)], NOW)
    assert shares(made) == []
    ledger.read([record(1300, 6), record(5000, 10), record(9900, 10)], NOW)
    assert shares(made) == [(1000, 4, 10), (2000, 6, 10), (6000, 10, 10)]


def test_nothing_new_is_no_point() -> None:
    """Signs of life without a change make none."""
    ledger, made = recorder()
    ledger.read([record(ms, 10) for ms in range(100, 60_000, 5000)], NOW)
    assert shares(made) == [(1000, 10, 10)]


def test_time_passes_without_records() -> None:
    """The last second's point does not wait for the log: the wall clock and some grace do as well."""
    ledger, made = recorder()
    ledger.read([record(100, 10)], NOW)
    made.pass_time(NOW + 1000 + GRACE_MS - 1)
    assert shares(made) == []
    made.pass_time(NOW + 1000 + GRACE_MS)
    assert shares(made) == [(1000, 10, 10)]


def test_any_start_makes_the_same_points() -> None:
    """A reader that begins later, 120 s before what it tells of, makes the same points from there."""
    records = [record(ms, ms // 7000, worker=ms % 3, n=40) for ms in range(500, 200_000, 700)]
    ledger, early = recorder()
    ledger.read(records, NOW)
    start = 40_000
    ledger, late = recorder(NOW + start + KEEP_MS)
    ledger.read([one for one in records if one.ts >= NOW + start], NOW)
    first, *others = shares(late)
    assert others == [one for one in shares(early) if one[0] > first[0]]
    assert len(others) > 5


def test_a_newer_state_begins_a_curve() -> None:
    """The curve is of the newest state that any worker knows; a worker behind counts as not at it."""
    ledger, made = recorder()
    ledger.read([record(100, 10), record(200, 10, worker=1), record(1100, 3, seq=3), record(2100, 10, seq=3)], NOW)
    curve = made.curve("final", (7, 3))
    assert curve is not None
    assert [(p.at_or_past, p.subscribed) for p in curve.points] == [(3, 20)]


def test_a_state_that_was_followed_tells_how_it_ended() -> None:
    """What is counted of it afterwards makes points too, by its own receipts: how many were superseded, how many came past it."""
    ledger, made = recorder()
    ledger.read([record(100, 3), record(900, 0, seq=3), record(950, 8), record(3000, 10, seq=3)], NOW)
    assert shares(made) == [(1000, 8, 10)]
    newer = made.curve("final", (7, 3))
    assert newer is not None
    assert [(p.ts - NOW, p.at_or_past) for p in newer.points] == [(1000, 0)]


def test_a_curve_forgotten_goes_on_from_the_store() -> None:
    """A state that is not the newest leaves the memory once it is saved; should it change again, its chunk is read first."""
    ledger, made = recorder()
    ledger.read([record(100, 3), record(900, 0, seq=3)], NOW)
    made.pass_time(NOW + 3000)
    for chunk in made.unsaved():
        made.saved(chunk)
    made.pass_time(NOW + 4000)
    assert made.curve("final", (7, 2)) is None
    ledger.read([record(5000, 9), record(7000, 0, seq=3)], NOW)
    assert made.unloaded() == [("final", (7, 2))]


def test_times_to_shares() -> None:
    """The first point at which so many of those subscribed were at it; never without an audience."""

    def point(ms: int, at: int, subscribed: int = 1000) -> Point:
        return Point(NOW + ms, subscribed, at, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    assert reached([point(1000, 0, 0), point(2000, 500), point(3000, 949), point(4000, 998)], NOW) == {
        "50": 2000, "95": 4000, "99": 4000, "99.9": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("age", "step", "chunk"),
    [
        (-5, 1000, 0), (29_999, 1000, 0), (30_000, 1000, 1), (2 * MINUTE, 5000, 4), (15 * MINUTE - 1, 5000, 6),
        (15 * MINUTE, MINUTE, 100), (2 * 60 * MINUTE, 10 * MINUTE, 10_000), (20 * 60 * MINUTE, 10 * MINUTE, 10_002),
    ],
)  # fmt: skip
def test_older_states_have_fewer_points(age: int, step: int, chunk: int) -> None:
    """A second, 5 s, a minute, ten minutes; chunks of some 30 to 60 points."""
    assert grain(age) == (step, chunk)


def test_a_large_fleet_has_fewer_points() -> None:
    """Its sums cost more, so they come less often."""
    ledger, made = recorder()
    ledger.read([record(100, 1, worker=n) for n in range(WORKERS_PER_STEP)], NOW)
    ledger.read([record(1500, 2), record(2500, 3)], NOW)
    assert [ms for ms, _, _ in shares(made)] == [2000]


def test_chunks_are_saved_and_forgotten() -> None:
    """What is saved is not given again; a chunk under way is given whole, so that writing it loses nothing."""
    ledger, made = recorder()
    ledger.read([record(100, 1), record(1500, 2), record(31_500, 3), record(33_000, 4)], NOW)
    first = made.unsaved()
    assert [(chunk.number, len(chunk.points)) for chunk in first] == [(0, 2), (1, 1)]
    for chunk in first:
        made.saved(chunk)
    assert made.unsaved() == []
    ledger.read([record(35_000, 5)], NOW)
    assert [(chunk.number, len(chunk.points)) for chunk in made.unsaved()] == [(1, 2)]


def test_a_restart_goes_on_from_the_store() -> None:
    """A state older than the process can know is not written before the store's points are here; then the chunk is whole, and
    the times are those first found."""
    ledger, before = recorder()
    ledger.read([record(100, 6), record(1500, 10), record(2600, 9)], NOW)
    stored = before.unsaved()[0].points
    ledger, made = recorder(NOW + 2500)
    ledger.read([record(2600, 9), record(3100, 9), record(4100, 10), record(5100, 10)], NOW)
    assert made.unsaved() == []
    assert made.unloaded() == [("final", (7, 2))]
    curve = made.curve("final", (7, 2))
    assert curve is not None
    curve.load(stored)
    assert made.unsaved() == [Chunk("final", (7, 2), 0, curve.points)]
    assert [p.ts - NOW for p in curve.points] == [1000, 2000, 3000, 5000]
    assert curve.reached["50"] == 1000
    assert curve.reached["99.9"] == 2000


def test_a_state_of_unknown_time_has_no_curve() -> None:
    """Without the state's own ts nothing can be told of its age: the point waits."""
    ledger = Ledger()
    times: dict[str, int] = {}
    made = Recorder(ledger, lambda event, order: times.get(event))
    ledger.read([record(100, 6), record(1500, 10)], NOW)
    assert shares(made) == []
    times["final"] = NOW
    ledger.read([record(2500, 10)], NOW)
    assert [ms for ms, _, _ in shares(made)] == [2000]


def test_what_nobody_counts_any_more_is_forgotten() -> None:
    """Once the ledger has no receipts of an event and its points are saved, nothing of it is left in memory."""
    ledger, made = recorder()
    ledger.read([record(100, 6)], NOW)
    made.pass_time(NOW + 3000)
    late = NOW + KEEP_MS + 11_000
    ledger.read([Record(0, 1, late, "other", encode_receipt(Receipt("h", "b", 0, late, "other", 7, 1)))], late)
    made.pass_time(late)
    assert made.curve("final", (7, 2)) is not None
    for chunk in made.unsaved():
        made.saved(chunk)
    made.pass_time(late)
    assert made.curve("final", (7, 2)) is None


def test_an_empty_curve() -> None:
    """Nothing is known, nothing is saved."""
    curve = Curve((7, 1), NOW, loaded=True)
    assert curve.chunks() == {}
    assert set(curve.reached.values()) == {None}
