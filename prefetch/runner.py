"""Campaigns in this process: begins them, takes up those whose process has gone, hints until the event is over."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

import structlog
from msgspec import Meta, Struct
from msgspec.structs import replace

from kv import Put, StoreError
from prefetch import campaign as rules
from prefetch.campaign import Campaign
from prefetch.events import EventView, read_campaign, read_view
from prefetch.held import Held, Lost
from prefetch.parts import Parts
from prefetch.push import Pusher
from prefetch.recommenders import STORED, VECTORS, find_recommender
from prefetch.stage_maps import map_version
from prefetch.sweep import Sweep
from prefetch.tastes import ImportedMembers
from stagecast.log import LogError, Topic
from stagecast.names import Millis
from stagecast.records import encode_record
from stagecast.wire.frames import Hint

OPEN = "campaigns_open"
"""Record of campaigns that somebody has to look after; key = event. Put before the campaign begins, deleted when it is over."""
SCAN = 1.0
"""Seconds between looks at what is open."""

_log = structlog.get_logger("prefetch.campaign")


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may ask of a campaign."""

    recommender: str | None = None
    freeze: Annotated[datetime, Meta(tz=True)] | None = None
    """From when on nothing is computed; default: ten minutes before the plan's first time to come."""
    budget: Annotated[float, Meta(gt=0, le=1e6)] = rules.BUDGET
    """Members per second at most."""


class NoEvent(Exception):
    """There is no such event, or it is gone."""


class NoCampaign(Exception):
    """The event has had no campaign."""


