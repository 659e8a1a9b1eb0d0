"""One SQLite file shared by the processes of one machine: opened with care, written by group commit.

What makes a write durable and cheap: WAL with `synchronous=FULL`, one writing connection per process on a thread of its own,
and one transaction for all that waits (an fsync costs 0.2 to 5 ms, whatever it carries). Reads run on the event loop, on a
connection of their own: WAL readers wait for no writer, and a read here is one key or one bounded batch (a thread hop would
cost four times the read).
"""

import asyncio
import logging
import os
import random
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import apsw

OLDEST = (3, 51, 3)
"""SQLite before this can corrupt a WAL that two connections write (https://sqlite.org/wal.html#walresetbug)."""
OPEN_WAIT = 10.0
BUSY_WAIT = 4.0
"""Seconds to wait for another process's transaction."""
WRITE_WAIT = 5.0
"""Seconds after which a write is given up, longer than BUSY_WAIT so that SQLite's own answer comes first."""
READ_BUSY_MS = 1000
"""A reader meets a lock only while another process recovers or closes the file."""
GROUP_WEIGHT = 10_000
"""Rows in one transaction: bounds how long other processes wait."""
BACKLOG_WEIGHT = 100_000
"""Rows that may wait for the writer; more are refused and counted in `Database.refused`."""
CHECKPOINT_PAGES = 4_000
WAL_KEPT = 64 << 20

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
"""What to do inside a transaction. It may run twice: the transaction of a group that failed is rolled back first."""

logger = logging.getLogger(__name__)


class DatabaseError(Exception):
    """The file could not be read or written. `__cause__` is SQLite's own error, if it had one."""

    def __init__(self, text: str, *, unknown: bool = False) -> None:
        super().__init__(text)
        self.unknown = unknown
        """Whether a write may have happened all the same: it was under way and its end was not seen."""


@dataclass(frozen=True)
class Format:
    """What a file holds, so that a log is never taken for a store."""

    name: str
    application_id: int
    schema: str
    """Statements that make an empty file one of this format."""


@dataclass(frozen=True)
class Upkeep:
    """What the writer's thread does besides writing."""

    after_commit: Callable[[], None] = lambda: None
    """Called after each group of writes; must not block."""
    tidy: Work[bool] = lambda _: False
    """Removes a bounded batch of what has expired, in a transaction of its own; says whether more is left."""
    every: float = 60.0
    """Seconds between tidyings, counted from this process's first write: who only reads never tidies."""


