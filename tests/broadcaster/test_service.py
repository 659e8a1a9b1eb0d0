"""The broadcaster as a process: starts whatever is down, plans fire on time on every instance, ends at once."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from broadcaster.service import Front, broadcasting
from stagecast.clock import SystemClock
from tests.broadcaster.process import broadcaster, operator_key
from tests.broadcaster.world import World

PLAN = [{"stage": "upcoming"}, *({"stage": f"s{n}", "after": "PT1.2S"} for n in range(3))]


def test_two_processes_play_a_plan_once(tmp_path: Path) -> None:
    """Two processes on one store and log: every stage once, in order; SIGTERM ends each within 2 s, with status 0."""
    key = operator_key(tmp_path)
    with broadcaster(tmp_path) as one, broadcaster(tmp_path) as two:
        one.until_ready()
        two.until_ready()
        assert (
            one.ask("POST", "/v1/events", key, {"id": "final", "title": "The final", "plan": PLAN}).status_code == 201
        )
        assert two.ask("GET", "/v1/events/final", key).json()["stage"] == "upcoming"
        history: list[dict[str, object]] = []
        while len(history) < 4:
            history = two.ask("GET", "/v1/events/final/history", key).json()["history"]
        assert [(entry["seq"], entry["stage"]) for entry in history] == [
            (1, "upcoming"),
            (2, "s0"),
            (3, "s1"),
            (4, "s2"),
        ]
        for running in (one, two):
            assert running.stop() < 2
            assert running.process.returncode == 0


def test_a_store_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    """It answers from the first moment: not ready, and why; ready once the store is there."""
    (tmp_path / "kv.sqlite").mkdir()
    with broadcaster(tmp_path) as running:
        assert running.ask("GET", "/healthz").json() == {"ok": True}
        assert running.until_ready(False)["why"] == "the store does not answer"
        refused = running.ask("GET", "/v1/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        (tmp_path / "kv.sqlite").rmdir()
        running.until_ready()
        assert running.stop() < 2


async def test_forwarded_paths() -> None:
    """Paths with a given beginning go to the other app, even before the API is there; the others wait for it a moment."""
    front = Front(PlainTextResponse("elsewhere"), ["/v1/stage-maps"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://front") as http:
        assert (await http.get("/v1/stage-maps/final")).text == "elsewhere"
        early = asyncio.create_task(http.get("/v1/events"))
        assert (await http.get("/readyz")).status_code == 503
        front.open(PlainTextResponse("here"))
        assert (await early).text == "here"
        assert (await http.get("/v1/events")).text == "here"
        assert (await http.get("/v1/stage-maps/final")).text == "elsewhere"


async def test_the_whole_tier_in_one_place(world: World) -> None:
    """Everything runs while the context is open, and nothing after it."""
    async with (
        broadcasting(world.store, world.log, SystemClock()) as api,
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as http,
    ):
        for _ in range(1000):
            if (await http.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("not ready within 10 s")
    assert asyncio.all_tasks() == {asyncio.current_task()}
