"""Stage maps: their end, their life, their bound, their place."""

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from prefetch.stage_maps import (
    LINGER,
    Keyed,
    MapTooLarge,
    PulledMap,
    StageMaps,
    cohort_version,
    encode_map,
    expected_end,
    life,
    map_version,
    starts_at,
)
from stagecast.event import Head
from stagecast.plan import PlannedStage, plan_of
from stagecast.records import BUCKETS, bucket_of, stage_map_record
from stagecast.wire.codec import decode_node_frame, encode
from stagecast.wire.frames import StageMap
from tests.prefetch.conftest import Site

NOW = 1_764_000_000_000
HOUR = 3_600_000


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def head(stage: str, **reached: int) -> Head:
    return Head("final", "", 1, 1, stage, NOW, None, 0, None, 1, (), reached)


def some_map(**stages: object) -> StageMap:
    return StageMap("final", 1, map_version(NOW, "m1"), dict(stages))


def test_the_end_follows_times_durations_and_what_was_reached() -> None:
    """Each stage is due by what happened, else by its `at`, else `after` its base; the last one's time is the end."""
    plan = plan_of(
        [
            PlannedStage("upcoming"),
            PlannedStage("live", at=at(NOW + HOUR)),
            PlannedStage("pause"),
            PlannedStage("ended", after=timedelta(hours=2), of="live"),
        ]
    )
    assert expected_end(plan, head("upcoming")) == NOW + 3 * HOUR
    assert expected_end(plan, head("live", live=NOW + 5 * HOUR)) == NOW + 7 * HOUR


def test_a_plan_without_times_has_no_known_end() -> None:
    """Where a person decides everything the maps live a week and a day."""
    plan = plan_of([PlannedStage("upcoming"), PlannedStage("ended")])
    assert expected_end(plan, head("upcoming", upcoming=NOW)) is None
    assert life(plan, head("upcoming"), NOW) == 8 * 24 * 3600


def test_maps_outlive_the_end_by_a_day() -> None:
    """Also when the end is past: a device that returns still finds its map."""
    plan = plan_of([PlannedStage("upcoming"), PlannedStage("ended", at=at(NOW + HOUR))])
    assert life(plan, head("upcoming"), NOW) == 3600 + LINGER
    assert life(plan, head("upcoming"), NOW + 50 * HOUR) == LINGER


def test_the_event_starts_at_its_first_time_to_come() -> None:
    """Times that are past start nothing."""
    plan = plan_of([PlannedStage("a"), PlannedStage("b", at=at(NOW + HOUR)), PlannedStage("c", at=at(NOW + 2 * HOUR))])
    assert starts_at(plan, NOW) == NOW + HOUR
    assert starts_at(plan, NOW + HOUR) == NOW + 2 * HOUR
    assert starts_at(plan, NOW + 2 * HOUR) is None


def test_a_map_that_no_frame_can_carry_is_refused() -> None:
    """64 KiB is the wire's bound; the error says whose map and how big."""
    with pytest.raises(MapTooLarge, match=r"'m1': 70,\d\d\d bytes, at most 65,536"):
        encode_map("m1", some_map(live="x" * 70_000))


def test_a_cohort_version_is_below_its_members_and_never_equal() -> None:
    """So a device that holds the cohort's map is never told that its own has not changed."""
    own = map_version(NOW, "m00")
    assert cohort_version(own) < own
    assert cohort_version(own) > map_version(NOW - 1, "mff")


def test_a_pulled_map_is_the_frame_and_when_to_ask_again() -> None:
    """`map` on the wire, `refresh_after` besides; a device that knows only the frame reads it."""
    stage_map = some_map(live=["a"])
    pulled = PulledMap(**msgspec.structs.asdict(stage_map), refresh_after=12.5)
    assert msgspec.json.decode(encode(pulled))["refresh_after"] == 12.5
    assert decode_node_frame(encode(pulled)) == stage_map


def test_buckets_are_even() -> None:
    """10,000 members fill the buckets like a fair die: no record grows much beyond its share."""
    counts = [0] * BUCKETS
    for i in range(BUCKETS * 16):
        counts[bucket_of(f"member-{i}")] += 1
    assert max(counts) < 50


async def test_a_map_is_found_in_its_bucket_and_cohorts_are_no_members(site: Site) -> None:
    """Under `stage_maps/<event>/<gen>/<bucket>`, with a ttl; a page of members leaves the cohorts out."""
    maps = StageMaps(site.store, "final", 1, random.Random(1))
    stage_map = some_map(live=["a"])
    assert await maps.put([Keyed("m1", stage_map), Keyed("cohort:default", stage_map)], 60.0) == 0
    assert await site.store.get(stage_map_record("final", 1, bucket_of("m1")), "m1") == encode_map("m1", stage_map)
    assert await maps.get("m1") == stage_map
    assert await maps.get("m2") is None
    assert (await maps.page(bucket_of("m1"), None))[0] == [Keyed("m1", stage_map)]
    assert (await maps.page(bucket_of("cohort:default"), None))[0] == []


async def test_large_maps_are_counted(site: Site) -> None:
    """Above 2 KB a map is stored all the same, and told."""
    maps = StageMaps(site.store, "final", 1, random.Random(1))
    assert await maps.put([Keyed("m1", some_map(live="x" * 3000)), Keyed("m2", some_map(live="x"))], 60.0) == 1
