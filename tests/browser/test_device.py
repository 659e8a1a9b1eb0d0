"""The browser SDK in a real browser, on a real Stagecast: what a viewer's tab goes through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.browser.pages import Pages
from tests.browser.walks import walk
from tests.check_docs import ROOT
from tests.system.running import Running, running, until

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]
PING = 1.0
"""Seconds between pings: a node closes a silent connection after 2.4 of them."""
STAGES = {"upcoming": ["t001", "t002"], "live": ["t003"], "ended": []}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pages(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pages]:
    """Pages and their Stagecast, one for all of these tests; each has an event of its own."""
    data = tmp_path_factory.mktemp("device") / "data"
    with Pages().serving() as served:
        async with running(data, "--workers", "2", "--ping", str(PING), "--origin", served.url) as up:
            served.stage = up
            yield served


@pytest.fixture
def stage(pages: Pages) -> Running:
    assert pages.stage is not None
    return pages.stage


class Tab:
    """A tab with one device."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def start(self, event: str, member: str = "m-1", **options: Any) -> None:
        asked = json.dumps({"event": event, "member": member, **options})
        await until(lambda: self.holds("typeof start === 'function'"), "the page has loaded")
        await self.page.evaluate(f"start({asked})")

    async def told(self, name: str) -> list[dict[str, Any]]:
        """What the device said under this name, in order."""
        said: list[dict[str, Any]] = await self.page.evaluate(f"told.filter((one) => one.name === {name!r})")
        return said

    async def holds(self, expression: str) -> bool:
        return bool(await self.page.evaluate(f"!!({expression})"))

    async def connected(self, times: int = 1) -> None:
        await until(
            lambda: self.holds(f"told.filter((one) => one.name === 'connected').length >= {times}"), "connected"
        )

    async def is_at(self, stage: str) -> dict[str, Any]:
        """Waits for the switch. Returns it."""
        await until(lambda: self.holds(f"told.some((one) => one.name === 'stage' && one.stage === {stage!r})"), stage)
        return [one for one in await self.told("stage") if one["stage"] == stage][-1]


@contextlib.asynccontextmanager
async def tab(browser: Browser | BrowserContext, pages: Pages, init: str = "") -> AsyncIterator[Tab]:
    """A tab on the device's page. `init` runs before the page's own scripts. Fails at the end if a script broke."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
    try:
        if init:
            await page.add_init_script(init)
        await page.goto(f"{pages.url}/device.html")
        yield Tab(page)
        assert errors == []
    finally:
        await page.close()


async def import_map(stage: Running, event: str, member: str = "m-1") -> None:
    line = json.dumps({"member": member, "stages": STAGES})
    got = await stage.api.post(f"/v1/stage-maps/{event}/import?kind=maps", content=line + "\n")
    assert got.is_success, got.text


async def campaign(stage: Running, event: str) -> None:
    await stage.call("POST", f"/v1/campaigns/{event}", {"recommender": "stored"})


async def test_a_pushed_map_is_at_hand_when_the_stage_comes(chromium: Browser, pages: Pages, stage: Running) -> None:
    """The campaign's push fills the device's map; the transition then switches it with its payload, without any request, and
    its ack and census reach the receipts."""
    await stage.create("pushed", *STAGES)
    await import_map(stage, "pushed")
    async with tab(chromium, pages) as one:
        await one.start("pushed")
        await one.is_at("upcoming")
        await campaign(stage, "pushed")
        await until(lambda: one.holds("told.some((one) => one.name === 'map')"), "the map is pushed")
        fetches = await one.page.evaluate("device.fetches")
        await stage.go("pushed", "live")
        change = await one.is_at("live")
        assert (change["result"], change["payload"], change["caughtUp"]) == ("switched", ["t003"], False)
        assert await one.page.evaluate("device.fetches") == fetches

        async def is_counted() -> bool:
            progress = await stage.call("GET", "/v1/events/pushed/progress")
            return bool(progress["switched"] == 1 and progress["at_or_past"] == 1)

        await until(is_counted, "its ack and its census are counted")


async def test_a_map_is_fetched_once_and_kept_over_a_reload(chromium: Browser, pages: Pages, stage: Running) -> None:
    """Fetched from another origin with the device's token, kept in IndexedDB, and at hand right after a reload, without a
    second request; another member of the same browser doesn't see it."""
    await stage.create("kept", *STAGES)
    await import_map(stage, "kept")
    await campaign(stage, "kept")
    context = await chromium.new_context()
    try:
        async with tab(context, pages) as one:
            await one.start("kept", cache=True, eager=True)
            await until(lambda: one.holds("told.some((one) => one.late && one.payload[0] === 't001')"), "it is fetched")
            await one.page.reload()
            await one.start("kept", cache=True)
            change = await one.is_at("upcoming")
            assert (change["result"], change["payload"], change["late"]) == ("switched", ["t001", "t002"], False)
            assert await one.page.evaluate("device.fetches") == 0
            await one.page.reload()
            await one.start("kept", member="m-2", cache=True)
            assert (await one.is_at("upcoming"))["result"] == "missing"
    finally:
        await context.close()


