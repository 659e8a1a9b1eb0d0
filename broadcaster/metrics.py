"""Prometheus metrics: plain counters of the parts, read when somebody asks."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from broadcaster.cadence import Cadence
from broadcaster.firing import Firing
from broadcaster.producer import Producer
from broadcaster.publisher import Publisher
from broadcaster.receipts import Ledger
from broadcaster.recording import Curves
from broadcaster.roster import Roster
from broadcaster.series import Recorder
from broadcaster.watching import Watching

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "stagecast_broadcaster_"


@dataclass(frozen=True, slots=True, eq=False)
class Metrics(Collector):
    """The numbers of one broadcaster process."""

    producer: Producer
    publisher: Publisher
    cadence: Cadence
    firing: Firing
    roster: Roster
    ledger: Ledger
    recorder: Recorder
    curves: Curves
    watching: Watching
    answers: dict[int, int]
    """HTTP status → answers given."""

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._of_transitions()
        yield from self._of_the_log()
        yield _gauge("events", "events in memory", len(self.roster))
        yield _gauge("events_active", "events that the cadence repeats", len(self.roster.active()))
        yield _counter("events_left_out", "events not taken into memory because it is full", self.roster.left_out)
        yield _counter("cadence_rounds", "rounds of the cadence", self.cadence.rounds)
        yield _gauge("cadence_lag_seconds", "by how much the last round began late", self.cadence.lag)
        yield _gauge("store_up", "1 if the store answered the last round", int(self.cadence.store_answers))
        yield _gauge("receipts_kept", "receipts in memory", self.ledger.kept)
        yield _counter("receipts_refused", "receipts not taken because memory is full", self.ledger.refused)
        yield _counter(
            "receipts_unreadable", "records of the receipts log that are no receipts", self.ledger.unreadable
        )
        yield from self._of_curves_and_watchers()
        answers = CounterMetricFamily(_PREFIX + "http_answers", "HTTP answers by status", labels=["status"])
        for status, count in sorted(self.answers.items()):
            answers.add_metric([str(status)], count)
        yield answers

    def _of_transitions(self) -> Iterator[Metric]:
        counts = self.producer.counts
        family = CounterMetricFamily(
            _PREFIX + "changes", "changes of heads by kind and outcome", labels=["kind", "outcome"]
        )
        for (kind, outcome), count in sorted(counts.outcomes.items()):
            family.add_metric([kind, outcome], count)
        yield family
        yield _counter("lost_races", "compare-and-sets that another one preceded", counts.lost_races)
        yield _counter("unknown_outcomes", "compare-and-sets whose answer was lost", counts.unknown)
        yield _counter("store_errors", "changes given up because the store did not answer", counts.store_errors)
        yield _gauge("plan_lag_seconds", "from due to accepted, of the last stage a plan fired here", counts.plan_lag)
        yield _counter("plan_failures", "due stages that could not be fired and are tried again", self.firing.failed)

    def _of_curves_and_watchers(self) -> Iterator[Metric]:
        yield _gauge("hosts", "hosts that said how they are in the last 2 min", len(self.ledger.hosts))
        yield _counter("acts_lost", "acts that could not be written into the audit", self.producer.counts.acts_lost)
        yield _counter("curve_points", "points made of receipts", self.recorder.points)
        yield _counter("curve_writes", "chunks of curves written", self.curves.written)
        yield _counter("curve_failures", "rounds in which curves could not be written", self.curves.failed)
        yield _gauge("watchers", "streams of progress that are open", self.watching.watchers)
        yield _counter("watchers_refused", "streams refused because too many are open", self.watching.refused)

    def _of_the_log(self) -> Iterator[Metric]:
        counts, age = self.publisher.counts, self.publisher.age
        yield _counter("appends", "acknowledged appends", counts.acknowledged)
        yield _counter("append_seconds", "sum of their latencies", counts.seconds)
        yield _counter("append_failures", "appends that were not acknowledged", counts.failed)
        yield _counter("appends_skipped", "appends left to the cadence because too many were under way", counts.skipped)
        yield _gauge("append_age_seconds", "since the last acknowledged append", float("inf") if age is None else age)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value)
