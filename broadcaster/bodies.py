"""What the HTTP API takes and gives: bodies as msgspec checks them, and their JSON schemas come from here."""

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from broadcaster.publisher import Standing
from broadcaster.readiness import Check
from broadcaster.schedule import Next
from stagecast.event import REASON_BYTES_MAX, Armed, Hold
from stagecast.names import DeviceId, EventId, MapVersion, MemberId, StageName
from stagecast.plan import PlannedStage
from stagecast.receipts import Progress

Title = Annotated[str, Meta(min_length=1, max_length=200, description="shown to producers")]
Reason = Annotated[str, Meta(max_length=REASON_BYTES_MAX, description="for the audit; at most 200 bytes")]


class CreateBody(Struct, frozen=True, forbid_unknown_fields=True):
    id: EventId
    title: Title
    plan: list[PlannedStage]


class PlanBody(Struct, frozen=True, forbid_unknown_fields=True):
    plan: list[PlannedStage]


class TransitionBody(Struct, frozen=True, forbid_unknown_fields=True):
    stage: Annotated[str, Meta(max_length=64)]
    if_gen: int | None = None
    if_seq: int | None = None
    urgent: bool = False
    reason: Reason = ""


class ReasonBody(Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason = ""


class CloudEventData(Struct, frozen=True):
    """`data` of a CloudEvent: a TransitionBody; what else the sender says is passed over."""

    stage: Annotated[str, Meta(max_length=64)]
    if_gen: int | None = None
    if_seq: int | None = None
    urgent: bool = False
    reason: Reason = ""


class CloudEvent(Struct, frozen=True):
    """CloudEvents 1.0.2, JSON format, structured mode. `source` and `id` together are the idempotency key (§3.1: they identify
    an event)."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(min_length=1, max_length=1024)]
    source: Annotated[str, Meta(min_length=1, max_length=2048)]
    type: Annotated[str, Meta(min_length=1, max_length=1024)]
    data: CloudEventData


class ArmBody(Struct, frozen=True, forbid_unknown_fields=True):
    armed: bool
    override: Reason = ""
    """Why, although the checks say no-go."""


class ShiftBody(Struct, frozen=True, forbid_unknown_fields=True):
    by: Annotated[timedelta, Meta(description="ISO 8601: PT5M later, -PT90S earlier")]
    start: Annotated[str | None, Meta(description="only this stage and those after it; else all not reached yet")] = (
        field(name="from", default=None)
    )
    revision: Annotated[
        int | None, Meta(description="only if the plan is at it, so that a repeat does not shift twice")
    ] = None


class RehearsalBody(Struct, frozen=True, forbid_unknown_fields=True):
    speed: Annotated[float, Meta(ge=0.1, le=1000, description="plays so much faster")] = 10.0
    devices: Annotated[int, Meta(ge=1, le=500, description="synthetic devices")] = 50


class RehearsalView(Struct, frozen=True):
    """The shadow event, which has a report of its own."""

    id: str


class EmptyBody(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class RevocationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the two."""

    device: DeviceId | None = None
    member: MemberId | None = None


class EventView(Struct, frozen=True):
    """An event, its plan, and where it is."""

    id: str
    title: str
    gen: int
    seq: int
    stage: StageName
    ts: int
    map: MapVersion | None
    revision: int
    plan: tuple[PlannedStage, ...]
    hold: Hold | None
    next: Next | None
    armed: bool = False
    arming: Armed | None = None
    """For which stage, by whom, since when."""


class HostLine(Struct, frozen=True):
    """A host, as it last said."""

    host: str
    connections: int
    limit: int
    log_age: float
    accepting: bool
    """Whether devices may come; false while it drains."""
    age: float
    """Seconds since it said so; over 15 it counts as silent."""


class HostList(Struct, frozen=True):
    hosts: list[HostLine]


class Live(Progress, frozen=True):
    """A progress with the event it is of: `data` of a server-sent event."""

    head: EventView | None = None


class EventLine(Struct, frozen=True):
    id: str
    title: str
    stage: str
    gen: int
    seq: int
    ts: int
    hold: Hold | None


class EventList(Struct, frozen=True):
    events: list[EventLine]
    after: str | None


class HistoryEntry(Struct, frozen=True):
    seq: int
    ts: int
    stage: str
    who: str
    reason: str
    request: str


class HistoryPage(Struct, frozen=True):
    history: list[HistoryEntry]
    after: int | None


class AuditLine(Struct, frozen=True):
    """An accepted transition (`what` is `transition`), or an act."""

    ts: int
    seq: int
    what: str
    stage: str
    who: str
    why: str
    detail: str


class AuditPage(Struct, frozen=True):
    audit: list[AuditLine]
    after: str | None


class RevocationView(Struct, frozen=True):
    kind: Literal["device", "member"]
    id: str
    ts: int
    log: Standing


class HeadView(Struct, frozen=True):
    """The head that a request was judged by."""

    e: str
    gen: int
    seq: int
    stage: str
    ts: int
    hold: Hold | None


class ProblemView(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details. `field` names what is wrong (422), `head` is what the request was judged by (409, 410)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    error: str | None = None
    head: HeadView | None = None
    checks: list[Check] | None = None
    """What said no-go."""


class Health(Struct, frozen=True):
    ok: bool


class Readiness(Struct, frozen=True):
    ready: bool
    kv: Literal["ok", "down"]
    log: Standing
    why: str = ""
