"""Delivery: one frame to one member's devices (or one device), by whichever worker of this host holds them, with a status."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pushy.link import Delivered, Parcel, Push
from pushy.link_server import WorkerLink
from pushy.rfc6455 import server_frame
from stagecast.names import DeviceId, MemberId
from stagecast.wire.frames import NODE_FRAME_BYTES_MAX, Hint, Msg, StageMap

ENTRIES_MAX = 1000
BODY_MAX = 16 << 20
CHUNK_BYTES = 1 << 20
"""Frames of one Push on the link, about: so that a broadcast waits behind a megabyte at most."""
DEADLINE = 1.8
"""Seconds that workers get to answer; the caller is answered within 2 s."""

_frames = msgspec.json.Decoder(StageMap | Hint | Msg)


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """To all devices of `member`, or to `device`: exactly one of them."""

    frame: msgspec.Raw
    member: MemberId | None = None
    device: DeviceId | None = None


Entries = Annotated[list[Entry], Meta(min_length=1, max_length=ENTRIES_MAX)]


class Outcome(Struct, frozen=True):
    """What became of an entry at one device: 200 handed to its connection, 503 not now (or nobody can tell), 404 not here."""

    i: int
    member: str | None
    device: str | None
    status: int


class BadEntry(ValueError):
    """An entry that can't be delivered anywhere, by its place."""

    def __init__(self, place: int, field: str, text: str) -> None:
        super().__init__(text)
        self.field = f"$[{place}].{field}"


def parcels(entries: Sequence[Entry]) -> list[Parcel]:
    """The entries as workers take them, each frame checked and framed once. Raises BadEntry."""
    return [_parcel(place, entry) for place, entry in enumerate(entries)]


def _parcel(place: int, entry: Entry) -> Parcel:
    if (entry.member is None) == (entry.device is None):
        raise BadEntry(place, "member", "either `member` or `device`")
    payload = bytes(entry.frame)
    if len(payload) > NODE_FRAME_BYTES_MAX:
        raise BadEntry(place, "frame", f"{len(payload)} bytes, at most {NODE_FRAME_BYTES_MAX} allowed")
    try:
        frame = _frames.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEntry(place, "frame", f"neither map, hint nor msg: {error}") from error
    event = None if isinstance(frame, Msg) else frame.e
    return Parcel(entry.member, entry.device, event, server_frame(payload))


class Tally:
    """What the workers say about one call's entries. Pure. Keyed by (worker's link, push): every one of them must answer."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._open: dict[tuple[int, int], range] = {}
        self._statuses: list[dict[str, int]] = [{} for _ in entries]
        self._unknown: set[int] = set()

    def expect(self, link: int, push: int, places: range) -> None:
        """The worker was asked about the entries at `places`."""
        self._open[link, push] = places

    def refused(self, places: range) -> None:
        """A worker could not even be asked about these."""
        self._unknown.update(places)

    def delivered(self, link: int, push: int, statuses: Iterable[tuple[int, str, int]]) -> None:
        """The worker's answer; places count from the push's first entry."""
        places = self._open.pop((link, push), None)
        if places is None:
            return
        for place, device, status in statuses:
            if 0 <= place < len(places):
                known = self._statuses[places[place]]
                known[device] = 200 if 200 in (known.get(device), status) else status

    def lost(self, link: int) -> None:
        """The worker is gone: what it did not answer is unknown."""
        for key in [key for key in self._open if key[0] == link]:
            self._unknown.update(self._open.pop(key))

    @property
    def done(self) -> bool:
        return not self._open

    def outcomes(self) -> list[Outcome]:
        """One for each device reached; 503 without a device where a worker did not answer and might have it; 404 for an entry
        that nobody here has."""
        unknown = self._unknown.union(*self._open.values())
        found: list[Outcome] = []
        for i, (entry, statuses) in enumerate(zip(self._entries, self._statuses, strict=True)):
            found += [Outcome(i, entry.member, device, status) for device, status in statuses.items()]
            if i in unknown and not (entry.device is not None and statuses):
                found.append(Outcome(i, entry.member, entry.device, 503))
            elif not statuses:
                found.append(Outcome(i, entry.member, entry.device, 404))
        return found


class Deliveries:
    """The calls under way: asks the workers and waits for their answers, DEADLINE at most."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Tally, asyncio.Event]] = {}
        self._next = 0
        self.results = {200: 0, 404: 0, 503: 0}

    async def push(self, entries: Sequence[Entry], links: Sequence[WorkerLink]) -> list[Outcome]:
        """Delivers and answers within 2 s. Raises BadEntry."""
        framed = parcels(entries)
        tally, answered = Tally(entries), asyncio.Event()
        mine: list[int] = []
        try:
            for places in _chunks(framed):
                self._next += 1
                mine.append(self._next)
                self._waiting[self._next] = tally, answered
                push = Push(self._next, framed[places.start : places.stop])
                for link in links:
                    if link.busy:
                        tally.refused(places)
                    else:
                        tally.expect(link.id, push.id, places)
                        link.send(push)
            if not tally.done:
                await _within(answered, DEADLINE)
        finally:
            for push_id in mine:
                del self._waiting[push_id]
        outcomes = tally.outcomes()
        for outcome in outcomes:
            self.results[outcome.status] = self.results.get(outcome.status, 0) + 1
        return outcomes

    def delivered(self, link: int, message: Delivered) -> None:
        waiting = self._waiting.get(message.id)
        if waiting is not None:
            tally, answered = waiting
            tally.delivered(link, message.id, message.statuses)
            if tally.done:
                answered.set()

    def lost(self, link: int) -> None:
        """The worker's link is gone: it will not answer."""
        for tally, answered in self._waiting.values():
            tally.lost(link)
            if tally.done:
                answered.set()


def _chunks(framed: Sequence[Parcel]) -> list[range]:
    """Consecutive places whose frames are about CHUNK_BYTES together."""
    chunks: list[range] = []
    start = size = 0
    for place, parcel in enumerate(framed):
        size += len(parcel.frame)
        if size >= CHUNK_BYTES:
            chunks.append(range(start, place + 1))
            start, size = place + 1, 0
    if start < len(framed):
        chunks.append(range(start, len(framed)))
    return chunks


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
