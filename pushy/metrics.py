"""A host's metrics in one place: the feed's own, and every worker's with its `worker` label. Plain numbers, one collector; what
each says is in the catalogue."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pushy.catalogue import CATALOGUE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 2000
"""Series of one worker at most: what else it sends is not shown, so that no client can make the page grow."""

_series = re.compile(r'\A([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*",?)*)\})?\Z')
_label = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"')

Values = Mapping[str, float]
"""Metric name, with labels in Prometheus' text form → value."""


def split_series(series: str) -> tuple[str, dict[str, str]] | None:
    """`name{a="b"}` as its name and labels; None for anything else."""
    match = _series.match(series)
    return (match[1], dict(_label.findall(match[2] or ""))) if match else None


def families(own: Values, workers: Iterable[tuple[int, Values]]) -> Iterator[Metric]:
    """All series, those of one name together (the text format wants that), each source cut at SERIES_MAX."""
    found: dict[str, Metric] = {}
    sources = [({}, own), *(({"worker": str(worker)}, values) for worker, values in workers)]
    for labels, values in sources:
        series = [(*parts, values[one]) for one in list(values)[:SERIES_MAX] if (parts := split_series(one))]
        names = {name for name, _, _ in series}
        for name, more, value in series:
            base, kind = _family(name, names)
            found.setdefault(base, Metric(base, _says(base, kind), kind)).add_sample(name, {**labels, **more}, value)
    yield from found.values()


def _says(base: str, kind: str) -> str:
    described = CATALOGUE.get(f"{base}_total" if kind == "counter" else base)
    return described.says if described else ""


def _family(name: str, names: set[str]) -> tuple[str, str]:
    """The family a series belongs to, and its type, by the usual suffixes."""
    if name.endswith("_total"):
        return name.removesuffix("_total"), "counter"
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and f"{base}_bucket" in names:
            return base, "histogram"
    return name, "gauge"


class HostCollector(Collector):
    """Asks for the values anew at every scrape."""

    def __init__(self, own: Callable[[], Values], workers: Callable[[], Iterable[tuple[int, Values]]]) -> None:
        self._own = own
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        return families(self._own(), self._workers())


def page(collector: Collector) -> bytes:
    """The text page that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
