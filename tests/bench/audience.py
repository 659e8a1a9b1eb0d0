"""The devices of one server: C programs, one for every 15,000 connections, each with source addresses of its own."""

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measured import Lines, Unmeasurable

WINDOW = 256
"""Handshakes in flight, of all processes together."""
PER_PROCESS = 15_000
"""Connections of a process: below the 20,000 descriptors that it may have, and 18,000 of one worker fit into one."""
MOST_IN_ONE = 18_000
PER_SOURCE = 3000
"""Connections from one source address: far from the end of its ports."""


@dataclass(frozen=True)
class Connected:
    """How it went until all had their welcome."""

    seconds: float
    refused: int
    dropped: int
    """What the kernel dropped at listening sockets meanwhile (ListenDrops, of the whole machine)."""


@dataclass(frozen=True)
class Heard:
    """When a state was read, CLOCK_MONOTONIC ns, and by whom last: (process, connection)."""

    first: int
    last: int
    who: tuple[int, int]
    came: int
    """When the first of its bytes came to a device's socket, by the kernel, after `stamp`; without it as `first`, about."""


def shares(count: int, processes: int) -> list[int]:
    """`count` divided as evenly as can be."""
    return [count // processes + (i < count % processes) for i in range(processes)]


def processes_for(most: int) -> int:
    return 1 if most <= MOST_IN_ONE else -(-most // PER_PROCESS)


class Audience:
    """Devices that connect when told."""

    def __init__(
        self,
        program: Path,
        port: int,
        hellos: list[Path] | None,
        parts: list[int],
        *,
        cores: Collection[int] = (),
        window: int = WINDOW,
        small: int = 0,
        number: int = 1,
    ) -> None:
        """`hellos`: a file per process; None: the upgrade is the welcome. `parts`: connections of each process at most.
        `number` tells the audiences of one run apart by their source addresses."""
        self.connections = 0
        self._lines = [
            Lines(
                str(program), "127.0.0.1", str(port), str(most), str(max(1, window // len(parts))),
                f"127.{number}.{i + 1}.1", str(max(4, -(-most // PER_SOURCE))),
                str(hellos[i]) if hellos else "-", str(small), cores=cores,
            )
            for i, most in enumerate(parts)
        ]  # fmt: skip
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Audience":
        for lines in self._lines:
            await self._stack.enter_async_context(lines)
        await self.hear("loaded")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def pids(self) -> list[int]:
        return [lines.pid for lines in self._lines]

    def say(self, line: str) -> None:
        for lines in self._lines:
            lines.say(line)

    async def hear(self, word: str, timeout: float = 60, skipping: str = "") -> list[list[str]]:
        """The rest of each process's next line, which must begin with `word`."""
        return await asyncio.gather(*(lines.hear(word, timeout, skipping) for lines in self._lines))

    async def go(self, more: int, timeout: float = 120) -> Connected:
        """Connects `more` devices, and waits until all have their welcome."""
        for lines, share in zip(self._lines, shares(more, len(self._lines)), strict=True):
            lines.say(f"go {share}")
        told = await self.hear("ready", timeout)
        self.connections += more
        began, last = min(int(one[0]) for one in told), max(int(one[1]) for one in told)
        return Connected((last - began) / 1e9, sum(int(one[2]) for one in told), max(int(one[3]) for one in told))

    async def close(self) -> None:
        """Ends all connections; `go` begins at the first device again."""
        self.say("close")
        await self.hear("closed")
        self.connections = 0

    def stamp(self) -> None:
        """From now on the kernel notes when states come to the sockets of the devices that are connected."""
        self.say("stamp")

    async def read(self, seq: int, timeout: float = 60) -> Heard:
        """Waits until all devices have the state of `seq`."""
        told = await asyncio.gather(*(self._read(lines, seq, timeout) for lines in self._lines))
        last, process = max((int(one[5]), i) for i, one in enumerate(told))
        who, came = (process, int(told[process][6])), min(int(one[7]) for one in told)
        return Heard(min(int(one[2]) for one in told), last, who, came)

    @staticmethod
    async def _read(lines: Lines, seq: int, timeout: float) -> list[str]:
        while True:
            got = await lines.hear("seq", timeout)
            if int(got[0]) == seq:
                return got
            if int(got[0]) > seq:
                raise Unmeasurable(f"seq {got[0]} came before {seq}")
