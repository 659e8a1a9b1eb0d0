"""How devices should take a broadcast: which map, in which window they fetch a missing one, who acks. Pure.

From the last census, as receipts tell it; computed when a transition is accepted, and part of its head from then on.
"""

from stagecast.broadcast import AckPolicy
from stagecast.event import Delivery
from stagecast.receipts import Progress
from stagecast.records import RequiredMap

SAMPLE = 100_000
"""Devices that ack: up to so many all do, and of more a sample of so many, which gives ± 0.06 % at 99 % (95 % confidence)."""
ACKS_PER_SECOND = 10_000
WINDOW_MIN_MS = 2000
FETCH_MIN_MS = 5000
EVERYBODY = 2**32


def delivery_for(census: Progress | None, asked: str | None, required: RequiredMap | None) -> Delivery:
    """The policy of the next broadcast. `census` counts devices against the map version `asked` (the current head's);
    None, or nobody subscribed: no census yet. `required`: what devices should hold from now on, None for no map at all."""
    version = required.map if required else None
    if census is None or census.subscribed == 0:
        return Delivery(map=version)
    ack = _ack(census.subscribed)
    if required is None:
        return Delivery(ack=ack)
    if asked != version:  # the census counted holders of another version: coverage is unknown
        return Delivery(version, ack=ack)
    missing = max(census.subscribed - census.holding, 0)
    return Delivery(version, max(FETCH_MIN_MS, round(missing / required.rate * 1000)), ack)


def _ack(audience: int) -> AckPolicy:
    share = min(1.0, SAMPLE / audience)
    window = round(share * audience / ACKS_PER_SECOND * 1000)
    return AckPolicy(max(1, round(share * EVERYBODY)), max(WINDOW_MIN_MS, window))
