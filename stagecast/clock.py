"""Time as an argument: wall clock for stamps, monotonic clock for intervals. Nothing orders by either."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings. `now` may step (NTP, operators); `monotonic` never goes back and says nothing about the date."""

    def now(self) -> int:
        """Wall time in ms since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until told: for tests and rehearsed time."""

    def __init__(self, now: int = 1_764_000_000_000) -> None:
        self._start = now
        self._ms = now

    def now(self) -> int:
        return self._ms

    def monotonic(self) -> float:
        return (self._ms - self._start) / 1000

    def advance(self, seconds: float) -> None:
        self._ms += round(seconds * 1000)
