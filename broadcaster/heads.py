"""Events as the store keeps them: heads, gens, plans, the index, history. Typed reads and writes, no decisions.

Everything may raise what the ports raise: StoreUnavailable, and OutcomeUnknown from a compare-and-set.
"""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from kv import KeyValue, OutcomeUnknown, Put
from stagecast.audit import Act
from stagecast.event import Accepted, Head
from stagecast.plan import Plan
from stagecast.records import (
    GENS,
    HEADS,
    HISTORY_TTL,
    INDEX_SHARDS,
    RequiredMap,
    audit_record,
    history_record,
    index_record,
    index_shard,
    plan_record,
    required_map_record,
)

PLANS_CACHED = 10_000
"""Plan revisions kept in memory; they never change, so they are read once."""
ATTEMPTS = 50
"""Compare-and-sets of one item before a caller is told to come back; each lost race is somebody else's success."""
HISTORY_PAGE_BYTES = 64 * 1024

_heads = msgspec.json.Decoder(Head)
_plans = msgspec.json.Decoder(Plan)
_entries = msgspec.json.Decoder(Accepted)
_acts = msgspec.json.Decoder(Act)
_required = msgspec.json.Decoder(RequiredMap)


class Kept(NamedTuple):
    """A head as it stands in the store."""

    head: Head
    version: int

    @property
    def order(self) -> tuple[int, int]:
        """(gen, seq)."""
        return self.head.gen, self.head.seq


class Busy(Exception):
    """So many others changed the item that this caller never won: come back."""


class Damaged(Exception):
    """The store holds what this version can't have written: a head that can't be read, a plan that is not there."""


def revision_key(revision: int) -> str:
    return f"{revision:06}"


def history_key(seq: int) -> str:
    return f"{seq:016}"


