"""A host's sign of life in the receipts log: every 5 s how it is, whether anybody follows an event there or not."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

from stagecast.log import LogError, MessageLog, Topic
from stagecast.receipts import HostBeat, encode_receipt
from stagecast.records import EVERYWHERE

EVERY = 5.0
"""Seconds."""
_log = structlog.get_logger()


async def beat(log: MessageLog, say: Callable[[], HostBeat], every: float = EVERY) -> NoReturn:
    """Appends what `say` tells, for ever. One that can't be appended is left out: the next one says all again."""
    failing = False
    while True:
        try:
            await log.append(Topic.RECEIPTS, EVERYWHERE, encode_receipt(say()))
            failing = False
        except LogError as error:
            if not failing:  # one line for an outage
                _log.warning("host's sign of life not appended", error=str(error) or type(error).__name__)
            failing = True
        await asyncio.sleep(every)
