"""The shared timer."""

from hypothesis import given
from hypothesis import strategies as st

from pushy.wheel import TICK, Slot, Wheel


class Thing:
    def __init__(self) -> None:
        self.slot: Slot | None = None


def test_the_earliest_deadline_counts() -> None:
    """Putting a thing in again moves it forward only; it comes out once."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing = Thing()
    for deadline in (5.0, 9.0, 1.0, 7.0):
        wheel.put(thing, deadline)
    assert wheel.things() == [thing]
    assert wheel.turn(0.9) == []
    assert wheel.turn(1.0 + TICK) == [thing]
    assert wheel.turn(100.0) == []


def test_what_is_removed_does_not_come() -> None:
    """A closed connection is not held until its deadline."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing = Thing()
    wheel.put(thing, 5.0)
    wheel.remove(thing)
    wheel.remove(thing)
    assert wheel.things() == wheel.turn(100.0) == []


@given(st.lists(st.floats(0, 50), max_size=20), st.lists(st.floats(0, 60), max_size=20))
def test_everything_comes_in_time_and_not_early(deadlines: list[float], turns: list[float]) -> None:
    """Never before its deadline, and at the first turn that is a tick past it, however long the loop was away."""
    wheel: Wheel[Thing] = Wheel(0.0)
    due = {Thing(): deadline for deadline in deadlines}
    for thing, deadline in due.items():
        wheel.put(thing, deadline)
    for now in [*sorted(turns), 100.0]:
        for thing in wheel.turn(now):
            assert due.pop(thing) <= now
        assert all(deadline + TICK >= now for deadline in due.values())
    assert due == {}