async def test_both_sdks_live_the_same_lives(chromium: Browser, pages: Pages) -> None:
    """Hundreds of random lives, step by step: effects, deadline and positions are those of the Python session, and so is the
    chance drawn."""
    async with tab(chromium, pages) as one:
        for seed in range(0, 200, 50):
            walks = [walk(seed + i) for i in range(50)]
            text = await one.page.evaluate(
                "async (text) => JSON.stringify(JSON.parse(text).map((await import('/walks.js')).relive))",
                json.dumps(walks),
            )
            for life, again in zip(walks, json.loads(text), strict=True):
                for step, seen in zip(life["steps"], again, strict=True):
                    assert seen == {**step["seen"], "undrawn": 0}, step


async def test_what_is_kept_gets_old(chromium: Browser, pages: Pages) -> None:
    """A kept map has the time that is left of it; a clock that was set back gives it no more than it ever had; what is over
    goes, whoever's it is."""
    async with tab(chromium, pages) as one:
        got = await one.page.evaluate(
            """(async () => {
                const { mapCache } = await import("/demo/sdk/cache.js");
                let now = 1e12;
                const clock = { now: () => now };
                const map = { t: "map", e: "final", gen: 1, map: "1764000000000-1", stages: {}, default: 1, ttl: 100 };
                const left = async (cache, at) => ((now = 1e12 + at * 1000), (await cache.load("final"))?.ttl ?? null);
                const mine = mapCache("m-1", clock);
                await mine.save(map);
                await mapCache("m-2", clock).save({ ...map, ttl: 10 });
                const seen = [];
                for (const at of [0, 40, -5000, 99, 100]) seen.push(await left(mine, at));
                now = 1e12 + 50e3;
                await mapCache("m-3", clock).load("final");  // opening it sweeps
                seen.push(await left(mapCache("m-2", clock), 0), await left(mine, 0));
                await mine.drop("final");
                return [...seen, await left(mine, 0)];
            })()"""
        )
        assert got == [100, 60, 100, 1, None, None, 100, None]


async def test_the_documents_snippet(chromium: Browser, pages: Pages, stage: Running) -> None:
    """The one of the how-to, which is the package's own too, shows each stage as it stands there."""
    found = re.findall(r"^```js\n(.*?)^```", (ROOT / "docs/howto/device-client.md").read_text(), re.M | re.S)
    assert found == re.findall(r"^```js\n(.*?)^```", (ROOT / "sdk/js/README.md").read_text(), re.M | re.S)
    snippet = (
        found[0].replace('"stagecast"', '"/demo/sdk/index.js"').replace('"stagecast/cache"', '"/demo/sdk/cache.js"')
    )
    pages.files["/snippet.js"] = snippet.replace("wss://live.example/ws", stage.ws)
    await stage.create("final", *STAGES)
    async with tab(chromium, pages) as one:
        await one.page.evaluate("window.shown = []; window.show = (stage) => shown.push(stage); import('/snippet.js')")
        await until(lambda: one.holds("shown.join() === 'upcoming'"), "welcomed")
        await stage.go("final", "live")
        await until(lambda: one.holds("shown.join() === 'upcoming,live'"), "switched")


