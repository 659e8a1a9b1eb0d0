"""Sessions that began and ended, on their way to the feed: together, in order, bounded. Pure."""

from pushy.link import Began, Ended, Sessions

HELD_MAX = 20_000
"""Changes that wait while the feed is away; the oldest go first, and the registry's ttl mends what was lost."""
DROPPED_AT_ONCE = 1000


class News:
    def __init__(self) -> None:
        self.changes: list[Began | Ended] = []
        self.dropped = 0

    def add(self, change: Began | Ended) -> bool:
        """Whether it is the first that waits."""
        self.changes.append(change)
        if len(self.changes) > HELD_MAX:
            self.dropped += DROPPED_AT_ONCE
            del self.changes[:DROPPED_AT_ONCE]
        return len(self.changes) == 1

    def take(self) -> Sessions | None:
        """All that waits, for one message."""
        if not self.changes:
            return None
        taken = Sessions(self.changes.copy())
        self.changes.clear()
        return taken
