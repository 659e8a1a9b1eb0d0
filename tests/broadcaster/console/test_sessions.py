"""Sessions: opened by a key, bounded, ended with their key, known to every instance."""

import msgspec
import pytest

from broadcaster.console.recognition import COOKIE
from broadcaster.console.sessions import CACHED, LIFE, PER_KEY, Session, sessions_record
from stagecast.access import CACHED as KEY_CACHED
from tests.broadcaster.console.conftest import Browser, Site, app_of
from tests.broadcaster.world import World

EVENT = "/v1/events/final"


async def test_signing_in_and_out(site: Site) -> None:
    """The cookie is HttpOnly and SameSite=Strict; the API knows the session's holder; signing out ends it."""
    browser = site.browser()
    assert (await browser.ask("GET", EVENT)).status_code == 401
    got = await browser.sign_in(await site.key("operator"))
    cookie = got.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/;" in cookie
    assert f"Max-Age={LIFE:.0f}" in cookie
    assert got.json()["scope"] == "operator"
    assert got.json()["now"] == site.world.clock.now()
    assert (await browser.ask("GET", EVENT)).json()["stage"] == "upcoming"
    assert (await browser.ask("GET", "/console/session")).json() == got.json()
    kept = dict(browser.http.cookies)
    assert (await browser.ask("DELETE", "/console/session")).status_code == 204
    browser.http.cookies.update(kept)
    assert (await browser.ask("GET", EVENT)).status_code == 401


async def test_the_cookie_of_a_page_got_by_https_is_secure(site: Site) -> None:
    """Also where a proxy ends TLS and this service hears HTTP; otherwise it would never come back."""
    browser, key = site.browser(), await site.key("viewer")
    headers = {"X-Stagecast": "1", "Origin": "https://console.example"}
    got = await browser.ask("POST", "/console/session", {"key": key}, headers)
    assert "; Secure" in got.headers["set-cookie"]
    assert "Secure" not in (await browser.sign_in(key)).headers["set-cookie"]


@pytest.mark.parametrize(("key", "status"), [("sc_operator_nothing", 401), ("", 422), ("x" * 300, 422)])
async def test_what_is_no_key_signs_nobody_in(site: Site, key: str, status: int) -> None:
    """No cookie comes with the refusal."""
    got = await site.browser().sign_in(key)
    assert got.status_code == status
    assert "set-cookie" not in got.headers


async def test_a_services_key_signs_nobody_in(site: Site) -> None:
    """Sessions are for people; nothing is left in the store."""
    key = await site.key("service")
    got = await site.browser().sign_in(key)
    assert got.status_code == 403
    assert "set-cookie" not in got.headers


async def test_the_store_holds_no_secret(site: Site) -> None:
    """What lies in the store opens no session: neither the cookie's secret nor the key's text is in it."""
    key = await site.key("operator")
    browser = site.browser()
    who = (await browser.sign_in(key)).json()["id"]
    cookie = browser.http.cookies[COOKIE]
    (item,) = (await site.world.store.page(sessions_record(who))).items
    assert cookie.partition(".")[2] not in item.key
    assert key.encode() not in item.value
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, f"{who}.{item.key[:43]}")
    assert (await browser.ask("GET", EVENT)).status_code == 401


async def test_a_deleted_key_ends_its_sessions(site: Site) -> None:
    """As soon as the gate looks again."""
    key = await site.key("operator")
    browser = site.browser()
    await browser.sign_in(key)
    await site.delete_key(key)
    site.world.clock.advance(KEY_CACHED + 1)
    assert (await browser.ask("GET", EVENT)).status_code == 401
    assert (await browser.ask("GET", "/console/session")).status_code == 401


async def test_a_session_ends_by_itself(site: Site) -> None:
    """After LIFE, remembered or not."""
    browser = await site.signed_in("operator")
    site.world.clock.advance(LIFE - CACHED / 2)
    assert (await browser.ask("GET", "/console/session")).status_code == 200
    site.world.clock.advance(CACHED / 2)
    assert (await browser.ask("GET", "/console/session")).status_code == 401


async def test_one_key_holds_so_many_sessions(site: Site) -> None:
    """One more ends the oldest, not the others."""
    key = await site.key("operator")
    browsers: list[Browser] = []
    for _ in range(PER_KEY + 1):
        site.world.clock.advance(1)
        browsers.append(site.browser())
        assert (await browsers[-1].sign_in(key)).status_code == 200
    statuses = [(await browser.ask("GET", EVENT)).status_code for browser in browsers]
    assert statuses == [401] + [200] * PER_KEY
    who = (await browsers[-1].ask("GET", "/console/session")).json()["id"]
    assert len((await site.world.store.page(sessions_record(who))).items) == PER_KEY


async def test_another_instance_knows_the_session(site: Site, world: World) -> None:
    """And so does the same one after a restart."""
    browser = await site.signed_in("operator")
    other = Browser(app_of(world, world.broadcaster(), site.settings))
    other.http.cookies.update(browser.http.cookies)
    assert (await other.ask("GET", EVENT)).status_code == 200
    await other.http.aclose()


async def test_the_store_is_down(site: Site) -> None:
    """Who is signed in goes on watching, however long it lasts; others are told to come back."""
    browser = await site.signed_in("viewer")
    assert (await browser.ask("GET", EVENT + "/progress")).status_code == 200
    site.world.store.down = True
    site.world.clock.advance(CACHED + 1)
    assert (await browser.ask("GET", "/console/session")).status_code == 200
    stranger = site.browser()
    stranger.http.cookies.set(COOKIE, "0123abcd." + "x" * 43)
    got = await stranger.ask("GET", EVENT)
    assert (got.status_code, got.headers["retry-after"]) == (503, "2")
    assert (await stranger.ask("GET", "/console/session")).status_code == 503


@pytest.mark.parametrize("cookie", ["", "x", "0123abcd.short", "../../heads." + "x" * 43, "0123abcd." + "x" * 43])
async def test_what_is_no_cookie_of_ours_is_nobody(site: Site, cookie: str) -> None:
    """Whatever its text."""
    browser = site.browser()
    got = await browser.http.get(EVENT, headers={"Cookie": f"{COOKIE}={cookie}"})
    assert got.status_code == 401


def test_a_kept_session_says_no_more_than_it_must() -> None:
    """Its digest and when it began."""
    assert msgspec.json.decode(msgspec.json.encode(Session("ab", 1))) == {"key": "ab", "since": 1}
