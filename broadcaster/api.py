"""The HTTP API: one table of operations, from which the routes and `/openapi.json` are both made."""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from broadcaster import bodies
from broadcaster.heads import Damaged, Heads
from broadcaster.metrics import CONTENT_TYPE, Metrics
from broadcaster.openapi import Operation, Parameter, document
from broadcaster.problems import KNOWN, problem_of
from broadcaster.producer import Producer, Taken, UnknownEvent
from broadcaster.publisher import Publisher
from broadcaster.receipts import Ledger
from broadcaster.roster import Roster
from broadcaster.schedule import upcoming
from broadcaster.together import together
from kv import KeyValue, Put, StoreUnavailable
from stagecast.access import ApiKey, Gate, Scope
from stagecast.clock import Clock
from stagecast.event import REASON_BYTES_MAX, Head, Request
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, read_body, require
from stagecast.names import WIRE_INT_MAX
from stagecast.plan import Plan, PlannedStage, plan_of
from stagecast.receipts import Progress
from stagecast.records import REVOKED, REVOKED_TTL, Revocation, encode_record

PLAN_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 4 * 1024
EVENTS_PER_PAGE = 100
_log = structlog.get_logger()
_KEY = re.compile(r"[ -~]{1,64}")
_EVENT = re.compile(r"[a-z0-9._-]{1,64}")

READ: tuple[Scope, ...] = ("operator", "viewer", "service")
TRIGGER: tuple[Scope, ...] = ("operator", "service")
RULE: tuple[Scope, ...] = ("operator",)

_AFTER_EVENT = Parameter("after", "query", {"type": "string"}, "where the previous page ended")
_AFTER_SEQ = Parameter("after", "query", {"type": "integer", "minimum": 0}, "the last seq already seen")
_IDEMPOTENCY = Parameter(
    "Idempotency-Key", "header", {"type": "string", "pattern": "^[ -~]{1,64}$"},
    "the same key never does it twice: the first answer again. Remembered for an event's last 32 transitions",
)  # fmt: skip

Handler = Callable[[HttpRequest, ApiKey], Awaitable[Response]]
NOBODY = ApiKey("", "viewer", 0)
"""The caller of an operation that asks for no key."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API stands on."""

    store: KeyValue
    heads: Heads
    roster: Roster
    producer: Producer
    publisher: Publisher
    ledger: Ledger
    metrics: Metrics
    clock: Clock
    ready: Callable[[], bodies.Readiness]


