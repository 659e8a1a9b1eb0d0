"""What a worker counts about itself, as the feed shows it under `/metrics`."""

import os
import resource
from bisect import bisect_left
from collections.abc import Iterable

from pushy.connection import Connection, Floor
from pushy.link import AHEAD, CONNECTIONS
from stagecast.receipts import DROPPED_BY_DEVICE
from stagecast.wire.closing import CloseCode

FANOUT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds from a state's arrival to its last connection."""


REASONS = ("400", "403", "404", "426", "503", "rate", "slow", "full", "address", "proxy")
CODES = (*(str(code.value) for code in CloseCode), DROPPED_BY_DEVICE)
"""Every label there is, from the start: a counter that is born at 1 shows no increase."""


class Fanouts:
    """How long fan-outs took."""

    def __init__(self) -> None:
        self._counts = [0] * (len(FANOUT_BUCKETS) + 1)
        self._sum = 0.0

    def took(self, seconds: float) -> None:
        self._counts[bisect_left(FANOUT_BUCKETS, seconds)] += 1
        self._sum += seconds

    def values(self) -> dict[str, float]:
        values: dict[str, float] = {}
        so_far = 0
        for bound, count in zip((*FANOUT_BUCKETS, "+Inf"), self._counts, strict=True):
            so_far += count
            values[f'stagecast_fanout_seconds_bucket{{le="{bound}"}}'] = so_far
        return values | {"stagecast_fanout_seconds_sum": self._sum, "stagecast_fanout_seconds_count": so_far}


def connection_values(floor: Floor, tcp: int) -> dict[str, float]:
    """Of the connections and the hub. No label ever holds what a client sent."""
    hub = floor.hub
    values: dict[str, float] = {
        CONNECTIONS: tcp,
        AHEAD: hub.ahead,
        "stagecast_sessions": floor.upgraded,
        "stagecast_accepts_total": floor.accepts,
        "stagecast_deliveries_total": hub.deliveries,
        "stagecast_hints_total": hub.hinted,
        "stagecast_superseded_total": hub.superseded,
        "stagecast_stale_updates_total": hub.stale,
        "stagecast_parcels_refused_total": hub.refused_busy,
        "stagecast_stalls_total": floor.stalls,
        "stagecast_sent_bytes_total": floor.sent + hub.sent,
        "stagecast_events_followed": len(hub.events),
    }
    for reason in dict.fromkeys((*REASONS, *floor.refusals)):
        values[f'stagecast_refusals_total{{reason="{reason}"}}'] = floor.refusals[reason]
    for code in dict.fromkeys((*CODES, *floor.closes)):
        values[f'stagecast_closes_total{{code="{code}"}}'] = floor.closes[code]
    return values


def quietest(sessions: Iterable[Connection], now: float) -> float:
    """Seconds since the quietest of these was heard; 0 without any."""
    return max((one.session.silent(now) for one in sessions), default=0.0)


def process_values() -> dict[str, float]:
    """What this process costs the machine."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as statm:
        pages = int(statm.read().split()[1])
    return {
        "stagecast_cpu_seconds_total": used.ru_utime + used.ru_stime,
        "stagecast_resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }
