"""What the HTTP API takes and gives: bodies as msgspec checks them, and their JSON schemas come from here."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from broadcaster.publisher import Standing
from broadcaster.schedule import Next
from stagecast.event import REASON_BYTES_MAX, Hold
from stagecast.names import DeviceId, EventId, MapVersion, MemberId, StageName
from stagecast.plan import PlannedStage

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


class Health(Struct, frozen=True):
    ok: bool


class Readiness(Struct, frozen=True):
    ready: bool
    kv: Literal["ok", "down"]
    log: Standing
    why: str = ""