class Api:
    """The operations. Each takes the HTTP request and its caller."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._document: bytes | None = None

    def operations(self) -> list[tuple[Operation, Handler]]:
        """The table."""
        event, gone = "/v1/events/{id}", (404, 410, 413, 422, 503)
        view, taken = bodies.EventView, Taken
        return [
            (Operation("POST", "/v1/events", "create", "Create an event; its first stage is accepted as seq 1", RULE,
                       view, bodies.CreateBody, 201, (400, 409, 413, 422, 503), (_IDEMPOTENCY,)), self.create),
            (Operation("GET", "/v1/events", "list", "Events and where they are", READ,
                       bodies.EventList, None, 200, (422, 503), (_AFTER_EVENT,)), self.list_),
            (Operation("GET", event, "show", "One event", READ, view, None, 200, (404, 503)), self.show),
            (Operation("DELETE", event, "delete", "Delete an event: its stage becomes `gone`", RULE,
                       taken, None, 200, (404, 422, 503), (_IDEMPOTENCY,)), self.delete),
            (Operation("PUT", event + "/plan", "replan", "Give an event a new plan", RULE,
                       view, bodies.PlanBody, 200, (400, *gone)), self.replan),
            (Operation("POST", event + "/transitions", "transition", "Go to a stage", TRIGGER,
                       taken, bodies.TransitionBody, 202, (400, 409, *gone), (_IDEMPOTENCY,)), self.transition),
            (Operation("POST", event + "/hold", "hold", "Stop the plan from firing", RULE,
                       view, bodies.ReasonBody, 200, (400, *gone)), self.hold),
            (Operation("POST", event + "/resume", "resume", "Let the plan go on", RULE,
                       view, bodies.EmptyBody, 200, (400, 409, *gone)), self.resume),
            (Operation("POST", event + "/regen", "regen", "The same stage under a greater gen, after a restored backup",
                       RULE, taken, bodies.EmptyBody, 200, (400, *gone), (_IDEMPOTENCY,)), self.regen),
            (Operation("GET", event + "/history", "history", "Accepted transitions of this gen, oldest first", READ,
                       bodies.HistoryPage, None, 200, (404, 422, 503), (_AFTER_SEQ,)), self.history),
            (Operation("GET", event + "/progress", "progress", "Did they get it? Receipts of the newest transition",
                       READ, Progress, None, 200, (404, 503)), self.progress),
            (Operation("POST", "/v1/revocations", "revoke", "Void the tokens of a device or a member", RULE,
                       bodies.RevocationView, bodies.RevocationBody, 202, (400, 413, 422, 503)), self.revoke),
            (Operation("GET", "/openapi.json", "openapi", "This document", (), None), self.openapi),
            (Operation("GET", "/healthz", "healthz", "The process lives", (), bodies.Health), self.healthz),
            (Operation("GET", "/readyz", "readyz", "Store and log answer", (), bodies.Readiness, None, 200, (503,)),
             self.readyz),
            (Operation("GET", "/metrics", "metrics", "For Prometheus", (), None, media="text/plain"), self.metrics),
        ]  # fmt: skip

    async def create(self, http: HttpRequest, caller: ApiKey) -> Response:
        key = _idempotency_key(http)
        body = await read_body(http, bodies.CreateBody, PLAN_BYTES_MAX)
        plan = _plan(body.plan)
        head = await self._parts.producer.create(body.id, body.title, plan, Request(key, plan.first, caller.id))
        return answer(await self._view(head), 201, {"Location": f"/v1/events/{body.id}", "Idempotency-Key": key})

    async def list_(self, http: HttpRequest, caller: ApiKey) -> Response:
        after = http.query_params.get("after")
        if after is not None and not _EVENT.fullmatch(after):
            raise _wrong("after", "not an event id")
        ids, more = await self._parts.heads.page(after, EVENTS_PER_PAGE)
        lines = await together(self._line, ids)
        return answer(bodies.EventList([line for line in lines if line is not None], more))

    async def show(self, http: HttpRequest, caller: ApiKey) -> Response:
        return answer(await self._view(await self._head(http)))

    async def delete(self, http: HttpRequest, caller: ApiKey) -> Response:
        request = Request(_idempotency_key(http), "gone", caller.id)
        return answer(await self._parts.producer.delete(_event(http), request))

    async def replan(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.PlanBody, PLAN_BYTES_MAX)
        return answer(await self._view(await self._parts.producer.replan(_event(http), _plan(body.plan))))

    async def transition(self, http: HttpRequest, caller: ApiKey) -> Response:
        key = _idempotency_key(http)
        body = await read_body(http, bodies.TransitionBody, BODY_BYTES_MAX)
        request = Request(
            key, body.stage, caller.id, _reason(body.reason), body.if_gen, body.if_seq, body.urgent
        )  # fmt: skip
        return answer(await self._parts.producer.transition(_event(http), request), 202, {"Idempotency-Key": key})

    async def hold(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.ReasonBody, BODY_BYTES_MAX)
        why = _reason(body.reason) or "by hand"
        return answer(await self._view(await self._parts.producer.hold(_event(http), why, caller.id)))

    async def resume(self, http: HttpRequest, caller: ApiKey) -> Response:
        await read_body(http, bodies.EmptyBody, BODY_BYTES_MAX)
        return answer(await self._view(await self._parts.producer.resume(_event(http))))

    async def regen(self, http: HttpRequest, caller: ApiKey) -> Response:
        key = _idempotency_key(http)
        await read_body(http, bodies.EmptyBody, BODY_BYTES_MAX)
        request = Request(key, "", caller.id, "regen")
        return answer(await self._parts.producer.regenerate(_event(http), request), headers={"Idempotency-Key": key})

    async def history(self, http: HttpRequest, caller: ApiKey) -> Response:
        after = http.query_params.get("after", "0")
        if not after.isdecimal() or int(after) > WIRE_INT_MAX:
            raise _wrong("after", "not a seq")
        entries, more = await self._parts.heads.history(await self._head(http), int(after))
        lines = [bodies.HistoryEntry(e.seq, e.ts, e.stage, e.who, e.reason, e.request) for e in entries]
        return answer(bodies.HistoryPage(lines, more))

    async def progress(self, http: HttpRequest, caller: ApiKey) -> Response:
        try:
            head = await self._head(http)
        except StoreUnavailable:  # receipts need no store: who watches a known event goes on watching
            known = self._parts.roster.get(_event(http))
            if known is None:
                raise
            head = known.head
        return answer(self._parts.ledger.progress(head.event, head.gen, head.seq, self._parts.clock.now()))

    async def revoke(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.RevocationBody, BODY_BYTES_MAX)
        now = self._parts.clock.now()
        match body:
            case bodies.RevocationBody(device=str(device), member=None):
                revocation = Revocation("device", device, now)
            case bodies.RevocationBody(device=None, member=str(member)):
                revocation = Revocation("member", member, now)
            case _:
                raise _wrong("$", "give `device` or `member`, and not both")
        await self._parts.store.put([Put(REVOKED, revocation.subject, encode_record(revocation), REVOKED_TTL)])
        await self._parts.publisher.revoke(revocation)
        view = bodies.RevocationView(revocation.kind, revocation.id, revocation.ts, self._parts.publisher.standing)
        return answer(view, 202)

    async def openapi(self, http: HttpRequest, caller: ApiKey) -> Response:
        return answer(document([operation for operation, _ in self.operations()], version("stagecast")))

    async def healthz(self, http: HttpRequest, caller: ApiKey) -> Response:
        return answer(bodies.Health(True))

    async def readyz(self, http: HttpRequest, caller: ApiKey) -> Response:
        standing = self._parts.ready()
        return answer(standing, 200 if standing.ready else 503)

    async def metrics(self, http: HttpRequest, caller: ApiKey) -> Response:
        return Response(self._parts.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _line(self, event: str) -> bodies.EventLine | None:
        """An event in the list; None for an id without a head, and for one that is damaged, which `show` tells of."""
        try:
            kept = await self._parts.heads.read(event)
        except Damaged:
            return None
        if kept is None:
            return None
        head = kept.head
        return bodies.EventLine(head.event, head.title, head.stage, head.gen, head.seq, head.ts, head.hold)

    async def _head(self, http: HttpRequest) -> Head:
        event = _event(http)
        kept = await self._parts.heads.read(event)
        if kept is None:
            raise UnknownEvent(event)
        return kept.head

    async def _view(self, head: Head) -> bodies.EventView:
        plan = await self._parts.heads.plan(head)
        return bodies.EventView(
            head.event, head.title, head.gen, head.seq, head.stage, head.ts, head.map, head.revision, plan.stages, head.hold,
            upcoming(head, plan),
        )  # fmt: skip


def http_api(parts: Parts, gate: Gate) -> Starlette:
    """The API as an ASGI app."""
    routes = [
        Route(operation.path, _endpoint(operation, handler, gate, parts.metrics.answers), methods=[operation.method])
        for operation, handler in Api(parts).operations()
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _endpoint(
    operation: Operation, handler: Handler, gate: Gate, answers: dict[int, int]
) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def endpoint(http: HttpRequest) -> Response:
        try:
            caller = await require(gate, http, *operation.scopes) if operation.scopes else NOBODY
            response = await handler(http, caller)
        except Problem as problem:
            response = problem.response()
        except KNOWN as error:
            response = problem_of(error).response()
        except Exception:
            _log.exception("operation broke", operation=operation.name)
            response = Problem(500, "Internal Server Error", "this is a defect; the log has more").response()
        answers[response.status_code] = answers.get(response.status_code, 0) + 1
        return response

    return endpoint


def _event(http: HttpRequest) -> str:
    event: str = http.path_params["id"]
    if not _EVENT.fullmatch(event):
        raise UnknownEvent(event)
    return event


def _idempotency_key(http: HttpRequest) -> str:
    key = http.headers.get("idempotency-key")
    if key is None:
        return secrets.token_hex(16)
    if not _KEY.fullmatch(key):
        raise _wrong("Idempotency-Key", "1 to 64 printable ASCII characters")
    return key


def _reason(reason: str) -> str:
    if len(reason.encode()) > REASON_BYTES_MAX:
        raise _wrong("$.reason", f"at most {REASON_BYTES_MAX} bytes")
    return reason


def _plan(stages: list[PlannedStage]) -> Plan:
    return plan_of(stages)


def _wrong(field: str, text: str) -> Problem:
    return Problem(422, "Unprocessable Content", f"{field}: {text}", field=field, error=text)
