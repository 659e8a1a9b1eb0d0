"""What `explain` costs: the notes that a worker takes of hellos, acks and positions, with its rings full as in production.

In this process, without sockets: µs per note, and per device of an event in which every one says hello once, acks once and sends
one census. Nothing is noted at a delivery.
"""

import time
from argparse import Namespace
from collections.abc import Callable

from pushy.happenings import POSITIONS_KEPT, SESSIONS_KEPT, Happenings, Hello
from stagecast.wire.frames import Ack, Position
from tests.bench.table import Figure
from tests.bench.world import Bench

NOTES = 200_000


async def run(_: Bench, options: Namespace) -> list[Figure]:
    rounds = [_round() for _ in range(options.rounds or 3)]
    hello, ack, census = (list(values) for values in zip(*rounds, strict=True))
    whole = [sum(one) for one in rounds]
    return [
        Figure("a hello noted", hello, "µs"),
        Figure("an ack noted", ack, "µs"),
        Figure("a census noted", census, "µs"),
        Figure("a device: hello, ack and census", whole, "µs", key="explain_per_device"),
    ]


def _round() -> tuple[float, float, float]:
    kept, said = Happenings(), Hello("node", 1, 0, "tv")
    ack, at = Ack("final", 1_764_000_000_000, 2, "switched", 3), [Position("final", 1_764_000_000_000, 2, None)]
    for _ in range(max(SESSIONS_KEPT, POSITIONS_KEPT)):
        kept.began(0, "device", said)
        kept.position(0, "device", "ack", ack)
    return (
        _each(lambda: kept.began(1, "device", said)),
        _each(lambda: kept.position(1, "device", "ack", ack)),
        _each(lambda: kept.position(1, "device", "census", at)),
    )


def _each(note: Callable[[], None]) -> float:
    """CPU per call, the call of the lambda included, µs."""
    began = time.process_time_ns()
    for _ in range(NOTES):
        note()
    return (time.process_time_ns() - began) / NOTES / 1000
