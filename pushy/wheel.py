"""One timer for all connections of a worker, where a timer each would cost 200 bytes and a heap operation per message. Pure.

A timed thing lies in the slot of its deadline and is looked at when that comes; if its deadline has moved on meanwhile (a device
pinged), it is put in again. So being heard costs nothing here.
"""

from typing import Any, Generic, Protocol, TypeVar

TICK = 0.25
"""Seconds: how late something may be."""


class Slot(set[Any]):
    """Things due at one moment. It stays in things' `slot`, so that they leave it without a search."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Timed(Protocol):
    slot: Slot | None


T = TypeVar("T", bound=Timed)


class Wheel(Generic[T]):
    def __init__(self, now: float) -> None:
        self.slots: dict[int, Slot] = {}
        self._turned = int(now / TICK)

    def put(self, thing: T, deadline: float) -> None:
        """Looks at `thing` at `deadline` (monotonic seconds) or earlier; of several deadlines the earliest counts."""
        number = max(int(deadline / TICK) + 1, self._turned + 1)
        slot = thing.slot
        if slot is not None:
            if slot.number <= number:
                return
            slot.discard(thing)
        slot = self.slots.get(number)
        if slot is None:
            slot = self.slots[number] = Slot(number)
        slot.add(thing)
        thing.slot = slot

    def remove(self, thing: T) -> None:
        if thing.slot is not None:
            thing.slot.discard(thing)
            thing.slot = None

    def things(self) -> list[T]:
        """All that lie in it."""
        return [thing for slot in self.slots.values() for thing in slot]

    def turn(self, now: float) -> list[T]:
        """What is due, taken out: put it in again with its next deadline, if it has one."""
        number = int(now / TICK)
        due: list[T] = []
        if number - self._turned > len(self.slots):  # after a long pause: only the slots there are
            passed = sorted(one for one in self.slots if one <= number)
        else:
            passed = [one for one in range(self._turned + 1, number + 1) if one in self.slots]
        for one in passed:
            due.extend(self.slots.pop(one))
        self._turned = max(self._turned, number)
        for thing in due:
            thing.slot = None
        return due
