"""The campaign's rules: pace, freeze, lease, window."""

import pytest
from msgspec.structs import replace

from prefetch.campaign import (
    BUDGET,
    FLOOR,
    FREEZE_MS,
    LEASE_MS,
    WINDOW_MAX_MS,
    WINDOW_MIN_MS,
    Campaign,
    Counts,
    Cursor,
    advance,
    begin,
    claim,
    claimable,
    fail,
    finish,
    freeze,
    freeze_for,
    frozen,
    hint_window,
    pace,
    release,
)

NOW = 1_764_000_000_000
HOUR = 3_600_000


def campaign(total: int = 0, done: int = 0, freeze: int | None = None, budget: float = BUDGET) -> Campaign:
    return Campaign("final", 1, "1764000000000-m1", "vectors", NOW, freeze, budget, total=total, done=done)


def test_the_pace_is_what_is_left_over_the_time_to_freeze() -> None:
    """A hundred million in four hours are 6,944 a second; when half of both is gone it is the same."""
    big = campaign(100_000_000, 0, NOW + 4 * HOUR, budget=20_000)
    assert pace(big, NOW) == pytest.approx(6944.4, abs=0.1)
    assert pace(replace(big, done=50_000_000), NOW + 2 * HOUR) == pytest.approx(6944.4, abs=0.1)


def test_the_budget_caps_the_pace() -> None:
    """However late it is: the recommender is not asked for more than it was measured at."""
    assert pace(campaign(100_000_000, 0, NOW + HOUR, budget=9000), NOW) == 9000
    assert pace(campaign(100_000, 0, NOW - 1, budget=9000), NOW) == 9000


def test_a_small_audience_is_not_spread_over_days() -> None:
    """Below the floor spreading out relieves nobody; but a smaller budget is kept."""
    assert pace(campaign(500, 0, NOW + 200 * HOUR), NOW) == FLOOR
    assert pace(campaign(500, 0, NOW + 200 * HOUR, budget=10), NOW) == 10
    assert pace(campaign(500, 0, None, budget=700), NOW) == 700


def test_a_campaign_freezes_ten_minutes_before_the_event() -> None:
    """One that begins later than that does not: somebody asked for it."""
    assert freeze_for(NOW + HOUR, NOW) == NOW + HOUR - FREEZE_MS
    assert freeze_for(NOW + FREEZE_MS, NOW) is None
    assert freeze_for(None, NOW) is None
    begun = campaign(freeze=NOW + HOUR)
    assert not frozen(begun, NOW + HOUR - 1)
    assert frozen(begun, NOW + HOUR)
    assert frozen(freeze(campaign(), 1000, NOW), NOW)


def test_only_an_expired_lease_can_be_taken() -> None:
    """While its owner renews it nobody else may; the owner itself may always; what is over, nobody."""
    begun = begin(campaign(), None, "a", NOW)
    assert (begun.owner, begun.epoch) == ("a", 1)
    assert not claimable(begun, "b", NOW + LEASE_MS - 1)
    assert claimable(begun, "b", NOW + LEASE_MS)
    assert claimable(begun, "a", NOW)
    taken = claim(begun, "b", NOW + LEASE_MS)
    assert (taken.owner, taken.epoch, taken.lease) == ("b", 2, NOW + 2 * LEASE_MS)
    assert claimable(release(taken, "b", NOW), "a", NOW)
    assert release(taken, "a", NOW) == taken
    assert not claimable(fail(taken, "why", NOW), "b", NOW + HOUR)


def test_a_batch_moves_cursor_and_counts_together() -> None:
    """And renews the lease; an underestimated total grows with what was done."""
    moved = advance(campaign(total=5), Cursor(3, "x"), Counts(10, 4, 1, 5, 2), 500.0, NOW)
    assert (moved.cursor, moved.done, moved.total) == (Cursor(3, "x"), 10, 10)
    assert (moved.pushed, moved.busy, moved.absent, moved.skipped) == (4, 1, 5, 2)
    assert moved.lease == NOW + LEASE_MS


def test_a_finished_campaign_has_its_exact_total_and_a_window() -> None:
    """The estimate gives way to the count."""
    done = finish(campaign(total=120, done=100), 1000.0, NOW)
    assert (done.phase, done.total, done.finished, done.over) == ("done", 100, NOW, False)
    assert done.window == WINDOW_MIN_MS


def test_the_hint_window_lets_the_unreached_fetch_at_half_the_capacity() -> None:
    """Between two seconds and ten minutes."""
    assert hint_window(campaign(total=100_000), 1000.0) == 200_000
    assert hint_window(campaign(total=1), 1000.0) == WINDOW_MIN_MS
    assert hint_window(campaign(total=10**9), 1000.0) == WINDOW_MAX_MS
