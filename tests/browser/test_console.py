"""The console in a real browser, on a real Stagecast of processes and devices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stagecast.cli.credentials import create_api_key
from stagecast.settings import Settings
from tests.browser.screen import LARGE, PHONE, Screen, screen
from tests.system.running import Running, running, until

if TYPE_CHECKING:
    from playwright.async_api import Browser, Route

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
STAGES = ("upcoming", "live", "half", "ended")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One Stagecast for all of these tests; each has an event of its own."""
    async with running(tmp_path_factory.mktemp("console") / "data", "--workers", "2") as up:
        yield up


def operator(stage: Running) -> str:
    return (stage.data / "operator.key").read_text().strip()


async def test_from_creating_an_event_to_a_converged_transition(chromium: Browser, stage: Running) -> None:
    """With 200 devices: the confirmation names them, Enter sends, every device switches, the receipts come in, the viewer's
    screen switches too, the audit says who; then hold, resume and back."""
    async with screen(chromium, stage.http) as one, contextlib.AsyncExitStack() as audience:
        await one.sign_in(operator(stage))
        await one.page.get_by_role("button", name="New event").click()
        await one.dialog.get_by_label("Title").fill("Story")
        await one.dialog.get_by_label("Plan").fill("\n".join(STAGES))
        await one.dialog.get_by_role("button", name="Create").click()
        await one.on_air("upcoming")
        await one.shows("connected", ".panel .chip")
        devices = await audience.enter_async_context(stage.devices(200, "story"))
        await one.shows("201 devices connected now", ".figures")
        await one.press("g")
        await one.dialog.get_by_role("heading", name="Switch 201 devices to LIVE").wait_for()
        await one.dialog.get_by_label("Reason").fill("kick-off")
        await one.press("Enter")
        await one.on_air("live")
        await until(lambda: all(device.position("story").seq == 2 for device in devices), "200 devices switched")
        await one.shows("converged", ".badge")
        await one.shows("201 of 201 devices connected now", ".figures")
        await one.shows("live", ".screen-stage")
        await one.shows("(you) · kick-off", ".audit")
        await one.press("h", "Enter")
        await one.shows("On hold: by hand", ".hold")
        await one.press("h", "Enter")
        await one.page.locator(".hold", has_text="On hold").wait_for(state="hidden")
        await one.press("r", "Enter")
        await one.on_air("upcoming")
        await one.shows("On hold: reverted to upcoming", ".hold")
        assert (await stage.call("GET", "/v1/events/story"))["seq"] == 3


async def test_two_operators_race(chromium: Browser, stage: Running) -> None:
    """The one who comes second learns who was first and when, and sends nothing further: from the broadcaster's refusal, where
    the page had not heard yet, and from the page itself, where it had."""
    await stage.create("race", *STAGES)
    first_key = operator(stage)
    second_key = await create_api_key(here(stage), "operator")
    async with screen(chromium, stage.http) as first, screen(chromium, stage.http) as second:
        hears = await without_stream(second)
        await asyncio.gather(first.sign_in(first_key, "race"), second.sign_in(second_key, "race"))
        hears.clear()
        for one in (first, second):
            await one.press("g")
            await one.dialog.get_by_role("heading", name="to LIVE").wait_for()
        await first.press("Enter")
        await first.on_air("live")
        await second.press("Enter")
        await lost(second, "LIVE", refused=True)
        await second.press("Escape")
        hears.set()
        await second.on_air("live")
        for one in (first, second):
            await one.press("g")
            await one.dialog.get_by_role("heading", name="to HALF").wait_for()
        await second.press("Enter")
        await lost(first, "HALF", refused=False)
        await first.press("Enter")
        await first.dialog.wait_for(state="hidden")
        assert (await stage.call("GET", "/v1/events/race"))["seq"] == 3


async def lost(loser: Screen, stage: str, *, refused: bool) -> None:
    """Waits for the news, and that there is nothing to confirm any more."""
    title = loser.dialog.get_by_role("heading", name=re.compile(rf"{stage} was triggered by [0-9a-f]{{8}} \d+ s ago"))
    await title.wait_for()
    await loser.shows("so nothing was sent", "dialog")
    assert await loser.dialog.get_by_text("The broadcaster says").count() == int(refused)
    assert await loser.dialog.get_by_role("button").count() == 1


