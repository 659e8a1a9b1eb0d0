"""`python -m tests.bench [NAME …]`: what a host costs, beside a bare C send() loop in the same run.

NAMEs: fanout, connect, storm, pauses, workers, slow, latency, idle: those of `make bench`, some 5 minutes. Besides, in
`make bench-full`: growth, sixty, peers, receipts, explain.
Servers are real processes, devices are C programs; contenders that are compared are all up at once and take turns, and a ratio
is taken within a round, since machines are noisy: read those, not the figures. Servers have one core and devices another, all
contenders alike. CPU is that of all the server's processes; on loopback send() pays the receiver's TCP work too, for the floor
as well.
"""

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

from tests.bench.measured import Unmeasurable
from tests.bench.page import renew
from tests.bench.table import KEYS, Figure, show, write
from tests.bench.world import prepare

QUICK = ("fanout", "connect", "storm", "pauses", "workers", "slow", "latency", "idle")
CONNECTIONS = 10_000
NAMES = (*QUICK, "growth", "sixty", "peers", "receipts", "explain")


async def run(options: argparse.Namespace) -> tuple[list[Figure], list[str]]:
    """The figures, and the benchmarks that could not be run to their end."""
    figures: list[Figure] = []
    failed: list[str] = []
    names = options.names or (NAMES if options.full else QUICK)
    with tempfile.TemporaryDirectory(prefix="stagecast-bench-") as made:
        bench = prepare(Path(made), pinned=not options.any_core)
        for name in names:
            began = time.monotonic()
            print(f"\n{name} …", flush=True)
            module = importlib.import_module(f"tests.bench.{name}")
            try:
                found: list[Figure] = await module.run(bench, options)
            except (Unmeasurable, TimeoutError, httpx.HTTPError) as why:
                print(f"{name}: {str(why) or type(why).__name__}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
            title = (module.__doc__ or name).splitlines()[0]
            show(f"{name}: {title} ({options.connections:,} connections, {time.monotonic() - began:.0f} s)", found)
            figures += found
            if options.json:
                write(figures, options.json, add=bool(options.names))
            if options.page:
                renew(options.page, name, found, named(name, options), datetime.now().astimezone())
    return figures, failed


def named(name: str, options: argparse.Namespace) -> list[str]:
    """The arguments that run this one again."""
    rounds = [] if options.rounds is None else ["--rounds", str(options.rounds)]
    many = [] if options.connections == CONNECTIONS else ["--connections", str(options.connections)]
    flags = [f"--{flag.replace('_', '-')}" for flag in ("full", "any_core") if getattr(options, flag)]
    return [name, *flags, *rounds, *many]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, help="fresh starts of all servers; each benchmark has its own number")
    parser.add_argument(
        "--any-core", action="store_true", help="servers and devices are not kept to cores of their own"
    )
    parser.add_argument("--full", action="store_true", help="all of them, with more rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures too; with NAMEs it adds them")
    parser.add_argument("--page", type=Path, metavar="FILE", help="renews the sections of docs/performance.md")
    options = parser.parse_args()
    try:
        figures, failed = asyncio.run(run(options))
    except Unmeasurable as why:
        print(f"bench: {why}", file=sys.stderr)
        return 1
    missing = set() if options.names else set(KEYS) - {one.key for one in figures}
    if failed or missing:
        print(
            f"bench: failed: {', '.join(failed) or '-'}; not measured: {', '.join(sorted(missing)) or '-'}",
            file=sys.stderr,
        )
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
