"""The console's routes, and how it stands beside the API on one port.

/                            to the console
/console/                    the page; it is the same file for every address of the console
/console/events/{id}
/console/static/{file}       its modules and styles
/console/sdk/{file}          the device SDK, for the preview
/console/session             POST {key}: sign in · GET: who am I · DELETE: sign out
/console/preview             POST {event, device}: a device's pass
everything else              the API
"""

import random
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broadcaster.console.assets import SDK, STATIC, Asset, load_assets, security_headers
from broadcaster.console.preview import Preview, PreviewBody
from broadcaster.console.recognition import COOKIE, Recognised, check_same_origin
from broadcaster.console.sessions import LIFE, Sessions
from broadcaster.problems import KNOWN, problem_of
from kv import Store
from stagecast.access import ApiKey, Gate
from stagecast.access import Scope as Role
from stagecast.clock import Clock
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, read_body
from stagecast.settings import Settings

BODY_MAX = 4096
PEOPLE: tuple[Role, ...] = ("operator", "viewer")
"""Scopes of people; a service's key opens no session."""
Endpoint = Callable[[Request], Awaitable[Response]]


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(min_length=1, max_length=256)]


class SessionView(Struct, frozen=True):
    """Who is signed in, for the page."""

    id: str
    """Of the API key: `who` in the audit."""
    scope: str
    now: int
    """The broadcaster's wall ms, so that a page's countdown does not go by the page's clock."""
    preview: bool


class Console:
    """The pages and what they ask for apart from the API."""

    def __init__(self, sessions: Sessions, preview: Preview, clock: Clock) -> None:
        self._sessions = sessions
        self._preview = preview
        self._clock = clock
        self._pages = load_assets(STATIC)
        self._sdk = load_assets(SDK)

    def routes(self) -> list[Route]:
        page = self._asset(self._pages, "index.html")
        return [
            Route("/", page),
            Route("/events/{id}", page),
            Route("/static/{file}", self._asset(self._pages)),
            Route("/sdk/{file}", self._asset(self._sdk)),
            Route("/session", _answered(self.session), methods=["GET"]),
            Route("/session", _answered(self.sign_in), methods=["POST"]),
            Route("/session", _answered(self.sign_out), methods=["DELETE"]),
            Route("/preview", _answered(self.preview), methods=["POST"]),
        ]

    async def session(self, request: Request) -> Response:
        return self._view(await self._caller(request))

    async def sign_in(self, request: Request) -> Response:
        secure = check_same_origin(request)
        body = await read_body(request, SignIn, BODY_MAX)
        opened = await self._sessions.open(body.key.strip())
        if opened is None:
            raise Problem(401, "Unauthorized", "this is no API key of this broadcaster", _NO_CHALLENGE)
        cookie, holder = opened
        if holder.scope not in PEOPLE:
            await self._sessions.close(cookie)
            raise Problem(403, "Forbidden", "a service's key signs nobody in; use an operator's or a viewer's")
        response = self._view(holder)
        response.set_cookie(COOKIE, cookie, max_age=int(LIFE), httponly=True, samesite="strict", secure=secure)
        return response

    async def sign_out(self, request: Request) -> Response:
        secure = check_same_origin(request)
        await self._sessions.close(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=secure)
        return response

    async def preview(self, request: Request) -> Response:
        check_same_origin(request)
        caller = await self._caller(request)
        if caller.scope != "operator":
            raise Problem(403, "Forbidden", f"a key of scope {caller.scope!r} may not do this")
        granted = self._preview.grant(await read_body(request, PreviewBody, BODY_MAX))
        if granted is None:
            raise Problem(404, "Not Found", "this broadcaster has no key that signs device tokens, or no `device_url`")
        return answer(granted)

    async def _caller(self, request: Request) -> ApiKey:
        caller = await self._sessions.holder(request.cookies.get(COOKIE, ""))
        if caller is None:
            raise Problem(401, "Unauthorized", "nobody is signed in", _NO_CHALLENGE)
        return caller

    def _view(self, holder: ApiKey) -> Response:
        possible = holder.scope == "operator" and "index.js" in self._sdk and self._preview.possible
        return answer(SessionView(holder.id, holder.scope, self._clock.now(), possible), headers=_UNKEPT)

    def _asset(self, assets: dict[str, Asset], name: str | None = None) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            found = assets.get(name or request.path_params["file"])
            if found is None:
                raise Problem(404, "Not Found")
            return found.response(request)

        return endpoint


_UNKEPT = {"Cache-Control": "no-store"}
_NO_CHALLENGE = {**_UNKEPT, "WWW-Authenticate": "Session"}
"""RFC 9110 wants a challenge with every 401; a browser asks nobody about a scheme it does not know."""


def with_console(api: ASGIApp, store: Store, gate: Gate, clock: Clock, settings: Settings) -> Starlette:
    """The API and the console on one port. Reads the console's files."""
    sessions = Sessions(store, gate, clock)
    console = Console(sessions, Preview(settings, clock, random.SystemRandom()), clock)
    pages = Starlette(routes=console.routes(), exception_handlers=EXCEPTION_HANDLERS)
    connect = tuple(_origin(url) for url in (settings.device_url, settings.maps) if url)
    return Starlette(
        routes=[
            Route("/", _to_console),
            Route("/console", _to_console),
            Mount("/console", app=_Secured(pages, security_headers(connect))),
            Mount("", app=Recognised(api, sessions)),
        ]
    )


class _Secured:
    """Adds headers to every answer, errors included."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, secured)


async def _to_console(request: Request) -> Response:
    return RedirectResponse("/console/", 307)


def _answered(handler: Endpoint) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except KNOWN as error:
            return problem_of(error).response()

    return endpoint


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