async def without_stream(one: Screen) -> asyncio.Event:
    """The page gets no server-sent events, so it asks; while the event is not set it hears nothing of what it asks, and can
    still have things done."""
    hears = asyncio.Event()
    hears.set()

    async def answer(route: Route) -> None:
        asks = route.request.method == "GET" and "history" not in route.request.url
        if asks and not hears.is_set():
            await route.abort()
        else:
            await route.continue_(headers={**route.request.headers, "accept": "application/json"})

    await one.page.route("**/v1/events/race*", answer)
    await one.page.route("**/v1/events/race/**", answer)
    return hears


async def test_the_broadcaster_is_replaced_under_the_page(chromium: Browser, stage: Running) -> None:
    """Data goes grey and says its age, then the page is live again by itself; still signed in, a transition works."""
    await stage.create("restart", *STAGES)
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "restart")
        await one.shows("Live", ".bar .chip")
        stale = asyncio.create_task(one.page.locator("body[data-fresh=no]").wait_for())
        grey = asyncio.create_task(one.shows("Reconnecting · data is", ".bar .chip"))
        await stage.kill("broadcaster")
        await asyncio.gather(stale, grey)
        await stage.go("restart", "live")
        await one.on_air("live")
        await one.shows("Live", ".bar .chip")
        await one.press("g", "Enter")
        await one.on_air("half")


async def test_arming_and_shifting(chromium: Browser, stage: Running) -> None:
    """No-go says why; arming wants a reason then, and the audit has it. A shift moves the later stages, on the page too."""
    plan: list[dict[str, Any]] = [
        {"stage": "upcoming"},
        {"stage": "live", "after": "PT40M", "armed": True},
        {"stage": "ended", "after": "PT30M"},
    ]
    await stage.create("armed", *plan)
    await stage_maps(stage, "armed")
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "armed")
        await one.shows("NO-GO", ".verdict")
        await one.shows("so nobody is known to hold the stage map", ".checks")
        await one.shows("Not armed: the plan waits for a person here", ".hold")
        await one.press("a", "Enter")
        await one.shows("coverage:", "dialog")
        await one.dialog.get_by_label("Override").fill("rehearsed twice")
        await one.press("Enter")
        await one.shows("Armed: the plan fires it by itself", ".hold")
        await one.shows("rehearsed twice", ".audit")
        before = (await stage.call("GET", "/v1/events/armed"))["next"]["due"]
        await one.press("s")
        await one.dialog.get_by_role("button", name="+15 min").click()
        await one.dialog.get_by_role("button", name=re.compile("^Shift")).click()
        await one.shows("shift", ".audit strong")
        after = (await stage.call("GET", "/v1/events/armed"))["next"]["due"]
        assert datetime.fromisoformat(after) - datetime.fromisoformat(before) == timedelta(minutes=15)


async def test_a_rehearsal(chromium: Browser, stage: Running) -> None:
    """Leads to the shadow's page, which plays by itself with its own devices; the event itself stays where it is."""
    await stage.create("rehearsed", "upcoming", "live")
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "rehearsed")
        await one.page.get_by_role("button", name="Rehearse").click()
        await one.dialog.get_by_label("Devices").fill("10")
        await one.dialog.get_by_label("Times as fast").fill("100")
        await one.press("Enter")
        await one.page.wait_for_url("**/console/events/rehearsal-rehearsed-*")
        await one.on_air("live")
        await one.shows("devices connected now", ".figures")
        assert (await stage.call("GET", "/v1/events/rehearsed"))["seq"] == 1
        shadow = one.page.url.rpartition("/")[2]

        async def all_had_a_payload() -> bool:
            got = await stage.call("GET", f"/v1/events/{shadow}/progress")
            return bool(got["switched"] == 10)  # the page's own viewer is an eleventh device, and holds no map

        await until(all_had_a_payload, "every device shows the stage's payload")


