"""One SQLite file shared by processes: what `Database` promises."""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from stagecast.sqlite import Database, DatabaseError, Format, Upkeep, Work, check_version, path_of, rows
from stagecast.sqlite.backlog import BACKLOG_WEIGHT
from stagecast.sqlite.database import REST_WEIGHT
from stagecast.sqlite.file import PATH_BYTES_MAX, open_file
from tests.stagecast.faulty_disk import FaultyDisk

FORMAT = Format("test", 0x54455354, "CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT")


def insert(number: int) -> Work[int]:
    def work(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return work


def numbers(database: Database) -> list[int]:
    with database.snapshot() as reader:
        return [n for (n,) in rows(reader, "SELECT n FROM numbers ORDER BY n")]


def locks(path: Path) -> list[str]:
    """The locks on a file that the kernel knows of."""
    inode = f":{path.stat().st_ino} "
    return [line.split(": ", 1)[1] for line in Path("/proc/locks").read_text().splitlines() if inode in line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "numbers.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(path, FORMAT, Upkeep())
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/log.sqlite", "/var/lib/log.sqlite"),
        ("sqlite:////var/lib/log.sqlite", "/var/lib/log.sqlite"),
        ("sqlite:///a%20b/%C3%BC", "/a b/ü"),
    ],
)
def test_a_url_names_an_absolute_path(url: str, path: str) -> None:
    """Three slashes or four, and percent-encoding."""
    assert path_of(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite://host/path", "sqlite:///path?mode=ro", "sqlite:///path#x", "kafka:///path"],
)
def test_a_url_of_anything_else_is_refused(url: str) -> None:
    """A host, an option or no path is a mistake, not to be guessed at."""
    with pytest.raises(ValueError, match="sqlite:///path"):
        path_of(url)


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_an_old_sqlite_is_refused(version: str) -> None:
    """It can corrupt a WAL that two connections write; the error says what is needed."""
    with pytest.raises(DatabaseError, match=r"3\.51\.3 or newer"):
        check_version(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.53.0", "4.0"])
def test_a_current_sqlite_is_taken(version: str) -> None:
    """The first release with the fix, and those after it."""
    check_version(version)


async def test_files_are_for_their_owner_alone(database: Database, path: Path) -> None:
    """The folder that was made is 0700; the file, its WAL and its index are 0600; nothing else is left there."""
    await database.write(insert(1))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert modes == dict.fromkeys(("numbers.sqlite", "numbers.sqlite-wal", "numbers.sqlite-shm"), 0o600)


async def test_a_commit_waits_for_the_disk(database: Database) -> None:
    """WAL and synchronous=FULL (2): a power cut loses nothing acknowledged; NORMAL lost everything in a trial."""
    modes = await database.write(lambda c: (c.pragma("synchronous"), c.pragma("journal_mode")))
    assert modes == (2, "wal")


async def test_opening_at_once(path: Path) -> None:
    """Many that open a file that is not there yet all get the same one."""
    opened = await asyncio.gather(*(Database.open(path, FORMAT, Upkeep()) for _ in range(8)))
    await asyncio.gather(*(database.write(insert(n)) for n, database in enumerate(opened)))
    assert numbers(opened[0]) == list(range(8))
    await asyncio.gather(*(database.close() for database in opened))


async def test_a_file_of_another_kind_is_refused(database: Database, path: Path, tmp_path: Path) -> None:
    """A log is no store; a text is no database. Neither is changed."""
    other = Format("other thing", 0x4F544852, "CREATE TABLE things (n)")
    with pytest.raises(DatabaseError, match="not a other thing"):
        await Database.open(path, other, Upkeep())
    await database.write(insert(1))

    text = tmp_path / "text"
    text.write_text("not a database, and longer than its header of a hundred bytes " * 20)
    before = text.read_bytes()
    with pytest.raises(DatabaseError):
        await Database.open(text, FORMAT, Upkeep())
    assert text.read_bytes() == before


async def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    """Opening under a file says so."""
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="file"):
        await Database.open(tmp_path / "file" / "x.sqlite", FORMAT, Upkeep())


async def test_what_waits_is_committed_together(path: Path) -> None:
    """100 writes at once are a few transactions, and each gets its own result."""
    commits = 0

    def committed() -> None:
        nonlocal commits
        commits += 1

    database = await Database.open(path, FORMAT, Upkeep(after_commit=committed))
    assert await asyncio.gather(*(database.write(insert(n)) for n in range(100))) == list(range(100))
    assert commits <= 50
    await database.close()


async def test_a_write_that_fails_spoils_no_other(database: Database) -> None:
    """Of a group, only the write that SQLite refuses, or that raises by itself, fails; nothing of it stays."""

    def spoiled(connection: apsw.Connection) -> None:
        insert(1000)(connection)
        raise LookupError("mine")

    outcomes = await asyncio.gather(
        database.write(insert(1)),
        database.write(insert(1)),
        database.write(spoiled),
        database.write(insert(2)),
        return_exceptions=True,
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], DatabaseError)
    assert isinstance(outcomes[1].__cause__, apsw.ConstraintError)
    assert not outcomes[1].unknown
    assert isinstance(outcomes[2], LookupError)
    assert outcomes[3] == 2
    assert numbers(database) == [1, 2]


