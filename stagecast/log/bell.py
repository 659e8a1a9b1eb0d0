"""Bells between the processes of one machine: "something was committed, look". A hint and nothing more: who looks reads the
file, and looks now and then without being rung too (measured: commit → row seen 0.8 ms by datagram, 4.8 ms by polling every
5 ms; inotify fires before the commit can be seen and not after).

Each listening process binds a Unix datagram socket in one folder beside the file; ringing sends one byte to every socket there.
"""

import asyncio
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path

PATH_MAX = 103
"""Bytes of a socket's path, without the final zero; Linux takes 107, others 103."""
NAME_MAX = 24
BIND_TRIES = 5
SUFFIX = ".sock"

logger = logging.getLogger(__name__)


def bell_folder(file: Path) -> Path:
    """The folder for `file`'s sockets: `notify/` beside it, or one under the system's folder for temporary files if that path is
    too long for a socket. Every process that opens `file` by any path arrives at the same one."""
    file = file.resolve()
    folder = file.parent / "notify"
    if len(os.fsencode(folder)) + 1 + NAME_MAX <= PATH_MAX:
        return folder
    short = sha256(os.fsencode(file)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"stagecast-{file.stat().st_uid}-{short}"


class Ringer:
    """Rings every bell of a file that exists by then. `ring` may be called on any one thread, and never blocks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.stale = 0
        """Sockets of ended processes, removed."""

    @cached_property
    def _folder(self) -> Path:
        return bell_folder(self._file)

    def ring(self) -> None:
        try:
            names = os.listdir(self._folder)
        except OSError:  # nobody listens, or the file is gone
            return
        for name in names:
            if name.endswith(SUFFIX):
                self._ring_one(self._folder / name)

    def _ring_one(self, path: Path) -> None:
        try:
            self._socket.sendto(b"!", str(path))
        except BlockingIOError:
            pass  # it has unread rings already
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            self.stale += 1
        except OSError as error:  # gone, or not ours
            logger.debug("%s: %s", path, error)

    def close(self) -> None:
        self._socket.close()


class Listener:
    """A bell of this process: `heard` is called on the event loop after one or more rings. No socket to be had (an unwritable
    folder, somebody else's) means no rings."""

    def __init__(self, file: Path, heard: Callable[[], None]) -> None:
        folder = bell_folder(file)
        self._loop = asyncio.get_running_loop()
        self._heard = heard
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._socket: socket.socket | None = None
        try:
            self._socket = _bind(self._path)
        except OSError as error:
            logger.warning("%s: no bell, looking every so often instead: %s", self._path, error)
        else:
            self._loop.add_reader(self._socket.fileno(), self._ready)

    def _ready(self) -> None:
        if self._socket is None:
            return
        try:
            while self._socket.recv(16):
                pass
        except BlockingIOError:
            pass
        self._heard()

    def close(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: others listen
            self._path.parent.rmdir()


def _bind(path: Path) -> socket.socket:
    """A socket at `path`. Raises OSError."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.setblocking(False)
    for left in reversed(range(BIND_TRIES)):
        try:
            _make_folder(path.parent)
            bound.bind(str(path))
        except FileNotFoundError:  # the last listener of before took the folder away meanwhile
            if not left:
                bound.close()
                raise
        except OSError:
            bound.close()
            raise
        else:
            break
    return bound


def _make_folder(folder: Path) -> None:
    """Makes the folder, for its owner alone. Raises PermissionError if somebody else made it (the system's temporary folder is
    everybody's)."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not for its owner alone")
    if found.st_uid not in (os.geteuid(), folder.parent.stat().st_uid):
        raise PermissionError(f"{folder} belongs to user {found.st_uid}")
