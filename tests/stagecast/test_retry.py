"""When a device comes back: stagecast.retry."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagecast.retry import BACK_AT_FIRST, Next, Reconnect, RenewToken, StayAway, Wait

BROKEN = [1006, 1011, 1012, 4002, 4008, 4013, 4029, 1005, 3000, 4999]
OWN_FAULT = [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4403, 4409]


class Longest(random.Random):
    """Draws the upper end of every range."""

    def random(self) -> float:
        return 1.0


class Shortest(random.Random):
    """Draws the lower end of every range."""

    def random(self) -> float:
        return 0.0


def seconds(what: Next) -> float:
    assert isinstance(what, Wait | RenewToken)
    return what.seconds


@pytest.mark.parametrize("code", OWN_FAULT)
def test_a_device_stays_away_after_its_own_fault(code: int) -> None:
    """1000, and every code that is the device's own fault, ends it."""
    assert Reconnect(random.Random(1)).after(code, 100.0) == StayAway()


@pytest.mark.parametrize("code", [1001, 4000, 4001])
def test_by_plan_is_between_lo_and_hi(code: int) -> None:
    """A planned close is answered within `back`, low end included, however often it happens."""
    for _ in range(5):
        for rng, expected in ((Shortest(), 3.0), (Longest(), 9.0)):
            again = Reconnect(rng)
            again.steer((3000, 9000))
            assert again.after(code, 0.0) == Wait(expected)


@pytest.mark.parametrize("code", BROKEN)
def test_backoff_grows_from_hi_to_a_minute(code: int) -> None:
    """The first delay is U(0, hi), then U(0, min(60 s, hi·2^n)); an unlisted code is as any break."""
    again = Reconnect(Longest())
    assert [seconds(again.after(code, 0.0)) for _ in range(7)] == [5, 10, 20, 40, 60, 60, 60]
    assert Reconnect(Shortest()).after(code, 0.0) == Wait(0.0)


def test_before_the_first_welcome_back_is_two_to_five_seconds() -> None:
    """Without a node's word, `back` is [2000, 5000]."""
    assert Reconnect(random.Random(1)).back == BACK_AT_FIRST == (2000, 5000)
    assert Reconnect(Shortest()).after(1001, 0.0) == Wait(2.0)


def test_n_starts_over_only_after_thirty_stable_seconds() -> None:
    """A connection that was welcomed and dropped within 30 s goes on backing off: connecting alone resets nothing."""
    again = Reconnect(Longest())
    for _ in range(3):
        again.after(1006, 0.0)
    again.welcomed()
    assert again.after(1006, 29.9) == Wait(40.0)
    again.welcomed()
    assert again.after(1006, 30.0) == Wait(5.0)


def test_a_storms_first_delay_is_the_nodes_alone() -> None:
    """`back` grows with the storm; the minute bounds only the delays after the first."""
    again = Reconnect(Longest())
    again.steer((2000, 300_000))
    assert [seconds(again.after(1006, 0.0)) for _ in range(2)] == [300.0, 60.0]


def test_a_token_is_renewed_once() -> None:
    """4401: a new token, then once more; a second 4401 ends it, unless a node has welcomed the device between."""
    again = Reconnect(Longest())
    assert again.after(4401, 0.0) == RenewToken(5.0)
    assert again.after(4401, 0.0) == StayAway()
    again = Reconnect(Longest())
    again.after(4401, 0.0)
    again.welcomed()
    assert again.after(4401, 1.0) == RenewToken(5.0)


def test_a_break_between_does_not_forget_the_renewal() -> None:
    """A lost connection after the renewal is a break as any, and the token stays the renewed one."""
    again = Reconnect(Longest())
    again.after(4401, 0.0)
    assert isinstance(again.after(1006, 0.0), Wait)
    assert again.after(4401, 0.0) == StayAway()


def test_retry_after_is_added() -> None:
    """A refused handshake's Retry-After comes on top of the jitter, so that those refused together do not return together."""
    assert Reconnect(Longest()).after(1006, 0.0, at_least=7.0) == Wait(12.0)


def test_bounds_in_the_wrong_order_are_put_right() -> None:
    """A node that says [hi, lo] is understood."""
    again = Reconnect(Shortest())
    again.steer((4000, 1000))
    assert again.after(4000, 0.0) == Wait(1.0)


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100)), max_size=60), st.integers(0, 2**32))
def test_any_code_at_any_time_gives_a_bounded_answer(ends: list[tuple[int, float]], seed: int) -> None:
    """Whatever closes, however often, every delay is at least 0 and at most a minute with the usual `back`."""
    again = Reconnect(random.Random(seed))
    for code, stable in ends:
        what = again.after(code, stable)
        assert isinstance(what, StayAway) or 0 <= seconds(what) <= 60
