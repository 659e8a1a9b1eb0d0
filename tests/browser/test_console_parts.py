"""The console's pure modules, each in the browser they are for: words, plans, curves, streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from broadcaster.console.assets import STATIC, load_assets

if TYPE_CHECKING:
    from playwright.async_api import Browser, Route

pytestmark = [pytest.mark.asyncio(loop_scope="module")]
NOON = 1_764_072_000_000
"""2025-11-25 12:00:00 UTC."""
MINUTE = 60_000
CALL = "([m, f, a]) => import(`/console/static/${m}.js`).then((made) => made[f](...a))"
MADE = {  # of what JSON can't carry
    "planOf": "([m, f, a]) => import(`/console/static/${m}.js`).then((made) => made[f](a[0], new Date(a[1])))",
    "messages": """async ([m, f, [text, size]]) => {
        const { messages } = await import(`/console/static/${m}.js`);
        const bytes = new TextEncoder().encode(text);
        const cut = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size));
        const body = new ReadableStream({ pull: (out) => (cut.length ? out.enqueue(cut.shift()) : out.close()) });
        const told = [];
        let alive = 0;
        for await (const one of messages(body, () => (alive += 1))) told.push(one);
        return { told, alive };
    }""",
}
Call = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def call(chromium: Browser) -> AsyncIterator[Call]:
    """Calls a function of a module with JSON arguments, in a page whose zone is Berlin's."""
    assets = load_assets(STATIC)

    async def serve(route: Route) -> None:
        found = assets.get(route.request.url.rsplit("/", 1)[1])
        if found is None:
            await route.fulfill(body="<!doctype html>", content_type="text/html")
        else:
            await route.fulfill(body=found.body, content_type=found.media)

    context = await chromium.new_context(timezone_id="Europe/Berlin")
    page = await context.new_page()
    await page.route("**/*", serve)
    await page.goto("http://console.test/")

    async def call(module: str, function: str, *arguments: Any) -> Any:
        return await page.evaluate(MADE.get(function, CALL), [module, function, list(arguments)])

    yield call
    await context.close()


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("count", [1203552], "1,203,552"),
        ("count", [None], "–"),
        ("counted", [1, "device"], "1 device"),
        ("counted", [1203552, "device"], "1,203,552 devices"),
        ("percent", [0.99999, 2], "99.99 %"),
        ("percent", [1, 2], "100 %"),
        ("percent", [0, 2], "0.00 %"),
        ("percent", [None], "–"),
        ("moment", [NOON, NOON], "13:00:00 CET"),
        ("moment", [NOON, NOON + 11 * 60 * MINUTE], "13:00:00 CET"),
        ("moment", [NOON, NOON + 12 * 60 * MINUTE], "25 Nov, 13:00:00 CET"),
        ("duration", [4999], "4 s"),
        ("duration", [-5], "0 s"),
        ("duration", [724_000], "12 min 4 s"),
        ("duration", [3 * 3_600_000 + 5 * MINUTE], "3 h 5 min"),
        ("duration", [52 * 3_600_000], "2 d 4 h"),
        ("countdown", [1], "00:01"),
        ("countdown", [0], "00:00"),
        ("countdown", [3_723_000], "01:02:03"),
        ("countdown", [90_061_000], "1 d 01:01:01"),
        ("latency", [0.4], "< 1 ms"),
        ("latency", [34.4], "34 ms"),
        ("latency", [1234], "1.2 s"),
        ("milliseconds", ["PT47M"], 47 * MINUTE),
        ("milliseconds", ["P1DT2H3M4.5S"], 93_784_500),
        ("milliseconds", ["47 min"], None),
        ("milliseconds", [None], None),
    ],
)
async def test_words(call: Call, function: str, arguments: list[Any], said: Any) -> None:
    """Numbers with separators, shares never rounded up to all, local times with their zone, durations."""
    assert await call("format", function, *arguments) == said


def event(stage: str, *plan: dict[str, Any], ts: int = NOON, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "ts": ts, "plan": list(plan), "next": None, **more}


