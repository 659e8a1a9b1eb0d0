"""Where devices are connected, written behind: coalesced, bounded, and never awaited by anything on the way of a broadcast.

Not promised: that an entry is there (it may be shed, or not written yet: the pull is the net), nor that it still is true (its
host may be dead: a push there says 404). An `Ended` deletes only the entry of its own session, so the teardown of an old host
leaves a newer entry alone. Where the store's look and deletion are not one, an entry written between them is lost until that
device connects again, within its connection's lifetime; so is one of the two records of an entry written between their removals.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice, repeat

import msgspec
import structlog

from kv import Put, Removal, Store, StoreError
from pushy.link import Began, Ended
from stagecast.records import Session, device_record, registry_record

PENDING_MAX = 50_000
BATCH = 2000
"""Changes written at once, two items each: a transaction costs as much as some 50 of them."""
GATHER = 0.1
"""Seconds from the first change to the write: what comes meanwhile goes along, and who leaves meanwhile is written once."""
GRACE = 120.0
"""Seconds that an entry outlives the longest connection."""
PAUSE_FIRST, PAUSE_MAX = 0.5, 10.0
"""Seconds after a failed write, doubling."""
DEVICE_KEY = "member"

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode

Change = tuple[int, Began | Ended]
"""What a worker, by its index, has told."""
Batch = dict[int, Change]
"""By holder, a hash of member and device (whereabouts.Holder)."""


class Registry:
    """What is still to be written, the last change of each holder. `ttl` in seconds; `host` and `admin` as in `Session`."""

    def __init__(self, ttl: float, host: str, admin: str, pending_max: int = PENDING_MAX) -> None:
        self._pending: Batch = {}
        self._pending_max = pending_max
        self._ttl = ttl
        self._host = host
        self._admin = admin
        self._news = asyncio.Event()
        self.shed = 0
        self.written = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._pending)

    def began(self, holder: int, worker: int, change: Began) -> None:
        self._put(holder, (worker, change))

    def began_all(self, holders: Sequence[int], worker: int, changes: Sequence[Began]) -> None:
        """The same for sessions of different holders."""
        if len(self._pending) + len(holders) > self._pending_max:
            for holder, change in zip(holders, changes, strict=True):
                self.began(holder, worker, change)
            return
        if not self._pending:
            self._news.set()
        self._pending.update(zip(holders, zip(repeat(worker), changes, strict=False), strict=True))

    def ended(self, holder: int, change: Ended) -> None:
        pending = self._pending.get(holder)
        if pending is not None and isinstance(pending[1], Began) and pending[1].sid != change.sid:
            return  # a later session's entry will stand there anyway
        self._put(holder, (0, change))

    def _put(self, holder: int, change: Change) -> None:
        pending = self._pending
        if len(pending) >= self._pending_max and holder not in pending:
            self.shed += 1
            return
        if not pending:
            self._news.set()
        pending[holder] = change

    def take(self) -> Batch:
        """Up to BATCH changes, the oldest first; they are the caller's now."""
        if len(self._pending) <= BATCH:
            batch, self._pending = self._pending, {}
            return batch
        batch = dict(islice(self._pending.items(), BATCH))
        for holder in batch:
            del self._pending[holder]
        return batch

    def put_back(self, batch: Batch) -> None:
        """What could not be written, unless something newer came meanwhile or there is no room."""
        for holder, change in batch.items():
            if holder not in self._pending:
                self._put(holder, change)

    async def flush(self, store: Store) -> bool:
        """Writes one batch; False when that failed (and is pending again)."""
        batch = self.take()
        try:
            if puts := self._puts(batch):
                await store.put(puts)
            if gone := [change for _, change in batch.values() if isinstance(change, Ended)]:
                await _remove(store, gone)
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
            await asyncio.sleep(GATHER)
            while self._pending:
                if await self.flush(store):
                    pause = PAUSE_FIRST
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_MAX)

    def _puts(self, batch: Batch) -> list[Put]:
        host, admin, ttl = self._host, self._admin, self._ttl
        puts: list[Put] = []
        for worker, change in batch.values():
            if isinstance(change, Began):
                member, device = change.member, change.device
                session = _encode(Session(change.sid, host, admin, worker, change.start))
                puts.append(Put(registry_record(member), device, session, ttl))
                puts.append(Put(device_record(device), DEVICE_KEY, member.encode(), ttl))
        return puts


async def _remove(store: Store, gone: list[Ended]) -> None:
    """The devices' records last: they are found by no other way, and a newer session's stays."""
    entries = [Removal(registry_record(one.member), one.device, _mark(one.sid), longer=True) for one in gone]
    removed = await store.remove(entries)
    own = (one for one, entry in zip(gone, entries, strict=True) if (entry.record, entry.key) in removed)
    if devices := [Removal(device_record(one.device), DEVICE_KEY, one.member.encode()) for one in own]:
        await store.remove(devices)


def _mark(sid: str) -> bytes:
    """What the session's record begins with: `sid` is its first field."""
    return b'{"sid":' + _encode(sid) + b","
