"""How far apart lost devices should come back: the `back` that welcomes and goaways carry. Pure."""

import math
from collections import deque

from stagecast.wire.frames import Back

CALM: Back = (2000, 5000)
"""ms; also the least there is: below it a restart of one worker would already be a spike."""


def back_after(lost: int, survivors: float, accept_rate: float) -> Back:
    """`hi` = lost / (survivors × accept rate), at least the calm 5 s. `survivors` in hosts (a part of one counts as such),
    `accept_rate` in connections per second and host."""
    return CALM[0], max(CALM[1], math.ceil(1000 * lost / (max(survivors, 0.01) * accept_rate)))


class Storm:
    """The connections this host's dying workers lost lately, and the `back` that follows from them.

    It knows its own workers alone: what a whole zone lost is for who sees the zone.
    """

    def __init__(self, workers: int, accept_rate: float) -> None:
        self._workers = workers
        self._accept_rate = accept_rate
        self._losses: deque[tuple[float, int]] = deque()
        self._until = 0.0

    def lost(self, connections: int, joined: int, now: float) -> Back:
        """A worker died with this many connections, and `joined` others are left. Losses count until their devices are back."""
        if now >= self._until:
            self._losses.clear()
        if connections:
            self._losses.append((now, connections))
        total = sum(count for _, count in self._losses)
        back = back_after(total, max(joined, 1) / self._workers, self._accept_rate)
        self._until = max(self._until, now + back[1] / 1000)
        return back

    def over(self, now: float) -> bool:
        """Whether there was a storm and it has passed: back to CALM. True once."""
        if not self._losses or now < self._until:
            return False
        self._losses.clear()
        return True