def path_of(url: str) -> Path:
    """The file that `sqlite:///path` names. The path is absolute, as in `file:///path`; `sqlite:////path` is the same.

    Raises ValueError for what has a host, an option or no path.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not path:
        raise ValueError(f"{url!r} is not sqlite:///path (an absolute path, no options)")
    return Path("/") / path


def check_version(version: str) -> None:
    """Raises DatabaseError for a SQLite that must not write a shared WAL."""
    if tuple(int(part) for part in version.split(".")) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise DatabaseError(
            f"SQLite {version} can corrupt a file that several processes write: {oldest} or newer is needed"
        )


def rows(connection: apsw.Connection, query: str, *arguments: str | bytes | int | float | None) -> list[Any]:
    """All rows of a query that has few. An unread row would keep its snapshot, and with it the WAL, from being let go."""
    return connection.execute(query, arguments).fetchall()


@dataclass(frozen=True)
class _Failure:
    text: str
    cause: Exception | None
    unknown: bool = False


@dataclass(eq=False, slots=True)
class _Job:
    work: Work[Any]
    weight: int
    future: asyncio.Future[Any]
    taken: bool = False
    withdrawn: bool = False


@dataclass(eq=False)
class _Backlog:
    """What waits for the writer, in order. Shared by the event loop and the writer's thread."""

    jobs: deque[_Job] = field(default_factory=deque)
    weight: int = 0
    closing: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, job: _Job) -> bool:
        with self.changed:
            if self.closing or (self.jobs and self.weight + job.weight > BACKLOG_WEIGHT):
                return False
            self.jobs.append(job)
            self.weight += job.weight
            self.changed.notify()
            return True

    def withdraw(self, job: _Job) -> bool:
        """Whether the job was still waiting: it will never run."""
        with self.changed:
            job.withdrawn = not job.taken
            return job.withdrawn

    def take(self, timeout: float | None) -> list[_Job] | None:
        """The next group, empty after `timeout` seconds without one; None when closed and nothing waits."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closing, timeout)
            if not self.jobs:
                return None if self.closing else []
            group: list[_Job] = []
            room = GROUP_WEIGHT
            while self.jobs and (not group or self.jobs[0].weight <= room):
                job = self.jobs.popleft()
                self.weight -= job.weight
                if not job.withdrawn:
                    job.taken = True
                    room -= job.weight
                    group.append(job)
            return group

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify()


class Database:
    """One open file. Made by `open`; belongs to the event loop that opened it, and not to a process forked later.

    Promised: a write that returned is durable and visible to every later read of any process; writes happen in the order of
    the calls; a write that raised with `unknown` false did not happen.
    """

    def __init__(self, path: Path, form: Format, upkeep: Upkeep) -> None:
        self.path = path
        self.refused = 0
        """Writes refused because the backlog was full."""
        self._form = form
        self._upkeep = upkeep
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[_Failure | None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._backlog = _Backlog()
        self._tidy_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"sqlite {path.name}", daemon=True)

    @classmethod
    async def open(cls, path: Path, form: Format, upkeep: Upkeep) -> "Database":
        """Opens the file, made if it is missing (mode 0600, in a folder made 0700). Raises DatabaseError: a SQLite too old, a
        file of another kind, no answer in 10 s."""
        check_version(apsw.sqlite_lib_version())
        database = cls(path, form, upkeep)
        database._thread.start()
        try:
            async with asyncio.timeout(OPEN_WAIT):
                failure = await database._opened
        except TimeoutError as error:
            database._backlog.close()
            raise DatabaseError(f"{path}: not opened in {OPEN_WAIT:.0f} s") from error
        if failure:
            await database.close()
            raise DatabaseError(failure.text) from failure.cause
        return database

    async def write(self, work: Work[T], weight: int = 1) -> T:
        """Runs `work` in a transaction shared with others that wait; returns what it returned once that is durable.

        `weight` is the number of rows it touches, about. Raises DatabaseError within 5 s; what `work` itself raised besides
        errors of SQLite comes out as it is, and nothing of this work is written.
        """
        job = _Job(work, weight, self._loop.create_future())
        if not self._backlog.add(job):
            self.refused += not self._backlog.closing
            raise DatabaseError(f"{self.path}: " + ("closed" if self._backlog.closing else "too many writes wait"))
        try:
            async with asyncio.timeout(WRITE_WAIT):
                outcome = await job.future
        except TimeoutError as error:
            unknown = not self._backlog.withdraw(job)
            raise DatabaseError(f"{self.path}: not written in {WRITE_WAIT:.0f} s", unknown=unknown) from error
        if not isinstance(outcome, _Failure):
            return outcome  # type: ignore[no-any-return]  # the queue holds jobs of every type
        if outcome.cause is not None and not isinstance(outcome.cause, apsw.Error | OSError):
            raise outcome.cause
        raise DatabaseError(outcome.text, unknown=outcome.unknown) from outcome.cause

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """One consistent view of the file for a short read, here and now. Raises DatabaseError."""
        if self._backlog.closing:
            raise DatabaseError(f"{self.path}: closed")
        try:
            self._check_same_file()
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("COMMIT")
        except (apsw.Error, OSError) as error:
            raise DatabaseError(f"{self.path}: {error}") from error

    def data_version(self) -> int:
        """A number that changes with every commit, of this process or another. Raises DatabaseError."""
        with self.snapshot() as reader:
            return int(reader.pragma("data_version"))

    async def scan(self, work: Work[T]) -> T:
        """Runs a read that may take long, on a thread and a connection of its own. Raises DatabaseError."""

        def on_thread() -> T:
            connection = _connect(self.path, reading=True)
            try:
                return work(connection)
            finally:
                connection.close()

        try:
            return await asyncio.to_thread(on_thread)
        except apsw.Error as error:
            raise DatabaseError(f"{self.path}: {error}") from error

    async def close(self) -> None:
        """Waits for the writes under way (5 s at most) and closes the file. Idempotent."""
        self._backlog.close()
        try:
            async with asyncio.timeout(WRITE_WAIT):
                await self._ended.wait()
        except TimeoutError:
            logger.error("%s: still writing after %.0f s, left behind", self.path, WRITE_WAIT)
        else:
            self._thread.join()

    # What follows runs on the writer's thread.

    def _run(self) -> None:
        try:
            self._writer, self._reader = _open(self.path, self._form)
            self._file = _identity(self.path)
        except (apsw.Error, OSError, DatabaseError) as error:
            self._tell(self._answer_open, _Failure(f"{self.path}: {error}", error))
        else:
            self._tell(self._answer_open, None)
            self._serve()
            self._reader.close()
            self._writer.close()
        self._tell(self._ended.set)

    def _serve(self) -> None:
        while (group := self._backlog.take(self._until_tidy())) is not None:
            if group:
                outcomes = self._commit(group)
                self._upkeep.after_commit()
                self._tell(_settle, group, outcomes)
                if self._tidy_at is None:
                    self._tidy_at = time.monotonic() + self._upkeep.every
            if self._tidy_at is not None and time.monotonic() >= self._tidy_at:
                self._tidy()

    def _until_tidy(self) -> float | None:
        return None if self._tidy_at is None else max(0.0, self._tidy_at - time.monotonic())

    def _tidy(self) -> None:
        try:
            more = self._transact([self._upkeep.tidy])[0]
        except (apsw.Error, OSError, _CommitFailed) as error:
            logger.warning("%s: tidying failed, to be tried again: %s", self.path, error)
            more = False
        self._tidy_at = time.monotonic() + (0.05 if more else self._upkeep.every)

    def _commit(self, group: Sequence[_Job]) -> list[Any]:
        """The outcome of each job. If one spoils the transaction of all, each gets one of its own."""
        try:
            return self._transact([job.work for job in group])
        except _CommitFailed as error:
            failure = _Failure(f"{self.path}: {error}", error.cause, unknown=True)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, apsw.BusyError):
                return [outcome for job in group for outcome in self._commit([job])]
            failure = _Failure(f"{self.path}: {error}", error)
        return [failure] * len(group)

    def _transact(self, works: Sequence[Work[T]]) -> list[T]:
        """One durable transaction. Raises what SQLite or a work raised (nothing written), or _CommitFailed (unknown)."""
        self._check_same_file()
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [work(self._writer) for work in works]
        except BaseException:
            self._roll_back()
            raise
        try:
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            # The WAL may hold the whole transaction although its fsync failed: a crash now could bring it back.
            self._roll_back()
            raise _CommitFailed(error) from error
        return outcomes

    def _roll_back(self) -> None:
        if self._writer.in_transaction:  # a full disk or an I/O error may have rolled back by itself
            self._writer.execute("ROLLBACK")

    def _check_same_file(self) -> None:
        """A file that was moved away or replaced still takes writes, and nobody would ever find them. Raises OSError."""
        if _identity(self.path) != self._file:
            raise OSError("the file was replaced while open: restart this process")

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody listens
            logger.debug("%s: nobody to tell", self.path)

    def _answer_open(self, failure: _Failure | None) -> None:
        if not self._opened.done():
            self._opened.set_result(failure)


class _CommitFailed(Exception):
    def __init__(self, cause: apsw.Error) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _settle(group: Sequence[_Job], outcomes: Sequence[Any]) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        if not job.future.done():
            job.future.set_result(outcome)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _open(path: Path, form: Format) -> tuple[apsw.Connection, apsw.Connection]:
    """The writing and the reading connection."""
    _make_file(path)
    deadline = time.monotonic() + OPEN_WAIT
    while True:
        writer = _connect(path)
        try:
            _prepare(writer, form)
            _sync_folder(path.parent)
            return writer, _connect(path, reading=True)
        except apsw.BusyError:
            # Two processes that turn a new file into a WAL at once: SQLite answers one of them at once, without waiting.
            writer.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.02))
        except BaseException:
            writer.close()
            raise


def _make_file(path: Path) -> None:
    """Makes the file under another name and links it: opening and closing an existing one would drop every POSIX lock that
    this process holds on it (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_)."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    os.close(descriptor)
    try:
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


