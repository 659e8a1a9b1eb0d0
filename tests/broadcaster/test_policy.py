"""The delivery policy: who acks, and in which window a missing map is fetched."""

import pytest

from broadcaster.policy import delivery_for
from stagecast.broadcast import AckPolicy
from stagecast.event import Delivery
from stagecast.receipts import Progress, Receipt, progress
from stagecast.records import RequiredMap

MAP = RequiredMap("1764000000000-a", rate=1000.0)


def census(subscribed: int, holding: int = 0) -> Progress:
    receipt = Receipt("h", "b", 0, 0, "final", 1, 1, subscribed=subscribed, at_or_past=subscribed, holding=holding)
    return progress("final", [(receipt, 0.0)], 1, 1)


@pytest.mark.parametrize("counted", [None, census(0)])
def test_without_a_census(counted: Progress | None) -> None:
    """Nobody counted yet: all ack in 2 s, and a missing map is fetched within 30 s."""
    assert delivery_for(counted, None, None) == Delivery(None, 30_000, AckPolicy(2**32, 2000))
    assert delivery_for(counted, None, MAP) == Delivery(MAP.map, 30_000, AckPolicy(2**32, 2000))


@pytest.mark.parametrize(
    ("audience", "p", "w"),
    [
        (1, 2**32, 2000),
        (20_000, 2**32, 2000),
        (100_000, 2**32, 10_000),
        (200_000, 2**31, 10_000),
        (100_000_000, round(2**32 / 1000), 10_000),
        (10**15, 1, 10_000),
    ],
)
def test_the_ack_sample(audience: int, p: int, w: int) -> None:
    """Up to 100,000 all ack, of more a sample of 100,000; never more than 10,000 a second, never in less than 2 s."""
    assert delivery_for(census(audience), None, None).ack == AckPolicy(p, w)


@pytest.mark.parametrize(("holding", "fetch"), [(100_000, 5000), (97_000, 5000), (90_000, 10_000), (0, 100_000)])
def test_the_fetch_window_spreads_the_missing(holding: int, fetch: int) -> None:
    """Those without the map fetch it at no more than the rate that is served, over 5 s at least."""
    assert delivery_for(census(100_000, holding), MAP.map, MAP).fetch == fetch


def test_coverage_of_another_map_says_nothing() -> None:
    """When the census counted holders of an older version, the window is the one without a census."""
    assert delivery_for(census(100_000, 100_000), None, MAP).fetch == 30_000
    assert delivery_for(census(100_000, 100_000), "1763000000000-a", MAP).fetch == 30_000
