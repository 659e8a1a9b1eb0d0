"""The control room's operations: go or no-go, arming, shifting, the audit, what is going on, what became of it."""

import re
from collections.abc import AsyncGenerator

from msgspec import json, structs
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from broadcaster import bodies
from broadcaster.auditing import BadCursor, audit_page, whole_audit
from broadcaster.explaining import Timeline
from broadcaster.openapi import Operation, Parameter
from broadcaster.parts import (
    BODY_BYTES_MAX,
    READ,
    RULE,
    Handler,
    Parts,
    checked_reason,
    event_of,
    is_event,
    view_of,
    wrong,
)
from broadcaster.problems import head_view
from broadcaster.producer import UnknownEvent
from broadcaster.readiness import Findings, GoNoGo, failed, judge
from broadcaster.rehearsal import CannotRehearse
from broadcaster.report import Report, Sources, report_of
from broadcaster.watching import TooMany
from kv import StoreUnavailable
from stagecast.access import ApiKey
from stagecast.event import Head
from stagecast.http import Problem, answer, read_body
from stagecast.receipts import Progress

AUDIT_MAX = 10_000
"""Lines of the audit in a report, or somewhat more."""
EVENT_STREAM = "text/event-stream"
_AFTER = Parameter("after", "query", {"type": "string"}, "where the previous page ended")

