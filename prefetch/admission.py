"""Admission to the pull: a token bucket at measured capacity. Over it a caller gets the cohort's map and a later time. Pure."""

import random


class Admission:
    """A bucket of `burst` seconds' worth of tokens, filled at `rate` per second.

    What is turned away is counted as backlog, which drains at the rate too: a deferred caller comes back at U(0, backlog / rate),
    so that callers together come back no faster than they can be served.
    """

    def __init__(self, rate: float, now: float, burst: float = 1.0) -> None:
        self.rate = rate
        self.deferred = 0
        """Callers turned away so far."""
        self._size = max(rate * burst, 1.0)
        self._tokens = self._size
        self._backlog = 0.0
        self._then = now

    def take(self, now: float) -> bool:
        """Whether this caller is served its own map. `now` in seconds, monotonic."""
        passed = max(now - self._then, 0.0)
        self._then = now
        self._tokens = min(self._size, self._tokens + passed * self.rate)
        self._backlog = max(0.0, self._backlog - passed * self.rate)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return True
        self.deferred += 1
        self._backlog += 1.0
        return False

    def refresh_after(self, rng: random.Random) -> float:
        """Seconds until a deferred caller should ask again: U(0, backlog / rate), over at least one second."""
        return rng.uniform(0.0, max(self._backlog / self.rate, 1.0))
