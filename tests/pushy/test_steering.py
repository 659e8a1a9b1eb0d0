"""How far apart lost devices come back."""

from pushy.steering import CALM, Storm, back_after


def test_the_calm_is_the_least() -> None:
    """A small loss keeps the 2 to 5 s of every day."""
    assert back_after(0, 1, 400) == CALM
    assert back_after(200, 1, 400) == CALM


def test_the_window_grows_with_the_loss() -> None:
    """33 million connections on 500 hosts of 400 a second take 165 s."""
    assert back_after(33_000_000, 500, 400) == (2000, 165_000)


def test_nobody_left_is_a_window_and_no_division_by_zero() -> None:
    assert back_after(100, 0, 400)[1] == 25_000


def test_losses_add_up_until_they_are_over() -> None:
    """A second worker's death lengthens the window; when the devices had their time it is calm again, said once."""
    storm = Storm(workers=4, accept_rate=400)
    assert storm.lost(6000, 3, 0.0) == (2000, 20_000)
    assert storm.lost(6000, 2, 1.0) == (2000, 60_000)
    assert not storm.over(60.9)
    assert storm.over(61.0)
    assert not storm.over(62.0)
    assert storm.lost(100, 3, 100.0) == CALM
