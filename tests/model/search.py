"""Breadth-first search over states: the first broken promise has a shortest trace."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Move(NamedTuple, Generic[S]):
    """A step to another state. `free`: a healthy system does it by itself; else it is a fault's or a person's."""

    free: bool
    label: str
    to: S


@dataclass(frozen=True, slots=True)
class Result:
    broken: str | None
    """The promise that was broken, if any, with what was seen."""
    trace: tuple[str, ...]
    states: int
    quiescent: int

    @property
    def promise(self) -> str:
        """`S1` … `L1`, or `ok`."""
        return self.broken[:2] if self.broken else "ok"


def search(
    start: S,
    moves: Callable[[S], Iterable[Move[S]]],
    broken: Callable[[S, S], str | None],
    unfinished: Callable[[S], str | None],
    limit: int = 400_000,
) -> Result:
    """Visits every state that can be reached. `broken` judges each step, `unfinished` each quiescent state. Raises
    RuntimeError over `limit` states: a scenario that is not exhausted says nothing."""
    came: dict[S, tuple[S, str] | None] = {start: None}
    queue, quiescent = deque([start]), 0
    while queue:
        state = queue.popleft()
        busy = False
        for free, label, to in moves(state):
            busy |= free
            if (why := broken(state, to)) is not None:
                return Result(why, (*_trace(came, state), label), len(came), quiescent)
            if to not in came:
                came[to] = state, label
                queue.append(to)
        if not busy:
            quiescent += 1
            if (why := unfinished(state)) is not None:
                return Result(why, _trace(came, state), len(came), quiescent)
        if len(came) > limit:
            raise RuntimeError(f"more than {limit} states")
    return Result(None, (), len(came), quiescent)


def _trace(came: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    labels = []
    step = came[state]
    while step is not None:
        state, label = step
        labels.append(label)
        step = came[state]
    return tuple(reversed(labels))
