"""Reading a topic of the log for ever: over outages from where it was, over gaps from a new start."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import structlog

from stagecast.log import LogError, LogGap, MessageLog, Positions, Record, Topic

PAUSE = 1.0
"""Seconds between attempts while the log is out of reach."""
_log = structlog.get_logger()


async def follow(
    log: MessageLog, topic: Topic, start: Callable[[], Awaitable[Positions]], pause: float = PAUSE
) -> AsyncIterator[Sequence[Record]]:
    """Batches of `topic` from what `start` gives. After a gap `start` is asked again, so what was lost must be of no
    consequence to the caller, or be repaired by other ways; after an outage nothing is lost."""
    positions: dict[int, int] | None = None
    while True:
        try:
            if positions is None:
                positions = dict(await start())
            async with aclosing(log.read(topic, positions)) as reader:
                async for batch in reader:
                    for record in batch:
                        positions[record.partition] = record.offset + 1
                    yield batch
        except LogGap as gap:
            _log.warning("log gap", topic=str(topic), error=str(gap))
            positions = None
        except LogError as error:
            _log.warning("log not readable", topic=str(topic), error=str(error))
        await asyncio.sleep(pause)
