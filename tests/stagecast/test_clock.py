"""Clocks: the wall may step, the monotonic one does not."""

import pytest

from stagecast.clock import Clock, ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_told() -> None:
    """Time passes on both readings at once, to the millisecond."""
    clock = ManualClock(1000)
    assert (clock.now(), clock.monotonic()) == (1000, 0.0)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (2500, 1.5)


def test_setting_the_wall_clock_passes_no_time() -> None:
    """An operator's step moves `now` alone, and nothing takes the monotonic reading back."""
    clock = ManualClock(100_000)
    clock.step(-60)
    assert (clock.now(), clock.monotonic()) == (40_000, 0.0)
    with pytest.raises(ValueError, match="step"):
        clock.advance(-1)


def test_the_system_clock_reads_ms_and_seconds() -> None:
    """Wall time in ms since 1970 (after this was written), monotonic seconds that do not fall."""
    clock: Clock = SystemClock()
    assert clock.now() > 1_764_000_000_000
    assert clock.monotonic() <= clock.monotonic()