async def test_what_happened_to_a_device(chromium: Browser, stage: Running) -> None:
    """Its time line, newest first, for whoever may look; a device nobody knows is told so."""
    await stage.create("explained", *STAGES)
    async with screen(chromium, stage.http) as one, stage.devices(1, "explained"):
        await one.sign_in(await create_api_key(here(stage), "viewer"), "explained")
        await one.page.get_by_role("textbox", name="Device").fill("nobody")
        await one.page.get_by_role("button", name="Explain").click()
        await one.shows("no host has had this device", ".moments")

        async def told() -> bool:
            await one.page.get_by_role("textbox", name="Device").fill("d-0")
            await one.page.get_by_role("button", name="Explain").click()
            return await one.page.locator(".moments").get_by_text("hello", exact=True).count() > 0

        await until(told, "the registry has it")
        await one.shows("of member m-0 at host", ".moments")
        await one.shows("explained is at upcoming", ".moments")
        assert await one.violations() == []


async def test_deleting_an_event(chromium: Browser, stage: Running) -> None:
    """Asks by the event's name, tells the devices, and leads back to the list; Escape deletes nothing."""
    await stage.create("unwanted", *STAGES)
    async with screen(chromium, stage.http) as one, stage.devices(1, "unwanted") as devices:
        await one.sign_in(operator(stage), "unwanted")
        for key in ("Escape", "Enter"):
            await one.page.get_by_role("button", name="Delete").click()
            await one.dialog.get_by_role("heading", name="Delete Unwanted (unwanted)").wait_for()
            assert await one.violations() == []
            assert (await stage.call("GET", "/v1/events/unwanted"))["stage"] == "upcoming"
            await one.press(key)
            await one.dialog.wait_for(state="hidden")
        await one.page.get_by_role("heading", name="Events").wait_for()
        assert (await stage.call("GET", "/v1/events/unwanted"))["stage"] == "gone"
        await until(lambda: devices[0].position("unwanted").seq == 2, "the device is told")


async def test_many_windows_of_one_browser(chromium: Browser, stage: Running) -> None:
    """A browser opens six connections to a server over HTTP/1.1, a stream keeps one: with eight windows all are live still."""
    await stage.create("windows", *STAGES)
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "windows")
        windows = [Screen(await one.page.context.new_page(), stage.http) for _ in range(7)]
        for window in windows:
            await window.page.goto(f"{stage.http}/console/events/windows")
        await asyncio.gather(*(window.on_air("upcoming") for window in windows))
        await one.press("g", "Enter")
        await asyncio.gather(*(window.on_air("live") for window in windows))
        await asyncio.gather(*(window.shows("Live", ".bar .chip") for window in windows))


async def test_a_lost_answer_is_asked_for_again(chromium: Browser, stage: Running) -> None:
    """Under its one key: the transition happens once and the page says so, though its first answer never came."""
    await stage.create("lost", *STAGES)
    keys: list[str] = []

    async def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "lost")
        await one.page.route("**/transitions", lose)
        await one.press("g", "Enter")
        await one.shows("LIVE accepted as seq 2", ".notices")
        await one.dialog.wait_for(state="hidden")
    assert (await stage.call("GET", "/v1/events/lost"))["seq"] == 2
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_what_people_write_is_shown_as_they_wrote_it(chromium: Browser, stage: Running) -> None:
    """A title or a reason is text, whatever is in it."""
    markup = "<img src=x onerror=document.title=1>"
    await stage.call(
        "POST", "/v1/events", {"id": "markup", "title": markup, "plan": [{"stage": name} for name in STAGES]}
    )
    await stage.go("markup", "live", reason=markup)
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "markup")
        assert await one.page.locator("h1").inner_text() == markup
        await one.shows(markup, ".audit")
        assert await one.page.locator("main img").count() == 0


async def test_a_viewer_sees_and_can_do_nothing(chromium: Browser, stage: Running) -> None:
    """No button, no shortcut, no preview; what happens is shown all the same. A wrong key is told so."""
    await stage.create("watched", *STAGES)
    async with screen(chromium, stage.http) as one:
        await one.page.goto(stage.http)
        await one.page.get_by_label("API key").fill("sc_viewer_wrong")
        await one.press("Enter")
        await one.shows("this is no API key of this broadcaster", ".card")
        await one.sign_in(await create_api_key(here(stage), "viewer"), "watched")
        await one.shows("You are signed in as a viewer")
        assert await one.page.locator("main button:not(.explain button), .screen:visible").count() == 0
        await one.press("g", "h", "e")
        assert await one.dialog.count() == 0
        await stage.go("watched", "live")
        await one.on_air("live")
        await one.page.get_by_role("button", name="Sign out").click()
        await one.page.get_by_label("API key").wait_for()
        await one.page.goto(f"{stage.http}/console/events/watched")
        await one.page.get_by_label("API key").wait_for()


