"""What prefetch counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """A registry of this process's own; counters only go up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.pulls = Counter(
            "stagecast_prefetch_pulls_total",
            "Stage maps asked for by devices, by what they got: own, made (computed on the spot), cohort, deferred (a cohort's, "
            "over capacity), unchanged (304), none (404), refused (401, 403)",
            ["got"],
            registry=self._registry,
        )
        self.maps = Counter("stagecast_prefetch_maps_total", "Stage maps stored by campaigns", registry=self._registry)
        self.large = Counter(
            "stagecast_prefetch_large_maps_total", "Stage maps stored that are over 2 KB", registry=self._registry
        )
        self.skipped = Counter(
            "stagecast_prefetch_skipped_total",
            "Members left out by campaigns, by why: unknown (to the recommender), too_large",
            ["why"],
            registry=self._registry,
        )
        self.pushes = Counter(
            "stagecast_prefetch_pushes_total",
            "Pushes to devices, by outcome: pushed, busy, absent, unreachable (their host)",
            ["outcome"],
            registry=self._registry,
        )
        self.running = Gauge(
            "stagecast_prefetch_campaigns", "Campaigns that this process looks after", registry=self._registry
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)
