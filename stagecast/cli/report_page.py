"""A post-event report as one self-contained page: no script, nothing fetched, readable in light, dark and print. Pure."""

from datetime import UTC, datetime
from html import escape
from typing import Any

from stagecast.cli.plots import Line, Mark, plot, said_count, said_time

SHARES = ("50", "95", "99", "99.9")
CURVE_MIN, CURVE_MAX = 10.0, 180.0
"""Seconds that a stage's curve shows at least and at most."""
LASTING_MS = 10_000
"""A stage followed sooner is left out of the worst figures at the top."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #16202b; --soft: #5b6876; --rule: #dde3ea; --card: #f6f8fa;
  --there: #0b6bcb; --written: #8a94a0; --bad: #b42318; --good: #16794c; --span: #b4231822; }
@media (prefers-color-scheme: dark) { :root { --paper: #11161c; --ink: #e6ebf0; --soft: #9aa7b4; --rule: #2b343e; --card: #1a2129;
  --there: #5cb0ff; --written: #7d8894; --bad: #ff8f85; --good: #5fd39a; --span: #ff8f8533; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 0; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.bad { color: var(--bad); } .good { color: var(--good); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr));
  gap: .75rem; margin: 1.5rem 0 0; padding: 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: 1rem; margin: 0 0 1rem;
  break-inside: avoid; }
.card header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; justify-content: space-between; align-items: baseline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
th:first-child, td:first-child, .left { text-align: left; }
td.wrap { white-space: normal; text-align: left; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0 .25rem; }
.grid { stroke: var(--rule); } .tick, .mark-text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .line.there { stroke: var(--there); }
.line.written { stroke: var(--written); stroke-dasharray: 4 3; }
.mark { stroke: var(--soft); stroke-dasharray: 2 3; } .span { fill: var(--span); }
.key { display: inline-block; width: 1.4rem; border-top: 2px solid var(--there); vertical-align: middle; margin: 0 .35rem 0 0; }
.key.written { border-top: 2px dashed var(--written); margin-left: 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .5rem 0 0; padding: 0; list-style: none; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1rem; font-size: .9rem; }
@media print { main { max-width: none; padding: 0; } }
"""


_MEANING = """
<b>Audience</b>: devices connected when a stage was sent. <b>Reach</b>: devices that said they are at the stage or past it, of
those connected, at best. <b>50 % … 99.9 %</b>: time from the transition until so many had said so; what they say
arrives spread over some seconds and is looked at once a second, so these are upper bounds. <b>Written</b> went into a device's
socket, which is not yet on its screen. <b>No payload</b>: of the devices asked, those that had nothing to show for the stage.
"""


_ENDS = {
    "peer": "left",
    "1001": "host stopped",
    "1002": "broke the protocol",
    "1003": "sent no text",
    "1006": "broke off",
    "1007": "sent no UTF-8",
    "1008": "policy",
    "1009": "sent too much",
    "1011": "server error",
    "1012": "host restarted",
    "4000": "drained",
    "4001": "lifetime over",
    "4002": "too slow",
    "4008": "silent",
    "4013": "host busy",
    "4029": "too many frames",
    "4400": "malformed",
    "4401": "unauthorized",
    "4403": "forbidden",
    "4409": "replaced",
}
"""Close code → in words; "peer": the device closed."""


def report_page(report: dict[str, Any]) -> str:
    """The page of a report as `GET /v1/events/{id}/report` gives it."""
    title = escape(report["title"])
    body = "".join(
        (
            _top(report), _tiles(report), _table(report["stages"]), _connections(report), _storms(report["storms"]),
            _drops(report["stages"]), _curves(report["stages"]), _audit(report), _footer(),
        )
    )  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} – report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _top(report: dict[str, Any]) -> str:
    stages = report["stages"]
    span = f"{_day(stages[0]['ts'])}, {_clock(stages[0]['ts'])} – {_clock(stages[-1]['ts'])} UTC" if stages else ""
    return (
        f'<h1>{escape(report["title"])}</h1><p class="soft">Event {escape(report["event"])}, now at stage '
        f"{escape(report['stage'])} · {span} · report made {_day(report['made'])}, {_clock(report['made'])} UTC</p>"
    )


