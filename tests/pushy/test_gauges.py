"""What a worker counts about itself."""

import random

from pushy.catalogue import CATALOGUE
from pushy.gauges import CODES, FANOUT_BUCKETS, Fanouts, process_values
from pushy.metrics import HostCollector, page
from stagecast.tokens import Claims
from stagecast.wire.closing import CloseCode
from stagecast.wire.server_session import Rules, ServerSession


def _nobody(token: str, wall: int) -> Claims:
    raise AssertionError


def test_fan_outs_are_a_cumulative_histogram() -> None:
    """Each bucket holds all that took no longer than its bound, which counts in."""
    fanouts = Fanouts()
    for seconds in (0.0005, FANOUT_BUCKETS[1], 0.3, 99.0):
        fanouts.took(seconds)
    values = fanouts.values()
    assert values['stagecast_fanout_seconds_bucket{le="0.001"}'] == 1
    assert values['stagecast_fanout_seconds_bucket{le="0.0025"}'] == 2
    assert values['stagecast_fanout_seconds_bucket{le="0.25"}'] == 2
    assert values['stagecast_fanout_seconds_bucket{le="2.5"}'] == 3
    assert values['stagecast_fanout_seconds_bucket{le="+Inf"}'] == values["stagecast_fanout_seconds_count"] == 4
    assert abs(values["stagecast_fanout_seconds_sum"] - 99.303) < 1e-9


def test_the_process_is_measured() -> None:
    """CPU goes up, memory is what the kernel says; both are described."""
    before = process_values()
    assert sum(i * i for i in range(300_000))
    after = process_values()
    assert after["stagecast_cpu_seconds_total"] > before["stagecast_cpu_seconds_total"]
    assert after["stagecast_resident_bytes"] > 1 << 20
    assert after.keys() <= CATALOGUE.keys()


def test_every_close_has_a_counter_from_the_start() -> None:
    """A counter that is born at 1 shows no increase."""
    assert {str(code.value) for code in CloseCode} | {"peer", "1006"} == set(CODES)


def test_a_session_knows_how_long_it_was_silent() -> None:
    """Since it was opened, or a sign of life came."""
    rules = Rules(admit=_nobody, head=lambda event: None, rng=random.Random(1), node="n")
    session = ServerSession(rules, 1, 10.0)
    assert session.silent(13.0) == 3.0


def test_the_page_says_what_each_metric_is() -> None:
    """HELP and type, by the catalogue, for counters and histograms under their family's name."""
    values = {"stagecast_accepts_total": 1.0, "stagecast_connections": 2.0, **Fanouts().values()}
    lines = page(HostCollector(dict, lambda: [(0, values)])).decode().splitlines()
    for name, kind in (("accepts_total", "counter"), ("connections", "gauge"), ("fanout_seconds", "histogram")):
        assert f"# HELP stagecast_{name} {CATALOGUE[f'stagecast_{name}'].says}" in lines
        assert f"# TYPE stagecast_{name} {kind}" in lines
