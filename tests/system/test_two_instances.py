"""Did they get it? Any number of broadcasters give the same answer, for they read the same log and store."""

import asyncio
import contextlib
import json
from typing import Any

import httpx

from tests.system.fleet import free_port
from tests.system.running import CLI, Running, until

DEVICES = 40
SETTLED = (
    "gen", "seq", "audience", "written", "pending", "superseded", "closed", "asked", "switched", "missing", "ignored",
    "latency_ms", "subscribed", "at_or_past", "holding", "hosts", "converged", "drops",
)  # fmt: skip
"""What changes no more once all have acked."""


async def test_two_broadcasters_give_one_answer(stage: Running, event: str, roads: list[str]) -> None:
    """Whichever is asked, as JSON, as a stream, or for the report; also one that was not there when it happened."""
    await stage.create(event, "upcoming", "live")
    port = free_port()
    options = [*roads, "--data", str(stage.data), "--http", f"127.0.0.1:{port}"]
    urls = (stage.http, f"http://127.0.0.1:{port}")
    async with stage.devices(DEVICES, event):
        await stage.go(event, "live")
        with (stage.data / "second.log").open("wb") as out:
            second = await asyncio.create_subprocess_exec(*CLI, "broadcaster", *options, stdout=out, stderr=out)
        try:
            await until(lambda: answers(stage, urls[1]), "the second is ready")

            async def all_agree() -> bool:
                asked = [await stage.call("GET", f"{url}/v1/events/{event}/progress") for url in urls]
                streams = [await streamed(stage, url, event) for url in urls]
                told = [{name: one[name] for name in SETTLED} for one in (*asked, *streams)]
                settled = told[0]["at_or_past"] == told[0]["asked"] == DEVICES == told[0]["missing"]
                return settled and all(one == told[0] for one in told)

            await until(all_agree, "both have all of it, and say the same")

            async def same_report() -> bool:
                reports = [await stage.call("GET", f"{url}/v1/events/{event}/report") for url in urls]
                told = [[{**one, "curve": one["curve"][-1:]} for one in report["stages"]] for report in reports]
                return told[0] == told[1] and told[0][-1]["at_or_past"] == DEVICES

            await until(same_report, "both report the same")
        finally:
            second.terminate()
            assert await second.wait() == 0


async def answers(stage: Running, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await stage.api.get(f"{url}/readyz")).is_success
    return False


async def streamed(stage: Running, url: str, event: str) -> dict[str, Any]:
    """What a stream says first."""
    path, headers = f"{url}/v1/events/{event}/progress", {"Accept": "text/event-stream"}
    async with stage.api.stream("GET", path, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                found: dict[str, Any] = json.loads(line.removeprefix("data:"))
                return found
    raise AssertionError("the stream ended without a word")
