"""What every part of the prefetch process works with."""

import random
from dataclasses import dataclass

from kv import KeyValue
from prefetch.metrics import Metrics
from stagecast.clock import Clock
from stagecast.log import MessageLog


@dataclass(frozen=True, slots=True)
class Parts:
    store: KeyValue
    log: MessageLog
    clock: Clock
    rng: random.Random
    serving_rate: float
    """Own stage maps per second that this process serves."""
    metrics: Metrics
