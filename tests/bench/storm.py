"""A worker with all devices is killed, and all go at once, unpaced, to another host's one worker: kill → the last welcome."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator

import httpx

from tests.bench.measured import Lines, Unmeasurable
from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, devices, host, write_hellos


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    seconds, overflows, again = [], [], []
    for _ in range(options.rounds):
        async with host(bench, host="first") as first:
            hellos = write_hellos(bench, first, options.connections)
            async with devices(bench, first, hellos, options.connections) as lines:
                await lines.hear("ready", 120)
                async with beside(bench, first) as port:
                    await settled(first)
                    await first.publish(first.first_seq)
                    await lines.hear("seq", 30)
                    lines.say(f"again {port}")
                    await asyncio.sleep(0.2)
                    began = time.monotonic_ns()
                    os.kill(first.pids[1], signal.SIGKILL)
                    last, refused, overflown, least = await lines.hear("back", 60)
                    if int(least) < first.first_seq:
                        raise Unmeasurable(f"a welcome brought seq {least}, the head is {first.first_seq}")
                    seconds.append((int(last) - began) / 1e9)
                    again.append(float(refused))
                    overflows.append(float(overflown))
    return [
        Figure("kill → the last of all welcomed with the head", seconds, "s", "≤ 1.5", key="storm"),
        Figure("accept queue overflows", overflows, "", "printed"),
        Figure("connects that had to be tried again", again, "", "none for good"),
    ]


@contextlib.asynccontextmanager
async def beside(bench: Bench, first: Server) -> AsyncIterator[int]:
    """A second host with one worker, on the same log and store; its port."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        admin, port = f"127.0.0.1:{one.getsockname()[1]}", other.getsockname()[1]
    command = [sys.executable, "-m", "stagecast.cli", "pushy", "--data", str(first.data), "--host", "second"]
    command += ["--ws", f"127.0.0.1:{port}", "--admin", admin, "--ping", "600"]
    async with Lines(*command, errors=bench.folder / "errors.txt"), httpx.AsyncClient() as client:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://{admin}/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        yield port
