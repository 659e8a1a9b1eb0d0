"""The console and the demo page side by side, as `make run` gives them: one `stagecast dev`, two windows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.screen import Screen, screen
from tests.system.running import Running, running

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]
EVENT = "final"
"""The event of a demo page that names none."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("sides") / "data") as up:
        yield up


async def test_a_transition_clicked_in_one_is_seen_in_the_other(chromium: Browser, stage: Running) -> None:
    """The demo's viewer follows what the console's operator clicks, and the console has its receipts: sent, acked, at it."""
    await stage.create(EVENT, "upcoming", "live", "ended")
    async with screen(chromium, stage.http) as console:
        await console.sign_in((stage.data / "operator.key").read_text().strip(), EVENT)
        viewer = Screen(await console.page.context.new_page(), stage.http)
        await viewer.page.goto(f"{stage.http}/demo/")
        await viewer.shows("Upcoming", "#stage")
        await console.shows("2 devices connected now", ".figures")  # the console's own preview is the other one
        await console.page.bring_to_front()
        await console.page.locator("[data-action=next]").click()
        await console.dialog.get_by_role("heading", name="Switch 2 devices to LIVE").wait_for()
        await console.dialog.get_by_role("button", name="Switch to LIVE").click()
        await viewer.shows("Live", "#stage")
        await console.on_air("live")
        await console.shows("2 of 2 devices connected now", ".figures")
        await console.shows("converged", ".badge")
        got = await stage.call("GET", f"/v1/events/{EVENT}/progress")
        assert (got["audience"], got["written"], got["at_or_past"]) == (2, 2, 2)
        assert got["asked"] == got["switched"] + got["missing"] == 2
        assert viewer.errors == []
