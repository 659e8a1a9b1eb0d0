"""What a benchmark reads of processes: CPU by the scheduler's clock, memory by the kernel's own account."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Collection, Iterable, Iterator
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
    return _schedstat(pids, 0)


def waited_ns(pids: Iterable[int]) -> int:
    """How long these processes were ready to run and something else had their core, ns."""
    return _schedstat(pids, 1)


def _schedstat(pids: Iterable[int], field: int) -> int:
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
                total += int((task / "schedstat").read_text().split()[field])
    return total


def softirq_threads(cores: Collection[int]) -> list[int]:
    """The kernel's threads that go on with these cores' interrupts when a process has done too much of them (ksoftirqd): what
    they do for a server is not in its own account."""
    wanted = {f"ksoftirqd/{core}" for core in cores}
    return [int(one.parent.name) for one in Path("/proc").glob("[0-9]*/comm") if _read(one) in wanted]


def _read(file: Path) -> str:
    try:
        return file.read_text().rstrip("\n")
    except OSError:  # a process that ended meanwhile
        return ""


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes, shared pages divided among their sharers (/proc/PID/smaps_rollup)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def children(pid: int) -> list[int]:
    """The processes that it has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores alone; on any that this process may use if there are none."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Lines:
    """A child that talks in lines; ends with the context."""

    def __init__(self, *command: str, errors: Path | None = None, cores: Collection[int] = (), cwd: Path | None = None):
        self._command = command
        self._errors = errors
        """Where its stderr goes; None: to ours."""
        self._cores = cores
        self._cwd = cwd

    async def __aenter__(self) -> "Lines":
        pipe = asyncio.subprocess.PIPE
        with self._errors.open("ab") if self._errors else contextlib.nullcontext() as errors, on_cores(self._cores):
            self.process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=errors, cwd=self._cwd
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def hear(self, word: str, timeout: float = 60, skipping: str = "") -> list[str]:
        """The rest of the next line, which must begin with `word`; lines that begin with `skipping` are passed over."""
        assert self.process.stdout is not None
        line = [skipping]
        while line and line[0] == skipping:
            try:
                line = (await asyncio.wait_for(self.process.stdout.readline(), timeout)).decode().split()
            except TimeoutError:
                raise Unmeasurable(f"{self._command[0]}: no {word!r} within {timeout:.0f} s") from None
        if not line or line[0] != word:
            raise Unmeasurable(f"{self._command[0]}: expected {word!r}, got {' '.join(line) or 'its end'}")
        return line[1:]
