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
    log, said = Log(), 0

    def say() -> HostBeat:
        nonlocal said
        said += 1
        return HostBeat("h1", said, 10, 100, 1.0, True)

    beating = asyncio.create_task(beat(log, say, every=0.001))  # type: ignore[arg-type]  # of a log it appends alone
    async with asyncio.timeout(10):
        await log.enough.wait()
    beating.cancel()
    await asyncio.wait([beating])
    assert {(topic, key) for topic, key, _ in log.taken} == {(Topic.RECEIPTS, EVERYWHERE)}
    beats = [decode_counted(value) for _, _, value in log.taken]
    assert [one.ts for one in beats] == [1, 3, 4]
