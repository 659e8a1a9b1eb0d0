"""The whole way of a broadcast at random: longer runs of a larger world than can be exhausted, the same code, the same promises.

Each run has faults of a few kinds, for all kinds at once hide each other (swarm testing: Groce et al., ISSTA 2012).
"""

from random import Random

import pytest

from tests.model.state import FAULTS, Rules, World
from tests.model.world import Model

THEMES = [
    ("append_lost",),
    ("append_late", "loss"),
    ("crash_p", "cas_lost", "again"),
    ("cas_late", "dup"),
    ("gap", "linger", "cut"),
    ("stale", "old", "cut"),
    ("crash_feed", "kv_down", "crash_worker"),
    ("delete", "create", "append_lost"),
]
RUNS = 50
STEPS = 60
SETTLING_MAX = 500
"""Free steps until a healthy system is quiescent, at most."""


def budget(*kinds: str) -> tuple[int, ...]:
    """Three requests, and three of each of these faults."""
    return tuple(3 * (fault in kinds or fault == "requests") for fault in FAULTS)


def walk(model: Model, seed: int) -> str | None:
    """One run: the system goes on, and things happen to it, at random; then it is left alone and must settle. The first broken
    promise, with the way to it."""
    random, world, way = Random(seed), model.start(), list[str]()

    def go(free: bool) -> tuple[World, str | None] | None:
        moves = [move for move in model.moves(world) if move.free is free]
        if not moves:
            return None
        move = random.choice(moves)
        way.append(move.label)
        return move.to, model.broken(world, move.to)

    for step in range(STEPS + SETTLING_MAX):
        gone = go(free=step >= STEPS or random.random() < 0.5)
        if gone is None and step >= STEPS:
            why = model.unfinished(world)
            return None if why is None else "\n".join((why, *way))
        if gone is not None:
            world, why = gone
            if why is not None:
                return "\n".join((why, *way))
    return "\n".join(("it never settles", *way))


@pytest.mark.parametrize("theme", THEMES, ids=" ".join)
def test_three_of_everything(theme: tuple[str, ...]) -> None:
    """Three producers, two hosts, three devices: every run keeps the promises, and ends with every device at the head."""
    model = Model(Rules(producers=3, hosts=2, devices=3, budget=budget(*theme)))
    assert [why for why in (walk(model, seed) for seed in range(RUNS)) if why] == []


@pytest.mark.parametrize(
    ("rules", "promise"),
    [
        (Rules(producers=3, hosts=2, devices=3, cadence=False, budget=budget("append_lost")), "L1"),
        (Rules(producers=3, hosts=2, devices=3, compare_and_set=False, budget=budget()), "S3"),
        (Rules(producers=3, hosts=2, devices=3, gap_noticed=False, cadence=False, budget=budget("gap")), "L1"),
    ],
)
def test_walks_find_what_is_broken(rules: Rules, promise: str) -> None:
    """As many runs as above find a rule that was taken away."""
    found = [why for why in (walk(Model(rules), seed) for seed in range(RUNS)) if why]
    assert promise in {why[:2] for why in found}
