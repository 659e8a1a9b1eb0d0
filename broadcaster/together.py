"""Many at once, but not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 32


async def together(work: Callable[[T], Awaitable[R]], items: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """`work` on every item, at most `at_once` under way; the results in order. The first exception is raised once all are
    done, so that nothing is left running behind the caller's back."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    results = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
    done: list[R] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