async def test_each_tab_is_a_device(chromium: Browser, pages: Pages, stage: Running) -> None:
    """Two tabs of one browser live beside each other; neither replaces the other."""
    await stage.create("tabs", *STAGES)
    context = await chromium.new_context()
    try:
        async with tab(context, pages) as one, tab(context, pages) as other:
            for each in (one, other):
                await each.start("tabs")
                await each.is_at("upcoming")
            await stage.go("tabs", "live")
            for each in (one, other):
                await each.is_at("live")
                assert await each.told("ended") == []
            assert await one.page.evaluate("device.id") != await other.page.evaluate("device.id")
    finally:
        await context.close()


async def test_a_killed_host_is_no_end(chromium: Browser, pages: Pages, stage: Running) -> None:
    """All workers are killed outright: the device backs off, comes back by itself, and takes the stage that it missed."""
    await stage.create("killed", *STAGES)
    async with tab(chromium, pages) as one:
        await one.start("killed")
        await one.is_at("upcoming")
        for pid in stage.pids["workers"]:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: one.holds("told.some((one) => one.name === 'disconnected')"), "it noticed")
        assert (await one.told("disconnected"))[0]["code"] == 1006
        await stage.go("killed", "live")
        change = await one.is_at("live")
        assert (change["seq"], await one.told("ended")) == (2, [])


async def test_a_network_that_is_cut(chromium: Browser, pages: Pages, stage: Running) -> None:
    """Offline, nothing is tried; back online the device comes back at a moment of its own and takes what it missed."""
    await stage.create("cut", *STAGES)
    async with tab(chromium, pages) as one:
        await one.start("cut")
        await one.is_at("upcoming")
        await one.page.context.set_offline(True)
        await kill_connections(stage)
        await until(lambda: one.holds("told.some((one) => one.name === 'disconnected')"), "it noticed")
        await stage.go("cut", "live")
        await asyncio.sleep(6)  # longer than the first wait of a backoff
        assert not await one.holds("device.connected")
        await one.page.context.set_offline(False)
        assert (await one.is_at("live"))["caughtUp"] is True


async def test_a_network_that_falls_silent(chromium: Browser, pages: Pages, stage: Running) -> None:
    """Nothing comes through any more and nobody says so: the missing pong tells, the device leaves the dead connection at once
    and takes what it missed by a new one."""
    await stage.create("silent", *STAGES)
    async with wire(stage) as network:
        pages.ws = network.url
        try:
            async with tab(chromium, pages) as one:
                await one.start("silent")
                await one.is_at("upcoming")
                network.silent = True
                await stage.go("silent", "live")
                await until(lambda: one.holds("told.some((one) => one.name === 'disconnected')"), "it noticed")
                assert (await one.told("disconnected"))[0]["why"] == "no answer while open"
                network.silent = False
                assert (await one.is_at("live"))["caughtUp"] is True
        finally:
            pages.ws = None


class Wire:
    """A stretch of network between devices and a host."""

    def __init__(self, to: str) -> None:
        self._host, port = to.removeprefix("ws://").removesuffix("/ws").rsplit(":", 1)
        self._port = int(port)
        self.silent = False
        """What is sent is lost; nobody hears of it."""
        self.url = ""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back))
                both.create_task(self._pass(there, writer))
        except* ConnectionError:
            pass
        finally:
            for end in (writer, back):
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.silent:
                    sink.write(data)
        await until(lambda: not self.silent, "the network carries a connection's end too", within=60)
        sink.write_eof()


