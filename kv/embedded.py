"""The store in one SQLite file, shared by the processes of one machine: both ports, in tables of their own.

A compare-and-set is one transaction that holds the file's write lock (BEGIN IMMEDIATE), so it is linearizable across
processes; a read sees the last commit.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from operator import itemgetter

import apsw

from kv.store import Item, OutcomeUnknown, Page, Put, Removal, StoreUnavailable, Version
from stagecast.clock import Clock, SystemClock
from stagecast.sqlite import Database, DatabaseError, Format, Upkeep, path_of, rows

PUT_MAX = 10_000
TIDY_ROWS = 1_000
TIDY_EVERY = 10.0

# TEXT compares by its bytes, and the file's encoding is UTF-8. Tables with a rowid, because values are larger than keys.
FORMAT = Format(
    "Stagecast store",
    0x53434B56,
    """
    CREATE TABLE items (
        record TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires INTEGER, PRIMARY KEY (record, key)
    ) STRICT;
    CREATE INDEX expiring ON items (expires) WHERE expires IS NOT NULL;
    CREATE TABLE conditional_items (
        record TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (record, key)
    ) STRICT;
    """,
)

ROWS = 16
"""Items written by one statement: a third cheaper than one by one, since the tree is not searched from its root each time."""


def _put(rows: int) -> str:
    """Parameters: now, then the fields of each `Put`. A constraint that fails undoes the whole transaction, so that the statement
    needs no journal of its own."""
    each = (
        f"(?{i}, ?{i + 1}, ?{i + 2}, CAST(?{i + 3} * 1000 + 0.5 AS INTEGER) + ?1)" for i in range(2, 2 + 4 * rows, 4)
    )
    return f"""
        INSERT OR ROLLBACK INTO items (record, key, value, expires) VALUES {", ".join(each)}
        ON CONFLICT (record, key) DO UPDATE SET value = excluded.value, expires = excluded.expires
    """


PUT_ROWS, PUT_ROW = _put(ROWS), _put(1)
PAGE = """
    SELECT key, value FROM items
    WHERE record = ? AND key > ? AND (expires IS NULL OR expires > ?) ORDER BY key
"""
FIRST_PAGE = PAGE.replace("key > ?", "key >= ?")
"""From the empty key on, itself included."""
REMOVE = """
    DELETE FROM items WHERE record = ?1 AND key = ?2 AND iif(?4, substr(value, 1, length(?3)), value) = ?3
    RETURNING record, key
"""
EXPIRED = "DELETE FROM items WHERE rowid IN (SELECT rowid FROM items WHERE expires <= ? ORDER BY expires LIMIT ?)"


class SqliteStore:
    """Both ports on one file. Use `open`.

    Promised besides what the ports promise: a `put`, `delete` or `remove` is atomic, its look included; versions count 1, 2,
    3, …. A ttl runs on the wall clock. Expired items are never returned and are deleted by and by, by processes that write.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None) -> "SqliteStore":
        """The store in the file of `sqlite:///path`, made if it is missing. Raises ValueError, StoreUnavailable."""
        clock = clock or SystemClock()
        upkeep = Upkeep(tidy=lambda connection: _tidy(connection, clock.now()), every=TIDY_EVERY)
        with _translated():
            return cls(await Database.open(path_of(url), FORMAT, upkeep), clock)

    async def get(self, record: str, key: str) -> bytes | None:
        query = "SELECT value FROM items WHERE record = ? AND key = ? AND (expires IS NULL OR expires > ?)"
        with _translated(), self._database.snapshot() as reader:
            found = rows(reader, query, record, key, self._clock.now())
        return found[0][0] if found else None

    async def put(self, items: Sequence[Put]) -> None:
        if len(items) > PUT_MAX:
            raise ValueError(f"put: {len(items):,} items in one call, {PUT_MAX:,} are allowed")
        if not items:
            return
        now = self._clock.now()
        with _translated():
            await self._database.write(lambda connection: _write(connection, items, now), len(items))

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        places = [(record, key) for key in keys]
        if not places:
            return

        def work(connection: apsw.Connection) -> None:
            connection.executemany("DELETE FROM items WHERE record = ? AND key = ?", places)

        with _translated():
            await self._database.write(work, len(places))

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        if len(items) > PUT_MAX:
            raise ValueError(f"remove: {len(items):,} items in one call, {PUT_MAX:,} are allowed")
        if not items:
            return set()

        def work(connection: apsw.Connection) -> set[tuple[str, str]]:
            return {(str(record), str(key)) for record, key in connection.executemany(REMOVE, items)}

        with _translated():
            return await self._database.write(work, len(items))

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        items: list[Item] = []
        size = 0
        query = FIRST_PAGE if after is None else PAGE
        with (
            _translated(),
            self._database.snapshot() as reader,
            closing(reader.execute(query, (record, after or "", self._clock.now()))) as found,
        ):
            for key, value in found:
                size += len(key.encode()) + len(value)
                if items and size > max_bytes:
                    return Page(items, items[-1].key)
                items.append(Item(key, value))
        return Page(items, None)

    async def read(self, record: str, key: str) -> Version | None:
        with _translated(), self._database.snapshot() as reader:
            return _version(reader, record, key)

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        def work(connection: apsw.Connection) -> Version | None:
            found = _version(connection, record, key)
            if (found.version if found else None) != expected:
                return None
            version = (expected or 0) + 1
            connection.execute(
                "INSERT INTO conditional_items (record, key, value, version) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (record, key) DO UPDATE SET value = excluded.value, version = excluded.version",
                (record, key, value, version),
            )
            return Version(value, version)

        with _translated(conditional=True):
            return await self._database.write(work)

    async def tidy(self) -> None:
        """Deletes all expired items, now. Processes that write do it by themselves, a batch at a time."""
        with _translated():
            while await self._database.write(lambda connection: _tidy(connection, self._clock.now()), TIDY_ROWS):
                pass

    async def close(self) -> None:
        await self._database.close()


def _write(connection: apsw.Connection, items: Sequence[Put], now: int) -> None:
    """By records, so that neighbours go to one page; of two puts of an item the later one stays the later."""
    ordered = sorted(items, key=itemgetter(0))
    size, whole = len(Put._fields) * ROWS, len(ordered) // ROWS * ROWS
    fields = list(chain.from_iterable(ordered[:whole]))
    for start in range(0, len(fields), size):
        connection.execute(PUT_ROWS, (now, *fields[start : start + size]))
    connection.executemany(PUT_ROW, ((now, *item) for item in ordered[whole:]))


def _version(connection: apsw.Connection, record: str, key: str) -> Version | None:
    query = "SELECT value, version FROM conditional_items WHERE record = ? AND key = ?"
    found = rows(connection, query, record, key)
    return Version(*found[0]) if found else None


def _tidy(connection: apsw.Connection, now: int) -> bool:
    connection.execute(EXPIRED, (now, TIDY_ROWS))
    return connection.changes() == TIDY_ROWS


@contextmanager
def _translated(*, conditional: bool = False) -> Iterator[None]:
    """SQLite's errors in the port's words."""
    try:
        yield
    except DatabaseError as error:
        kind = OutcomeUnknown if conditional and error.unknown else StoreUnavailable
        raise kind(str(error)) from error.__cause__
