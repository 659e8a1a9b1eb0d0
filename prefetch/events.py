"""What prefetch reads of an event: its head, its plan, its campaign."""

from dataclasses import dataclass

import msgspec

from kv import KeyValue
from prefetch.campaign import Campaign
from prefetch.stage_maps import life, starts_at
from stagecast.event import Head
from stagecast.names import Millis
from stagecast.plan import Plan
from stagecast.records import CAMPAIGNS, HEADS, plan_record

FRESH = 1.0
"""Seconds that a view serves devices without looking again."""


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as of a moment ago."""

    head: Head
    plan: Plan
    campaign: Campaign | None
    """The last one of this gen."""

    @property
    def event(self) -> str:
        return self.head.event

    @property
    def gen(self) -> int:
        return self.head.gen

    @property
    def stages(self) -> list[str]:
        return [planned.stage for planned in self.plan.stages]

    @property
    def over(self) -> bool:
        """Whether its last stage has come, or it was deleted: nobody prefetches any more."""
        return self.head.gone or self.head.stage == self.plan.last

    def life(self, now: Millis) -> float:
        return life(self.plan, self.head, now)

    def starts_at(self, now: Millis) -> Millis | None:
        return starts_at(self.plan, now)


async def read_campaign(store: KeyValue, event: str) -> tuple[Campaign | None, int | None]:
    """The event's last campaign, of any gen, and its version. Raises StoreUnavailable."""
    found = await store.read(CAMPAIGNS, event)
    if found is None:
        return None, None
    return msgspec.json.decode(found.value, type=Campaign), found.version


async def read_view(store: KeyValue, event: str) -> EventView | None:
    """The event now, or None when it does not exist. Raises StoreUnavailable."""
    found = await store.read(HEADS, event)
    if found is None:
        return None
    head = msgspec.json.decode(found.value, type=Head)
    plan = await store.read(plan_record(event, head.gen), f"{head.revision:06d}")
    if plan is None:  # it is written before a head names it, so this is a damaged store: nothing to work from
        return None
    campaign, _ = await read_campaign(store, event)
    of_this_gen = campaign if campaign is not None and campaign.gen == head.gen else None
    return EventView(head, msgspec.json.decode(plan.value, type=Plan), of_this_gen)
