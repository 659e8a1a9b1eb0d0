"""The HTTP API of prefetch: what devices pull, and what operators import, run and look at. Handlers hold no decisions."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kv import StoreError
from prefetch.campaign import Campaign
from prefetch.cors import PREFLIGHT, Origins
from prefetch.events import EventView, read_campaign, read_view
from prefetch.importing import KINDS, Kind
from prefetch.imports import Importer, NotThere
from prefetch.parts import Parts
from prefetch.pull import Answer, Pull
from prefetch.recommenders import RecommenderError
from prefetch.revoked import Revocations
from prefetch.runner import NoCampaign, NoEvent, Runner, Wanted
from prefetch.stage_maps import StageMaps
from stagecast.access import Gate
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, read_body, require
from stagecast.log import LogError
from stagecast.records import API_KEYS
from stagecast.tokens import Claims, KeysFile, TokenError
from stagecast.wire.codec import encode

RETRY = 5
"""Seconds, `Retry-After`, while the store is away."""
DIGEST_MAX = 128


class HintWanted(Struct, frozen=True, forbid_unknown_fields=True):
    window: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """Seconds in which devices fetch."""


class CampaignStatus(Struct, frozen=True):
    """A campaign as operators see it; times in wall ms, rate in members per second."""

    event: str
    gen: int
    phase: str
    done: int
    total: int
    pushed: int
    busy: int
    absent: int
    skipped: int
    map: str | None
    recommender: str
    rate: float
    started: int
    finished: int | None
    freeze: int | None
    error: str


class Api:
    """Handlers over this process's parts."""

    def __init__(self, parts: Parts, pull: Pull, runner: Runner, keys: KeysFile, revoked: Revocations) -> None:
        self._parts = parts
        self._pull = pull
        self._runner = runner
        self._keys = keys
        self._revoked = revoked
        self._gate = Gate(lambda digest: parts.store.get(API_KEYS, digest), parts.clock.monotonic)
        self._origins = Origins(())

    def app(self, origins: Origins) -> Starlette:
        self._origins = origins
        return Starlette(
            routes=[
                Route("/v1/stage-maps/{event}", self.pull, methods=["GET"]),
                Route("/v1/stage-maps/{event}", self.preflight, methods=["OPTIONS"]),
                Route("/v1/stage-maps/{event}/import", self.import_state, methods=["GET"]),
                Route("/v1/stage-maps/{event}/import", self.import_lines, methods=["POST"]),
                Route("/v1/stage-maps/{event}/members/{member:path}", self.member, methods=["GET"]),
                Route("/v1/campaigns/{event}", self.campaign, methods=["GET"]),
                Route("/v1/campaigns/{event}", self.begin, methods=["POST"]),
                Route("/v1/campaigns/{event}/hint", self.hint, methods=["POST"]),
                Route("/healthz", self.healthz, methods=["GET"]),
                Route("/readyz", self.readyz, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={**EXCEPTION_HANDLERS, StoreError: _away, LogError: _away},
        )

    # devices

    async def pull(self, request: Request) -> Response:
        """A device's stage map. Never 503."""
        cors = dict(self._origins.headers(request.headers.get("origin"), request.headers.get("host")) or {})
        cors["Vary"] = "Origin"
        try:
            claims = self._claims(request)
            got = await self._answered(request.path_params["event"], claims)
        except Problem as problem:
            problem.headers = {**(problem.headers or {}), **cors}
            if problem.status in (401, 403):
                self._parts.metrics.pulls.labels("refused").inc()
            raise
        assert got.map is not None
        etag = f'"{got.map.map}"'
        headers = {**cors, "ETag": etag, "Cache-Control": f"private, max-age={max(1, int(got.map.refresh_after))}"}
        if _matches(request.headers.get("if-none-match"), etag):
            self._parts.metrics.pulls.labels("unchanged").inc()
            return Response(status_code=304, headers=headers)
        self._parts.metrics.pulls.labels(got.got).inc()
        return Response(encode(got.map), headers=headers, media_type="application/json")

    async def preflight(self, request: Request) -> Response:
        headers = self._origins.headers(request.headers.get("origin"), request.headers.get("host"))
        if headers is None:
            raise Problem(403, "Forbidden", "this Origin is not allowed", {"Vary": "Origin"})
        return Response(status_code=204, headers={**headers, **PREFLIGHT, "Vary": "Origin"})

    async def _answered(self, event: str, claims: Claims) -> Answer:
        if not claims.allows(event):
            raise Problem(403, "Forbidden", "this token is not for this event")
        retry = {"Retry-After": str(round(RETRY * (1 + self._parts.rng.random())))}
        try:
            got = await self._pull.answer(event, claims.sub)
        except StoreError as error:
            # A 503 would be retried at once by what sits in between; a device takes 404 for "none yet" and keeps what it has.
            self._parts.metrics.pulls.labels("none").inc()
            raise Problem(404, "Not Found", "no stage map can be had now", retry) from error
        if got.map is None:
            self._parts.metrics.pulls.labels("none").inc()
            raise Problem(404, "Not Found", "no stage map for this member and event", retry)
        return got

    def _claims(self, request: Request) -> Claims:
        scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
        challenge = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() != "bearer" or not token:
            raise Problem(401, "Unauthorized", "send `Authorization: Bearer DEVICE_TOKEN`", challenge)
        try:
            keys = self._keys.look(self._parts.clock.monotonic())
            claims = keys.verify(token.strip(), self._parts.clock.now() / 1000)
        except TokenError as error:
            raise Problem(401, "Unauthorized", str(error), challenge) from error
        if self._revoked.voids(claims):
            raise Problem(401, "Unauthorized", "the token is revoked", challenge)
        return claims

    # operators

    async def member(self, request: Request) -> Response:
        """One member's map as stored (or a cohort's: `cohort:NAME`)."""
        await require(self._gate, request, "operator", "viewer", "service")
        view = await self._view(request)
        member = request.path_params["member"]
        found = await StageMaps(self._parts.store, view.event, view.gen, self._parts.rng).get(member)
        if found is None:
            raise Problem(404, "Not Found", f"member {member!r} has no stage map for {view.event!r}")
        return Response(encode(found), media_type="application/json")

    async def import_state(self, request: Request) -> Response:
        """How far a file is in."""
        await require(self._gate, request, "operator", "service")
        importer = await self._importer(request)
        return answer(await importer.state(_kind(request), _digest(request)))

    async def import_lines(self, request: Request) -> Response:
        """Imports the body: NDJSON, from byte `offset` of the file on."""
        await require(self._gate, request, "operator", "service")
        importer = await self._importer(request)
        offset = request.query_params.get("offset", "0")
        if not offset.isdigit():
            raise Problem(422, "Unprocessable Content", "a whole number of bytes", field="offset")
        try:
            state = await importer.run(_kind(request), _digest(request), int(offset), _body(request))
        except NotThere as error:
            raise Problem(
                409,
                "Conflict",
                f"{error}; go on from there, or from 0",
                bytes=error.state.bytes,
                lines=error.state.lines,
            ) from error
        except ClientDisconnect as error:
            raise Problem(400, "Bad Request", "the upload broke off; what came is in: run it again") from error
        return answer(state)

    async def campaign(self, request: Request) -> Response:
        """The event's newest campaign."""
        await require(self._gate, request, "operator", "viewer", "service")
        event = request.path_params["event"]
        campaign, _ = await read_campaign(self._parts.store, event)
        if campaign is None:
            await self._view(request)
            raise Problem(404, "Not Found", f"event {event!r} has had no campaign: `stagecast prefetch run {event}`")
        return answer(_status(campaign))

    async def begin(self, request: Request) -> Response:
        """Begins a campaign; while one runs, that one is the answer."""
        await require(self._gate, request, "operator", "service")
        wanted = await read_body(request, Wanted)
        try:
            campaign = await self._runner.start(request.path_params["event"], wanted)
        except NoEvent:
            raise _no_event() from None
        except RecommenderError as error:
            raise Problem(422, "Unprocessable Content", str(error), field="recommender") from error
        return answer(_status(campaign), 202)

    async def hint(self, request: Request) -> Response:
        """Tells devices that newer maps exist."""
        await require(self._gate, request, "operator", "service")
        wanted = await read_body(request, HintWanted)
        event = request.path_params["event"]
        try:
            campaign = await self._runner.hint(event, round(wanted.window * 1000))
        except NoEvent:
            raise _no_event() from None
        except NoCampaign:
            raise Problem(
                409, "Conflict", f"nothing to hint at: run a campaign first, `stagecast prefetch run {event}`"
            ) from None
        return answer(_status(campaign), 202)

    # everybody

    async def healthz(self, _: Request) -> Response:
        return answer({"ok": True})

    async def readyz(self, _: Request) -> Response:
        """Ready while the store answers."""
        started = self._parts.clock.monotonic()
        try:
            await self._parts.store.get(API_KEYS, "-")
        except StoreError as error:
            raise Problem(503, "Service Unavailable", f"the store does not answer: {error}") from error
        return answer({"ok": True, "store_ms": round(1000 * (self._parts.clock.monotonic() - started), 1)})

    async def metrics(self, _: Request) -> Response:
        return Response(self._parts.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _view(self, request: Request) -> EventView:
        view = await read_view(self._parts.store, request.path_params["event"])
        if view is None or view.head.gone:
            raise _no_event()
        return view

    async def _importer(self, request: Request) -> Importer:
        view = await self._view(request)
        maps = StageMaps(self._parts.store, view.event, view.gen, self._parts.rng)
        return Importer(self._parts.store, view, maps, self._parts.clock)


def _no_event() -> Problem:
    return Problem(404, "Not Found", "no such event")


def _status(campaign: Campaign) -> CampaignStatus:
    return msgspec.convert(campaign, CampaignStatus, from_attributes=True)


def _kind(request: Request) -> Kind:
    kind = request.query_params.get("kind", "maps")
    for known in KINDS:
        if kind == known:
            return known
    raise Problem(422, "Unprocessable Content", f"{kind!r} is none of {', '.join(KINDS)}", field="kind")


def _digest(request: Request) -> str:
    digest = request.query_params.get("digest", "")
    if len(digest) > DIGEST_MAX:
        raise Problem(422, "Unprocessable Content", f"at most {DIGEST_MAX} characters", field="digest")
    return digest


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Weak comparison, as RFC 9110 §13.1.2 wants for If-None-Match."""
    if if_none_match is None:
        return False
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return etag in given or given == ["*"]


async def _away(_: Request, error: Exception) -> Response:
    return Problem(503, "Service Unavailable", str(error), {"Retry-After": str(RETRY)}).response()
