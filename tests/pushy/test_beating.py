"""A host's sign of life: in the log again and again, over outages."""

import asyncio

from pushy.beating import beat
from stagecast.log import LogUnavailable, Topic
from stagecast.receipts import HostBeat, decode_counted
from stagecast.records import EVERYWHERE


class Log:
    """Takes appends, but the second."""

    def __init__(self) -> None:
        self.taken: list[tuple[Topic, str, bytes]] = []
        self.asked = 0
        self.enough = asyncio.Event()

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        self.asked += 1
        if self.asked == 2:
            raise LogUnavailable("down")
        self.taken.append((topic, key, value))
        if len(self.taken) == 3:
            self.enough.set()


async def test_it_goes_on() -> None:
    """What is said is asked for anew each time; one that can't be appended is left out."""
    log = Log()
    beating = asyncio.create_task(beat(log, lambda: HostBeat("h1", log.asked, 10, 100, 1.0, True), every=0.001))  # type: ignore[arg-type]  # of a log it appends alone
    async with asyncio.timeout(10):
        await log.enough.wait()
    beating.cancel()
    await asyncio.wait([beating])
    assert {(topic, key) for topic, key, _ in log.taken} == {(Topic.RECEIPTS, EVERYWHERE)}
    beats = [decode_counted(value) for _, _, value in log.taken]
    assert [one.ts for one in beats if isinstance(one, HostBeat)] == [0, 2, 3]


async def test_a_change_is_said_at_once() -> None:
    """A host that begins to accept devices does not wait for its turn to say so."""
    log, accepting = Log(), False

    def say() -> HostBeat:
        return HostBeat("h1", 0, 10, 100, 1.0, accepting)

    beating = asyncio.create_task(beat(log, say, every=1000, look=0.001))  # type: ignore[arg-type]  # as above
    for change in (True, False, True):
        asked = log.asked
        async with asyncio.timeout(10):
            while log.asked == asked:  # noqa: ASYNC110 - until it has said what is
                await asyncio.sleep(0.001)
        accepting = change
    beating.cancel()
    await asyncio.wait([beating])
    assert log.asked == 3
