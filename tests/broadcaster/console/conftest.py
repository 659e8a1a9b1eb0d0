"""The real app, console and API, called in memory as a browser's page calls it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from broadcaster.api import http_api
from broadcaster.console.app import with_console
from broadcaster.service import remembering
from kv import Put
from stagecast.access import Gate, Scope, key_digest, new_key
from stagecast.records import API_KEYS
from stagecast.settings import Settings
from stagecast.tokens import create_keys
from tests.broadcaster.world import Broadcaster, World

ORIGIN = "http://console.example"
PAGE = {"Origin": ORIGIN, "X-Stagecast": "1"}
"""What the console's own pages send with every request."""
DEVICE_URL = "ws://devices.example:8081/ws"


@dataclass
class Browser:
    """A browser at a page: its cookies, and what it sends by itself."""

    app: Any
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ORIGIN)

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.http.request(method, path, json=body, headers=PAGE if headers is None else headers)

    async def sign_in(self, key: str) -> httpx.Response:
        return await self.ask("POST", "/console/session", {"key": key})


@dataclass
class Site:
    """One instance, its keys, and browsers that look at it."""

    world: World
    app: Any
    settings: Settings
    browsers: list[Browser] = field(default_factory=list)

    def browser(self) -> Browser:
        made = Browser(self.app)
        self.browsers.append(made)
        return made

    async def key(self, scope: Scope) -> str:
        text, digest, kept = new_key(scope, self.world.clock.now())
        await self.world.store.put([Put(API_KEYS, digest, msgspec.json.encode(kept))])
        return text

    async def delete_key(self, text: str) -> None:
        await self.world.store.delete(API_KEYS, [key_digest(text)])

    async def signed_in(self, scope: Scope) -> Browser:
        browser = self.browser()
        got = await browser.sign_in(await self.key(scope))
        assert got.status_code == 200, got.text
        return browser


def app_of(world: World, one: Broadcaster, settings: Settings) -> Any:
    gate = Gate(remembering(world.store), world.clock.monotonic)
    return with_console(http_api(one.parts, gate), world.store, gate, world.clock, settings)


@pytest.fixture
async def site(world: World, one: Broadcaster, tmp_path: Path) -> AsyncIterator[Site]:
    """A broadcaster that signs device tokens and knows where devices connect, with the event `final`."""
    create_keys(tmp_path / "keys.json")
    settings = Settings(data=str(tmp_path), device_url=DEVICE_URL, maps="http://maps.example")
    made = Site(world, app_of(world, one, settings), settings)
    await one.create()
    await one.cadence.round()
    yield made
    for browser in made.browsers:
        await browser.http.aclose()
