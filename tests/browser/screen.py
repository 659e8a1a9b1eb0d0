"""A person at the console: a browser's context of its own, and what one does there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

WITHIN = 45_000
"""Milliseconds within which a page must show what is waited for: the census of a device may take so long."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LARGE = (1600, 1000)
PHONE = (400, 800)


class Screen:
    """One page and what it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(WITHIN)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if "Content Security" in said.text else None)

    async def sign_in(self, key: str, event: str | None = None) -> None:
        """Signs in, then opens the event's page, or stays at the list."""
        await self.page.goto(self.url + (f"/console/events/{event}" if event else "/"))
        await self.page.get_by_label("API key").fill(key)
        await self.page.keyboard.press("Enter")
        await (self.timeline if event else self.page.get_by_role("heading", name="Events")).wait_for()

    @property
    def timeline(self) -> Locator:
        return self.page.locator(".timeline li").first

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    async def shows(self, text: str, within: str = "body") -> None:
        """Waits until the page shows this text somewhere in `within`."""
        await self.page.locator(within).get_by_text(text).first.wait_for()

    async def on_air(self, stage: str) -> None:
        await self.page.locator(".tally-stage").get_by_text(stage, exact=True).wait_for()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def violations(self) -> list[str]:
        """What axe finds against its rules on the page as it is now."""
        source = (files("axe_playwright_python") / "axe.min.js").read_text()
        await self.page.evaluate(source)
        found: Any = await self.page.evaluate(
            "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", RULES
        )
        return [
            f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


@contextlib.asynccontextmanager
async def screen(
    chromium: Browser, url: str, size: tuple[int, int] = LARGE, scheme: Literal["dark", "light"] = "dark"
) -> AsyncIterator[Screen]:
    """Somebody's browser. Fails at the end if a script broke or the policy stopped something."""
    context = await chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        made = Screen(await context.new_page(), url)
        yield made
        assert made.errors == []
    finally:
        await context.close()
