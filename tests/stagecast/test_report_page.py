"""The report's page and its plots: self-contained, escaped, true to the figures."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from stagecast.cli.plots import (
    HEIGHT,
    LEFT,
    WIDTH,
    Line,
    Scale,
    nice_top,
    plot,
    said_count,
    said_time,
    step_path,
    time_ticks,
)
from stagecast.cli.report_page import percent, report_page, seconds

NOW = 1_764_000_000_000
TIMES: dict[str, int | None] = {"50": 1000, "95": 2000, "99": 2500, "99.9": None}


def stage(name: str = "live", seq: int = 2, **more: Any) -> dict[str, Any]:
    counts = {
        "audience": 1000, "written": 970, "pending": 10, "superseded": 5, "closed": 15, "asked": 1000, "switched": 940,
        "missing": 30, "ignored": 0, "subscribed": 1000, "at_or_past": 998, "holding": 950,
    }  # fmt: skip
    curve = [[1000, 1000, 600, 900, 500, 0], [2500, 1000, 998, 970, 940, 15]]
    base = {"seq": seq, "stage": name, "ts": NOW + seq * 60_000, "due": None, "who": "ann", "why": "kick-off"}
    return {**base, **counts, "reached_ms": TIMES, "curve": curve, "drops": {}, **more}


def report(*stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    audit = [
        {
            "ts": one["ts"],
            "seq": one["seq"],
            "what": "transition",
            "stage": one["stage"],
            "who": "ann",
            "why": "",
            "detail": "",
        }
        for one in stages
    ]
    return {
        "event": "final", "title": "The <b>final</b> & more", "gen": 7, "made": NOW, "stage": "live", "stages": list(stages),
        "storms": [], "audit": audit, "complete": True, **more,
    }  # fmt: skip


class Balanced(HTMLParser):
    """Fails when tags are not closed in order."""

    VOID = frozenset({"meta", "line", "path", "rect", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> str:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser.text


def test_the_page_fetches_nothing() -> None:
    """No script, no reference out of the file: what is forwarded is all there is."""
    page = report_page(report(stage()))
    assert not re.search(r"<script|<link|<img|@import|url\(|https?:|src=|href=", page)
    assert page.startswith("<!doctype html>")


def test_texts_are_escaped() -> None:
    """Titles, reasons and names are text, whatever they look like."""
    page = report_page(report(stage(why="<script>alert(1)</script>", name="live")))
    assert "<b>final" not in page
    assert "<script>" not in page
    assert "The <b>final</b> & more" in read(page)


def test_the_figures_are_there() -> None:
    """Reach, times, what went missing, and by whom it was done."""
    text = read(report_page(report(stage())))
    for said in (
        "99.80 %",
        "1.0 s",
        "2.5 s",
        "30 had no payload to show",
        "10 could not take it",
        "970 of 1,000 written",
        "ann · kick-off",
    ):
        assert said in text, said


def test_the_worst_is_of_stages_that_lasted() -> None:
    """One that was followed at once could not come over all devices: it is in the table, and not among the worst."""
    short = stage("goal", 3, at_or_past=100, reached_ms=dict.fromkeys(TIMES))
    text = read(report_page(report(stage(), short, stage("half", 4) | {"ts": short["ts"] + 2000})))
    assert "10.00 %" in text
    assert "99.80 %lowest reach of a stage" in text
    assert "2.5 sslowest to 99 %" in text


def test_storms_are_told() -> None:
    """How many were gone, and how long until they were back."""
    storm = {"ts": NOW + 130_000, "before": 1000, "lowest": 400, "back_ms": 12_000}
    text = read(report_page(report(stage(), storms=[storm])))
    assert "60.00 %" in text
    assert "12.0 s" in text
    assert "No reconnect storm" in read(report_page(report(stage())))


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [stage(curve=[], audience=0, subscribed=0, asked=0, reached_ms=dict.fromkeys(TIMES))],
        [stage(seq=1), stage("half", 2, curve=[[0, 0, 0, 0, 0, 0]], subscribed=0)],
    ],
)
def test_events_without_figures(stages: list[dict[str, Any]]) -> None:
    """No stage, no device, no curve: still a page."""
    assert "Who did what" in read(report_page(report(*stages)))


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0 %"), (1.0, "100 %"), (0.99996, "99.99 %"), (0.5, "50.00 %"), (0.123456, "12.34 %")],
)
def test_percent_is_never_rounded_up(share: float | None, text: str) -> None:
    """100 % only when none is missing."""
    assert percent(share) == text


def test_seconds() -> None:
    """A time not reached is a dash."""
    assert (seconds(None), seconds(2584)) == ("–", "2.6 s")


def test_a_line_is_steps() -> None:
    """A value holds until the next, and the last to the edge; what is past the edge is left out."""
    scale = Scale(10.0, 1.0)
    path = step_path([(0.0, 0.0), (5.0, 0.5), (20.0, 1.0)], scale)
    middle, bottom = scale.x(5.0), scale.y(0.0)
    assert path == f"M{LEFT:.1f} {bottom:.1f}H{middle:.1f}V{scale.y(0.5):.1f}H{scale.x(10.0):.1f}"


def test_everything_is_on_the_paper() -> None:
    """Whatever the values, no place is outside."""
    drawing = plot(
        [Line("a", "there", [(0.0, 0.0), (1.0, 7e6), (1e9, 3.0)])], 3600.0, percent=False, label='a "plot" & more'
    )
    numbers = [float(number) for number in re.findall(r'[ MHV"](-?\d+\.\d)(?=[ HV"])', drawing)]
    assert numbers
    assert all(0 <= number <= max(WIDTH, HEIGHT) for number in numbers)
    assert 'aria-label="a &quot;plot&quot; &amp; more"' in drawing


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (3, 4), (4.5, 5), (10, 10), (11, 20), (201, 250), (499, 500), (7_000_000, 10_000_000)]
)
def test_tops_are_round(most: float, top: float) -> None:
    """The axis ends at a round figure not below the greatest value."""
    assert nice_top(most) == top


def test_time_ticks_are_few_and_round() -> None:
    """From seconds to days."""
    assert time_ticks(10) == [0, 2, 4, 6, 8, 10]
    for length in (1, 7, 59, 61, 3599, 86_400, 40 * 86_400):
        assert 1 <= len(time_ticks(length)) <= 10


def test_words_for_figures() -> None:
    """Short, as axes need them."""
    assert [said_time(at) for at in (0, 5, 90, 120, 3600, 5400)] == ["0 s", "5 s", "90 s", "2 min", "1 h", "1 h 30 min"]
    assert [said_count(n) for n in (0, 950, 12_000, 1_500_000)] == ["0", "950", "12 k", "1.5 M"]


def test_ends_are_told_by_reason() -> None:
    """A row per stage, a column per code that there was, in words; a report without any has no such part."""
    page = report_page(report(stage("live", drops={"1006": 1200, "peer": 3}), stage("goal", 3, drops={"4000": 7})))
    part = page.partition("Connections that ended")[2].partition("</table>")[0]
    heads = re.findall(r"<th>(.*?)</th>", part)
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr><td>.*?</tr>", part)]
    assert heads == ["during stage", "all", "broke off<br>1006", "drained<br>4000", "left<br>peer"]
    assert rows == [["live", "1,203", "1,200", "0", "3"], ["goal", "7", "0", "7", "0"]]
    assert "Connections that ended" not in report_page(report(stage()))
