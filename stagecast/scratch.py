"""A folder of a process's own for its Unix sockets. Not under a data folder: the path of a socket has 107 bytes at most."""

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "stagecast-"
MAKING = ".stagecast-"
"""Of a folder that is not locked yet."""
LOCK = "lock"


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` (the system's temporary folder), gone at the end. First removes those that processes of this user
    left there when they were killed: their locks are free. A lock is held by its process and the children that it forked, and
    released by the kernel; unlike a pid it can't be somebody else's, and is seen from other pid namespaces."""
    parent = parent or Path(tempfile.gettempdir())
    _remove_stale(parent)
    making = Path(tempfile.mkdtemp(prefix=MAKING, dir=parent))
    lock = os.open(making / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = parent / (PREFIX + making.name.removeprefix(MAKING))
        making.rename(folder)  # only now may others look at it
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                if folder.name.startswith(f"{PREFIX}{found.st_uid}-"):
                    _remove_bells(folder)
                else:
                    _remove_unlocked(folder)


def _remove_bells(folder: Path) -> None:
    """The folder of a log whose own path is too long for sockets (`stagecast.log.bell`), kept by who listens there: sockets of
    ended processes go, and the folder with the last. Raises OSError while somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        for path in folder.glob("*.sock"):
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
    folder.rmdir()


def _remove_unlocked(folder: Path) -> None:
    """Raises OSError if it is locked, or has no lock: then it is none of ours."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