@contextlib.asynccontextmanager
async def wire(stage: Running) -> AsyncIterator[Wire]:
    """Its end for devices is `url`. Carries until the end of the test."""
    made = Wire(stage.ws)
    carried: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.carry(reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
    try:
        yield made
    finally:
        server.close()
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)


async def kill_connections(stage: Running) -> None:
    """Ends every connection as a fault would: the workers are killed. Theirs listen again when this returns."""
    for pid in list(stage.pids["workers"]):
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.2)


async def test_a_token_that_ends_is_renewed(chromium: Browser, pages: Pages, stage: Running) -> None:
    """A short-lived token is renewed on the open connection, in time; one that is over when the device comes back costs one
    refusal, and then a fresh one is taken."""
    await stage.create("token", *STAGES)
    async with tab(chromium, pages) as one:
        await one.start("token", ttl=6)
        await one.is_at("upcoming")
        await until(lambda: one.holds("tokens >= 2"), "it asked for a fresh token", within=40)
        await stage.go("token", "live")
        await one.is_at("live")
        assert await one.told("disconnected") == []


async def test_an_expired_token_is_replaced_once(chromium: Browser, pages: Pages, stage: Running) -> None:
    """The first token is over before it is used: 4401, a fresh one from the callback, welcome."""
    await stage.create("expired", *STAGES)
    async with tab(chromium, pages) as one:
        await one.page.route(
            "**/demo/session?*ttl=3601*",
            lambda route: route.continue_(url=route.request.url.replace("ttl=3601", "ttl=-50")),
            times=2,  # the page's own first look, and the token
        )
        await one.start("expired", ttl=3601)
        await one.is_at("upcoming")
        assert [end["code"] for end in await one.told("disconnected")] == [4401]
        assert await one.page.evaluate("tokens") == 2


@pytest.mark.parametrize("hours", [-30_000, 30_000])
async def test_a_wrong_clock_changes_nothing(chromium: Browser, pages: Pages, stage: Running, hours: int) -> None:
    """A device whose wall clock is years off, and jumps while it is connected, follows like any other and keeps its map."""
    event = f"clock{hours}"
    await stage.create(event, *STAGES)
    await import_map(stage, event)
    await campaign(stage, event)
    shift = f"const real = Date.now; window.shift = {hours} * 3600e3; Date.now = () => real() + shift;"
    async with tab(chromium, pages, init=shift) as one:
        await one.start(event, eager=True, cache=True)
        await until(lambda: one.holds("told.some((one) => one.late)"), "the map is fetched")
        await one.page.evaluate("shift = -shift")
        await stage.go(event, "live")
        change = await one.is_at("live")
        assert (change["result"], change["payload"]) == ("switched", ["t003"])
        await asyncio.sleep(3 * PING)  # pings go on
        assert await one.told("disconnected") == []


async def test_a_suspended_tab_catches_up(chromium: Browser, pages: Pages, stage: Running) -> None:
    """Its process stands still for longer than a node bears silence: the node has closed; running again, the device hears of
    it, comes back and takes the stage."""
    await stage.create("asleep", *STAGES)
    async with tab(chromium, pages) as one:
        await one.start("asleep")
        await one.is_at("upcoming")
        async with asleep(chromium):
            await asyncio.sleep(5 * PING)
            await stage.go("asleep", "live")
        assert (await one.is_at("live"))["caughtUp"] is True
        assert [end["code"] for end in await one.told("disconnected")] == [4008]


@contextlib.asynccontextmanager
async def asleep(chromium: Browser) -> AsyncIterator[None]:
    """The browser's pages stand still, as in a suspended tab or a closed laptop: a headless page can't be hidden, which
    Chromium's own freezing needs."""
    session = await chromium.new_browser_cdp_session()
    found = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    renderers = [one["id"] for one in found if one["type"] == "renderer"]
    for pid in renderers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in renderers:
            os.kill(pid, signal.SIGCONT)
        await session.detach()
