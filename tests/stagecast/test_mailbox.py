"""A bounded queue in which the newest value per key wins: stagecast.mailbox."""

import asyncio

import pytest

from stagecast.mailbox import Mailbox


async def test_the_newest_per_key_in_order_of_arrival() -> None:
    """A newer value takes its key's old one's place, and goes to the end of the line."""
    box: Mailbox[str] = Mailbox(8)
    for key, value in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        box.put(key, value)
    assert [await box.get(), await box.get()] == ["b1", "a2"]
    assert box.overtaken == 1


async def test_never_more_than_its_limit() -> None:
    """One key too many: the oldest unread value goes, counted."""
    box: Mailbox[int] = Mailbox(3)
    for value in range(10):
        box.put(value, value)
    box.end()
    assert [await box.get() for _ in range(4)] == [7, 8, 9, None]
    assert box.overtaken == 7


async def test_amending_overtakes_nothing() -> None:
    """An unread value can be completed in its place; one that was read can't."""
    box: Mailbox[str] = Mailbox(8)
    box.put("a", "half")
    box.amend("a", "whole")
    box.amend("b", "nothing there")
    assert (box.peek("a"), box.peek("b"), box.overtaken) == ("whole", None, 0)
    assert await box.get() == "whole"


async def test_a_waiting_reader_wakes() -> None:
    """For a value, and for the end."""
    box: Mailbox[str] = Mailbox(8)
    for value in ("a1", None):
        reader = asyncio.ensure_future(box.get())
        await asyncio.sleep(0)
        assert not reader.done()
        if value:
            box.put("a", value)
        else:
            box.end()
        assert await reader == value


async def test_an_end_with_an_error_is_raised_after_what_is_unread() -> None:
    """The first end counts."""
    box: Mailbox[str] = Mailbox(8)
    box.put("a", "a1")
    box.end(ValueError("over"))
    box.end()
    assert await box.get() == "a1"
    for _ in range(2):
        with pytest.raises(ValueError, match="over"):
            await box.get()
