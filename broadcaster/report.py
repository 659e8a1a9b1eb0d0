"""What became of an event: per transition reach, times, curve, what went missing; storms; the audit. Pure.

Everything here comes from the store (history, acts, curves), so that any instance, at any later time, makes the same report.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
from msgspec import Struct

from broadcaster.bodies import AuditLine
from broadcaster.schedule import due_of
from broadcaster.series import Point, reached
from stagecast.event import Head
from stagecast.plan import Plan

CURVE_MAX = 240
"""Points of one curve in a report; of more, some are left out, never the first or the last."""
DIP = 0.1
"""Of the devices connected are gone within DIP_MS: that is a storm in the making, for they come back."""
DIP_MS = 60_000
BACK = 0.98
"""Of those before the dip are there again: it is over."""
DIP_MIN = 10
"""Devices: a dip of fewer is no storm."""


NOTHING = msgspec.convert([0] * (len(Point.__struct_fields__) - 1), Point)


class CurvePoint(Struct, frozen=True, array_like=True):
    """At `ms` after the transition."""

    ms: int
    subscribed: int
    at_or_past: int
    written: int
    switched: int
    closed: int


class StageReport(Struct, frozen=True):
    """One accepted transition."""

    seq: int
    stage: str
    ts: int
    due: int | None
    """When the plan wanted it, wall ms, where its times say so."""
    who: str
    why: str
    audience: int
    """Connected when it was sent: written + pending + superseded + closed."""
    written: int
    pending: int
    superseded: int
    closed: int
    asked: int
    switched: int
    missing: int
    ignored: int
    subscribed: int
    """By the census of this stage that had the greatest share at it: later ones may miss who has gone home."""
    at_or_past: int
    holding: int
    """Of those subscribed, with the stage map that the stage asks for (or all, if it asks for none)."""
    drops: dict[str, int]
    """Close code → connections that ended before the next stage; "peer": the device closed them."""
    reached_ms: dict[str, int | None]
    curve: list[CurvePoint]
    """Empty: no device, or nothing was told (see `broadcaster.recording`)."""


class Storm(Struct, frozen=True):
    """Many devices gone at once, and when they were back."""

    ts: int
    """Before it, wall ms."""
    before: int
    lowest: int
    back_ms: int | None
    """Until BACK of them were there again; None: not while it was looked at."""


class Report(Struct, frozen=True):
    event: str
    title: str
    gen: int
    made: int
    """Wall ms."""
    stage: str
    stages: list[StageReport]
    storms: list[Storm]
    audit: list[AuditLine]
    complete: bool
    """False when the audit was too long to be given whole."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made of."""

    head: Head
    plan: Plan
    audit: Sequence[AuditLine]
    complete: bool
    curves: Mapping[int, Sequence[Point]]
    now: int


def report_of(sources: Sources) -> Report:
    head = sources.head
    stages = [
        _stage(line, sources, sources.curves.get(line.seq, ())) for line in sources.audit if line.what == "transition"
    ]
    points = _course(stages, sources.curves)
    over = head.gone or head.stage == sources.plan.last  # then who leaves goes home, and does not come back
    found = [storm for storm in storms(points) if not over or storm.back_ms is not None]
    return Report(
        head.event,
        head.title,
        head.gen,
        sources.now,
        head.stage,
        stages,
        found,
        list(sources.audit),
        sources.complete,
    )


def _course(stages: Sequence[StageReport], curves: Mapping[int, Sequence[Point]]) -> list[Point]:
    """Points by time, each stage's until the next one began."""
    ends = {one.seq: after.ts for one, after in pairwise(stages)}
    return [point for seq in sorted(curves) for point in curves[seq] if point.ts <= ends.get(seq, point.ts)]


def _stage(line: AuditLine, sources: Sources, points: Sequence[Point]) -> StageReport:
    last = points[-1] if points else NOTHING
    best = max(points, key=lambda p: (p.at_or_past / p.subscribed if p.subscribed else -1.0, p.ts), default=NOTHING)
    place = sources.plan.index(line.stage)
    return StageReport(
        seq=line.seq,
        stage=line.stage,
        ts=line.ts,
        due=due_of(sources.head, sources.plan, place) if place is not None else None,
        who=line.who,
        why=line.why,
        audience=last.audience,
        written=last.written,
        pending=last.pending,
        superseded=last.superseded,
        closed=last.closed,
        asked=last.asked,
        switched=last.switched,
        missing=last.missing,
        ignored=last.ignored,
        subscribed=best.subscribed,
        at_or_past=best.at_or_past,
        holding=best.holding,
        drops=drops_of(points),
        reached_ms=reached(points, line.ts),
        curve=[
            CurvePoint(max(p.ts - line.ts, 0), p.subscribed, p.at_or_past, p.written, p.switched, p.closed)
            for p in thinned(points, CURVE_MAX)
        ],
    )


def drops_of(points: Sequence[Point]) -> dict[str, int]:
    """Close code → how many ended so, all in all: what each count grew by. It falls when a worker that has restarted leaves the
    sums, which takes back nothing."""
    sums: Counter[str] = Counter()
    for before, after in pairwise((NOTHING, *points)):
        sums.update({code: max(n - before.drops.get(code, 0), 0) for code, n in after.drops.items()})
    return {code: sums[code] for code in sorted(sums) if sums[code]}


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points, the first and the last among them; the first half of them as they are, for that is where a
    curve is steep, the rest evenly."""
    if len(points) <= most:
        return list(points)
    early = most // 2
    rest, wanted = points[early:], most - early
    return [*points[:early], *(rest[round(i * (len(rest) - 1) / (wanted - 1))] for i in range(wanted))]


def storms(points: Sequence[Point]) -> list[Storm]:
    """Dips of `subscribed`: from the greatest of the last DIP_MS down by more than DIP of it."""
    found: list[Storm] = []
    i = first = 0
    while i < len(points):
        while points[i].ts - points[first].ts > DIP_MS:
            first += 1
        before = max(points[first : i + 1], key=lambda p: (p.subscribed, p.ts))
        lost = before.subscribed - points[i].subscribed
        if lost < DIP_MIN or lost <= DIP * before.subscribed:
            i += 1
            continue
        end = next((j for j in range(i, len(points)) if points[j].subscribed >= BACK * before.subscribed), len(points))
        lowest = min(p.subscribed for p in points[i : max(end, i + 1)])
        back = points[end].ts - before.ts if end < len(points) else None
        found.append(Storm(before.ts, before.subscribed, lowest, back))
        first, i = end, end + 1
    return found
