"""`python -m tests.bench.watched FOLDER COMMAND …`: `stagecast COMMAND …` whose processes say what their garbage collector does.

FOLDER/PID gets a line per collection: when it began (CLOCK_MONOTONIC ns), how long it held the process (ns), which generation.
SIGUSR2 makes a process collect everything, at a moment of the benchmark's choice.
"""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stagecast.cli import main


@dataclass(frozen=True)
class Collection:
    began: int
    ns: int
    generation: int


def collections(folder: Path, pid: int) -> list[Collection]:
    """What a process has said so far."""
    file = folder / str(pid)
    lines = file.read_text().splitlines() if file.exists() else []
    return [Collection(*map(int, line.split())) for line in lines]


def note(folder: Path) -> Callable[[str, dict[str, int]], None]:
    """A callback for `gc.callbacks`, good over a fork."""
    began = 0

    def called(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        now = time.monotonic_ns()
        if phase == "start":
            began = now
            return
        with (folder / str(os.getpid())).open("a") as out:
            out.write(f"{began} {now - began} {info['generation']}\n")

    return called


if __name__ == "__main__":
    gc.callbacks.append(note(Path(sys.argv.pop(1))))
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    sys.argv[0] = "stagecast"
    main()
