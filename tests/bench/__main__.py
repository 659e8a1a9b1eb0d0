"""`python -m tests.bench [NAME …]`: what a host costs, beside a bare C send() loop in the same run.

NAMEs: fanout, connect, workers, growth, slow, storm, idle, latency, receipts, explain; without one: those of `make bench`,
some 3 minutes.
Servers are real processes on the embedded log and store, fresh for each round; devices are C programs. Ratios are taken within
a round, since machines are noisy: read those, not the figures. CPU is that of all the server's processes; on loopback send()
pays the receiver's TCP work too, for the floor as well.
"""

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.measured import Unmeasurable
from tests.bench.table import Figure, show, write
from tests.bench.world import prepare

ROUNDS, ROUNDS_FULL = {"fanout": 3}, 5
NAMES = ("fanout", "connect", "workers", "growth", "slow", "storm", "idle", "latency", "receipts", "explain")
QUICK = ("fanout", "connect", "storm", "slow", "latency", "explain")


async def run(options: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="stagecast-bench-") as made:
        bench = prepare(Path(made))
        for name in options.names or (NAMES if options.full else QUICK):
            chosen = argparse.Namespace(**vars(options))
            chosen.rounds = options.rounds or (ROUNDS_FULL if options.full else ROUNDS.get(name, 1))
            began = time.monotonic()
            module = importlib.import_module(f"tests.bench.{name}")
            found: list[Figure] = await module.run(bench, chosen)
            title = (module.__doc__ or name).splitlines()[0]
            show(f"{name}: {title} ({options.connections:,} connections, {time.monotonic() - began:.0f} s)", found)
            figures += found
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--publishes", type=int, default=20, help="broadcasts measured in a round")
    parser.add_argument("--rounds", type=int, help="3 for fanout and 1 for the others, or 5 with --full")
    parser.add_argument("--full", action="store_true", help="all of them, with 5 rounds each: an hour")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures too")
    options = parser.parse_args()
    try:
        figures = asyncio.run(run(options))
    except Unmeasurable as why:
        print(f"bench: {why}", file=sys.stderr)
        return 1
    if options.json:
        write(figures, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
