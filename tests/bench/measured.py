"""What a benchmark reads of processes: CPU by the scheduler's clock, memory by the kernel's own account."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).parent
CFLAGS = ["-O2", "-Wall", "-Wextra", "-Werror"]


class Unmeasurable(Exception):
    """The benchmark can't run here; the text says what would mend it."""


def compiled(name: str, folder: Path) -> Path:
    """The program of `name`.c, built in `folder`. Raises Unmeasurable without a C compiler."""
    program = folder / name
    try:
        subprocess.run(["cc", *CFLAGS, "-o", str(program), str(SOURCES / f"{name}.c")], check=True)
    except FileNotFoundError as error:
        raise Unmeasurable("the floor is a C program: apt-get install gcc libc6-dev") from error
    return program


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time of these processes, all their threads, ns (/proc/PID/task/*/schedstat)."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes, shared pages divided among their sharers (/proc/PID/smaps_rollup)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Lines:
    """A child that talks in lines; ends with the context."""

    def __init__(self, *command: str, errors: Path | None = None) -> None:
        self._command = command
        self._errors = errors
        """Where its stderr goes; None: to ours."""

    async def __aenter__(self) -> "Lines":
        pipe = asyncio.subprocess.PIPE
        with self._errors.open("ab") if self._errors else contextlib.nullcontext() as errors:
            self.process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=errors)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def hear(self, word: str, timeout: float = 60, skipping: str = "") -> list[str]:
        """The rest of the next line, which must begin with `word`; lines that begin with `skipping` are passed over."""
        assert self.process.stdout is not None
        line = [skipping]
        while line and line[0] == skipping:
            line = (await asyncio.wait_for(self.process.stdout.readline(), timeout)).decode().split()
        if not line or line[0] != word:
            raise Unmeasurable(f"{self._command[0]}: expected {word!r}, got {' '.join(line) or 'its end'}")
        return line[1:]
