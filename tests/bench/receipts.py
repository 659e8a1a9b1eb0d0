"""What receipts cost: CPU per delivery when nobody, one in a hundred, or every device acknowledges."""

from argparse import Namespace
from pathlib import Path

from msgspec.structs import replace

from stagecast.broadcast import AckPolicy, encode_broadcast
from stagecast.log import Topic, open_log
from tests.bench.measured import Unmeasurable, cpu_ns
from tests.bench.paired import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, broadcast, devices, gauge, host

SHARES = {"none": 0.0, "1 %": 0.01, "all": 1.0}
PUBLISHES = 5
WARM_UPS = 2
AUDIENCE = 100_000_000
"""Devices of the arithmetic."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    found: dict[str, list[float]] = {name: [] for name in SHARES}
    for _ in range(options.rounds or (5 if options.full else 1)):
        async with host(bench) as server, devices(bench, server, options.connections) as audience:
            await audience.go(options.connections)
            await settled(server)
            seq = server.first_seq
            for name, share in SHARES.items():
                before = 0
                for number in range(WARM_UPS + PUBLISHES):
                    if number == WARM_UPS:
                        await settled(server)
                        before = cpu_ns(server.pids)
                    await _publish(server, seq, share)
                    await audience.read(seq)
                    seq += 1
                await settled(server)
                found[name].append((cpu_ns(server.pids) - before) / PUBLISHES / options.connections / 1000)
            if await gauge(server.admin, "stagecast_connections") < options.connections:
                raise Unmeasurable("the host closed connections: acks that it did not ask for?")
    none = found["none"]
    figures = []
    for name, costs in found.items():
        figures.append(Figure(f"acks of {name}: server CPU per delivery", costs, "µs", key=f"receipts_{_key(name)}"))
        if name != "none":
            more = [cost - least for cost, least in zip(costs, none, strict=True)]
            figures.append(Figure(f"acks of {name}: more than without", more, "µs"))
        cores = [cost * AUDIENCE / 1e6 for cost in costs]
        figures.append(Figure(f"acks of {name}: {AUDIENCE:,} deliveries of that cost", cores, "core s"))
    return figures


def _key(name: str) -> str:
    return "sample" if "%" in name else name


async def _publish(server: Server, seq: int, share: float) -> None:
    assert server.data is not None
    log = await open_log(f"sqlite:///{Path(server.data)}/log.sqlite")
    try:
        policy = AckPolicy(int(share * 2**32), 1000) if share else None
        await log.append(Topic.EVENTS, "bench", encode_broadcast(replace(broadcast(server.gen, seq), ack=policy)))
    finally:
        await log.close()
