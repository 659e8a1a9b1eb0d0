"""One open SQLite file: writes by group commit on a thread, reads on the event loop."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from stagecast.heap import give_back
from stagecast.sqlite.backlog import Backlog, Job, Work
from stagecast.sqlite.file import OPEN_WAIT, DatabaseError, Format, check_version, connect, identity, open_file

REST = 0.25
"""Seconds without a write after which the memory of a burst is given back, and"""
REST_WEIGHT = 1_000
"""rows that make a burst."""
WRITE_WAIT = 5.0
"""Seconds after which a write is given up, longer than BUSY_WAIT so that SQLite's own answer comes first."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upkeep:
    """What the writer's thread does besides writing."""

    after_commit: Callable[[], None] = lambda: None
    """Called after each group of writes; must not block."""
    tidy: Work[bool] = lambda _: False
    """Removes a bounded batch of what has expired, in a transaction of its own; says whether more is left."""
    every: float = 60.0
    """Seconds between tidyings, counted from this process's first write: who only reads never tidies."""


def rows(connection: apsw.Connection, query: str, *arguments: str | bytes | int | float | None) -> list[Any]:
    """All rows of a query that has few. An unread row would keep its snapshot, and with it the WAL, from being let go."""
    return connection.execute(query, arguments).fetchall()


@dataclass(frozen=True)
class _Failure:
    text: str
    cause: Exception | None
    unknown: bool = False


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
        self._backlog = Backlog()
        self._tidy_at: float | None = None
        self._burst = 0
        """Rows written since the last rest."""
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
            raise DatabaseError(f"{path}: not opened in {OPEN_WAIT:.0f} s") from error
        finally:
            if not database._opened.done() or database._opened.cancelled():
                database._backlog.close()  # whenever it does open, it closes at once
        if failure:
            await database.close()
            raise DatabaseError(failure.text) from failure.cause
        return database

    async def write(self, work: Work[T], weight: int = 1) -> T:
        """Runs `work` in a transaction shared with others that wait; returns what it returned once that is durable.

        `weight` is the number of rows it touches, about. Raises DatabaseError within 5 s; what `work` itself raised besides
        errors of SQLite comes out as it is, and nothing of this work is written.
        """
        job = Job(work, weight, self._loop.create_future())
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
        if self._backlog.closing:
            raise DatabaseError(f"{self.path}: closed")

        def on_thread() -> T:
            connection = connect(self.path, reading=True)
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
            self._writer, self._reader = open_file(self.path, self._form)
            self._file = identity(self.path)
        except (apsw.Error, OSError, DatabaseError) as error:
            self._tell(self._answer_open, _Failure(f"{self.path}: {error}", error))
        else:
            self._tell(self._answer_open, None)
            self._serve()
            self._close_file()
        finally:
            self._tell(self._ended.set)

    def _close_file(self) -> None:
        """The last process to close copies the WAL into the file; if that fails, the next to open does."""
        try:
            self._reader.close()
            self._writer.close()
        except apsw.Error as error:
            logger.warning("%s: closing failed: %s", self.path, error)

    def _serve(self) -> None:
        while (group := self._backlog.take(self._patience())) is not None:
            if group:
                self._burst += sum(job.weight for job in group)
                outcomes = self._commit(group)
                self._upkeep.after_commit()
                self._tell(_settle, group, outcomes)
                if self._tidy_at is None:
                    self._tidy_at = time.monotonic() + self._upkeep.every
            elif self._burst >= REST_WEIGHT:
                self._rest()
            if self._tidy_at is not None and time.monotonic() >= self._tidy_at:
                self._tidy()

    def _patience(self) -> float | None:
        """Seconds until there is something to do even without a write."""
        rest = REST if self._burst >= REST_WEIGHT else None
        if self._tidy_at is None:
            return rest
        tidy = max(0.0, self._tidy_at - time.monotonic())
        return tidy if rest is None else min(tidy, rest)

    def _rest(self) -> None:
        """Gives back the pages that the writer keeps, up to 2 MB: a burst needs them, and what comes one by one does not."""
        self._burst = 0
        self._writer.release_memory()
        give_back()

    def _tidy(self) -> None:
        try:
            more = self._transact([self._upkeep.tidy])[0]
        except Exception as error:  # whatever it was, writing must go on
            logger.warning("%s: tidying failed, to be tried again: %s", self.path, error)
            more = False
        self._tidy_at = time.monotonic() + (0.05 if more else self._upkeep.every)

    def _commit(self, group: Sequence[Job]) -> list[Any]:
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
        self._roll_back()
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
        """Ends a transaction that failed, if it did not end by itself. If it does not end now either: before the next."""
        if self._writer.in_transaction:
            with suppress(apsw.Error):
                self._writer.execute("ROLLBACK")

    def _check_same_file(self) -> None:
        """A file that was moved away or replaced still takes writes, and nobody would ever find them. Raises OSError."""
        if identity(self.path) != self._file:
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


def _settle(group: Sequence[Job], outcomes: Sequence[Any]) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        if not job.future.done():
            job.future.set_result(outcome)