def _sync_folder(folder: Path) -> None:
    """Makes the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, *, reading: bool = False) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    if reading:
        connection.set_busy_timeout(READ_BUSY_MS)
        connection.pragma("query_only", True)
    else:
        connection.set_busy_handler(_Patience())
        connection.pragma("synchronous", "FULL")
        connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        connection.pragma("journal_size_limit", WAL_KEPT)
    return connection


class _Patience:
    """The writer's busy handler: short random naps, where SQLite's own grow to 100 ms and let one process starve another."""

    def __init__(self) -> None:
        self._until = 0.0

    def __call__(self, calls: int) -> bool:
        if calls == 0:
            self._until = time.monotonic() + BUSY_WAIT
        time.sleep(random.uniform(0.0005, 0.002))
        return time.monotonic() < self._until


def _prepare(connection: apsw.Connection, form: Format) -> None:
    """WAL mode and the schema, or DatabaseError for a file of another kind."""
    if (mode := connection.pragma("journal_mode", "WAL")) != "wal":
        raise DatabaseError(f"this file system allows no WAL (journal mode {mode}): use a local one")
    connection.execute("BEGIN IMMEDIATE")
    try:
        kind = connection.pragma("application_id")
        if kind == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
            connection.execute(form.schema)
            connection.pragma("application_id", form.application_id)
        elif kind != form.application_id:
            raise DatabaseError(f"not a {form.name}: it holds something else")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
