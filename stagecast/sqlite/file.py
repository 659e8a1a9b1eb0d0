"""Opening a SQLite file that several processes share: the right SQLite, the right file, the right modes."""

import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import apsw

OLDEST = (3, 51, 3)
"""SQLite before this can corrupt a WAL that two connections write (https://sqlite.org/wal.html#walresetbug)."""
OPEN_WAIT = 10.0
BUSY_WAIT = 4.0
"""Seconds to wait for another process's transaction."""
PATH_BYTES_MAX = 504
"""SQLite's own 512 (`MAX_PATHNAME`), less its `-journal`."""
READ_BUSY_MS = 1000
"""A reader meets a lock only while another process recovers or closes the file."""
CHECKPOINT_PAGES = 4_000
WAL_KEPT = 64 << 20
"""Bytes that a WAL keeps of its size after a burst."""


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


def path_of(url: str) -> Path:
    """The file that `sqlite:///path` names. The path is absolute, as in `file:///path`; `sqlite:////path` is the same.

    Raises ValueError for what has a host, an option or no path.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not path:
        raise ValueError(f"{url!r} is not sqlite:///path (an absolute path, no options)")
    return Path("/") / path


def library_version() -> str:
    """Of the SQLite that is used here."""
    return apsw.sqlite_lib_version()


def check_version(version: str) -> None:
    """Raises DatabaseError for a SQLite that must not write a shared WAL."""
    if tuple(int(part) for part in version.split(".")) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise DatabaseError(
            f"SQLite {version} can corrupt a file that several processes write: {oldest} or newer is needed"
        )


def identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def open_file(path: Path, form: Format) -> tuple[apsw.Connection, apsw.Connection]:
    """The writing and the reading connection."""
    length = len(os.fsencode(path.absolute()))
    if length > PATH_BYTES_MAX:
        raise DatabaseError(f"the path has {length} bytes, and SQLite takes {PATH_BYTES_MAX}: choose a shorter one")
    make_file(path)
    deadline = time.monotonic() + OPEN_WAIT
    while True:
        writer = connect(path)
        try:
            _prepare(writer, form)
            _sync_folder(path.parent)
            return writer, connect(path, reading=True)
        except apsw.BusyError:
            # Two processes that turn a new file into a WAL at once: SQLite answers one of them at once, without waiting.
            writer.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.02))
        except BaseException:
            writer.close()
            raise


def make_file(path: Path) -> None:
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


def connect(path: Path, *, reading: bool = False) -> apsw.Connection:
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
