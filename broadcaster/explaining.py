"""One device's time line, from everything that knows something of it: registry, its host, the event's head and receipts.

The host is asked at its admin port with the service key; the caller's own key goes nowhere. Tokens are nowhere in it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct

from broadcaster.heads import Heads, Kept
from kv import Store
from stagecast.clock import Clock
from stagecast.event import Head
from stagecast.records import Session, bucket_of, device_record, registry_record, stage_map_record
from stagecast.wire.frames import StageMap

HOSTS_ASKED = 64
"""Beside the one that the registry names."""
TIMEOUT = 2.0
ANSWER_MAX = 1 << 20
"""Bytes of a host's answer."""
VERSION_DIGITS = 13
"""Of wall ms, at the front of a map version."""
_session = msgspec.json.Decoder(Session)
_stage_map = msgspec.json.Decoder(StageMap)


class Moment(Struct, frozen=True):
    """One line of it."""

    ts: int
    """Wall ms of whoever noted it."""
    what: str
    detail: str


class Timeline(Struct, frozen=True):
    """Oldest first."""

    timeline: list[Moment]


_timeline = msgspec.json.Decoder(Timeline)


class Explaining:
    """Puts time lines together. `key_file` holds the service key; None: hosts are not asked. `hosts`:
    those that report now, by name → admin URL."""

    def __init__(
        self,
        store: Store,
        heads: Heads,
        clock: Clock,
        key_file: Path | None,
        hosts: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._store = store
        self._heads = heads
        self._clock = clock
        self._key_file = key_file
        self._hosts = hosts

    async def explain(self, device: str, event: str | None) -> Timeline:
        """What is known of the device, and of `event` as it concerns it. What can't be asked is a line that says so. Raises
        StoreError, Damaged."""
        moments = await self._of_device(device)
        if event is not None:
            kept = await self._heads.read(event)
            moments += _of_event(event, kept, self._clock.now())
            if kept is not None and (member := await self._member(device)) is not None:
                moments.append(await self._stage_map(kept.head, member))
        return Timeline(sorted(moments, key=lambda one: one.ts))

    async def _of_device(self, device: str) -> list[Moment]:
        now, member = self._clock.now(), await self._member(device)
        if member is None:
            return [Moment(now, "registry", "no host has had this device within a connection's lifetime")]
        kept = await self._store.get(registry_record(member), device)
        if kept is None:
            gone = Moment(now, "registry", f"known as a device of member {member}; not connected to any host")
            return [gone, *await self._ask_others(device, "")]
        session = _session.decode(kept)
        where = f"session {session.sid} of member {member} at host {session.host}, worker {session.worker}"
        asked = self._ask(session.host, session.admin, device)
        told = await asyncio.gather(asked, self._ask_others(device, session.host))
        return [Moment(session.start, "registry", where), *told[0], *told[1]]

    async def _member(self, device: str) -> str | None:
        owner = await self._store.get(device_record(device), "member")
        return None if owner is None else owner.decode()

    async def _stage_map(self, head: Head, member: str) -> Moment:
        """What the store has for the member to fetch, which need not be what the device holds: its census line says that."""
        kept = await self._store.get(stage_map_record(head.event, head.gen, bucket_of(member)), member)
        if kept is None:
            none = f"none of its own in the store for {head.event}: member {member} gets a cohort's"
            return Moment(self._clock.now(), "stage map", none)
        found = _stage_map.decode(kept)
        made = made_at(found.map)
        what = f"version {found.map} in the store for {head.event}, {len(found.stages)} stages"
        cohort = ", a cohort's" if found.cohort else ""
        return Moment(self._clock.now() if made is None else made, "stage map", what + cohort)

    async def _ask_others(self, device: str, but: str) -> list[Moment]:
        """What hosts remember that it left, or that it came from: HOSTS_ASKED at most."""
        others = [(name, admin) for name, admin in sorted(self._hosts().items()) if admin and name != but]
        if self._key() is None:
            return []
        told = await asyncio.gather(*(self._ask(name, admin, device) for name, admin in others[:HOSTS_ASKED]))
        moments = [moment for one in told for moment in one]
        if len(others) > HOSTS_ASKED:
            left = f"{len(others) - HOSTS_ASKED} more hosts were not asked"
            moments.append(Moment(self._clock.now(), "host", left))
        return moments

    async def _ask(self, host: str, admin: str, device: str) -> list[Moment]:
        now, key = self._clock.now(), self._key()
        if key is None:
            return [Moment(now, "host", f"{host} not asked: no service key here (setting service_key_file)")]
        url = f"{admin}/explain/{quote(device, safe='')}"
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
                got = await http.get(url, headers={"Authorization": f"Bearer {key}"})
            if got.status_code != 200 or len(got.content) > ANSWER_MAX:
                return [Moment(now, "host", f"{host} answered {got.status_code}")]
            return _timeline.decode(got.content).timeline
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            return [Moment(now, "host", f"{host} did not answer: {type(error).__name__}")]

    def _key(self) -> str | None:
        if self._key_file is None:
            return None
        try:
            return self._key_file.read_text().strip() or None
        except OSError:
            return None


def made_at(version: str) -> int | None:
    """When a map of this version was made, wall ms: a campaign's versions begin with it. None: it does not say."""
    ms = version.partition("-")[0]
    return int(ms) if len(ms) == VERSION_DIGITS and ms.isascii() and ms.isdigit() else None


def _of_event(event: str, kept: Kept | None, now: int) -> list[Moment]:
    if kept is None:
        return [Moment(now, "event", f"no event {event!r}")]
    head: Head = kept.head
    wanted = f", with stage map {head.map} or newer" if head.map else ""
    return [
        *(
            Moment(entry.ts, "stage", f"{event} to {entry.stage}: gen {head.gen} seq {entry.seq}, by {entry.who}")
            for entry in head.accepted
        ),
        Moment(now, "head", f"{event} is at {head.stage}: gen {head.gen} seq {head.seq}{wanted}"),
    ]
