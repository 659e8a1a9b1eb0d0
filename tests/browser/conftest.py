"""A real browser: Debian's Chromium, driven by playwright. Not there: skipped; asked for and not there: failed."""

import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.conftest import required

if TYPE_CHECKING:
    from playwright.async_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def absent() -> str | None:
    """What is missing for a browser's tests, or None."""
    if find_spec("playwright") is None:
        return "browser: the package playwright is not installed"
    if CHROMIUM is None:
        return "browser: no chromium on this machine; Debian's package `chromium` has it"
    return None


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator["Browser"]:
    """A browser for a module's tests; each makes contexts of its own."""
    if why := absent():
        pytest.fail(why, pytrace=False) if "browser" in required() else pytest.skip(why)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()
