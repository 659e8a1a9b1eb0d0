"""The port to the message log: an ordered, durable, shared record of what was said.

Two topics, two adapters. `events` carries what every pushy host reads (broadcasts, hints, beats, revocations); `receipts`
carries what hosts counted. Readers use explicit positions: no consumer group, no commits, no rebalance.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Topic(StrEnum):
    """A topic; its value is the name on the wire. Retention is by time."""

    EVENTS = "stagecast.events"
    RECEIPTS = "stagecast.receipts"

    @property
    def retention(self) -> int:
        """Seconds that a record is kept at least."""
        return {Topic.EVENTS: 24 * 3600, Topic.RECEIPTS: 72 * 3600}[self]


Positions = Mapping[int, int]
"""Partition → offset of the next record to read."""


class Record(NamedTuple):
    partition: int
    offset: int
    ts: int
    """When the log took it, wall ms. Not for ordering."""
    key: str
    value: bytes


class LogError(Exception):
    """The log could not do what was asked. `__cause__` is the driver's own error."""


class LogUnavailable(LogError):
    """No answer in time, or refused. An append may or may not be in the log: appending again is safe, duplicates are free."""


class LogGap(LogError):
    """The position is not in the log: what was there is gone (retention), or the log ends before it and so is not the one it came
    from (truncated, restored, replaced). What was said in between is lost here: read the state it led to elsewhere, resolve `end`
    anew *before* that, and read on from there."""


class MessageLog(Protocol):
    """Promised: records of one key keep the order of their acknowledged appends, within one partition; a record that was
    acknowledged survives a crash of any process (and of a minority of brokers); `read` from positions that `end` gave misses
    nothing appended after `end` was called.

    Not promised: order across keys; that a record appears once (appends may repeat); that an append which raised is absent.
    """

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        """Returns once the record is durable. Raises LogUnavailable (within 5 s)."""
        ...

    async def end(self, topic: Topic) -> Positions:
        """The position after the last record of every partition, resolved now and not at the first read."""
        ...

    async def since(self, topic: Topic, ts: int) -> Positions:
        """For every partition the position of the first record taken at or after `ts` (wall ms), or its end."""
        ...

    def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        """Batches of records from `positions` on, as they come, for ever: a batch is never empty, and is ordered within
        each partition. Raises LogGap when a position is before the log's start or past its end, LogUnavailable when the
        log stays out of reach; call `read` again, after a pause or from new positions. Closing the iterator frees its
        resources.
        """
        ...

    async def close(self) -> None:
        """Waits for appends under way (bounded, 5 s) and frees everything. Idempotent."""
        ...
