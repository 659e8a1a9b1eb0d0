"""The report: reach and times per stage, storms, all from what the store keeps."""

from typing import Any

import pytest

from broadcaster.bodies import AuditLine
from broadcaster.report import CURVE_MAX, CurvePoint, Sources, Storm, report_of, storms, thinned
from broadcaster.series import Point
from stagecast.audit import Act
from stagecast.event import Delivery, Request, create
from stagecast.plan import PlannedStage, plan_of
from tests.broadcaster.test_api import Caller, call
from tests.broadcaster.test_recording import count, settled
from tests.broadcaster.world import Broadcaster, World

__all__ = ["call"]
NOW = 1_764_000_000_000
PLAN = plan_of([PlannedStage("upcoming"), PlannedStage("live")])


def point(ms: int, subscribed: int, at: int = 0, drops: dict[str, int] | None = None, **more: int) -> Point:
    fields: dict[str, Any] = dict.fromkeys(Point.__struct_fields__, 0) | {
        "ts": NOW + ms,
        "subscribed": subscribed,
        "at_or_past": at,
    }
    return Point(**fields | more | {"drops": drops or {}})


def line(seq: int, stage: str, ms: int) -> AuditLine:
    return AuditLine(NOW + ms, seq, "transition", stage, "ann", "kick-off", "")


def sources(curves: dict[int, list[Point]], *lines: AuditLine) -> Sources:
    head = create("final", "The final", PLAN, 7, Request("c", "upcoming", "ann"), Delivery(), NOW)
    return Sources(head, PLAN, lines, True, curves, NOW)


def test_a_stage_tells_its_reach() -> None:
    """Counts are those of its last point, times those of the first that had so many; without a point all is nothing."""
    curve = [
        point(1500, 1000, 400, audience=1000, written=900, pending=100),
        point(2500, 1000, 999, audience=1000, written=990, closed=10, asked=1000, switched=950, missing=40),
    ]
    got = report_of(sources({2: curve}, line(1, "upcoming", 0), line(2, "live", 500)))
    first, second = got.stages
    assert (first.audience, first.curve, first.reached_ms["50"]) == (0, [], None)
    assert (second.written, second.closed, second.missing, second.at_or_past) == (990, 10, 40, 999)
    assert second.audience == second.written + second.pending + second.superseded + second.closed
    assert second.reached_ms == {"50": 2000, "95": 2000, "99": 2000, "99.9": 2000}
    assert second.curve[0] == CurvePoint(1000, 1000, 400, 900, 0, 0)
    assert (second.who, second.why) == ("ann", "kick-off")


def test_drops_are_told_by_reason() -> None:
    """Per stage, all that were counted: a worker that restarted leaves the sums, and takes back nothing."""
    curve = [
        point(1500, 9, drops={"1006": 1}),
        point(2500, 9, drops={"1006": 3, "4000": 2}),
        point(3500, 9, drops={"1006": 1, "4000": 2}),
        point(4500, 9, drops={"1006": 2, "4000": 2}),
    ]
    first, second = report_of(sources({2: curve}, line(1, "upcoming", 0), line(2, "live", 500))).stages
    assert (first.drops, second.drops) == ({}, {"1006": 4, "4000": 2})


@pytest.mark.parametrize(
    ("course", "found"),
    [
        ([(0, 100), (1000, 95), (2000, 100)], []),
        ([(0, 100), (1000, 70), (2000, 40), (3000, 97), (4000, 98)], [Storm(NOW, 100, 40, 4000)]),
        ([(0, 100), (1000, 40)], [Storm(NOW, 100, 40, None)]),
        ([(0, 100), (30_000, 95), (61_000, 89), (90_000, 85)], [Storm(NOW + 30_000, 95, 85, None)]),
        ([(0, 100), (40_000, 96), (80_000, 92), (120_000, 88)], []),
        ([(0, 20), (1000, 11), (2000, 20)], []),
        ([(0, 100), (1000, 50), (2000, 100), (3000, 50), (4000, 100)],
         [Storm(NOW, 100, 50, 2000), Storm(NOW + 2000, 100, 50, 2000)]),
        ([], []),
    ],
)  # fmt: skip
def test_storms(course: list[tuple[int, int]], found: list[Storm]) -> None:
    """More than a tenth gone within a minute, until nearly all are back; slow losses and a handful of devices are none."""
    assert storms([point(ms, subscribed) for ms, subscribed in course]) == found


def test_long_curves_are_thinned() -> None:
    """Never the first or the last point; all of the early ones."""
    points = [point(n * 1000, n) for n in range(1000)]
    kept = thinned(points, CURVE_MAX)
    assert len(kept) == CURVE_MAX
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept[: CURVE_MAX // 2] == points[: CURVE_MAX // 2]
    assert thinned(points[:50], CURVE_MAX) == points[:50]


async def test_any_instance_gives_the_same_report(world: World, one: Broadcaster, call: Caller) -> None:
    """One that has read no receipt and one that has: history, acts and curves are in the store."""
    head = await one.create()
    await one.parts.heads.keep_acts(head, [Act(head.ts + 1, 1, "hold", "ann", "rain")])
    for at in (60, 100):
        await count(world, head.gen, at)
        world.clock.advance(1)
    world.clock.advance(2)
    await settled(world, one, 2)
    await one.parts.curves.save()
    got = (await call("GET", "/v1/events/final/report", scope="viewer")).json()
    assert [(stage["stage"], stage["at_or_past"], stage["reached_ms"]["99.9"]) for stage in got["stages"]] == [
        ("upcoming", 100, 2000)
    ]
    assert [act["what"] for act in got["audit"]] == ["transition", "hold"]
    assert got["complete"] is True
