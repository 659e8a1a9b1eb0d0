"""The pages of `stagecast dev` on its HTTP port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.running import Running, running


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data") as stage:
        yield stage


async def test_the_demo_page_and_its_session(up: Running) -> None:
    """The page, the SDK it runs on, and a token for the device it names; nothing of another origin may run in it."""
    page = await up.api.get("/demo", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/demo/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for file in ("demo.js", "sdk/index.js"):
        assert (await up.api.get(f"/demo/{file}")).headers["content-type"].startswith("text/javascript")
    session = await up.call("GET", "/demo/session?device=demo-1")
    assert (session["ws"], session["event"], len(session["titles"])) == (up.ws, "final", 320)
    assert session["token"].count(".") == 2
    assert (await up.call("GET", "/demo/session"))["token"] is None
    assert (await up.api.get("/demo/../operator.key")).status_code == 404


async def test_stage_maps_are_on_the_same_port(up: Running) -> None:
    """Prefetch answers there too: a device without a map, and one without a token."""
    await up.create("final", "upcoming")
    path, token = "/v1/stage-maps/final", up.token("m", "d", "final")
    assert (await up.api.get(path, headers={"Authorization": f"Bearer {token}"})).status_code == 404
    assert (await up.api.get(path, headers={"Authorization": "Bearer none"})).status_code == 401
