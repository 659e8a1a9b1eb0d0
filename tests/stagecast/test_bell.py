"""Bells between processes: hints that may be missed and never block."""

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stagecast.log.bell import PATH_MAX, SUFFIX, Listener, Ringer, bell_folder

WITHIN = 10.0


@pytest.fixture
def file() -> Iterator[Path]:
    """A log in a folder whose path is short enough for sockets, wherever tests keep their data."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite"
        path.touch()
        yield path


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A log whose folder has a path too long for a socket."""
    path = tmp_path / ("d" * 120) / "log.sqlite"
    path.parent.mkdir()
    path.touch()
    return path


async def test_a_ring_is_heard(file: Path) -> None:
    """By every listener, and many rings may be heard as one."""
    first, second = asyncio.Event(), asyncio.Event()
    listeners = [Listener(file, first.set), Listener(file, second.set)]
    ringer = Ringer(file)
    for _ in range(1000):  # more than a socket's queue holds: a full one is passed over
        ringer.ring()
    async with asyncio.timeout(WITHIN):
        await first.wait()
        await second.wait()
    for listener in listeners:
        listener.close()
    ringer.close()


async def test_a_listener_that_ended_is_removed_by_who_rings(file: Path) -> None:
    """A killed process leaves its socket's path behind; it is unlinked at the next ring, a living one stays."""
    heard = asyncio.Event()
    listener = Listener(file, heard.set)
    stale = bell_folder(file) / f"1-dead{SUFFIX}"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(stale))
    dead.close()
    ringer = Ringer(file)
    ringer.ring()
    assert stale.name not in os.listdir(stale.parent)
    assert ringer.stale == 1
    async with asyncio.timeout(WITHIN):
        await heard.wait()
    ringer.close()
    listener.close()


async def test_a_listener_leaves_nothing_behind(file: Path) -> None:
    """Its socket goes with it, the folder with the last one; closing again is no error."""
    listener = Listener(file, lambda: None)
    other = Listener(file, lambda: None)
    assert len(os.listdir(bell_folder(file))) == 2
    listener.close()
    listener.close()
    assert len(os.listdir(bell_folder(file))) == 1
    other.close()
    assert os.listdir(file.parent) == [file.name]


def test_ringing_without_listeners(file: Path) -> None:
    """Nobody ever listened, or what is there is no socket: nothing happens."""
    ringer = Ringer(file)
    ringer.ring()
    bell_folder(file).mkdir()
    (bell_folder(file) / f"file{SUFFIX}").touch()
    (bell_folder(file) / "other").touch()
    ringer.ring()
    assert (bell_folder(file) / "other").exists()
    ringer.close()


async def test_a_long_path_has_its_bells_elsewhere(deep: Path) -> None:
    """In a short folder under the system's temporary one, the same for every process, closed to others."""
    folder = bell_folder(deep)
    assert folder.parent == Path(tempfile.gettempdir())
    assert len(os.fsencode(folder)) < PATH_MAX
    assert folder == bell_folder(deep.parent / ".." / deep.parent.name / deep.name)
    heard = asyncio.Event()
    listener = Listener(deep, heard.set)
    ringer = Ringer(deep)
    try:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        ringer.ring()
        async with asyncio.timeout(WITHIN):
            await heard.wait()
    finally:
        ringer.close()
        listener.close()
    assert folder.name not in os.listdir(folder.parent)


async def test_a_folder_open_to_others_is_not_used(deep: Path) -> None:
    """In a place that everybody may write to, a folder made by somebody else, or a link, is refused: no bell, no harm."""
    folder = bell_folder(deep)
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    try:
        listener = Listener(deep, lambda: None)
        assert os.listdir(folder) == []
        listener.close()
    finally:
        os.rmdir(folder)
    os.symlink(deep.parent, folder)
    try:
        listener = Listener(deep, lambda: None)
        assert os.listdir(deep.parent) == [deep.name]
        listener.close()
    finally:
        os.unlink(folder)
