"""A server as a JVM of this machine."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# PR_SET_PDEATHSIG (1) is kept across exec: whoever ends this process, SIGKILL included, the kernel ends the server too. Set
# by a program of its own and not by preexec_fn, which isn't safe beside threads. The parent may be gone before it is set.
_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

# The kernel counts the end of the *thread* that forked, so a server started in a test's passing thread (asyncio.to_thread)
# would die with it. This one thread lives as long as the process.
_LAUNCHER = ThreadPoolExecutor(1, "server-launcher")


class JvmProcess:
    """Runs `command` in `folder`, output to `out.log` there. Dies with this process. Keeps nothing but its folder."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def launch(self) -> None:
        self._process = _LAUNCHER.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self._folder / "out.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-SE", "-c", _TIED, str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def output(self) -> str:
        return (self._folder / "out.log").read_text(errors="replace")

    def remove(self) -> None:
        """Nothing is left but the folder, which is its maker's."""
