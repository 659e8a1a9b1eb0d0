"""Other processes of a contract test. As a module it starts and watches them; `python -m tests.contracts.children` is one.

A child prints a line for each thing it did, once that was acknowledged.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kv import OutcomeUnknown, Put, StoreError, open_store
from stagecast.log import LogError, Topic, open_log

ROOT = Path(__file__).parents[2]
LANES = 8
"""Writes that a writing child has under way at once."""


class Child:
    """A process of this module, its output in a file."""

    def __init__(self, folder: Path, number: int, arguments: tuple[str, ...]) -> None:
        self._output = folder / f"child-{number}.out"
        self._errors = folder / f"child-{number}.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.contracts.children", *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=errors,
            )

    @property
    def lines(self) -> list[str]:
        """The whole lines printed so far."""
        text = self._output.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    async def printed(self, count: int, within: float = 30.0) -> list[str]:
        """Its lines, once there are `count`. Raises AssertionError if it ends or takes longer (seconds)."""
        deadline = time.monotonic() + within
        while len(lines := self.lines) < count:
            ended = self._process.poll() is not None
            assert not ended or len(self.lines) >= count, f"ended early: {self._errors.read_text()}"
            assert time.monotonic() < deadline, f"{len(lines)} of {count} lines in {within} s"
            await asyncio.sleep(0.01)
        return lines

    async def ended(self, within: float = 30.0) -> list[str]:
        """Its lines, once it has ended with status 0."""
        deadline = time.monotonic() + within
        while (status := self._process.poll()) is None:
            assert time.monotonic() < deadline, f"still running after {within} s"
            await asyncio.sleep(0.01)
        assert status == 0, self._errors.read_text()
        return self.lines

    def kill(self) -> None:
        """SIGKILL; no effect on one that has ended."""
        self._process.kill()
        self._process.wait()


class Children:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Child] = []

    def start(self, word: str, *arguments: str) -> Child:
        """Starts `word` of this module's functions below."""
        child = Child(self._folder, len(self._all), (word, *arguments))
        self._all.append(child)
        return child

    def end(self) -> None:
        for child in self._all:
            child.kill()


async def append_for_ever(url: str, topic: str, key: str) -> None:
    """Appends n = 0, 1, 2, … under `key`-0 … `key`-7, each key its own count; prints "key n" for each that is acknowledged."""
    log = await open_log(url)

    async def lane(key: str) -> None:
        for n in _forever():
            await _until_acknowledged(lambda n=n: log.append(Topic(topic), key, str(n).encode()))  # type: ignore[misc]
            print(key, n, flush=True)

    await asyncio.gather(*(lane(f"{key}-{i}") for i in range(LANES)))


async def append(url: str, topic: str, key: str, count: str) -> None:
    log = await open_log(url)
    for n in range(int(count)):
        await log.append(Topic(topic), key, str(n).encode())
        print(n, flush=True)
    await log.close()


async def read(url: str, topic: str, key: str, count: str) -> None:
    """Prints "end" once it has the end, then the values under `key` from there on, `count` of them."""
    log = await open_log(url)
    positions = await log.end(Topic(topic))
    print("end", flush=True)
    left = int(count)
    async with contextlib.aclosing(log.read(Topic(topic), positions)) as batches:
        async for batch in batches:
            for record in batch:
                if record.key == key:
                    print(record.value.decode(), flush=True)
                    left -= 1
            if left <= 0:
                break
    await log.close()


async def put_for_ever(url: str, record: str) -> None:
    """Puts items named lane-n with their own name as value; prints each name that is acknowledged."""
    store = await open_store(url)

    async def lane(number: int) -> None:
        for n in _forever():
            key = f"{number}-{n}"
            await _until_acknowledged(lambda key=key: store.put([Put(record, key, key.encode())]))  # type: ignore[misc]
            print(key, flush=True)

    await asyncio.gather(*(lane(number) for number in range(LANES)))


async def set_for_ever(url: str, record: str, key: str) -> None:
    """Sets one item by compare-and-set again and again; prints each version that is acknowledged."""
    store = await open_store(url)
    while True:
        try:
            found = await store.read(record, key)
            now = found.version if found else None
            if done := await store.compare_and_set(record, key, str(now).encode(), now):
                print(done.version, flush=True)
        except StoreError:
            await asyncio.sleep(0.05)  # else it takes a core from the server that is coming back


async def increment(url: str, record: str, key: str, count: str) -> None:
    """Sets one item `count` times successfully, against others that do the same; prints the versions."""
    store = await open_store(url)
    for n in range(int(count)):
        value = f"{os.getpid()}-{n}".encode()
        done = None
        while done is None:
            found = await store.read(record, key)
            try:
                done = await store.compare_and_set(record, key, value, found.version if found else None)
            except OutcomeUnknown:
                found = await store.read(record, key)
                done = found if found and found.value == value else None
        print(done.version, flush=True)
    await store.close()


def _forever() -> range:
    return range(sys.maxsize)


async def _until_acknowledged(act: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await act()
        except (LogError, StoreError):
            await asyncio.sleep(0.05)


WORDS = {
    "append-for-ever": append_for_ever,
    "append": append,
    "read": read,
    "put-for-ever": put_for_ever,
    "set-for-ever": set_for_ever,
    "increment": increment,
}

if __name__ == "__main__":
    asyncio.run(WORDS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]
