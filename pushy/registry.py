"""Where devices are connected, written behind: coalesced, bounded, and never awaited by anything on the way of a broadcast.

Not promised: that an entry is there (it may be shed, or not written yet: the pull is the net), nor that it still is true (its
host may be dead: a push there says 404). An `Ended` deletes only the entry of its own session: it reads before it deletes, so the
teardown of an old host leaves a newer entry alone. The two steps are not one: an entry written between them is lost until that
device connects again, within its connection's lifetime.
"""

import asyncio
from dataclasses import dataclass
from itertools import islice

import msgspec
import structlog

from kv import Put, Store, StoreError
from stagecast.records import Session, device_record, registry_record

PENDING_MAX = 50_000
BATCH = 500
DELETES = 32
"""Entries deleted at once: each is two reads and two deletes."""
GRACE = 120.0
"""Seconds that an entry outlives the longest connection."""
PAUSE_FIRST, PAUSE_MAX = 0.5, 10.0
"""Seconds after a failed write, doubling."""
DEVICE_KEY = "member"

_log = structlog.get_logger()
Holder = tuple[str, str]
"""(member, device)."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The session with this id has ended: delete its entry, if it still is its own."""

    sid: str


Change = Session | Gone


class Registry:
    """What is still to be written, the last change of each (member, device)."""

    def __init__(self, ttl: float, pending_max: int = PENDING_MAX) -> None:
        self._pending: dict[str, Change] = {}
        """By holder as one string: a third of a tuple of two, and a storm leaves tens of thousands here."""
        self._pending_max = pending_max
        self._ttl = ttl
        self._news = asyncio.Event()
        self.shed = 0
        self.written = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._pending)

    def began(self, member: str, device: str, session: Session) -> None:
        self._put((member, device), session)

    def ended(self, member: str, device: str, sid: str) -> None:
        match self._pending.get(_packed((member, device))):
            case Session(sid=pending) if pending != sid:
                return  # a later session's entry will stand there anyway
            case _:
                self._put((member, device), Gone(sid))

    def _put(self, holder: Holder, change: Change) -> None:
        kept = _packed(holder)
        if kept not in self._pending and len(self._pending) >= self._pending_max:
            self.shed += 1
            return
        self._pending[kept] = change
        self._news.set()

    def take(self) -> list[tuple[Holder, Change]]:
        """Up to BATCH changes, the oldest first; they are the caller's now."""
        batch = list(islice(self._pending.items(), BATCH))
        for kept, _ in batch:
            del self._pending[kept]
        return [(_unpacked(kept), change) for kept, change in batch]

    def put_back(self, changes: list[tuple[Holder, Change]]) -> None:
        """What could not be written, unless something newer came meanwhile or there is no room."""
        for holder, change in changes:
            if _packed(holder) not in self._pending:
                self._put(holder, change)

    async def flush(self, store: Store) -> bool:
        """Writes one batch; False when that failed (and is pending again)."""
        batch = self.take()
        try:
            puts = [
                put for holder, change in batch if isinstance(change, Session) for put in self._puts(holder, change)
            ]
            if puts:
                await store.put(puts)
            gone = [(holder, change.sid) for holder, change in batch if isinstance(change, Gone)]
            for start in range(0, len(gone), DELETES):
                await asyncio.gather(*(_delete(store, *one) for one in gone[start : start + DELETES]))
        except asyncio.CancelledError:
            self.put_back(batch)  # for the flush at the end
            raise
        except StoreError as error:
            _log.warning("registry not written", changes=len(batch), error=str(error))
            self.failed += len(batch)
            self.put_back(batch)
            return False
        self.written += len(batch)
        return True

    async def run(self, store: Store) -> None:
        """Writes for ever."""
        pause = PAUSE_FIRST
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                if await self.flush(store):
                    pause = PAUSE_FIRST
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_MAX)

    def _puts(self, holder: Holder, session: Session) -> list[Put]:
        member, device = holder
        return [
            Put(registry_record(member), device, msgspec.json.encode(session), self._ttl),
            Put(device_record(device), DEVICE_KEY, member.encode(), self._ttl),
        ]


def _packed(holder: Holder) -> str:
    member, device = holder
    return f"{device} {member}"  # device ids hold no blank


def _unpacked(kept: str) -> Holder:
    device, _, member = kept.partition(" ")
    return member, device


def _sid(kept: bytes) -> str | None:
    try:
        return msgspec.json.decode(kept, type=Session).sid
    except msgspec.DecodeError:  # not ours
        return None


async def _delete(store: Store, holder: Holder, sid: str) -> None:
    member, device = holder
    kept = await store.get(registry_record(member), device)
    if kept is None or _sid(kept) != sid:
        return
    await store.delete(registry_record(member), [device])
    if await store.get(device_record(device), DEVICE_KEY) == member.encode():
        await store.delete(device_record(device), [DEVICE_KEY])
