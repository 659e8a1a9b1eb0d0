"""The demo page under `stagecast dev`: a viewer's home screen in a browser, on the browser SDK.

/demo/                     sdk/js/demo/index.html
/demo/{file}               the files beside it
/demo/sdk/{file}           sdk/js/src
/demo/session?device=NAME  what the page needs to know; with a device's name also a token for it
"""

import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from broadcaster.console.assets import SDK, Asset, load_assets, security_headers
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer
from stagecast.settings import Settings
from stagecast.tokens import load_keys

DEMO = SDK.parent / "demo"
CATALOGUE = Path(__file__).parents[2] / "examples" / "final" / "titles.ndjson"
EVENT = "final"
MEMBER = "member-0000"
"""One of the members that the demo mints, so that the page has a stage map of its own."""
TOKEN_TTL = 3600.0


class Viewer:
    """The page for one dev, whose devices connect to `ws`. Anybody who reaches the page gets a device's token: for a machine
    of one's own, never for a service. A package without the project's folder has no page: 404."""

    def __init__(self, settings: Settings, ws: str) -> None:
        self._settings = settings
        self._ws = ws
        self._titles = _titles()
        self._headers = security_headers((ws.removesuffix("/ws"), settings.maps))

    def app(self) -> Starlette:
        pages, sdk = load_assets(DEMO), load_assets(SDK)
        routes = [
            Route("/demo", _to_the_page),
            Route("/demo/", self._file(pages, "index.html")),
            Route("/demo/session", self.session),
            Route("/demo/sdk/{file}", self._file(sdk)),
            Route("/demo/{file}", self._file(pages)),
        ]
        return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)

    def _file(self, files: dict[str, Asset], name: str | None = None) -> Callable[[Request], Awaitable[Response]]:
        async def file(request: Request) -> Response:
            asset = files.get(name or request.path_params["file"])
            if asset is None:
                raise Problem(404, "Not Found", "the demo page's files are in the project's folder, under sdk/js")
            response = asset.response(request)
            response.headers.update(self._headers)
            return response

        return file

    async def session(self, request: Request) -> Response:
        event, device = request.query_params.get("event", EVENT), request.query_params.get("device")
        token = None
        if device:
            keys = load_keys(self._settings.keys_file)
            token = keys.mint(MEMBER, device, [event], TOKEN_TTL, time.time(), random.SystemRandom())
        headers = {**self._headers, "Cache-Control": "no-store"}
        return answer({"ws": self._ws, "event": event, "token": token, "titles": self._titles}, headers=headers)


async def _to_the_page(_: Request) -> Response:
    return RedirectResponse("/demo/")


def _titles() -> dict[str, Any]:
    """The sample catalogue, by title id."""
    if not CATALOGUE.is_file():
        return {}
    lines = [json.loads(line) for line in CATALOGUE.read_text().splitlines()]
    return {one["id"]: {"title": one["title"], "genres": one["genres"]} for one in lines if "title" in one}


def below(prefix: str, inside: ASGIApp, outside: ASGIApp) -> ASGIApp:
    """`inside` for paths at or below `prefix`, `outside` for all others."""

    async def chosen(scope: Scope, receive: Receive, send: Send) -> None:
        is_below = scope["path"] == prefix or scope["path"].startswith(f"{prefix}/")
        await (inside if is_below else outside)(scope, receive, send)

    return chosen
