"""Workers whose link was lost: dead, or about to join again. Pure: whether a process lives is asked of the caller."""

from collections.abc import Callable
from dataclasses import dataclass

from pushy.link import Joined

PATIENCE = 120.0
"""Seconds after which a living process that does not join is forgotten: its receipts have left the sums by then."""


@dataclass(frozen=True, slots=True)
class Absent:
    joined: Joined
    connections: int
    """When the link was lost."""
    since: float


class Absentees:
    """At most one for each worker of the host."""

    def __init__(self) -> None:
        self._absent: dict[int, Absent] = {}

    def lost(self, joined: Joined, connections: int, now: float) -> None:
        """The worker's link is gone."""
        self._absent[joined.worker] = Absent(joined, connections, now)

    def joins(self, joined: Joined) -> Absent | None:
        """A worker joins: its predecessor, if that was another process and so is dead."""
        absent = self._absent.pop(joined.worker, None)
        return absent if absent is not None and absent.joined.boot != joined.boot else None

    def dead(self, alive: Callable[[int], bool], now: float) -> list[Absent]:
        """Those whose process is gone; each is said once."""
        dead = []
        for worker, absent in list(self._absent.items()):
            if not alive(absent.joined.pid):
                dead.append(absent)
                del self._absent[worker]
            elif now - absent.since > PATIENCE:
                del self._absent[worker]
        return dead
