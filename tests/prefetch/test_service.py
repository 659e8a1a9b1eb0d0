"""The real process: killed in the middle of a campaign, which goes on; and told to stop."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from prefetch.events import read_campaign
from prefetch.stage_maps import StageMaps
from tests.prefetch.conftest import Site
from tests.prefetch.test_runner import tastes, until

PROGRAM = """
import sys
from pathlib import Path
from prefetch.service import run_prefetch
from stagecast.settings import Settings
run_prefetch(Settings(data=sys.argv[1]), sys.argv[2], key_file=Path(sys.argv[3]) if len(sys.argv) > 3 else None)
"""


@contextlib.asynccontextmanager
async def process(site: Site, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`run_prefetch` in a process of its own, up."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, site.settings.data, f"127.0.0.1:{port}",
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            while child.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).is_success:
                        break
                await asyncio.sleep(0.05)
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_killed_process_campaign_goes_on_in_another(site: Site, port: int) -> None:
    """SIGKILL half-way: the next process takes it up when the lease has run out, from the cursor, and ends with every member done
    once under the one map version."""
    await tastes(site, 3000)
    operator = {"Authorization": f"Bearer {await site.api_key('operator')}"}
    async with process(site, port) as first, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        begun = (await http.post("/v1/campaigns/final", json={"budget": 1000}, headers=operator)).json()
        while (await http.get("/v1/campaigns/final", headers=operator)).json()["done"] < 1000:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.02)
        first.kill()
        await first.wait()
    half, _ = await read_campaign(site.store, "final")
    assert half is not None
    assert half.phase == "running"
    assert 1000 <= half.done < 3000
    async with process(site, port):
        done = await until(site, "done")
    assert (done.done, done.total, done.map, done.epoch) == (3000, 3000, begun["map"], half.epoch + 1)
    assert done.owner != half.owner
    maps = StageMaps(site.store, "final", 1, site.parts().rng)
    for i in range(3000):
        found = await maps.get(f"m{i:05d}")
        assert found is not None
        assert found.map == done.map


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_told_stops_at_once(site: Site, port: int, told: signal.Signals) -> None:
    """Within 2 s and with status 0, in the middle of a campaign, which it lets go of."""
    await tastes(site, 3000)
    operator = {"Authorization": f"Bearer {await site.api_key('operator')}"}
    async with process(site, port) as child, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await http.post("/v1/campaigns/final", json={"budget": 100}, headers=operator)
        await until(site, "running", done=50)
        child.send_signal(told)
        assert await asyncio.wait_for(child.wait(), 2) == 0
    campaign, _ = await read_campaign(site.store, "final")
    assert campaign is not None
    assert campaign.lease <= site.parts().clock.now()