def _tiles(report: dict[str, Any]) -> str:
    told = [stage for stage in report["stages"] if stage["audience"]]
    tiles = [("transitions", f"{len(report['stages']):,}")]
    if told:
        lasting = _lasting(told)
        slowest = [stage["reached_ms"]["99"] for stage in lasting]
        lowest = min((reach for stage in lasting if (reach := _reach(stage)) is not None), default=None)
        missing, asked = sum(stage["missing"] for stage in told), sum(stage["asked"] for stage in told)
        tiles += [
            ("largest audience", f"{max(stage['audience'] for stage in told):,}"),
            ("lowest reach of a stage", percent(lowest)),
            ("slowest to 99 %", "–" if None in slowest else seconds(max(slowest))),
            ("without a payload", percent(missing / asked if asked else 0.0)),
            ("reconnect storms", f"{len(report['storms']):,}"),
        ]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{text}</b><span class="soft">{name}</span></div>' for name, text in tiles
    ) + "</div>"  # fmt: skip


def _lasting(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were not followed before they could have come over all devices; all, if there is none."""
    ends = [*(stage["ts"] for stage in stages[1:]), None]
    return [
        stage
        for stage, end in zip(stages, ends, strict=True)
        if stage["subscribed"] and (end is None or end - stage["ts"] >= LASTING_MS)
    ] or stages


def _table(stages: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one['stage'])}</td><td>{_clock(one['ts'])}</td><td>{_lateness(one)}</td><td>{one['audience']:,}</td>"
        f"<td>{percent(_reach(one))}</td>{_times(one)}<td>{_some(one['missing'])}</td></tr>"
        for one in stages
    )
    heads = "".join(f"<th>{share} %</th>" for share in SHARES)
    return (
        '<h2>Stages</h2><div class="scroll"><table><thead><tr><th>stage</th><th>UTC</th><th>after plan</th><th>audience</th>'
        f"<th>reach</th>{heads}<th>no payload</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _connections(report: dict[str, Any]) -> str:
    stages = report["stages"]
    ends = [stage["ts"] for stage in stages[1:]] + [None] if stages else []
    course = [
        (stage["ts"] + point[0], point[1])
        for stage, end in zip(stages, ends, strict=True)
        for point in stage["curve"]
        if end is None or stage["ts"] + point[0] <= end
    ]  # a point is [ms, subscribed, at_or_past, written, switched, closed]
    if len(course) < 2:
        return ""
    start = min(stages[0]["ts"], course[0][0])
    length = (course[-1][0] - start) / 1000
    line = Line("connected", "there", [((at - start) / 1000, float(n)) for at, n in course])
    marks = [Mark((stage["ts"] - start) / 1000, stage["stage"]) for stage in stages]
    spans = [
        Mark((storm["ts"] - start) / 1000, "", (storm["ts"] - start + (storm["back_ms"] or 0)) / 1000)
        for storm in report["storms"]
    ]
    label = f"Devices connected over {said_time(round(length))}, {said_count(max(n for _, n in course))} at most"
    drawing = plot([line], length, percent=False, marks=[*spans, *marks], label=label)
    return f'<h2>Devices connected</h2><div class="card">{drawing}</div>'


def _storms(storms: list[dict[str, Any]]) -> str:
    if not storms:
        return '<p class="soft">No reconnect storm: never did a tenth of the devices leave within a minute.</p>'
    rows = "".join(
        f"<tr><td>{_clock(one['ts'])}</td><td>{one['before']:,}</td><td>{one['lowest']:,}</td>"
        f"<td>{percent(1 - one['lowest'] / one['before'])}</td>"
        f"<td>{'not seen' if one['back_ms'] is None else seconds(one['back_ms'])}</td></tr>"
        for one in storms
    )
    return (
        '<div class="scroll"><table><thead><tr><th>reconnect storm, UTC</th><th>devices before</th><th>at the lowest</th>'
        f"<th>gone</th><th>98 % back after</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _drops(stages: list[dict[str, Any]]) -> str:
    """Why connections ended, in the columns of the codes that there were."""
    codes = sorted({code for stage in stages for code in stage["drops"]})
    if not codes:
        return ""
    heads = "".join(f"<th>{_ENDS.get(code, 'other')}<br>{escape(code)}</th>" for code in codes)
    rows = "".join(
        f"<tr><td>{escape(stage['stage'])}</td><td>{sum(stage['drops'].values()):,}</td>"
        + "".join(f"<td>{stage['drops'].get(code, 0):,}</td>" for code in codes)
        + "</tr>"
        for stage in stages
    )
    return (
        '<h2>Connections that ended, and why</h2><div class="scroll"><table><thead><tr><th>during stage</th><th>all</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _curves(stages: list[dict[str, Any]]) -> str:
    cards = "".join(_card(stage) for stage in stages if stage["curve"] and stage["audience"])
    if not cards:
        return ""
    key = (
        '<p class="soft"><span class="key"></span>devices at the stage'
        '<span class="key written"></span>written to their sockets</p>'
    )
    return f"<h2>How each stage came over the devices</h2>{key}{cards}"


def _card(one: dict[str, Any]) -> str:
    curve = one["curve"]
    length = min(max(_settled(one) * 1.25, CURVE_MIN), CURVE_MAX)
    there = [(0.0, 0.0), *((p[0] / 1000, p[2] / p[1]) for p in curve if p[1])]
    written = [(0.0, 0.0), *((p[0] / 1000, p[3] / one["audience"]) for p in curve)]
    label = f"{one['stage']}: share of devices at it over {said_time(round(length))}"
    drawing = plot(
        [Line("written", "written", written), Line("at it", "there", there)], length, percent=True, label=label
    )  # fmt: skip
    facts = [
        f"{one['written']:,} of {one['audience']:,} written",
        f"{one['at_or_past']:,} of {one['subscribed']:,} at it, at best",
        f"{one['switched']:,} of {one['asked']:,} asked confirmed" if one["asked"] else "",
        f"{percent(one['holding'] / one['subscribed'])} known to hold the stage map"
        if one["subscribed"] and not one["missing"]
        else "",
        _lost(one["missing"], "had no payload to show"),
        _lost(one["pending"], "could not take it: too slow"),
        _lost(one["superseded"], "got a newer stage instead"),
        _lost(one["closed"], "disconnected before it was sent"),
        f"{one['ignored']:,} had it already" if one["ignored"] else "",
    ]
    listed = "".join(f"<li>{fact}</li>" for fact in facts if fact)
    why = f" · {escape(one['why'])}" if one["why"] else ""
    return (
        f'<section class="card"><header><h3>{escape(one["stage"])}</h3><span class="soft">{_clock(one["ts"])} UTC · '
        f'{escape(one["who"])}{why}</span></header>{drawing}<ul class="facts">{listed}</ul></section>'
    )


def _settled(one: dict[str, Any]) -> float:
    """Seconds until 99.9 % were at it, or until its curve changed last."""
    known = [ms for ms in one["reached_ms"].values() if ms is not None]
    last = one["curve"][-1][0]
    return float(max(known) if one["reached_ms"]["99.9"] is not None else last) / 1000


def _audit(report: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{_clock(line["ts"])}</td><td class="left">'
        f"{escape('to ' + line['stage'] if line['what'] == 'transition' else line['what'])}</td>"
        f'<td class="left">{escape(line["who"])}</td><td class="wrap">{escape(_reasons(line))}</td></tr>'
        for line in report["audit"]
    )
    short = "" if report["complete"] else '<p class="bad">Too long to be given whole: the rest is in the API.</p>'
    return (
        f'<h2>Who did what</h2>{short}<div class="scroll"><table><thead><tr><th>UTC</th><th class="left">what</th>'
        f'<th class="left">who</th><th class="left">why</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _footer() -> str:
    return f'<footer class="soft"><p>{_MEANING}</p></footer>'


def _reach(one: dict[str, Any]) -> float | None:
    return one["at_or_past"] / one["subscribed"] if one["subscribed"] else None


def _times(one: dict[str, Any]) -> str:
    if not one["audience"]:
        return "<td>–</td>" * len(SHARES)
    return "".join(f"<td>{seconds(one['reached_ms'][share])}</td>" for share in SHARES)


def _lateness(one: dict[str, Any]) -> str:
    if one["due"] is None:
        return "by hand" if one["seq"] > 1 else "–"
    late = (one["ts"] - one["due"]) / 1000
    return f"{late:+,.1f} s" if abs(late) < 120 else f"{late / 60:+,.0f} min"


def _some(n: int) -> str:
    return f'<span class="bad">{n:,}</span>' if n else "0"


def _lost(n: int, what: str) -> str:
    return f'<span class="bad">{n:,} {what}</span>' if n else ""


def _reasons(line: dict[str, Any]) -> str:
    return " · ".join(part for part in (line["why"], line["detail"]) if part)


def seconds(ms: int | None) -> str:
    return "–" if ms is None else f"{ms / 1000:.1f} s"


def percent(share: float | None) -> str:
    """Never rounded up to 100 % while one is missing."""
    if share is None:
        return "–"
    return (
        f"{share:.0%}".replace("%", " %") if share in (0.0, 1.0) else f"{min(int(share * 10_000) / 100, 99.99):.2f} %"
    )


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%d %b %Y").lstrip("0")


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M:%S")
