"""Rehearsals: an event's plan run as a shadow event, at a chosen speed, with synthetic devices. Real devices never see it, for
nobody's token names its id; it leaves a report as every event does.

The devices are the SDK's, over the hosts' own door, so the whole way is rehearsed. They hold what the event's default cohort has
in the store, so a stage that nobody made a payload for shows up here; where there is no such map, one that names every stage.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from broadcaster.producer import Producer
from broadcaster.schedule import PLAN
from kv import Store, StoreError
from stagecast.client import Device
from stagecast.clock import Clock
from stagecast.event import Head, Request
from stagecast.plan import Plan, PlannedStage, plan_of
from stagecast.records import bucket_of, stage_map_record
from stagecast.settings import Settings
from stagecast.tokens import KeysError, KeysFile
from stagecast.wire.frames import StageMap

BY_HAND = 30.0
"""Seconds, before `speed`, until a stage that waits for a person."""
GAP_MIN = 1.5
"""Seconds between two stages at least, whatever the speed: a transition a second is the limit."""
LENGTH_MAX = 3600.0
"""Seconds that a rehearsal may take."""
AT_ONCE = 2
DEVICES_MAX = 500
CONNECTING = 25
"""Devices that connect at once."""
CONNECT_WAIT = 30.0
"""Seconds until it goes on with those devices that are there."""
COHORT = "cohort:default"
"""Whose stage map in the store it is rehearsed with."""
SYNTHETIC = "0000000000000-rehearsal"
LEAD = 1.0
CLOSE_WAIT = 1.0
LINGER = 8.0
"""Seconds after the last stage that the devices stay: their acks and census are due within some seconds."""
_stage_map = msgspec.json.Decoder(StageMap)
_log = structlog.get_logger()


class CannotRehearse(Exception):
    """Why not, in words."""


def gaps(plan: Plan, speed: float) -> list[float]:
    """Seconds before each stage but the first, as a rehearsal plays it. Raises CannotRehearse where it would take too long."""
    at: dict[str, float] = {}
    anchor: datetime | None = None
    anchored = before = 0.0
    found: list[float] = []
    for place, planned in enumerate(plan.stages):
        due = before + (BY_HAND if place else 0.0)
        if planned.after is not None:
            due = at[planned.of or plan.stages[place - 1].stage] + planned.after.total_seconds()
        elif planned.at is not None and anchor is None:
            anchor, anchored = planned.at, due
        elif planned.at is not None and anchor is not None:
            due = anchored + (planned.at - anchor).total_seconds()
        due = max(due, before)
        if place:
            found.append(max((due - before) / speed, GAP_MIN))
        at[planned.stage] = before = due
    if sum(found) > LENGTH_MAX:
        raise CannotRehearse(
            f"it would take {sum(found) / 60:.0f} min, at most {LENGTH_MAX / 60:.0f}: choose a greater speed"
        )
    return found


def played(plan: Plan, between: list[float], start: int) -> Plan:
    """The shadow's plan: the same stages, the first one as it is, each later one `at` its time from `start` (wall ms)."""
    due = datetime.fromtimestamp(start / 1000, UTC)
    stages = [PlannedStage(plan.first)]
    for planned, gap in zip(plan.stages[1:], between, strict=True):
        due += timedelta(seconds=gap)
        stages.append(PlannedStage(planned.stage, at=due))
    return plan_of(stages)


def rehearsed_map(made: StageMap | None, plan: Plan, shadow: Head) -> StageMap:
    """What the devices hold: the map that prefetch made, under the shadow's name; else one that names every stage."""
    if made is None:
        made = StageMap(shadow.event, shadow.gen, SYNTHETIC, {one.stage: [one.stage] for one in plan.stages})
    return msgspec.structs.replace(made, e=shadow.event, gen=shadow.gen, cohort=False)


def shadow_id(event: str, mark: str) -> str:
    """`rehearsal-<event>-<mark>`, the event's id cut where it would be too long."""
    return f"rehearsal-{event[: 64 - len('rehearsal--') - len(mark)]}-{mark}"


