"""When a device comes back after a connection ended, and after how long. Pure: chance and stable time are arguments.

The rules are those of the protocol's "Closing": the close code says what to do, the node's `back` says how fast, and n, the
exponent of the backoff, starts over only after 30 s of stable connection, so that a node which accepts and drops is not hammered.
"""

import random
from dataclasses import dataclass

from stagecast.wire.closing import ComeBack, come_back

BACK_AT_FIRST = (2000, 5000)
"""`back` in ms before the first `welcome`."""
DELAY_MAX = 60.0
"""Seconds; bounds every backoff but the first of a row, which the node alone decides."""
STABLE_AFTER = 30.0
"""Seconds of connection after which the next failure is a first one again."""
_EXPONENT_MAX = 32


@dataclass(frozen=True, slots=True)
class StayAway:
    """Do not come back by yourself."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Connect again after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RenewToken:
    """Wait `seconds`, get a new token, then connect once more."""

    seconds: float


Next = StayAway | Wait | RenewToken


class Reconnect:
    """One device's memory of how its connections ended."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._back: tuple[int, int] = BACK_AT_FIRST
        self._failures = 0
        self._renewed = False

    @property
    def back(self) -> tuple[int, int]:
        """The `back` in force, ms."""
        return self._back

    def steer(self, back: tuple[int, int]) -> None:
        """A `welcome` or `goaway` said how to come back; ms. Bounds in the wrong order are put right."""
        self._back = (min(back), max(back))

    def welcomed(self) -> None:
        """A node took the token: the next 4401 is a first one."""
        self._renewed = False

    def after(self, code: int, stable: float, at_least: float = 0.0) -> Next:
        """What to do after a close with `code` (1006: no close frame, or no connection at all) of a connection that was welcomed
        `stable` seconds ago (0: never). `at_least` seconds are added to a backoff: a refused handshake's Retry-After."""
        if stable >= STABLE_AFTER:
            self._failures = 0
        low, high = self._back
        match come_back(code):
            case ComeBack.NO:
                return StayAway()
            case ComeBack.BY_PLAN:
                return Wait(self._rng.uniform(low, high) / 1000)
            case ComeBack.BACK_OFF:
                return Wait(at_least + self._backoff())
            case ComeBack.NEW_TOKEN:
                if self._renewed:
                    return StayAway()
                self._renewed = True
                return RenewToken(self._rng.uniform(0, high) / 1000)

    def _backoff(self) -> float:
        """U(0, hi) at first, then U(0, min(60 s, hi·2^n)); seconds."""
        high = self._back[1] / 1000
        longest = high if self._failures == 0 else min(DELAY_MAX, high * 2**self._failures)
        self._failures = min(self._failures + 1, _EXPONENT_MAX)
        return self._rng.uniform(0, longest)
