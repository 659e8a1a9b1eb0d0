"""What a feed counts about itself, as its host's `/metrics` shows it."""

from pushy.delivery import Deliveries
from pushy.outbox import Outbox
from pushy.registry import Registry
from pushy.roads import Roads


def roads_values(roads: Roads, now: float) -> dict[str, float]:
    counts, heads = roads.counts, roads.heads
    return {
        "stagecast_feed_log_age_seconds": roads.silence.log_age(now),
        "stagecast_feed_kv_age_seconds": roads.silence.kv_age(now),
        "stagecast_feed_lag_seconds": counts.lag_ms / 1000,
        "stagecast_feed_records_total": counts.records,
        "stagecast_feed_records_dropped_total": counts.dropped,
        "stagecast_feed_log_resolved_total": counts.resolved,
        "stagecast_feed_kv_reads_total": counts.kv_reads,
        "stagecast_feed_kv_failures_total": counts.kv_failures,
        "stagecast_feed_heads_behind_total": heads.behind,
        "stagecast_feed_events_followed": heads.followed,
        "stagecast_feed_events_known": heads.known,
        "stagecast_feed_revocations": len(roads.revocations),
    }


def outgoing_values(outbox: Outbox, registry: Registry, deliveries: Deliveries) -> dict[str, float]:
    return {
        "stagecast_feed_receipts_pending": len(outbox),
        "stagecast_feed_receipts_appended_total": outbox.appended,
        "stagecast_feed_receipts_failed_total": outbox.failed,
        "stagecast_feed_receipts_shed_total": outbox.shed,
        "stagecast_feed_registry_pending": len(registry),
        "stagecast_feed_registry_written_total": registry.written,
        "stagecast_feed_registry_failed_total": registry.failed,
        "stagecast_feed_registry_shed_total": registry.shed,
        **{f'stagecast_feed_push_total{{status="{code}"}}': n for code, n in deliveries.results.items()},
    }
