"""A host's metrics on one page."""

from pushy.metrics import SERIES_MAX, HostCollector, Values, page, split_series


def lines(own: Values, *workers: Values) -> list[str]:
    return page(HostCollector(lambda: own, lambda: list(enumerate(workers)))).decode().splitlines()


def test_series_are_taken_apart() -> None:
    """Names and labels in Prometheus' text form; anything else is nothing."""
    assert split_series("plain") == ("plain", {})
    assert split_series('a_total{b="c",d="e"}') == ("a_total", {"b": "c", "d": "e"})
    assert all(split_series(bad) is None for bad in ("", "1a", "a b", "a{", 'a{b="c"', "a{b=c}", 'a{b="\\n"}', "a\n"))


def test_workers_get_their_label_and_families_stay_together() -> None:
    """One TYPE line for each family, its series below it."""
    found = lines({"x_total": 1.0}, {'x_total{code="1"}': 2.0, "y": 3.0}, {"y": 4.0})
    kept = [line for line in found if not line.startswith("# HELP")]
    assert kept == [
        "# TYPE x_total counter",
        "x_total 1.0",
        'x_total{code="1",worker="0"} 2.0',
        "# TYPE y gauge",
        'y{worker="0"} 3.0',
        'y{worker="1"} 4.0',
    ]


def test_histograms_are_histograms() -> None:
    """By their buckets; a plain `…_count` without buckets is a gauge."""
    found = lines(
        {}, {'h_bucket{le="0.1"}': 1.0, 'h_bucket{le="+Inf"}': 2.0, "h_sum": 0.5, "h_count": 2.0, "n_count": 1.0}
    )
    assert "# TYPE h histogram" in found
    assert 'h_bucket{le="0.1",worker="0"} 1.0' in found
    assert 'h_count{worker="0"} 2.0' in found
    assert "# TYPE n_count gauge" in found


def test_a_worker_cannot_make_the_page_grow() -> None:
    assert len(lines({}, {f"m{i}": 1.0 for i in range(2 * SERIES_MAX)})) == 3 * SERIES_MAX
