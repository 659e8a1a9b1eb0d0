"""The message log in one SQLite file, shared by the processes of one machine: one partition per topic.

The file is the truth. A reader drains it from its own position; a ring after each commit (`bell`) makes it look at once, and a
look at `data_version` every 250 ms makes it see what no ring told of.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing, contextmanager

import apsw

from stagecast.clock import Clock, SystemClock
from stagecast.log.bell import Listener, Ringer
from stagecast.log.message_log import LogGap, LogUnavailable, Positions, Record, Topic
from stagecast.sqlite import Database, DatabaseError, Format, Upkeep, path_of, rows

PARTITION = 0
"""The only one of each topic."""
POLL = 0.25
"""Seconds between looks that no ring asked for."""
BATCH_RECORDS = 500
BATCH_BYTES = 1 << 20
TIDY_ROWS = 1_000
TIDY_EVERY = 60.0

TABLES = {Topic.EVENTS: "events", Topic.RECEIPTS: "receipts"}

# `start` and `next` bound the offsets of a topic: those between are all there, so a reader can tell a gap, and an offset is
# never given twice, whatever retention deletes. The first offset of a file is its birth in µs: positions in an earlier file
# that stood in its place are before its start, a gap, and never mistaken for places in this one.
SCHEMA = (
    "CREATE TABLE topics (topic TEXT PRIMARY KEY, start INTEGER NOT NULL, next INTEGER NOT NULL) STRICT;"
    + "".join(
        f"""
    INSERT INTO topics SELECT '{topic.value}', born, born FROM (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS born);
    CREATE TABLE {table} (offset INTEGER PRIMARY KEY, ts INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL) STRICT;
    CREATE INDEX {table}_by_ts ON {table} (ts);
    """
        for topic, table in TABLES.items()
    )
)
FORMAT = Format("Stagecast log", 0x53434C47, SCHEMA)


class EmbeddedLog:
    """`MessageLog` on one file. Use `open`. Promised besides what the port promises: the order of acknowledged appends is kept
    across keys, and offsets of a topic are consecutive."""

    def __init__(self, database: Database, clock: Clock, ringer: Ringer, poll: float) -> None:
        self._database = database
        self._clock = clock
        self._ringer = ringer
        self._bell = _Bell(database, poll)

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None, poll: float = POLL) -> "EmbeddedLog":
        """The log in the file of `sqlite:///path`, made if it is missing. Raises ValueError, LogUnavailable.

        `clock` stamps records and judges their age; `poll` is in seconds.
        """
        clock = clock or SystemClock()
        path = path_of(url)
        ringer = Ringer(path)
        upkeep = Upkeep(after_commit=ringer.ring, tidy=lambda c: _tidy(c, clock.now()), every=TIDY_EVERY)
        try:
            with _translated():
                return cls(await Database.open(path, FORMAT, upkeep), clock, ringer, poll)
        except BaseException:
            ringer.close()
            raise

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        def work(connection: apsw.Connection) -> None:
            [[offset]] = rows(
                connection, "UPDATE topics SET next = next + 1 WHERE topic = ? RETURNING next - 1", topic.value
            )
            connection.execute(
                f"INSERT INTO {TABLES[topic]} (offset, ts, key, value) VALUES (?, ?, ?, ?)",
                (offset, self._clock.now(), key, value),
            )

        with _translated():
            await self._database.write(work)

    async def end(self, topic: Topic) -> Positions:
        with _translated(), self._database.snapshot() as reader:
            return {PARTITION: _bounds(reader, topic)[1]}

    async def since(self, topic: Topic, ts: int) -> Positions:
        def work(connection: apsw.Connection) -> int:
            query = f"SELECT coalesce((SELECT min(offset) FROM {TABLES[topic]} WHERE ts >= ?), next) FROM topics WHERE topic = ?"
            return int(rows(connection, query, ts, topic.value)[0][0])

        with _translated():
            return {PARTITION: await self._database.scan(work)}

    async def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        if unknown := set(positions) - {PARTITION}:
            raise LogGap(f"{topic}: no partition {unknown}")
        if not positions:
            raise ValueError("read: no positions")
        position = positions[PARTITION]
        with self._bell.listening() as rung:
            while True:
                rung.clear()  # before the look, so that a commit after it is not slept over
                with _translated(), self._database.snapshot() as reader:
                    batch = _batch(reader, topic, position)
                if batch:
                    position = batch[-1].offset + 1
                    yield batch
                else:
                    await rung.wait()

    async def tidy(self) -> None:
        """Deletes what is older than its topic's retention, now. Appenders do it by themselves, a batch a minute."""
        with _translated():
            while await self._database.write(lambda connection: _tidy(connection, self._clock.now()), TIDY_ROWS):
                pass

    async def close(self) -> None:
        self._bell.close()
        await self._database.close()
        self._ringer.close()


