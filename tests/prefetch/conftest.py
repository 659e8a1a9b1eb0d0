"""An event on a real embedded store, and the service in front of it."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from kv import KeyValue, Put, open_store
from prefetch.metrics import Metrics
from prefetch.parts import Parts
from prefetch.service import prefetch_service
from stagecast.access import Scope, new_key
from stagecast.clock import SystemClock
from stagecast.event import Head
from stagecast.log import MessageLog, open_log
from stagecast.plan import Plan, PlannedStage, plan_of
from stagecast.records import API_KEYS, HEADS, plan_record
from stagecast.settings import Settings
from stagecast.tokens import create_keys, load_keys

PLAN = plan_of([PlannedStage("upcoming"), PlannedStage("live"), PlannedStage("ended")])


async def set_event(store: KeyValue, event: str, plan: Plan = PLAN, gen: int = 1, stage: str | None = None) -> Head:
    """The event as a broadcaster would have made it, or moved to `stage`."""
    now = SystemClock().now()
    stage = stage or plan.first
    head = Head(event, event, gen, 1, stage, now, None, 30_000, None, 1, (), {stage: now})
    await store.compare_and_set(plan_record(event, gen), "000001", msgspec.json.encode(plan), None)
    before = await store.read(HEADS, event)
    await store.compare_and_set(HEADS, event, msgspec.json.encode(head), before.version if before else None)
    return head


@dataclass
class Site:
    """A data folder with keys, store and log, as every process of one machine sees them."""

    settings: Settings
    store: KeyValue
    log: MessageLog

    async def api_key(self, scope: Scope) -> str:
        text, digest, kept = new_key(scope, SystemClock().now())
        await self.store.put([Put(API_KEYS, digest, msgspec.json.encode(kept))])
        return text

    def token(self, member: str, events: str = "final", device: str = "d1") -> str:
        keys = load_keys(self.settings.keys_file)
        return keys.mint(member, device, events.split(","), 3600, SystemClock().now() / 1000, random.Random(1))

    def parts(self) -> Parts:
        return Parts(self.store, self.log, SystemClock(), random.Random(1), 1000.0, Metrics())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    settings = Settings(data=str(tmp_path))
    create_keys(settings.keys_file)
    store = await open_store(settings.store_url)
    log = await open_log(settings.log_url)
    yield Site(settings, store, log)
    await log.close()
    await store.close()


@dataclass
class Caller:
    """The service over HTTP, as an operator."""

    http: httpx.AsyncClient
    site: Site

    async def import_(self, kind: str, text: str | bytes, event: str = "final", **query: str | int) -> httpx.Response:
        return await self.http.post(
            f"/v1/stage-maps/{event}/import", params={"kind": kind, **query}, content=text, timeout=30
        )

    async def pull(self, member: str, event: str = "final", **headers: str) -> httpx.Response:
        token = self.site.token(member, event)
        return await self.http.get(f"/v1/stage-maps/{event}", headers={"Authorization": f"Bearer {token}", **headers})


@pytest.fixture
async def caller(site: Site) -> AsyncIterator[Caller]:
    async with (
        prefetch_service(site.settings, "127.0.0.1:0", key=None) as url,
        httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {await site.api_key('operator')}"}, trust_env=False
        ) as http,
    ):
        yield Caller(http, site)


def ndjson(*lines: object) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
