"""The HTTP API: one table of operations, from which the routes and `/openapi.json` are both made."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version

import structlog
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from broadcaster import bodies
from broadcaster.cloudevents import BYTES_MAX, is_cloud_event, request_of
from broadcaster.control import Control
from broadcaster.heads import Damaged
from broadcaster.metrics import CONTENT_TYPE
from broadcaster.openapi import Operation, Parameter, document
from broadcaster.parts import (
    BODY_BYTES_MAX,
    NOBODY,
    PLAN_BYTES_MAX,
    READ,
    RULE,
    TRIGGER,
    Handler,
    Parts,
    checked_reason,
    event_of,
    idempotency_key,
    is_event,
    wrong,
)
from broadcaster.problems import KNOWN, problem_of
from broadcaster.producer import Taken
from broadcaster.together import together
from kv import Put
from stagecast.access import ApiKey, Gate
from stagecast.event import Request
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, read_body, require
from stagecast.names import WIRE_INT_MAX
from stagecast.plan import plan_of
from stagecast.records import REVOKED, REVOKED_TTL, Revocation, encode_record

EVENTS_PER_PAGE = 100
_log = structlog.get_logger()

_AFTER_EVENT = Parameter("after", "query", {"type": "string"}, "where the previous page ended")
_AFTER_SEQ = Parameter("after", "query", {"type": "integer", "minimum": 0}, "the last seq already seen")
_IDEMPOTENCY = Parameter(
    "Idempotency-Key", "header", {"type": "string", "pattern": "^[ -~]{1,64}$"},
    "the same key never does it twice: the first answer again. Remembered for an event's last 32 transitions",
)  # fmt: skip


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
            (Operation("POST", event + "/transitions", "transition", "Go to a stage; also as `data` of a CloudEvent "
                       "(application/cloudevents+json), whose source and id are then the key", TRIGGER,
                       taken, bodies.TransitionBody, 202, (400, 409, *gone), (_IDEMPOTENCY,)), self.transition),
            (Operation("POST", event + "/hold", "hold", "Stop the plan from firing", RULE,
                       view, bodies.ReasonBody, 200, (400, *gone)), self.hold),
            (Operation("POST", event + "/resume", "resume", "Let the plan go on", RULE,
                       view, bodies.ReasonBody, 200, (400, 409, *gone)), self.resume),
            (Operation("POST", event + "/regen", "regen", "The same stage under a greater gen, after a restored backup",
                       RULE, taken, bodies.EmptyBody, 200, (400, *gone), (_IDEMPOTENCY,)), self.regen),
            (Operation("GET", event + "/history", "history", "Accepted transitions of this gen, oldest first", READ,
                       bodies.HistoryPage, None, 200, (404, 422, 503), (_AFTER_SEQ,)), self.history),
            *Control(self._parts).operations(),
            (Operation("POST", "/v1/revocations", "revoke", "Void the tokens of a device or a member", RULE,
                       bodies.RevocationView, bodies.RevocationBody, 202, (400, 413, 422, 503)), self.revoke),
            (Operation("GET", "/v1/hosts", "hosts", "Hosts that have reported in the last minutes", READ,
                       bodies.HostList), self.hosts),
            (Operation("GET", "/openapi.json", "openapi", "This document", (), None), self.openapi),
            (Operation("GET", "/healthz", "healthz", "The process lives", (), bodies.Health), self.healthz),
            (Operation("GET", "/readyz", "readyz", "Store and log answer", (), bodies.Readiness, None, 200, (503,)),
             self.readyz),
            (Operation("GET", "/metrics", "metrics", "For Prometheus", (), None, media="text/plain"), self.metrics),
        ]  # fmt: skip

    async def create(self, http: HttpRequest, caller: ApiKey) -> Response:
        key = idempotency_key(http)
        body = await read_body(http, bodies.CreateBody, PLAN_BYTES_MAX)
        plan = plan_of(body.plan)
        head = await self._parts.producer.create(body.id, body.title, plan, Request(key, plan.first, caller.id))
        return answer(await self._parts.view(head), 201, {"Location": f"/v1/events/{body.id}", "Idempotency-Key": key})

    async def list_(self, http: HttpRequest, caller: ApiKey) -> Response:
        after = http.query_params.get("after")
        if after is not None and not is_event(after):
            raise wrong("after", "not an event id")
        ids, more = await self._parts.heads.page(after, EVENTS_PER_PAGE)
        lines = await together(self._line, ids)
        return answer(bodies.EventList([line for line in lines if line is not None], more))

    async def show(self, http: HttpRequest, caller: ApiKey) -> Response:
        return answer(await self._parts.view(await self._parts.head(http)))

    async def hosts(self, http: HttpRequest, caller: ApiKey) -> Response:
        now = self._parts.clock.now()
        lines = [
            bodies.HostLine(
                name, life.beat.connections, life.beat.limit, life.beat.log_age, life.beat.accepting,
                max(now - life.ts, 0) / 1000,
            )
            for name, life in sorted(self._parts.ledger.hosts.items())
        ]  # fmt: skip
        return answer(bodies.HostList(lines))

    async def delete(self, http: HttpRequest, caller: ApiKey) -> Response:
        request = Request(idempotency_key(http), "gone", caller.id)
        return answer(await self._parts.producer.delete(event_of(http), request))

    async def replan(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.PlanBody, PLAN_BYTES_MAX)
        return answer(
            await self._parts.view(await self._parts.producer.replan(event_of(http), plan_of(body.plan), caller.id))
        )

    async def transition(self, http: HttpRequest, caller: ApiKey) -> Response:
        if is_cloud_event(http.headers.get("content-type")):
            event = await read_body(http, bodies.CloudEvent, BYTES_MAX)
            checked_reason(event.data.reason, "$.data.reason")
            request = request_of(event, caller.id)
        else:
            key = idempotency_key(http)
            body = await read_body(http, bodies.TransitionBody, BODY_BYTES_MAX)
            why = checked_reason(body.reason)
            request = Request(key, body.stage, caller.id, why, body.if_gen, body.if_seq, body.urgent)
        taken = await self._parts.producer.transition(event_of(http), request)
        return answer(taken, 202, {"Idempotency-Key": request.id})

    async def hold(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.ReasonBody, BODY_BYTES_MAX)
        why = checked_reason(body.reason) or "by hand"
        return answer(await self._parts.view(await self._parts.producer.hold(event_of(http), why, caller.id)))

    async def resume(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.ReasonBody, BODY_BYTES_MAX)
        why = checked_reason(body.reason)
        return answer(await self._parts.view(await self._parts.producer.resume(event_of(http), caller.id, why)))

    async def regen(self, http: HttpRequest, caller: ApiKey) -> Response:
        key = idempotency_key(http)
        await read_body(http, bodies.EmptyBody, BODY_BYTES_MAX)
        request = Request(key, "", caller.id, "regen")
        return answer(await self._parts.producer.regenerate(event_of(http), request), headers={"Idempotency-Key": key})

    async def history(self, http: HttpRequest, caller: ApiKey) -> Response:
        after = http.query_params.get("after", "0")
        if not after.isdecimal() or int(after) > WIRE_INT_MAX:
            raise wrong("after", "not a seq")
        entries, more = await self._parts.heads.history(await self._parts.head(http), int(after))
        lines = [bodies.HistoryEntry(e.seq, e.ts, e.stage, e.who, e.reason, e.request) for e in entries]
        return answer(bodies.HistoryPage(lines, more))

    async def revoke(self, http: HttpRequest, caller: ApiKey) -> Response:
        body = await read_body(http, bodies.RevocationBody, BODY_BYTES_MAX)
        now = self._parts.clock.now()
        match body:
            case bodies.RevocationBody(device=str(device), member=None):
                revocation = Revocation("device", device, now)
            case bodies.RevocationBody(device=None, member=str(member)):
                revocation = Revocation("member", member, now)
            case _:
                raise wrong("$", "give `device` or `member`, and not both")
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
