"""What went wrong, as problem details (RFC 9457)."""

from broadcaster.bodies import HeadView
from broadcaster.heads import Busy, Damaged
from broadcaster.producer import AlreadyThere, NoSuchStage, Rejected, StageMissing, StillOverdue, UnknownEvent
from kv import OutcomeUnknown, StoreError
from stagecast.event import Head, Refusal
from stagecast.http import Problem
from stagecast.plan import PlanError

RETRY_AFTER = {"Retry-After": "2"}
KNOWN = (UnknownEvent, Rejected, PlanError, Busy, Damaged, StoreError)
"""What `problem_of` understands."""


def problem_of(error: Exception) -> Problem:
    """The answer to an error of one of the KNOWN kinds; another is raised again."""
    match error:
        case UnknownEvent():
            return Problem(404, "Not Found", f"no event {str(error)!r}")
        case Rejected():
            return _rejected(error)
        case PlanError():
            return Problem(422, "Unprocessable Content", str(error), field=error.field, error=error.text)
        case Busy():
            return Problem(503, "Service Unavailable", "too many at once for this event; nothing happened", RETRY_AFTER)
        case OutcomeUnknown():
            detail = "it may have been accepted: send the same request with the same Idempotency-Key again"
            return Problem(503, "Service Unavailable", detail, RETRY_AFTER)
        case StoreError():
            return Problem(503, "Service Unavailable", "the store is down; nothing happened", RETRY_AFTER)
        case Damaged():
            return Problem(500, "Internal Server Error", str(error))
    raise error


def _rejected(error: Rejected) -> Problem:
    head, why = head_view(error.head), str(error)
    match error:
        case AlreadyThere():
            return Problem(409, "Conflict", why, head=head)
        case NoSuchStage():
            return Problem(422, "Unprocessable Content", why, field="$.stage", error=why, head=head)
        case StageMissing():
            return Problem(422, "Unprocessable Content", why, field="$.plan", error=why, head=head)
        case StillOverdue():
            detail = f"{why}: the plan would hold again at once. Go to a stage by hand, or give it new times"
            return Problem(409, "Conflict", detail, head=head)
    match error.why:
        case Refusal.OTHER_BODY:
            return Problem(422, "Unprocessable Content", why, field="Idempotency-Key", error=why, head=head)
        case Refusal.GONE:
            return Problem(410, "Gone", why, head=head)
        case Refusal.TOO_SOON:
            return Problem(409, "Conflict", why, {"Retry-After": "1"}, head=head)
    return Problem(409, "Conflict", why, head=head)


def head_view(head: Head) -> HeadView:
    return HeadView(head.event, head.gen, head.seq, head.stage, head.ts, head.hold)