class Heads:
    """One process's access to the events in the store."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self._plans: dict[tuple[str, int, int], Plan] = {}

    async def read(self, event: str) -> Kept | None:
        """The head, as of every acknowledged change; None for an event that never was."""
        found = await self._store.read(HEADS, event)
        if found is None:
            return None
        try:
            return Kept(_heads.decode(found.value), found.version)
        except msgspec.DecodeError as error:
            raise Damaged(f"{event}: its head can't be read: {error}") from error

    async def swap(self, head: Head, expected: int | None) -> Kept | None:
        """Makes `head` the event's head if its version still is `expected`; None when another one stands there."""
        done = await self._store.compare_and_set(HEADS, head.event, msgspec.json.encode(head), expected)
        return None if done is None else Kept(head, done.version)

    async def next_gen(self, event: str, now: int) -> int:
        """A gen nobody else has or ever gets: max(now in ms, the greatest so far + 1). Raises Busy."""
        for _ in range(ATTEMPTS):
            found = await self._store.read(GENS, event)
            gen = max(now, int(found.value) + 1) if found else now
            try:
                done = await self._store.compare_and_set(
                    GENS, event, str(gen).encode(), found.version if found else None
                )
            except OutcomeUnknown:
                continue  # if it happened, that gen is nobody's: the next one is as good
            if done is not None:
                return gen
        raise Busy(event)

    async def plan(self, head: Head) -> Plan:
        """The plan that this head names."""
        plan = self.cached_plan(head)
        if plan is None:
            key = (head.event, head.gen, head.revision)
            found = await self._store.read(plan_record(head.event, head.gen), revision_key(head.revision))
            if found is None:
                raise Damaged(f"{head.event}: plan revision {head.revision} of gen {head.gen} is not in the store")
            plan = self._remember(key, _plans.decode(found.value))
        return plan

    def cached_plan(self, head: Head) -> Plan | None:
        return self._plans.get((head.event, head.gen, head.revision))

    async def add_plan(self, event: str, gen: int, after: int, plan: Plan) -> int:
        """Stores a plan under the first free revision after `after`, and returns it. A revision that a head never came to
        name (its writer died, or lost the race) stays unused. Raises Busy."""
        value = msgspec.json.encode(plan)
        revision = after + 1
        for _ in range(ATTEMPTS):
            try:
                done = await self._store.compare_and_set(plan_record(event, gen), revision_key(revision), value, None)
            except OutcomeUnknown:
                revision += 1  # ours or not, it may appear at any time: leave it alone
                continue
            if done is not None:
                self._remember((event, gen, revision), plan)
                return revision
            revision += 1
        raise Busy(event)

    def _remember(self, key: tuple[str, int, int], plan: Plan) -> Plan:
        if len(self._plans) >= PLANS_CACHED:
            del self._plans[next(iter(self._plans))]
        self._plans[key] = plan
        return plan

    async def enlist(self, event: str, now: int) -> None:
        """Puts the event into the index. Written before the head, so that no head is ever missing there."""
        await self._store.put([Put(index_record(index_shard(event)), event, str(now).encode())])

    async def strike(self, event: str) -> None:
        """Takes an id without a head out of the index."""
        await self._store.delete(index_record(index_shard(event)), [event])

    async def enlisted(self) -> dict[str, int]:
        """Every id of the index → when it was put there, wall ms."""
        found: dict[str, int] = {}
        for shard in range(INDEX_SHARDS):
            after: str | None = None
            while True:
                page = await self._store.page(index_record(shard), after)
                found.update((item.key, int(item.value) if item.value.isdigit() else 0) for item in page.items)
                after = page.after
                if after is None:
                    break
        return found

    async def page(self, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """Up to `limit` ids of the index (in the order of shards, then ids) after `after`, and where the next page starts."""
        shard = index_shard(after) if after else 0
        found: list[str] = []
        while shard < INDEX_SHARDS:
            page = await self._store.page(index_record(shard), after, 32 * 1024)
            found += [item.key for item in page.items]
            if len(found) > limit:
                return found[:limit], found[limit - 1]
            after = page.after
            shard += after is None
        return found, None

    async def keep_history(self, head: Head, entries: Sequence[Accepted]) -> None:
        """Writes accepted transitions of this head's gen into history. Idempotent."""
        record = history_record(head.event, head.gen)
        if entries:
            await self._store.put(
                [Put(record, history_key(entry.seq), msgspec.json.encode(entry), HISTORY_TTL) for entry in entries]
            )

    async def history(self, head: Head, after: int) -> tuple[list[Accepted], int | None]:
        """A page of this gen's accepted transitions after seq `after`, oldest first, and where the next one starts. What
        history does not hold yet comes from the head."""
        page = await self._store.page(
            history_record(head.event, head.gen), history_key(after) if after else None, HISTORY_PAGE_BYTES
        )
        found = {entry.seq: entry for entry in (_entries.decode(item.value) for item in page.items)}
        upto = max(found, default=0) if page.after else head.seq
        found.update((entry.seq, entry) for entry in head.accepted if after < entry.seq <= upto)
        return [found[seq] for seq in sorted(found)], upto if page.after else None

    async def keep_acts(self, head: Head, acts: Sequence[Act]) -> None:
        """Writes acts into the audit of this head's gen, in their order."""
        record, mark = audit_record(head.event, head.gen), secrets.token_hex(4)
        await self._store.put(
            [
                Put(record, f"{act.ts:016}-{place}-{mark}", msgspec.json.encode(act), HISTORY_TTL)
                for place, act in enumerate(acts)
            ]
        )

    async def acts(self, head: Head, after: str | None) -> tuple[list[tuple[str, Act]], bool]:
        """A page of this gen's acts after key `after`, oldest first, each with its key; whether there are more."""
        page = await self._store.page(audit_record(head.event, head.gen), after, HISTORY_PAGE_BYTES)
        return [(item.key, _acts.decode(item.value)) for item in page.items], page.after is not None

    async def required_map(self, head: Head) -> RequiredMap | None:
        """The map version that devices should hold, by the last finished campaign of this gen."""
        found = await self._store.get(required_map_record(head.event), str(head.gen))
        return None if found is None else _required.decode(found)
