"""A host's sign of life in the receipts log: how it is, every 5 s and when it begins or ends to accept devices; whether anybody
follows an event there or not."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

from stagecast.log import LogError, MessageLog, Topic
from stagecast.receipts import HostBeat, encode_receipt
from stagecast.records import EVERYWHERE

EVERY = 5.0
LOOK = 0.5
"""Seconds between two looks at whether it accepts."""
_log = structlog.get_logger()


async def beat(log: MessageLog, say: Callable[[], HostBeat], every: float = EVERY, look: float = LOOK) -> NoReturn:
    """Appends what `say` tells, for ever. One that can't be appended is left out: the next one says all again."""
    failing = False
    while True:
        said = say()
        try:
            await log.append(Topic.RECEIPTS, EVERYWHERE, encode_receipt(said))
            failing = False
        except LogError as error:
            if not failing:  # one line for an outage
                _log.warning("host's sign of life not appended", error=str(error) or type(error).__name__)
            failing = True
        waited = 0.0
        while waited < every and say().accepting == said.accepting:
            await asyncio.sleep(min(look, every))
            waited += look
