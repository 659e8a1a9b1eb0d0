"""Every metric of a host: name, type, labels, and what it says. Pure.

`stagecast_…` are a worker's own (they get the label `worker`), `stagecast_feed_…` the feed's. Counters start with their process:
a restart begins at 0, as Prometheus expects. A label never holds what a client sent.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """One family of series, under its full name (counters with `_total`)."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()


WORKER = (
    Described("stagecast_connections", "gauge", "TCP connections of devices open now, in any state"),
    Described("stagecast_connections_limit", "gauge", "Sessions that one worker takes, the setting `connections`"),
    Described("stagecast_sessions", "gauge", "Connections past the opening handshake"),
    Described("stagecast_accepts_total", "counter", "Opening handshakes accepted"),
    Described(
        "stagecast_refusals_total", "counter",
        "Connections refused before they became sessions, by why: an HTTP status, `rate` (503: over accept_rate), `slow` (no "
        "whole request in time), `full` and `address` (cut: too many in all, of one address), `proxy` (cut: no valid PROXY "
        "preamble)", ("reason",),
    ),
    Described(
        "stagecast_closes_total", "counter", "Sessions ended, by close code; `peer`: by the device, 1006: without a close",
        ("code",),
    ),
    Described("stagecast_deliveries_total", "counter", "States written whole to a connection; welcomes are not in it"),
    Described("stagecast_superseded_total", "counter", "States not written because a newer one of the event came first"),
    Described("stagecast_stale_updates_total", "counter", "Heads from the feed that were not newer than what was known"),
    Described("stagecast_hints_total", "counter", "Hints written to a connection"),
    Described("stagecast_parcels_refused_total", "counter", "`map` and `msg` frames refused (503): unsent bytes were there"),
    Described("stagecast_stalls_total", "counter", "How often a connection could not take a whole frame at once"),
    Described("stagecast_sent_bytes_total", "counter", "Bytes written to devices, without TCP's and TLS's own"),
    Described("stagecast_events_followed", "gauge", "Events that this worker's devices follow"),
    Described("stagecast_devices_ahead_total", "counter", "Positions of devices beyond their event's head: a store restored"),
    Described("stagecast_fanout_seconds", "histogram", "From a state's arrival at a worker to its last connection"),
    Described("stagecast_loop_lag_seconds", "gauge", "The longest delay of the event loop in the last second"),
    Described("stagecast_ping_age_seconds", "gauge", "Since the quietest session was last heard; over 2.5 × `ping` it is closed"),
    Described("stagecast_token_checks_total", "counter", "Signatures of tokens verified; a remembered check is not one"),
    Described("stagecast_link_dropped_total", "counter", "Messages to the feed that were dropped because it did not take them"),
    Described("stagecast_cpu_seconds_total", "counter", "User and system time of the process"),
    Described("stagecast_resident_bytes", "gauge", "Resident memory of the process; pages shared with others count"),
)  # fmt: skip
"""What a worker reports once a second."""

FEED = (
    Described("stagecast_feed_ready", "gauge", "1 if /readyz says so: devices may come"),
    Described("stagecast_feed_workers", "gauge", "Workers that have joined"),
    Described("stagecast_feed_workers_expected", "gauge", "Workers that the host was started with"),
    Described("stagecast_feed_workers_lost_total", "counter", "Workers that died"),
    Described("stagecast_feed_worker_report_age_seconds", "gauge", "Since a worker's last report, due every second", ("worker",)),
    Described("stagecast_feed_accept_rate", "gauge", "Connections per second that the host takes, the setting `accept_rate`"),
    Described("stagecast_feed_back_seconds", "gauge", "The upper end of `back`: over how long lost devices come back"),
    Described("stagecast_feed_draining", "gauge", "1 while the host is drained"),
    Described("stagecast_feed_drain_connections", "gauge", "Connections when the drain began; 0 without one"),
    Described("stagecast_feed_drain_left", "gauge", "Connections that a drain has still to close; 0 without one"),
    Described("stagecast_feed_drain_rate", "gauge", "Connections per second that a drain closes; 0 without one"),
    Described("stagecast_feed_loop_lag_seconds", "gauge", "The longest delay of the feed's event loop since the last scrape"),
    Described("stagecast_feed_log_age_seconds", "gauge", "Since the last record of any kind; the cadence brings one every 5 s"),
    Described("stagecast_feed_kv_age_seconds", "gauge", "Since the store last answered; it is asked only when there is need"),
    Described("stagecast_feed_lag_seconds", "gauge", "From the log's taking of the last record until it was read here"),
    Described("stagecast_feed_records_total", "counter", "Records read from the log"),
    Described("stagecast_feed_records_dropped_total", "counter", "Records of the log that are none of ours"),
    Described("stagecast_feed_log_resolved_total", "counter", "How often the log's end was resolved; beyond the first: gaps"),
    Described("stagecast_feed_kv_reads_total", "counter", "Heads read from the store; grows with events, never with devices"),
    Described("stagecast_feed_kv_failures_total", "counter", "Reads of heads that the store did not answer"),
    Described("stagecast_feed_heads_behind_total", "counter", "Heads in the store older than what the log had said"),
    Described("stagecast_feed_events_followed", "gauge", "Events that a worker of this host follows"),
    Described("stagecast_feed_events_known", "gauge", "Events whose head is remembered"),
    Described("stagecast_feed_revocations", "gauge", "Standing revocations of devices and members"),
    Described("stagecast_feed_link_bytes_total", "counter", "Bytes of heads and hints written to workers"),
    Described("stagecast_feed_link_overflows_total", "counter", "Links to workers cut because they did not read"),
    Described("stagecast_feed_receipts_pending", "gauge", "Receipts that wait for the log"),
    Described("stagecast_feed_receipts_appended_total", "counter", "Receipts appended to the log"),
    Described("stagecast_feed_receipts_failed_total", "counter", "Appends of receipts that failed; they are tried again"),
    Described("stagecast_feed_receipts_shed_total", "counter", "Receipts given up because too many waited"),
    Described("stagecast_feed_registry_pending", "gauge", "Changes of the registry that wait for the store"),
    Described("stagecast_feed_registry_written_total", "counter", "Changes of the registry written"),
    Described("stagecast_feed_registry_failed_total", "counter", "Writes of the registry that failed; they are tried again"),
    Described("stagecast_feed_registry_shed_total", "counter", "Changes of the registry given up because too many waited"),
    Described("stagecast_feed_push_total", "counter", "Frames pushed to a member's devices, by outcome", ("status",)),
)  # fmt: skip
"""What the feed counts itself."""

CATALOGUE = {one.name: one for one in (*FEED, *WORKER)}
