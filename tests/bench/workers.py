"""1, 2 and 4 workers of one host: CPU per delivery, and how evenly the connections are shared."""

import asyncio
from argparse import Namespace

from tests.bench.rounds import Round, measure
from tests.bench.table import Figure
from tests.bench.world import Bench, host, write_hellos

COUNTS = (1, 2, 4)


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found: dict[int, list[Round]] = {count: [] for count in COUNTS}
    for _ in range(options.rounds):
        for count in COUNTS:
            async with host(bench, workers=count) as server:
                hellos = write_hellos(bench, server, options.connections)
                await asyncio.sleep(0.5)  # all of them listen
                found[count].append(await measure(bench, server, hellos, options.connections, options.publishes))
    one = [r.cpu_us for r in found[1]]
    figures = [Figure("1 worker: CPU per delivery", one, "µs")]
    for count in COUNTS[1:]:
        against = [100 * (r.cpu_us / base - 1) for r, base in zip(found[count], one, strict=True)]
        uneven = [100 * max(abs(share - 1 / count) for share in r.shares) for r in found[count]]
        key = "workers_even" if count == COUNTS[-1] else ""
        figures += [
            Figure(f"{count} workers: CPU per delivery", [r.cpu_us for r in found[count]], "µs"),
            Figure(f"{count} workers: more than one worker", against, "%", "≤ 10"),
            Figure(f"{count} workers: farthest from an even share", uneven, "points", "≤ 5", key=key),
        ]
    return figures
