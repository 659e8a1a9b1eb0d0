"""The console over HTTP: who may do what from where, what its pages are served with."""

import re
from pathlib import Path

import msgspec
import pytest

from broadcaster.console.assets import STATIC
from stagecast.settings import Settings
from stagecast.tokens import load_keys
from tests.broadcaster.console.conftest import DEVICE_URL, ORIGIN, PAGE, Browser, Site, app_of
from tests.broadcaster.world import World

EVENT = "/v1/events/final"
GO = {"stage": "live", "if_seq": 1}
FORGED = {
    "no origin": {"X-Stagecast": "1"},
    "another site": {"X-Stagecast": "1", "Origin": "http://evil.example"},
    "another port": {"X-Stagecast": "1", "Origin": ORIGIN + ":81"},
    "a sandbox": {"X-Stagecast": "1", "Origin": "null"},
    "no header": {"Origin": ORIGIN},
    "a wrong header": {"X-Stagecast": "yes", "Origin": ORIGIN},
}
forged = pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED.keys())


async def test_an_operator_transitions(site: Site) -> None:
    """From the console's own page, under the id of the key."""
    browser = await site.signed_in("operator")
    got = await browser.ask("POST", EVENT + "/transitions", GO)
    assert got.status_code == 202, got.text
    who = (await browser.ask("GET", "/console/session")).json()["id"]
    assert (await browser.ask("GET", EVENT + "/history")).json()["history"][-1]["who"] == who


@forged
async def test_another_pages_request_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    """With the cookie it reads, as any request does; it does not write."""
    browser = await site.signed_in("operator")
    for method, path, body in (
        ("POST", EVENT + "/transitions", GO), ("DELETE", EVENT, None), ("PUT", EVENT + "/plan", {"plan": []}),
        ("DELETE", "/console/session", None), ("POST", "/console/session", {"key": "x"}),
        ("POST", "/console/preview", {"event": "final", "device": "console-1"}),
    ):  # fmt: skip
        got = await browser.ask(method, path, body, headers)
        assert got.status_code == 403, (method, path)
        assert got.headers["content-type"] == "application/problem+json"
    assert (await browser.ask("GET", EVENT, None, headers)).json()["seq"] == 1


async def test_a_key_needs_no_page(site: Site) -> None:
    """`Authorization` is no cookie: a browser never adds it by itself. It counts, whoever is signed in."""
    viewer = await site.signed_in("viewer")
    key = await site.key("operator")
    got = await viewer.http.post(EVENT + "/transitions", json=GO, headers={"Authorization": f"Bearer {key}"})
    assert got.status_code == 202
    got = await viewer.http.get(EVENT, headers={"Authorization": "Bearer nothing"})
    assert got.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", EVENT + "/transitions", GO), ("POST", EVENT + "/hold", {}), ("POST", EVENT + "/resume", {}),
        ("DELETE", EVENT, None), ("PUT", EVENT + "/plan", {"plan": [{"stage": "x"}]}),
        ("POST", "/console/preview", {"event": "final", "device": "console-1"}),
    ],
)  # fmt: skip
async def test_a_viewer_only_looks(site: Site, method: str, path: str, body: object) -> None:
    """Everything that changes something is 403, also from the console's own page."""
    viewer = await site.signed_in("viewer")
    assert (await viewer.ask(method, path, body)).status_code == 403
    assert (await viewer.ask("GET", EVENT + "/progress")).status_code == 200
    assert (await viewer.ask("GET", "/console/session")).json()["preview"] is False


async def test_every_answer_of_the_console_is_secured(site: Site) -> None:
    """No inline script or style, no other origin but the devices' and the stage maps', no frame around it; errors too."""
    browser = site.browser()
    for path in ("/console/", "/console/events/final", "/console/session", "/console/static/nothing.js", "/console/no"):
        headers = (await browser.ask("GET", path)).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == "'self' ws://devices.example:8081 http://maps.example"
        assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"


async def test_the_way_in(site: Site) -> None:
    """`/` leads to the console; every address of the console is the one page."""
    browser = site.browser()
    for path in ("/", "/console"):
        got = await browser.ask("GET", path)
        assert (got.status_code, got.headers["location"]) == (307, "/console/")
    page = await browser.ask("GET", "/console/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (await browser.ask("GET", "/console/events/final")).content == page.content
    assert (await browser.ask("GET", "/healthz")).json() == {"ok": True}


async def test_files_have_types_and_etags(site: Site) -> None:
    """Each file of the folder is served with its type, and 304 to who has it; nothing else is."""
    browser = site.browser()
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for file in STATIC.iterdir():
        got = await browser.ask("GET", f"/console/static/{file.name}")
        assert got.content == file.read_bytes()
        assert got.headers["content-type"].startswith(types[file.suffix])
        again = await browser.ask("GET", f"/console/static/{file.name}", None, {"If-None-Match": got.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == got.headers["etag"]
    for wrong in ("app.py", "..%2fapp.py", "%2e%2e/app.py", ".."):
        assert (await browser.ask("GET", f"/console/static/{wrong}")).status_code in (307, 404)


def test_pages_need_nothing_from_elsewhere() -> None:
    """No address of another origin, nothing inline, no markup made of text."""
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
        assert not re.search(r"https?://", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page)


async def test_a_preview_is_a_device_of_one_event_for_minutes(site: Site, tmp_path: Path) -> None:
    """The pass says where devices connect and holds a token of that device and event, signed by the service's key."""
    browser = await site.signed_in("operator")
    got = await browser.ask("POST", "/console/preview", {"event": "final", "device": "console-7f"})
    assert got.status_code == 200, got.text
    assert got.json()["ws"] == DEVICE_URL
    now = site.world.clock.now() / 1000
    claims = load_keys(tmp_path / "keys.json").verify(got.json()["token"], now)
    assert (claims.dev, claims.evt) == ("console-7f", ["final"])
    assert 200 < claims.exp - now < 400


async def test_a_preview_passes_for_no_viewers_device(site: Site) -> None:
    """Only the console's own device ids."""
    browser = await site.signed_in("operator")
    got = await browser.ask("POST", "/console/preview", {"event": "final", "device": "tv-9"})
    assert (got.status_code, got.json()["field"]) == (422, "$.device")


async def test_without_a_key_or_an_address_there_is_no_preview(site: Site, world: World, tmp_path: Path) -> None:
    """404, and the session says so; a broken keys file does not keep the console from working."""
    (tmp_path / "bad.json").write_text("{")
    key = await site.key("operator")
    for settings in (
        Settings(data=str(tmp_path / "none"), device_url=DEVICE_URL),
        Settings(data=str(tmp_path)),
        msgspec.structs.replace(site.settings, keys=str(tmp_path / "bad.json")),
    ):
        browser = Browser(app_of(world, world.broadcaster(), settings))
        assert (await browser.sign_in(key)).json()["preview"] is False
        got = await browser.ask("POST", "/console/preview", {"event": "final", "device": "console-1"}, PAGE)
        assert got.status_code == 404
        await browser.http.aclose()