class Runner:
    """Looks after campaigns. Any number of processes may: a campaign is its lease-holder's."""

    def __init__(self, parts: Parts, pusher: Pusher) -> None:
        self._parts = parts
        self._pusher = pusher
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self.owner = secrets.token_hex(6)

    async def run(self) -> None:
        """For ever; cancel it to stop, then `close`."""
        while True:
            self._wake.clear()
            try:
                await self._scan()
            except (StoreError, LogError) as error:
                _log.warning("campaigns: store or log unavailable", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SCAN):  # not wait_for: before 3.12 it can swallow a cancellation
                    await self._wake.wait()

    async def close(self) -> None:
        """Stops all work here and lets go of the campaigns, so that another process goes on at once."""
        for event in list(self._tending):
            await self._drop(event)

    async def start(self, event: str, wanted: Wanted) -> Campaign:
        """Begins a campaign here, or returns the one that runs. Raises NoEvent, RecommenderError (none of that name),
        StoreError."""
        while True:
            view = await self._event(event)
            before, version = await read_campaign(self._parts.store, event)
            if before is not None and before.gen == view.gen and before.phase == "running":
                self._wake.set()
                return before
            name = wanted.recommender or await self._usual(event)
            find_recommender(name)
            campaign = rules.begin(self._new(view, wanted, name, before), before, self.owner, self._now())
            await self._drop(event)
            await self._parts.store.put([Put(OPEN, event, b"")])
            held = Held(self._parts.store, campaign, version)
            with contextlib.suppress(
                Lost
            ):  # another began it, or let go of the last one, at the same moment: look again
                await held.write(lambda same: same)
                self._wake.set()
                return campaign

    async def hint(self, event: str, window: Millis) -> Campaign:
        """Tells the event's devices now, and every 60 s, of the newest campaign's map. Raises NoEvent, NoCampaign, StoreError,
        LogError."""
        view = await self._event(event)
        while True:
            campaign, version = await read_campaign(self._parts.store, event)
            if campaign is None or campaign.gen != view.gen or campaign.phase == "failed":
                raise NoCampaign(event)
            held = Held(self._parts.store, campaign, version)
            with contextlib.suppress(Lost):
                campaign = await held.write(lambda same: replace(same, window=window))
                await self._append_hint(campaign)
                return campaign

    async def _event(self, event: str) -> EventView:
        view = await read_view(self._parts.store, event)
        if view is None or view.head.gone:
            raise NoEvent(event)
        return view

    async def _usual(self, event: str) -> str:
        """Vectors if there are members to recommend to, else the maps that were imported."""
        async with contextlib.aclosing(ImportedMembers(self._parts.store, event).sweep(rules.Cursor(), 1)) as members:
            async for _ in members:
                return VECTORS
        return STORED

    def _new(self, view: EventView, wanted: Wanted, name: str, before: Campaign | None) -> Campaign:
        now = self._now()
        stamp = max(now, int(before.map[:13]) + 1) if before is not None else now
        asked = wanted.freeze
        freeze = round(asked.timestamp() * 1000) if asked is not None else rules.freeze_for(view.starts_at(now), now)
        version = map_version(stamp, "m" + self._parts.rng.randbytes(3).hex())
        return Campaign(view.event, view.gen, version, name, now, freeze, wanted.budget)

    async def _scan(self) -> None:
        self._tending = {event: task for event, task in self._tending.items() if not task.done()}
        self._parts.metrics.running.set(len(self._tending))
        after: str | None = None
        while True:
            page = await self._parts.store.page(OPEN, after)
            for item in page.items:
                if item.key not in self._tending:
                    await self._take_up(item.key)
            if page.after is None:
                return
            after = page.after

    async def _take_up(self, event: str) -> None:
        campaign, version = await read_campaign(self._parts.store, event)
        if campaign is None or not rules.claimable(campaign, self.owner, self._now()):
            return
        self._tending[event] = asyncio.create_task(self._tend(Held(self._parts.store, campaign, version)))

    async def _tend(self, held: Held) -> None:
        """Looks after a campaign until it is over or lost. What fails is taken up again by the next scan."""
        event = held.campaign.event
        try:
            await held.write(lambda found: rules.claim(found, self.owner, self._now()))
            if held.campaign.phase == "running":
                async with _renewing(held, self._parts):
                    await Sweep(self._parts, self._pusher, held).run()
            await self._hint_until_over(held)
            await self._close(event)
        except Lost:
            _log.info("campaign is another's", of=event)
        except (StoreError, LogError) as error:
            _log.warning("campaign waits", of=event, error=str(error))
        except asyncio.CancelledError:
            with contextlib.suppress(Lost, StoreError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await held.write(lambda last: rules.release(last, self.owner, self._now()))
            raise
        except Exception:
            _log.exception("campaign broke", of=event)

    async def _close(self, event: str) -> None:
        """Nobody has to look after it any more, unless it was begun again while we took it off the list."""
        await self._parts.store.delete(OPEN, [event])
        campaign, _ = await read_campaign(self._parts.store, event)
        if campaign is not None and not campaign.over:
            await self._parts.store.put([Put(OPEN, event, b"")])

    async def _hint_until_over(self, held: Held) -> None:
        while not held.campaign.over:
            view = await read_view(self._parts.store, held.campaign.event)
            if view is None or view.gen != held.campaign.gen or view.over:
                await held.write(lambda last: replace(last, over=True))
                return
            await self._append_hint(held.campaign)
            if held.campaign.phase == "frozen":  # once: those it did not come to would ask in vain every minute
                await held.write(lambda last: replace(last, over=True))
                return
            await held.write(lambda last: rules.renew(last, self._now()))
            await asyncio.sleep(rules.HINT_PERIOD_MS / 1000)

    async def _append_hint(self, campaign: Campaign) -> None:
        hint = Hint(campaign.event, campaign.gen, campaign.map, campaign.window)
        await self._parts.log.append(Topic.EVENTS, campaign.event, encode_record(hint))

    async def _drop(self, event: str) -> None:
        task = self._tending.pop(event, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _now(self) -> Millis:
        return self._parts.clock.now()


@contextlib.asynccontextmanager
async def _renewing(held: Held, parts: Parts) -> AsyncIterator[None]:
    """Keeps the lease while a batch takes its time. It is asked to stop, not cancelled: a write cut short would look lost."""
    stop = asyncio.Event()

    async def renew() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rules.LEASE_MS / 3000):
                    await stop.wait()
            if not stop.is_set():
                with contextlib.suppress(Lost, StoreError):  # the sweep's own next write says so too
                    await held.write(lambda last: rules.renew(last, parts.clock.now()))

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        stop.set()
        await task
