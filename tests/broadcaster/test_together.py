"""Many at once, but not too many."""

import asyncio

import pytest

from broadcaster.together import together


async def test_results_come_in_order_and_never_too_many_at_once() -> None:
    """As many as allowed are under way, whatever order they end in."""
    under_way = peak = 0

    async def work(n: int) -> int:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        for _ in range(10 - n):
            await asyncio.sleep(0)
        under_way -= 1
        return n * n

    assert await together(work, range(10), at_once=3) == [n * n for n in range(10)]
    assert peak == 3


async def test_an_exception_waits_for_the_others() -> None:
    """The first failure is raised once nothing is under way any more."""
    done: list[int] = []

    async def work(n: int) -> None:
        if n == 0:
            raise ValueError("first")
        await asyncio.sleep(0)
        done.append(n)

    with pytest.raises(ValueError, match="first"):
        await together(work, range(4))
    assert done == [1, 2, 3]
