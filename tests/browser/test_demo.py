"""The demo page in a real browser: a home screen that switches with the event, at every size, under a strict policy."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from tests.browser.pages import Pages
from tests.browser.screen import Screen
from tests.check_docs import ROOT
from tests.system.running import Running, running, until

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]
STAGES = ("upcoming", "first-half", "half-time", "trophy", "ended")
SIZES = [(1440, 900), (400, 800)]
SHOTS = os.environ.get("STAGECAST_SHOTS")
"""A folder for pictures of every stage, to look at."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pages(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pages]:
    """The demo with the example's catalogue, and its member's stage map made."""
    data = tmp_path_factory.mktemp("demo") / "data"
    with Pages().serving() as served:
        async with running(data, "--origin", served.url) as up:
            served.stage = up
            yield served


async def new_event(pages: Pages, event: str) -> Running:
    """The demo's event from now on, with a map for its member."""
    assert pages.stage is not None
    stage = pages.stage
    pages.event = event
    await stage.create(event, *STAGES)
    catalogue = (ROOT / "examples/final/titles.ndjson").read_bytes()
    member = json.dumps({"id": "demo", "vector": [0.9, 0.1, 0.3] + [0.2] * 13})
    for kind, lines in (("titles", catalogue), ("members", member.encode() + b"\n")):
        got = await stage.api.post(f"/v1/stage-maps/{event}/import?kind={kind}", content=lines)
        assert got.is_success, got.text
    return stage


@contextlib.asynccontextmanager
async def home(
    chromium: Browser, pages: Pages, size: tuple[int, int], motion: Literal["reduce", "no-preference"] = "reduce"
) -> AsyncIterator[Screen]:
    context = await chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark", reduced_motion=motion
    )
    try:
        shown = Screen(await context.new_page(), pages.url)
        await shown.page.goto(f"{pages.url}/demo/")
        yield shown
        assert shown.errors == []
    finally:
        await context.close()


async def shoot(shown: Screen, name: str) -> None:
    if SHOTS:
        await shown.page.screenshot(path=Path(SHOTS) / f"{name}.png")


async def facts(shown: Screen) -> dict[str, Any]:
    """What the page shows of its stage and itself."""
    got: dict[str, Any] = await shown.page.evaluate(
        """({stage: document.getElementById("stage").textContent, title: document.getElementById("title").textContent,
             cards: [...document.querySelectorAll(".card .name")].map((one) => one.textContent),
             rows: document.querySelectorAll(".row").length, wide: document.documentElement.scrollWidth,
             link: document.getElementById("link").textContent, map: document.getElementById("map").textContent})"""
    )
    return got


@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_switches_at_every_stage(chromium: Browser, pages: Pages, size: tuple[int, int]) -> None:
    """At each stage another hero and other rows from the map it holds, nothing wider than the screen, nothing that axe or
    the content policy finds."""
    stage = await new_event(pages, f"home-{size[0]}")
    async with home(chromium, pages, size) as shown:

        async def map_is_held() -> bool:
            return bool((await facts(shown))["map"] != "none yet")

        await until(lambda: on_stage(shown, "Upcoming"), "it follows")
        assert (await facts(shown))["cards"]  # what is popular, until its own is there
        await shoot(shown, f"{size[0]}-waiting")
        await stage.call("POST", f"/v1/campaigns/{pages.event}", {})
        await until(map_is_held, "the map is pushed")
        seen: set[str] = set()
        for at, name in enumerate(STAGES):
            if at:
                await stage.go(pages.event, name)
            label = name.replace("-", " ").capitalize()
            await until(lambda label=label: on_stage(shown, label), label)  # type: ignore[misc]
            await shoot(shown, f"{size[0]}-{at}-{name}")
            now = await facts(shown)
            assert now["rows"] >= 3
            assert now["wide"] <= size[0]
            assert now["link"] == "connected"
            seen.add(json.dumps([now["title"], now["cards"]]))
        assert len(seen) == len(STAGES)
        assert await shown.violations() == []


async def on_stage(shown: Screen, label: str) -> bool:
    now = await facts(shown)
    return bool(now["stage"] == label and now["cards"])


async def test_motion_is_short_and_only_where_it_is_wanted(chromium: Browser, pages: Pages) -> None:
    """Rows rise and the hero fades in under half a second; who asked for less motion sees none."""
    await new_event(pages, "motion")
    assert pages.stage is not None
    await pages.stage.call("POST", "/v1/campaigns/motion", {})
    for motion, expected in (("no-preference", ["fade", "rise"]), ("reduce", [])):
        async with home(chromium, pages, SIZES[0], motion) as shown:  # type: ignore[arg-type]
            await shown.page.evaluate(
                """window.seen = new Set(); document.addEventListener("animationstart", (one) => seen.add(one.animationName))"""
            )
            await shown.page.locator(".row").first.wait_for()
            await until(lambda: on_stage(shown, "Upcoming"), "it is shown")
            await shown.page.wait_for_timeout(300)
            assert sorted(await shown.page.evaluate("[...seen]")) == expected
