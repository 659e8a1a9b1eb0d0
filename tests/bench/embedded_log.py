"""How soon another process sees a record of the embedded log: `python -m tests.bench.embedded_log [--count N] [--gap MS]`.

One process appends, another reads, both on uvloop as in production, the file where temporary files are (`TMPDIR` sets the disk).
Prints p50, p99 and the greatest, in ms: append → acknowledged (durable), append → seen by the other process, and the difference,
which is what the ring, the wake-up and the read cost. `--silent` takes the sockets away, and leaves the 250 ms poll alone.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from stagecast.log import Topic, open_log


def reader(url: str, count: int, answers: Connection) -> None:
    """Sends when each record was seen, ns of the clock that all processes share."""

    async def read() -> None:
        log = await open_log(url)
        seen: list[int] = []
        async with aclosing(log.read(Topic.EVENTS, await log.end(Topic.EVENTS))) as batches:
            answers.send("ready")
            async for batch in batches:
                seen += [time.monotonic_ns()] * len(batch)
                if len(seen) >= count:
                    break
        await log.close()
        answers.send(seen)

    uvloop.run(read())


async def append(url: str, count: int, gap: float) -> tuple[list[int], list[int]]:
    """When each append began and when it was acknowledged, ns."""
    log = await open_log(url)
    began, acknowledged = [], []
    for _ in range(count):
        await asyncio.sleep(gap)
        began.append(time.monotonic_ns())
        await log.append(Topic.EVENTS, "bench", b"x" * 200)
        acknowledged.append(time.monotonic_ns())
    await log.close()
    return began, acknowledged


def line(name: str, ns: Sequence[int]) -> str:
    ordered = sorted(value / 1e6 for value in ns)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"{name:<24} p50 {p50:6.2f}   p99 {p99:6.2f}   max {ordered[-1]:6.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--gap", type=float, default=20, metavar="MS")
    parser.add_argument("--silent", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/log.sqlite"
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=reader, args=(url, arguments.count, there))
        process.start()
        here.recv()
        time.sleep(0.1)  # the reader is asleep by then
        if arguments.silent:
            for socket in Path(folder, "notify").iterdir():
                socket.unlink()
        began, acknowledged = uvloop.run(append(url, arguments.count, arguments.gap / 1000))
        seen: list[int] = here.recv()
        process.join()
    print(line("append → acknowledged", [a - b for a, b in zip(acknowledged, began, strict=True)]))
    print(line("append → seen elsewhere", [s - b for s, b in zip(seen, began, strict=True)]))
    print(line("acknowledged → seen", [s - a for s, a in zip(seen, acknowledged, strict=True)]))


if __name__ == "__main__":
    main()
