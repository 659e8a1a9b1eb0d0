"""Admission: bounded at the rate, and who is turned away comes back no faster than it can be served."""

import heapq
import random

from prefetch.admission import Admission


def test_a_burst_then_the_rate() -> None:
    """A second's worth at once, then what the rate fills."""
    bucket = Admission(100, now=0.0)
    assert sum(bucket.take(0.0) for _ in range(1000)) == 100
    assert bucket.deferred == 900
    assert sum(bucket.take(0.5) for _ in range(1000)) == 50


def test_idle_time_fills_no_more_than_the_burst() -> None:
    """An hour of silence is no licence for a herd."""
    bucket = Admission(100, now=0.0)
    assert sum(bucket.take(3600.0) for _ in range(1000)) == 100


def test_those_turned_away_spread_over_the_backlog() -> None:
    """1,000 beyond capacity at 100 a second come back over 10 s, evenly; once the backlog has drained, within a second."""
    bucket, rng = Admission(100, now=0.0), random.Random(1)
    for _ in range(1100):
        bucket.take(0.0)
    times = [bucket.refresh_after(rng) for _ in range(1000)]
    assert 9.5 < max(times) <= 10.0
    assert 4.5 < sum(times) / 1000 < 5.5
    bucket.take(20.0)
    assert bucket.refresh_after(rng) <= 1.0


def test_a_herd_that_follows_refresh_after_is_served_in_the_time_it_takes() -> None:
    """10,000 at 1,000 a second: everyone is served within about twice the ten seconds that it takes at least."""
    bucket, rng = Admission(1000, now=0.0), random.Random(1)
    waiting = [0.0] * 10_000
    served_at: list[float] = []
    while waiting:
        now = heapq.heappop(waiting)
        if bucket.take(now):
            served_at.append(now)
        else:
            heapq.heappush(waiting, now + bucket.refresh_after(rng))
    assert max(served_at) < 25.0
