"""How many new connections a worker takes per second, and when those turned away come back."""

import random

from pushy.turnstile import WAIT_MAX, Turnstile


def test_a_burst_comes_in_and_then_the_rate_holds() -> None:
    """So many at once; from then on one each 1 / rate."""
    gate = Turnstile(rate=10, burst=3, now=0.0)
    assert [gate.enter(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert gate.enter(0.0) == 0.1
    assert gate.enter(0.05) > 0
    assert gate.enter(0.11) == 0.0


def test_who_is_turned_away_gets_a_moment_of_his_own() -> None:
    """A crowd of 100 is spread over 100 / rate seconds, not sent back together."""
    gate = Turnstile(rate=10, burst=1, now=0.0)
    gate.enter(0.0)
    waits = [gate.enter(0.0) for _ in range(100)]
    assert waits == sorted(set(waits))
    assert abs(waits[-1] - 10.0) < 1e-6


def test_a_crowd_that_comes_when_told_is_let_in() -> None:
    """Everybody is in after crowd / rate seconds, and no second has seen more than the rate."""
    gate = Turnstile(rate=50, burst=50, now=0.0)
    waiting, entered = [0.0] * 1000, []
    while waiting:
        waiting.sort()
        now = waiting.pop(0)
        wait = gate.enter(now)
        if wait:
            waiting.append(now + wait + random.Random(len(waiting)).random() / 50)
        else:
            entered.append(now)
    assert max(entered) < 1000 / 50 + 3
    for second in range(1, 20):
        assert sum(second <= now < second + 1 for now in entered) <= 51


def test_a_wait_has_an_end() -> None:
    """Beyond it the slots begin again: a device told "in an hour" is a lost one."""
    gate = Turnstile(rate=1, burst=1, now=0.0)
    assert max(gate.enter(0.0) for _ in range(1000)) <= WAIT_MAX


def test_the_pace_may_change() -> None:
    """As the feed says when it knows the number of workers."""
    gate = Turnstile(rate=10, burst=1, now=0.0)
    gate.pace(1)
    gate.enter(0.0)
    assert gate.enter(0.0) == 1.0
