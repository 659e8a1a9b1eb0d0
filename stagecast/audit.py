"""What the audit keeps beside the accepted transitions: holds, plans, arming. Pure.

Transitions are not in it: history has them, durably (rule 2). An act is written once its change is durable and before its caller
is answered; should the store fail just then, the change stands and its act is missing: the audit never holds up an event.
"""

from typing import Literal

from msgspec import Struct

What = Literal["plan", "shift", "hold", "resume", "arm", "disarm", "override", "rehearse"]


class Act(Struct, frozen=True):
    """One thing that was done to an event and was no transition."""

    ts: int
    """Wall ms of the process that did it."""
    seq: int
    """The event's, when it was done."""
    what: What
    who: str
    why: str = ""
    """The reason given, at most 200 bytes."""
    detail: str = ""
    """What exactly: the new revision, the stage armed, the checks overridden."""
