"""What a device does after a close code: the protocol's table, written out."""

import pytest

from stagecast.wire.closing import CloseCode, ComeBack, come_back

TABLE = {
    ComeBack.NO: [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4403, 4409],
    ComeBack.BY_PLAN: [1001, 4000, 4001],
    ComeBack.BACK_OFF: [1006, 1011, 1012, 4002, 4008, 4013, 4029],
    ComeBack.NEW_TOKEN: [4401],
}


@pytest.mark.parametrize(("code", "what"), [(code, what) for what, codes in TABLE.items() for code in codes])
def test_the_table(code: int, what: ComeBack) -> None:
    """Each code of the protocol has its row."""
    assert come_back(code) is what


def test_the_table_is_whole() -> None:
    """Every code the project knows is in the table above."""
    assert sorted(CloseCode) == sorted(code for codes in TABLE.values() for code in codes)


@pytest.mark.parametrize("code", [-1, 0, 999, 1005, 1010, 1015, 3000, 4003, 4999, 70_000])
def test_any_other_code_means_that_something_broke(code: int) -> None:
    """A code not listed is backed off from."""
    assert come_back(code) is ComeBack.BACK_OFF