_EVENT = Parameter("event", "query", {"type": "string"}, "an event of interest")
_DEVICE = Parameter("device", "path", {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"}, "the device's id")
_DEVICE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Control:
    """The operations. Each takes the HTTP request and its caller."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def operations(self) -> list[tuple[Operation, Handler]]:
        """Its part of the API's table."""
        event, gone = "/v1/events/{id}", (404, 410, 413, 422, 503)
        view = bodies.EventView
        return [
            (Operation("GET", event + "/progress", "progress", "Did they get it? Receipts of the newest transition; with "
                       "`Accept: text/event-stream`, `progress` events with the event as `head` whenever they change",
                       READ, Progress, None, 200, (404, 503)), self.progress),
            (Operation("GET", event + "/readiness", "readiness", "Go or no-go, check by check", READ,
                       GoNoGo, None, 200, (404, 503)), self.readiness),
            (Operation("POST", event + "/arm", "arm", "Let the plan fire its next armed stage, or take that back; under no-go "
                       "this wants an override, which the audit keeps", RULE,
                       view, bodies.ArmBody, 200, (400, 409, *gone)), self.arm),
            (Operation("POST", event + "/shift", "shift", "Move all later stages together", RULE,
                       view, bodies.ShiftBody, 200, (400, 409, *gone)), self.shift),
            (Operation("GET", event + "/audit", "audit", "Who did what, when and why, oldest first", READ,
                       bodies.AuditPage, None, 200, (404, 422, 503), (_AFTER,)), self.audit),
            (Operation("POST", event + "/rehearsals", "rehearse", "Run the plan as a shadow event with synthetic devices", RULE,
                       bodies.RehearsalView, bodies.RehearsalBody, 202, (400, 409, *gone)), self.rehearse),
            (Operation("GET", event + "/report", "report", "What became of the event, stage by stage", READ,
                       Report, None, 200, (404, 503)), self.report),
            (Operation("GET", "/v1/devices/{device}/explain", "explain", "What happened to a device", READ,
                       Timeline, None, 200, (404, 422, 503), (_DEVICE, _EVENT)), self.explain),
        ]  # fmt: skip

    async def progress(self, http: HttpRequest, caller: ApiKey) -> Response:
        if EVENT_STREAM in http.headers.get("accept", ""):
            return await self._stream(http)
        try:
            head = await self._parts.head(http)
        except StoreUnavailable:  # receipts need no store: who watches a known event goes on watching
            known = self._parts.roster.get(event_of(http))
            if known is None:
                raise
            head = known.head
        return answer(self._parts.progress(head))

    async def _stream(self, http: HttpRequest) -> Response:
        event = event_of(http)
        if self._parts.roster.get(event) is None and await self._parts.roster.refresh(event) is None:
            raise UnknownEvent(event)
        try:
            stream: AsyncGenerator[bytes, None] = self._parts.watching.stream(event)
        except TooMany:
            raise Problem(503, "Service Unavailable", "too many watch already", {"Retry-After": "5"}) from None
        return StreamingResponse(
            stream, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def readiness(self, http: HttpRequest, caller: ApiKey) -> Response:
        return answer(await self._judge(await self._parts.head(http)))

    async def arm(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.ArmBody, BODY_BYTES_MAX)
        override = checked_reason(body.override, "$.override")
        event = event_of(http)
        if not body.armed:
            return answer(await self._parts.view(await self._parts.planning.disarm(event, caller.id)))
        head = await self._parts.head(http)
        no_go = failed(await self._judge(head))
        if no_go and not override and not head.gone:
            names = ", ".join(check.name for check in no_go)
            detail = f"no-go: {names}. Say why it is to be armed all the same (`override`), or mend it"
            raise Problem(409, "Conflict", detail, head=head_view(head), checks=no_go)
        names = ", ".join(check.name for check in no_go)
        armed = await self._parts.planning.arm(event, caller.id, override if no_go else "", names)
        return answer(await self._parts.view(armed))

    async def shift(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.ShiftBody, BODY_BYTES_MAX)
        head = await self._parts.planning.shift(event_of(http), body.by, caller.id, body.start, body.revision)
        return answer(await self._parts.view(head))

    async def audit(self, http: HttpRequest, caller: ApiKey) -> Response:
        head = await self._parts.head(http)
        try:
            return answer(await audit_page(self._parts.heads, head, http.query_params.get("after")))
        except BadCursor:
            raise wrong("after", "not where a page ended") from None

    async def explain(self, http: HttpRequest, caller: ApiKey) -> Response:
        device, event = http.path_params["device"], http.query_params.get("event")
        if not _DEVICE_ID.fullmatch(device):
            raise wrong("device", "not a device id")
        if event is not None and not is_event(event):
            raise wrong("event", "not an event id")
        return answer(await self._parts.explaining.explain(device, event))

    async def rehearse(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.RehearsalBody, BODY_BYTES_MAX)
        head = await self._parts.head(http)
        plan = await self._parts.heads.plan(head)
        try:
            shadow = await self._parts.rehearsals.start(head, plan, body.speed, body.devices, caller.id)
        except CannotRehearse as error:
            raise Problem(409, "Conflict", str(error), head=head_view(head)) from None
        return answer(bodies.RehearsalView(shadow), 202, {"Location": f"/v1/events/{shadow}"})

    async def report(self, http: HttpRequest, caller: ApiKey) -> Response:
        head = await self._parts.head(http)
        lines, complete = await whole_audit(self._parts.heads, head, AUDIT_MAX)
        plan = await self._parts.heads.plan(head)
        curves = await self._parts.curves.of_gen(head.event, head.gen)
        return answer(report_of(Sources(head, plan, lines, complete, curves, self._parts.clock.now())))

    async def _judge(self, head: Head) -> GoNoGo:
        parts = self._parts
        required = await parts.heads.required_map(head)
        return judge(
            Findings(
                progress=parts.progress(head),
                required=required.map if required else None,
                hosts=parts.ledger.hosts,
                log=parts.publisher.standing,
                log_age=parts.publisher.age,
                store=parts.ready().kv == "ok",
                here=parts.ledger.lag,
                now=parts.clock.now(),
            )
        )


async def live(parts: Parts, event: str) -> bytes:
    """The progress and the event as it is, for a stream; of one that rests, and so is not in memory, by the store. Raises
    UnknownEvent, Damaged, StoreError."""
    known = parts.roster.get(event) or await parts.roster.refresh(event)
    if known is None:
        raise UnknownEvent(event)
    progress = parts.progress(known.head)
    return json.encode(bodies.Live(**structs.asdict(progress), head=view_of(known.head, known.plan)))