async def test_by_keyboard_alone(chromium: Browser, stage: Running) -> None:
    """Tab reaches every control, Escape leaves everything as it was and gives the focus back, letters can be switched off."""
    await stage.create("keys", *STAGES)
    async with screen(chromium, stage.http) as one:
        await one.sign_in(operator(stage), "keys")
        await one.press("g")
        focused = one.page.locator("dialog button:focus")
        assert "Switch to LIVE" in await focused.inner_text()
        await one.press("Escape")
        await one.dialog.wait_for(state="hidden")
        assert await one.page.locator("[data-action=next]:focus").count() == 1
        reached = set()
        for _ in range(20):
            await one.press("Tab")
            reached.add(await one.page.evaluate("document.activeElement.innerText"))
        assert {"half", "ended"} <= {text.split("\n")[0] for text in reached}
        await one.press("?")
        await one.dialog.get_by_label("letters are shortcuts").uncheck()
        await one.press("Enter")
        await one.dialog.wait_for(state="hidden")
        await one.press("e")
        assert await one.dialog.count() == 0
        assert (await stage.call("GET", "/v1/events/keys"))["seq"] == 1


@pytest.mark.parametrize(("size", "scheme"), [(LARGE, "dark"), (PHONE, "light")], ids=["large-dark", "phone-light"])
async def test_every_page_is_accessible_and_fits(
    chromium: Browser, stage: Running, size: tuple[int, int], scheme: str
) -> None:
    """axe finds nothing to say of any page or dialog, dark or light; nothing is wider than the screen."""
    event = f"axe-{size[0]}-{scheme}"
    plan = [*({"stage": name, "after": "PT40M"} if i else {"stage": name} for i, name in enumerate(STAGES))]
    await stage.create(event, *plan)
    async with screen(chromium, stage.http, size, "light" if scheme == "light" else "dark") as one:
        await one.page.goto(stage.http)
        await one.page.get_by_label("API key").wait_for()
        await fits(one)
        await one.sign_in(operator(stage))
        await one.page.get_by_role("link", name=event.title()).wait_for()
        await fits(one)
        await one.page.get_by_role("button", name="New event").click()
        await fits(one)
        await one.press("Escape")
        await one.page.get_by_role("link", name=event.title()).click()
        await one.shows("connected", ".panel .chip")
        await fits(one)
        for key in ("g", "e", "?"):
            await one.press(key)
            await one.dialog.wait_for()
            await fits(one)
            await one.press("Escape")
            await one.dialog.wait_for(state="hidden")
        await one.page.goto(f"{stage.http}/console/events/nothing")
        await one.shows("No such event")
        await fits(one)


async def fits(one: Screen) -> None:
    assert await one.violations() == []
    wide, screen_ = await one.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen_


async def stage_maps(stage: Running, event: str) -> None:
    """A finished campaign: from now on devices should hold a map of this event."""
    titles = "".join(
        json.dumps({"id": f"t{i}", "title": f"Title {i}", "genres": ["football"]}) + "\n" for i in range(40)
    )
    for kind, lines in (("titles", titles), ("members", json.dumps({"id": "m-0", "genres": ["football"]}) + "\n")):
        got = await stage.api.post(f"/v1/stage-maps/{event}/import?kind={kind}", content=lines)
        assert got.is_success, got.text
    await stage.call("POST", f"/v1/campaigns/{event}", {})

    async def finished() -> bool:
        return bool((await stage.call("GET", f"/v1/events/{event}/readiness"))["checks"][0]["ok"] is False)

    await until(finished, "the campaign is over")


def here(stage: Running) -> Settings:
    return Settings(data=str(stage.data))