async def test_a_full_disk(path: Path) -> None:
    """Writes fail and are surely not done, reads go on; with space again, writes go on. Nothing acknowledged is lost."""
    with FaultyDisk() as disk:
        database = await Database.open(path, FORMAT, Upkeep())
        await database.write(insert(1))
        disk.full = True
        outcomes = await asyncio.gather(*(database.write(insert(n)) for n in range(2, 6)), return_exceptions=True)
        assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
        assert numbers(database) == [1]
        disk.full = False
        await database.write(insert(10))
        assert numbers(database) == [1, 10]
        await database.close()
    reopened = await Database.open(path, FORMAT, Upkeep())
    assert numbers(reopened) == [1, 10]
    await reopened.close()


async def test_a_sync_that_fails_leaves_the_outcome_unknown(path: Path) -> None:
    """The WAL holds the transaction whole, a crash could bring it back: the error says so, and no reader sees it meanwhile."""
    with FaultyDisk() as disk:
        database = await Database.open(path, FORMAT, Upkeep())
        await database.write(insert(1))
        disk.broken = True
        with pytest.raises(DatabaseError) as caught:
            await database.write(insert(2))
        assert caught.value.unknown
        assert numbers(database) == [1]
        disk.broken = False
        await database.write(insert(3))
        assert numbers(database) == [1, 3]
        await database.close()


async def test_a_locked_file_is_surely_not_written(database: Database, path: Path) -> None:
    """Another's transaction that does not end: the write fails within 5 s and did not happen."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DatabaseError) as caught:
            await database.write(insert(1))
        assert not caught.value.unknown
    finally:
        other.execute("ROLLBACK")
        other.close()
    await database.write(insert(2))
    assert numbers(database) == [2]


async def test_the_backlog_is_bounded(database: Database) -> None:
    """Writes beyond it are refused at once and counted; those that wait are done."""
    entered, leave = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(_: apsw.Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        leave.wait(10)

    writes: list[asyncio.Future[int | None]] = [asyncio.ensure_future(database.write(slow))]
    await entered.wait()
    writes += [asyncio.ensure_future(database.write(insert(n), BACKLOG_WEIGHT // 4)) for n in range(6)]
    await asyncio.sleep(0)
    leave.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(outcome, DatabaseError) for outcome in outcomes] == [False] * 5 + [True] * 2
    assert database.refused == 2
    assert numbers(database) == [0, 1, 2, 3]


async def test_a_caller_that_goes_away_disturbs_nobody(database: Database) -> None:
    """A cancelled write may happen or not; the others do."""
    gone = asyncio.ensure_future(database.write(insert(1)))
    await asyncio.sleep(0)
    gone.cancel()
    await database.write(insert(2))
    assert 2 in numbers(database)
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_replaced_file_is_noticed(database: Database, path: Path) -> None:
    """What is written to a file that nobody can find any more would be lost: neither writes nor reads pretend."""
    await database.write(insert(1))
    replacement = await Database.open(path.with_suffix(".other"), FORMAT, Upkeep())
    await replacement.close()
    os.rename(path.with_suffix(".other"), path)
    with pytest.raises(DatabaseError, match="replaced"):
        await database.write(insert(2))
    with pytest.raises(DatabaseError, match="replaced"):
        numbers(database)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's table of locks: only Linux shows it")
async def test_locks_survive_a_second_opening(database: Database, path: Path) -> None:
    """POSIX locks go with any closed descriptor of a file: opening it again in this process must not open it by the way."""
    await database.write(insert(1))
    held = locks(path)
    assert held
    again = await Database.open(path, FORMAT, Upkeep())
    assert locks(path) == held
    await again.close()
    assert locks(path) == held


async def test_closing_waits_for_what_was_asked(path: Path) -> None:
    """Writes under way are done, later ones refused; closing again is no error."""
    database = await Database.open(path, FORMAT, Upkeep())
    writes = [asyncio.ensure_future(database.write(insert(n))) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == list(range(20))
    with pytest.raises(DatabaseError, match="closed"):
        await database.write(insert(21))
    with pytest.raises(DatabaseError, match="closed"):
        numbers(database)
    await database.close()


async def test_tidying_goes_on_until_nothing_is_left(path: Path) -> None:
    """After a first write, batch after batch, without being asked; a failure is tried again."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    calls = 0

    def tidy(connection: apsw.Connection) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise apsw.IOError("once")
        connection.execute("DELETE FROM numbers WHERE n IN (SELECT n FROM numbers LIMIT 2)")
        more = connection.changes() > 0
        if not more:
            loop.call_soon_threadsafe(done.set)
        return more

    database = await Database.open(path, FORMAT, Upkeep(tidy=tidy, every=0.01))
    for n in range(5):
        await database.write(insert(n))
    async with asyncio.timeout(10):
        while numbers(database):
            done.clear()
            await done.wait()
    await database.close()


async def test_a_burst_leaves_no_memory_behind(database: Database) -> None:
    """The pages that many writes needed are given back soon after the last of them."""
    before = apsw.memory_used()

    def work(connection: apsw.Connection) -> None:
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(100_000)])

    await database.write(work, REST_WEIGHT)
    assert apsw.memory_used() - before > 500_000
    async with asyncio.timeout(10):
        while apsw.memory_used() - before > 100_000:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert await database.write(insert(-1)) == -1


def test_a_path_too_long_for_sqlite(tmp_path: Path) -> None:
    """Refused with its length and the bound, which is SQLite's own: a byte less is opened."""
    folder = tmp_path
    while len(str(folder)) < PATH_BYTES_MAX - 250:
        folder /= "a" * 100
    file = folder / ("b" * (PATH_BYTES_MAX - len(str(folder)) - 1))
    for connection in open_file(file, FORMAT):
        connection.close()
    with pytest.raises(DatabaseError, match="the path has 505 bytes, and SQLite takes 504"):
        open_file(file.with_name(file.name + "b"), FORMAT)
