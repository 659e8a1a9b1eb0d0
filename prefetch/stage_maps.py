"""Stage maps in the store: one per member and event, and one per cohort; how long they live and how big they may be."""

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec
from msgspec import Struct

from kv import Put, Store
from stagecast.event import Head
from stagecast.names import Millis
from stagecast.plan import Plan
from stagecast.records import bucket_of, stage_map_record
from stagecast.wire.frames import NODE_FRAME_BYTES_MAX, StageMap

COHORT_PREFIX = "cohort:"
DEFAULT_COHORT = "default"
AIMED_BYTES = 2048
"""What a stage map should fit, so that 100 M of them are 200 GB; above it they are counted, not refused."""
LINGER = 24 * 3600.0
"""Seconds that maps live on after the event's end."""
UNKNOWN_END = 7 * 24 * 3600.0
"""Seconds from the head's last change to the end, when the plan names no time at all."""
STORE_JITTER = 0.1
"""± of a ttl in the store, so that an audience's maps do not expire in one wave."""
DEVICE_JITTER = 0.2
"""± of what a device is told, for the same reason."""


class MapTooLarge(ValueError):
    """A stage map that no frame can carry; the text says whose, how big, and the bound."""


class PulledMap(StageMap, frozen=True, tag_field="t", tag="map"):
    """A stage map as the pull answers it."""

    refresh_after: float = 0.0
    """Seconds after which the device asks again."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(StageMap)


def cohort_key(cohort: str) -> str:
    return COHORT_PREFIX + cohort


def is_cohort(key: str) -> bool:
    """Whether this key is a cohort's: `names.MemberId` lets no member have such an id."""
    return key.startswith(COHORT_PREFIX)


def map_version(ms: Millis, suffix: str) -> str:
    """Versions of two campaigns order by their time; the suffix keeps two of one millisecond apart."""
    return f"{ms:013d}-{suffix}"


def cohort_version(version: str) -> str:
    """A cohort map's version beside the members' `version`: below it, and never equal, so that no `If-None-Match` of a device
    that holds the cohort's map is answered 304 in place of its own."""
    return f"{version[:13]}-cohort"


def encode_map(key: str, stage_map: StageMap) -> bytes:
    """The map's JSON, as stored and as the `map` frame carries it. Raises MapTooLarge above 64 KiB."""
    data = _encoder.encode(stage_map)
    if len(data) > NODE_FRAME_BYTES_MAX:
        raise MapTooLarge(f"stage map of {key!r}: {len(data):,} bytes, at most {NODE_FRAME_BYTES_MAX:,} fit a frame")
    return data


def expected_end(plan: Plan, head: Head) -> Millis | None:
    """When the last stage is due (wall ms) as far as the plan tells: each stage by what was reached, its `at`, or `after` what it
    counts from; a stage that waits for a person counts as due with the one before it. None when no time is known at all."""
    due: dict[str, Millis | None] = {}
    previous: Millis | None = None
    known = False
    for planned in plan.stages:
        at = head.reached.get(planned.stage)
        if at is None and planned.at is not None:
            at = _ms(planned.at.timestamp())
        if at is None and planned.after is not None:
            base = due.get(planned.of) if planned.of else previous
            at = None if base is None else base + _ms(planned.after / timedelta(seconds=1))
        known = known or planned.at is not None or planned.after is not None
        due[planned.stage] = previous = at if at is not None else previous
    return previous if known else None


def starts_at(plan: Plan, now: Millis) -> Millis | None:
    """The first time named in the plan that is still to come (wall ms): when the event begins for its audience."""
    times = (_ms(planned.at.timestamp()) for planned in plan.stages if planned.at is not None)
    return next((at for at in times if at > now), None)


def life(plan: Plan, head: Head, now: Millis) -> float:
    """Seconds that maps of this event are kept, without jitter: to its end and 24 h more, at least 24 h."""
    end = expected_end(plan, head)
    if end is None:
        end = head.ts + _ms(UNKNOWN_END)
    return max((end - now) / 1000, 0.0) + LINGER


def jittered(seconds: float, share: float, rng: random.Random) -> float:
    return seconds * rng.uniform(1 - share, 1 + share)


class Keyed(Struct, frozen=True):
    """A stage map and whose it is: a member's id, or a cohort's key."""

    key: str
    map: StageMap


class StageMaps:
    """One event's stage maps of one gen."""

    def __init__(self, store: Store, event: str, gen: int, rng: random.Random) -> None:
        self._store = store
        self._event = event
        self._gen = gen
        self.rng = rng

    async def put(self, maps: Iterable[Keyed], ttl: float) -> int:
        """Stores them for `ttl` s ± 10 %; the count of those above 2 KB. Raises MapTooLarge, StoreUnavailable."""
        puts = [
            Put(
                stage_map_record(self._event, self._gen, bucket_of(one.key)),
                one.key,
                encode_map(one.key, one.map),
                jittered(ttl, STORE_JITTER, self.rng),
            )
            for one in maps
        ]
        if puts:
            await self._store.put(puts)
        return sum(len(put.value) > AIMED_BYTES for put in puts)

    async def get(self, key: str) -> StageMap | None:
        """Raises StoreUnavailable."""
        data = await self._store.get(stage_map_record(self._event, self._gen, bucket_of(key)), key)
        return _decoder.decode(data) if data else None

    async def page(
        self, bucket: int, after: str | None, max_bytes: int = 1 << 20
    ) -> tuple[Sequence[Keyed], str | None]:
        """Members' maps of a bucket (cohorts' are left out), and where the next page starts."""
        page = await self._store.page(stage_map_record(self._event, self._gen, bucket), after, max_bytes)
        found = [Keyed(item.key, _decoder.decode(item.value)) for item in page.items if not is_cohort(item.key)]
        return found, page.after


def _ms(seconds: float) -> Millis:
    return round(seconds * 1000)
