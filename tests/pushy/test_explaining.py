"""What a host's workers know of a device, asked over the admin port."""

import asyncio
from pathlib import Path

import httpx

from pushy.admin import admin_app
from pushy.link import Explain, Explained, Happening
from stagecast.access import Gate
from stagecast.clock import SystemClock
from stagecast.http import serving
from stagecast.records import API_KEYS
from tests.pushy.hosting import FaultyStore, roads, running
from tests.pushy.test_admin import Admin

HELLO, LOST = Happening(1, "hello", "at worker 0"), Happening(2, "lost", "at worker 1")


async def test_all_workers_are_asked(tmp_path: Path) -> None:
    """Their answers are put together by time; who does not answer is told of; only services and operators may ask."""
    async with roads(tmp_path) as (log, real):
        store = FaultyStore(real)
        async with running(tmp_path, log, store) as host:
            gate = Gate(lambda digest: store.get(API_KEYS, digest), SystemClock().monotonic)
            app = admin_app(host.feed, gate, host.feed.collector)
            async with serving(app, "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as http:
                admin = Admin(host, store, http)
                assert (await http.get("/explain/tv-9")).status_code == 401
                assert (await http.get("/explain/tv-9", headers=await admin.key("viewer"))).status_code == 403
                service = await admin.key("service")
                assert (await http.get("/explain/tv-9", headers=service)).json() == {"timeline": []}
                one, two = await host.join(0), await host.join(1)
                asking = asyncio.create_task(http.get("/explain/tv-9", headers=service))
                for worker, known in ((two, [LOST]), (one, [HELLO])):
                    asked = await worker.until(Explain)
                    assert asked.device == "tv-9"
                    worker.send(Explained(asked.id, known))
                    worker.send(Explained(asked.id + 99, known))
                assert [line["what"] for line in (await asking).json()["timeline"]] == ["hello", "lost"]
                asking = asyncio.create_task(http.get("/explain/tv-9", headers=service))
                asked = await one.until(Explain)
                one.send(Explained(asked.id, [HELLO]))
                told = (await asking).json()["timeline"]
                assert [line["what"] for line in told] == ["hello", "unknown"]
                assert told[1]["detail"] == "1 workers of this host did not answer"
