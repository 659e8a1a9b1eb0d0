"""The ports to the key-value store: `Store` for items anybody may write again, `Conditional` for items that change by
compare-and-set alone.

An item lives in a *record* under a *key*: `record` is what is read together and paged (a member's devices, a shard of the
index), `key` orders the items inside it, as UTF-8 byte strings. The two ports never share an item: mixing plain writes with
compare-and-set loses updates, so each has records of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StoreError(Exception):
    """The store could not do what was asked. `__cause__` is the driver's own error."""


class StoreUnavailable(StoreError):
    """No answer in time, or refused. A plain write may or may not have happened: it is idempotent, write it again."""


class OutcomeUnknown(StoreError):
    """A compare-and-set was sent and its answer lost: it happened or it did not, and may still happen for as long as its
    request lives (seconds). Read the item (`Conditional.read`), look for your own mark in it, decide."""


class Item(NamedTuple):
    key: str
    value: bytes


class Put(NamedTuple):
    record: str
    key: str
    value: bytes
    ttl: float | None = None
    """Seconds until the item disappears by itself; None for never."""


class Removal(NamedTuple):
    """An item to delete, if it still is the one that is meant."""

    record: str
    key: str
    value: bytes
    """What its value is, or"""
    longer: bool = False
    """begins with."""

    def means(self, value: bytes | None) -> bool:
        return value is not None and (value.startswith(self.value) if self.longer else value == self.value)


class Page(NamedTuple):
    items: Sequence[Item]
    after: str | None
    """Where the next page starts (pass it as `after`), or None when this is the last."""


class Version(NamedTuple):
    """An item as a compare-and-set sees it."""

    value: bytes
    version: int


class Store(Protocol):
    """Promised: a write that returned is durable and seen by every later read of any process (LOCAL_QUORUM in a cluster); an
    item with a ttl is not returned after it. Not promised: anything about two items together, batches included."""

    async def get(self, record: str, key: str) -> bytes | None: ...

    async def put(self, items: Sequence[Put]) -> None:
        """Writes all items, in any order and not atomically; the last write of an item wins. At most 10,000 items a call."""
        ...

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        """Deletes items; absent ones are no error."""
        ...

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        """Deletes those of the items whose value is the one that is meant, and says which: (record, key). At most 10,000 a call.
        Not promised: that looking and deleting are one; a value written between them may be lost."""
        ...

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        """Items of a record in key order, after key `after`, as many as fit `max_bytes` of keys and values, at least one."""
        ...

    async def close(self) -> None:
        """Frees everything, of both ports if one object serves both. Idempotent."""
        ...


class Conditional(Protocol):
    """Promised: compare-and-set of one item is linearizable in the home region; `read` sees every acknowledged one. Items are
    never deleted and have no ttl, so a version never comes back."""

    async def read(self, record: str, key: str) -> Version | None:
        """The item now, or None when it was never set. Raises StoreUnavailable."""
        ...

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        """Sets the item if its version is `expected` (None: if it does not exist). Returns the new Version, or None when
        another version stands there: read it and decide. Raises StoreUnavailable when surely nothing was set,
        OutcomeUnknown when it may have been."""
        ...