class _Bell:
    """Wakes the readers of one process: one socket and one poll for all of them, while there are any."""

    def __init__(self, database: Database, poll: float) -> None:
        self._database = database
        self._interval = poll
        self._readers: set[asyncio.Event] = set()
        self._listener: Listener | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._seen = -1

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set when there may be something new, or when the file can't be read."""
        rung = asyncio.Event()
        self._readers.add(rung)
        if self._listener is None:
            self._listener = Listener(self._database.path, self._wake)
            self._look()
        try:
            yield rung
        finally:
            self._readers.discard(rung)
            if not self._readers:
                self._stop()

    def _wake(self) -> None:
        for rung in self._readers:
            rung.set()

    def _look(self) -> None:
        try:
            version = self._database.data_version()
        except DatabaseError:
            self._wake()  # each reader finds out for itself
        else:
            if version != self._seen:
                self._seen = version
                self._wake()
        self._poll = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _stop(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
        if self._listener is not None:
            self._listener.close()
        self._poll = self._listener = None

    def close(self) -> None:
        """Readers wake, and find the file closed."""
        self._wake()
        self._stop()


def _bounds(connection: apsw.Connection, topic: Topic) -> tuple[int, int]:
    """The first offset that is kept, and the next to be given."""
    [(start, following)] = rows(connection, "SELECT start, next FROM topics WHERE topic = ?", topic.value)
    return start, following


def _batch(connection: apsw.Connection, topic: Topic, position: int) -> list[Record]:
    """The records from `position` on, as many as make a batch. Raises LogGap."""
    start, following = _bounds(connection, topic)
    if not start <= position <= following:
        raise LogGap(f"{topic}: position {position} is not in {start}…{following}")
    batch: list[Record] = []
    if position == following:
        return batch
    query = f"SELECT offset, ts, key, value FROM {TABLES[topic]} WHERE offset >= ? ORDER BY offset LIMIT ?"
    size = 0
    with closing(connection.execute(query, (position, BATCH_RECORDS))) as found:
        for offset, ts, key, value in found:
            batch.append(Record(PARTITION, offset, ts, key, value))
            size += len(value)
            if size >= BATCH_BYTES:
                break
    return batch


def _tidy(connection: apsw.Connection, now: int) -> bool:
    """Deletes up to TIDY_ROWS expired records of each topic from its start on; says whether more may be left."""
    more = False
    for topic, table in TABLES.items():
        limit = now - topic.retention * 1000
        oldest = rows(connection, f"SELECT offset, ts FROM {table} ORDER BY offset LIMIT ?", TIDY_ROWS)
        # Up to the first that is young: offsets stay consecutive, even if the wall clock has gone back.
        kept = next((offset for offset, ts in oldest if ts >= limit), oldest[-1][0] + 1 if oldest else None)
        if oldest and kept > oldest[0][0]:
            connection.execute(f"DELETE FROM {table} WHERE offset < ?", (kept,))
            connection.execute("UPDATE topics SET start = ? WHERE topic = ?", (kept, topic.value))
            more = more or kept > oldest[-1][0]
    return more


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors in the port's words."""
    try:
        yield
    except DatabaseError as error:
        raise LogUnavailable(str(error)) from error.__cause__
