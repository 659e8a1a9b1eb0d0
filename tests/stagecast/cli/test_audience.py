"""The demo's audience: what it makes of where its devices ended."""

import pytest

from stagecast.cli.audience import Ending


@pytest.mark.parametrize(
    ("positions", "right", "status"),
    [
        ([(7, 3), (7, 3)], 2, 0),
        ([(7, 3), (7, 2)], 1, 1),
        ([(7, 3), (6, 9)], 1, 1),
        ([(7, 3), (7, 4)], 2, 0),
        ([(0, 0), (0, 0)], 0, 1),
    ],
)
def test_one_device_on_a_wrong_stage_is_a_failure(positions: list[tuple[int, int]], right: int, status: int) -> None:
    """Behind, of an older gen, or nowhere: each ends the demo with 1. One is past it if the event has moved on: that is right."""
    ending = Ending.of(positions, (7, 3))
    assert (ending.right, ending.devices, ending.status) == (right, 2, status)
