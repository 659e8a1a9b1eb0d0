"""How many new connections a worker takes per second: a token bucket, and a slot in time for whom it turns away. Pure."""

WAIT_MAX = 300.0
"""Seconds of the longest wait told."""


class Turnstile:
    """`rate` per second, `burst` at once. Who is turned away gets the next moment that nobody was given yet, so that a crowd
    comes back at `rate` and not as a second crowd."""

    __slots__ = ("_at", "_burst", "_free", "_promised", "_rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._free = float(burst)
        self._at = self._promised = now

    def pace(self, rate: float) -> None:
        """Another rate, from now on."""
        self._rate = rate

    def enter(self, now: float) -> float:
        """0: come in. Else the seconds after which to come again."""
        self._free = min(self._burst, self._free + (now - self._at) * self._rate)
        self._at = now
        if self._free >= 1:
            self._free -= 1
            return 0.0
        self._promised = max(self._promised, now) + 1 / self._rate
        if self._promised - now > WAIT_MAX:
            self._promised = now + 1 / self._rate
        return self._promised - now
