"""Reading once for many."""

import asyncio

import pytest

from kv import StoreUnavailable
from prefetch.memory import Flights, Memory
from stagecast.clock import ManualClock


class Source:
    def __init__(self) -> None:
        self.calls = 0
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, key: str) -> str:
        self.calls += 1
        await self.gate.wait()
        if self.down:
            raise StoreUnavailable("down")
        return f"{key}{self.calls}"


async def test_callers_together_share_one_read() -> None:
    """A thousand at once cost one read, and one that gives up does not end it for the others."""
    source = Source()
    source.gate.clear()
    memory = Memory(source.read, ManualClock().monotonic, fresh=1.0)
    asked = [asyncio.create_task(memory.get("a")) for _ in range(1000)]
    await asyncio.sleep(0)
    asked[0].cancel()
    source.gate.set()
    assert set(await asyncio.gather(*asked[1:])) == {"a1"}
    assert source.calls == 1


async def test_a_value_is_read_again_when_it_is_old() -> None:
    """Fresh for a second by the monotonic clock."""
    source, clock = Source(), ManualClock()
    memory = Memory(source.read, clock.monotonic, fresh=1.0)
    assert await memory.get("a") == "a1"
    clock.advance(0.9)
    assert await memory.get("a") == "a1"
    clock.advance(0.2)
    assert await memory.get("a") == "a2"


async def test_while_the_store_is_down_the_last_value_serves() -> None:
    """What was never known raises."""
    source, clock = Source(), ManualClock()
    memory = Memory(source.read, clock.monotonic, fresh=1.0)
    await memory.get("a")
    source.down = True
    clock.advance(3600)
    assert await memory.get("a") == "a1"
    with pytest.raises(StoreUnavailable):
        await memory.get("b")


async def test_only_so_many_are_remembered() -> None:
    """The one read longest ago goes first."""
    source = Source()
    memory = Memory(source.read, ManualClock().monotonic, fresh=1.0, size=2)
    for key in ("a", "b", "c", "b"):
        await memory.get(key)
    assert source.calls == 3
    await memory.get("a")
    assert source.calls == 4


async def test_a_flight_that_fails_fails_for_all_and_is_over() -> None:
    """The next caller flies again."""
    source = Source()
    source.down = True
    flights: Flights[str, str] = Flights()
    for _ in range(2):
        got = await asyncio.gather(
            *(flights.join("a", lambda: source.read("a")) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(one, StoreUnavailable) for one in got)
    assert source.calls == 2
