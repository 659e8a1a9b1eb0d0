"""Workers whose link was lost: dead, or about to join again."""

from pushy.absent import PATIENCE, Absent, Absentees
from pushy.link import Joined

FIRST, AGAIN = Joined(0, "b1", 41), Joined(0, "b2", 42)


def alive(_: int) -> bool:
    return True


def dead(_: int) -> bool:
    return False


def test_a_dead_process_is_said_once() -> None:
    """With the connections it had."""
    absentees = Absentees()
    absentees.lost(FIRST, 7, 100.0)
    assert absentees.dead(alive, 100.1) == []
    assert absentees.dead(dead, 100.2) == [Absent(FIRST, 7, 100.0)]
    assert absentees.dead(dead, 100.3) == []


def test_the_same_process_comes_back() -> None:
    """A link that was made anew is no death."""
    absentees = Absentees()
    absentees.lost(FIRST, 7, 100.0)
    assert absentees.joins(FIRST) is None
    assert absentees.dead(dead, 101.0) == []


def test_another_boot_says_that_its_predecessor_is_dead() -> None:
    """Even before anybody looked at the process."""
    absentees = Absentees()
    absentees.lost(FIRST, 7, 100.0)
    assert absentees.joins(AGAIN) == Absent(FIRST, 7, 100.0)
    assert absentees.dead(dead, 101.0) == []


def test_a_process_that_lives_and_does_not_join_is_forgotten() -> None:
    absentees = Absentees()
    absentees.lost(FIRST, 7, 100.0)
    assert absentees.dead(alive, 100.1 + PATIENCE) == []
    assert absentees.dead(dead, 101.0 + PATIENCE) == []