class Rehearsals:
    """The rehearsals of this process: AT_ONCE at most, gone with it."""

    def __init__(
        self, producer: Producer, store: Store, settings: Settings | None, clock: Clock, rng: random.Random
    ) -> None:
        self._producer = producer
        self._store = store
        self._url = settings.device_url if settings else ""
        self._clock = clock
        self._rng = rng
        self._keys = _keys(settings) if settings and self._url else None
        self._tasks: set[asyncio.Task[None]] = set()

    async def _stage_map(self, head: Head) -> StageMap | None:
        kept = await self._store.get(stage_map_record(head.event, head.gen, bucket_of(COHORT)), COHORT)
        return None if kept is None else _stage_map.decode(kept)

    async def start(self, head: Head, plan: Plan, speed: float, devices: int, who: str) -> str:
        """Creates the shadow event and begins to play it; its id. Raises CannotRehearse, and what the producer raises."""
        if self._keys is None:
            raise CannotRehearse("this service knows no device URL, or no key that signs devices' tokens")
        if len(self._tasks) >= AT_ONCE:
            raise CannotRehearse(f"{AT_ONCE} rehearsals are under way; wait for one to end")
        between = gaps(plan, speed)
        shadow = shadow_id(head.event, f"{self._clock.now() // 1000:x}{secrets.token_hex(1)}")
        waiting = plan_of([PlannedStage(planned.stage) for planned in plan.stages])
        title = f"Rehearsal of {head.title}"[:200]
        made = await self._stage_map(head)
        created = await self._producer.create(
            shadow, title, waiting, Request(secrets.token_hex(16), plan.first, who, "rehearsal")
        )
        stage_map = rehearsed_map(made, plan, created)
        task = asyncio.create_task(self._run(stage_map, plan, between, self._devices(shadow, devices, self._keys)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return shadow

    async def close(self) -> None:
        """Breaks off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _devices(self, shadow: str, count: int, keys: KeysFile) -> list[Device]:
        now = self._clock.now() / 1000
        names = [f"{number}.{shadow}"[:64] for number in range(count)]
        return [
            Device(
                self._url,
                keys.keys.mint(f"rehearsal-{number}", name, [shadow], LENGTH_MAX * 2, now, self._rng),
                device=name,
                events=[shadow],
                app="rehearsal",
            )
            for number, name in enumerate(names)
        ]

    async def _run(self, stage_map: StageMap, plan: Plan, between: list[float], devices: list[Device]) -> None:
        shadow = stage_map.e
        try:
            await _connect(devices, stage_map)
            start = self._clock.now() + round(LEAD * 1000)
            await self._producer.replan(shadow, played(plan, between, start), PLAN)
            _log.info("rehearsal plays", e=shadow, devices=sum(device.connected for device in devices))
            await asyncio.sleep(LEAD + sum(between) + LINGER)
        except StoreError as error:
            _log.warning("rehearsal broken off", e=shadow, error=str(error))
        except Exception:
            _log.exception("rehearsal broke", e=shadow)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WAIT):
                    await asyncio.gather(*(device.close() for device in devices), return_exceptions=True)


async def _connect(devices: Sequence[Device], stage_map: StageMap) -> None:
    """Connects all, some at a time; goes on without those that are not there in time: they go on trying."""
    places = asyncio.Semaphore(CONNECTING)

    async def one(device: Device) -> None:
        async with places:
            await device.__aenter__()  # `close` ends it
            device.hold(stage_map)
            await device.until_connected()

    tasks = [asyncio.create_task(one(device)) for device in devices]
    try:
        await asyncio.wait(tasks, timeout=CONNECT_WAIT)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _keys(settings: Settings) -> KeysFile | None:
    if not settings.keys_file.exists():
        return None
    try:
        keys = KeysFile(settings.keys_file)
    except KeysError:
        return None
    return keys if any(key.signing is not None for key in keys.keys.by_kid.values()) else None
