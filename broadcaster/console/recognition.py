"""The API's caller by a session's cookie.

A browser sends the cookie with every request to this host, whoever's page asked for it (`SameSite=Strict` keeps out other
sites, not other ports of one host). So a request that changes something counts only with the header `X-Stagecast: 1`, which a
page of another origin can't send without a preflight that nobody answers, and with this server's own `Origin`.
"""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from broadcaster.console.sessions import Sessions
from broadcaster.problems import KNOWN, problem_of
from stagecast.http import CALLER, Problem

COOKIE = "stagecast_session"
HEADER = "x-stagecast"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def check_same_origin(request: Request) -> bool:
    """Whether the page that sent the request was got by HTTPS, as its browser says: before a proxy it may be, and behind it not.
    Raises Problem 403 unless it is a page of this very host and port."""
    origin = urlsplit(request.headers.get("origin", ""))
    if request.headers.get(HEADER) != "1" or not origin.netloc or origin.netloc != request.headers.get("host"):
        detail = "a browser's session changes things only from the console's own pages; a proxy in front has to pass `Host` on"
        raise Problem(403, "Forbidden", detail)
    return origin.scheme == "https"


class Recognised:
    """The API, its caller recognised by the session where no API key is sent."""

    def __init__(self, api: ASGIApp, sessions: Sessions) -> None:
        self._api = api
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        cookie = request.cookies.get(COOKIE)
        if cookie is not None and "authorization" not in request.headers:
            try:
                caller = await self._sessions.holder(cookie)
                if caller is not None and request.method not in SAFE:
                    check_same_origin(request)
            except Problem as problem:
                await problem.response()(scope, receive, send)
                return
            except KNOWN as error:
                await problem_of(error).response()(scope, receive, send)
                return
            scope[CALLER] = caller
        await self._api(scope, receive, send)
