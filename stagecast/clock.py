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
        self._now = now
        self._passed = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._passed / 1000

    def advance(self, seconds: float) -> None:
        """Time passes, in ms steps, on both. Raises ValueError for a negative time."""
        if seconds < 0:
            raise ValueError("time does not go back; `step` moves the wall clock")
        self._passed += round(seconds * 1000)
        self._now += round(seconds * 1000)

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock, forward or back; no time passes."""
        self._now += round(seconds * 1000)