async def test_when_stages_are_due(call: Call) -> None:
    """From what happened where it is known, else from what is expected, else by the rule alone."""
    plan: list[dict[str, Any]] = [
        {"stage": "a"}, {"stage": "b", "after": "PT1M"}, {"stage": "c", "after": "PT1M"},
        {"stage": "d", "after": "PT9M", "of": "a"}, {"stage": "e"}, {"stage": "f", "after": "PT1H"},
        {"stage": "g", "at": "2025-11-25T12:30:00Z", "armed": True},
    ]  # fmt: skip
    history = [{"stage": "a", "ts": NOON - MINUTE}, {"stage": "b", "ts": NOON}]
    made = await call("plan", "stages", event("b", *plan), history)
    assert [(one["name"], one["state"], one["due"] and (one["due"] - NOON) // MINUTE, one["exact"]) for one in made] == [
        ("a", "past", None, False), ("b", "now", 0, True), ("c", "ahead", 1, True), ("d", "ahead", 8, True),
        ("e", "ahead", None, False), ("f", "ahead", None, False), ("g", "ahead", 30, True),
    ]  # fmt: skip
    assert [one["rule"] for one in made] == [
        "by hand", "1 min after a", "1 min after b", "9 min after a", "by hand", "60 min after e", "planned",
    ]  # fmt: skip
    assert made[-1]["armed"]
    skipped = await call("plan", "stages", event("d", *plan, ts=NOON + MINUTE), history)
    assert [one["state"] for one in skipped][:4] == ["past", "past", "passed over", "now"]


async def test_what_a_move_would_be(call: Call) -> None:
    """Forward, the end, or back; and what is passed over."""
    here = event("b", *({"stage": name} for name in "abcde"))
    assert await call("plan", "move", here, "d") == {"kind": "forward", "over": ["c"]}
    assert await call("plan", "move", here, "e") == {"kind": "end", "over": ["c", "d"]}
    assert await call("plan", "move", here, "a") == {"kind": "revert", "over": []}
    assert await call("plan", "following", here) == "c"
    assert await call("plan", "following", {**here, "stage": "e"}) is None


NOBODY = dict.fromkeys(
    ("audience", "written", "pending", "superseded", "closed", "asked", "switched", "missing", "ignored", "subscribed",
     "at_or_past", "holding", "hosts", "silent"), 0,
)  # fmt: skip


async def test_what_is_missing_and_why(call: Call) -> None:
    """A sentence per cause; a good word when there is none."""
    assert (await call("landing", "missing", NOBODY))[0][1] == "No device follows this event now"
    well = {
        **NOBODY,
        "audience": 9,
        "written": 9,
        "asked": 9,
        "switched": 9,
        "subscribed": 9,
        "at_or_past": 9,
        "holding": 9,
    }
    assert await call("landing", "missing", well) == [["good", "Nothing: every connected device is there"]]
    ill = {**well, "written": 5, "pending": 1, "closed": 3, "switched": 6, "missing": 1, "at_or_past": 7, "silent": 2}
    said = [text.split(":")[0].split(";")[0] for _, text in await call("landing", "missing", ill)]
    assert said == [
        "1 device can't take it yet", "1 device took the stage without a payload for it",
        "3 connections ended before it was sent", "2 hosts silent for 15 s", "2 asked devices have not answered yet",
        "2 devices not confirmed by the census yet",
    ]  # fmt: skip


async def test_the_time_axis(call: Call) -> None:
    """As long as it moves; once settled it ends soon after the last move, however long ago that was."""
    samples = [{"seconds": 0}, {"seconds": 11}]
    assert await call("curve", "span", samples, 20, False) == 30
    assert await call("curve", "span", samples, 5000, True) == 15
    assert await call("curve", "span", [], 3, False) == 10
    assert await call("curve", "span", [], 200_000, False) == 3 * 86_400


async def test_hosts_worst_first(call: Call) -> None:
    """Silent ones, then those behind; the census counts, or acks where there is none."""
    hosts = [
        {"host": "a", "subscribed": 10, "at_or_past": 10, "silent_since": None},
        {"host": "b", "subscribed": 10, "at_or_past": 3, "silent_since": None},
        {"host": "c", "subscribed": 10, "at_or_past": 0, "silent_since": NOON},
    ]
    made = await call("hosts", "parts", hosts)
    assert [(one["name"], one["done"], one["silent"]) for one in made] == [
        ("c", 0, True),
        ("b", 3, False),
        ("a", 10, False),
    ]
    assert await call("hosts", "parts", None) == []


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_server_sent_events(call: Call, size: int) -> None:
    """However the bytes are cut: fields, data of several lines, comments that say only that it lives."""
    comment, one = ": still here\n\n", 'event: progress\ndata: {"title": "Pokalfinale – Müller"}\n\n'
    text = f"{comment}{one}event: progress\r\ndata: a\r\ndata: b\r\n\r\n"
    got = await call("watch", "messages", text, size)
    assert got["told"] == [
        {"event": "progress", "data": '{"title": "Pokalfinale – Müller"}'}, {"event": "progress", "data": "a\nb"},
    ]  # fmt: skip
    assert got["alive"] >= 1


async def test_a_plan_as_it_is_typed(call: Call) -> None:
    """Times of day are the next ones, one after the other; durations as people write them."""
    text = "upcoming\nlive at 13:30 armed\n\nhalf after 47m\nlate at 0:15\nended after 1h30m of half"
    assert await call("newevent", "planOf", text, NOON) == [
        {"stage": "upcoming"}, {"stage": "live", "at": "2025-11-25T12:30:00.000Z", "armed": True},
        {"stage": "half", "after": "PT47M"}, {"stage": "late", "at": "2025-11-25T23:15:00.000Z"},
        {"stage": "ended", "after": "PT1H30M", "of": "half"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "why"),
    [("live 20:45", "a line is a stage"), ("live at noon", "is no time"), ("live after a while", "a line is a stage"),
     ("live after soon", "is no duration")],
)  # fmt: skip
async def test_a_plan_that_is_none(call: Call, line: str, why: str) -> None:
    """The line is named."""
    with pytest.raises(Exception, match=why):
        await call("newevent", "planOf", f"upcoming\n{line}", NOON)
