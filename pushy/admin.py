"""The admin port of a host: is it alive, is it ready, what does it count; draining and delivery."""

from typing import Annotated, Protocol

from msgspec import Meta, Struct
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kv import StoreError
from pushy.delivery import BODY_MAX, BadEntry, Entries, Entry, Outcome
from pushy.draining import Progress
from pushy.link import Happening
from pushy.metrics import CONTENT_TYPE, page
from stagecast.access import ApiKey, Gate, Scope
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, read_body, require


class DrainRequest(Struct, frozen=True, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(gt=0)] | None = None
    """Connections a second, of the whole host; by default the setting `drain_rate`."""


class Standing(Struct, frozen=True):
    """The answer of /readyz."""

    ready: bool
    reasons: list[str]
    workers: int
    """Joined now."""


class Host(Protocol):
    """What the admin port needs of a feed."""

    def standing(self) -> Standing: ...

    def drain(self, rate: float | None) -> Progress: ...

    def drain_progress(self) -> Progress: ...

    async def push(self, entries: list[Entry]) -> list[Outcome]: ...

    async def explain(self, device: str) -> list[Happening]: ...


def admin_app(host: Host, gate: Gate, collector: Collector) -> Starlette:
    """The routes of the admin port, which belongs on an inner network."""

    async def healthz(_: Request) -> Response:
        return answer({"ok": True})

    async def readyz(_: Request) -> Response:
        standing = host.standing()
        return answer(standing, 200 if standing.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(page(collector), media_type=CONTENT_TYPE)

    async def drain(request: Request) -> Response:
        await _may(gate, request, "operator", "service")
        empty = request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
        wish = DrainRequest() if empty else await read_body(request, DrainRequest)
        return answer(host.drain(wish.rate), 202)

    async def drain_progress(request: Request) -> Response:
        await _may(gate, request, "operator", "service", "viewer")
        return answer(host.drain_progress())

    async def push(request: Request) -> Response:
        await _may(gate, request, "operator", "service")
        entries = await read_body(request, Entries, BODY_MAX)
        try:
            return answer(await host.push(entries))
        except BadEntry as error:
            raise Problem(422, "Unprocessable Content", str(error), field=error.field) from error

    async def explain(request: Request) -> Response:
        await _may(gate, request, "operator", "service")
        return answer({"timeline": await host.explain(request.path_params["device"])})

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/drain", drain, methods=["POST"]),
        Route("/drain", drain_progress, methods=["GET"]),
        Route("/push", push, methods=["POST"]),
        Route("/explain/{device}", explain),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


async def _may(gate: Gate, request: Request, *scopes: Scope) -> ApiKey:
    """The caller's key. Raises Problem: 401, 403, or 503 when the store can't say whose key it is."""
    try:
        return await require(gate, request, *scopes)
    except StoreError as error:
        raise Problem(503, "Service Unavailable", "the store does not answer", {"Retry-After": "5"}) from error
