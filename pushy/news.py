"""Sessions that began and ended, on their way to the feed: together, in order, bounded. Pure."""

from pushy.link import Began, Ended, Sessions

HELD_MAX = 20_000
"""Changes that wait while the feed is away; the oldest go first, and the registry's ttl mends what was lost."""
DROPPED_AT_ONCE = 1000


class News:
    def __init__(self) -> None:
        self._changes: list[Began | Ended] = []
        self.dropped = 0

    def add(self, change: Began | Ended) -> None:
        self._changes.append(change)
        if len(self._changes) > HELD_MAX:
            self.dropped += DROPPED_AT_ONCE
            del self._changes[:DROPPED_AT_ONCE]

    def take(self) -> Sessions | None:
        """All that waits, for one message."""
        if not self._changes:
            return None
        changes, self._changes = self._changes, []
        return Sessions(changes)
