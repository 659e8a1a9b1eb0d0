"""What the HTTP APIs of all tiers share: problem details, who may call, serving."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stagecast.access import ApiKey, Gate, Scope
from stagecast.bounded_http import HEAD_DEADLINE, bounded

BODY_MAX = 1 << 20
CALLER = "stagecast.caller"
"""Key of an ASGI scope under which what stands in front of an API puts the caller it recognised by other means than a key."""
T = TypeVar("T")


class Problem(Exception):
    """An answer that is an error, as problem details (RFC 9457). `more` are extension members, such as the head or `field`."""

    def __init__(
        self, status: int, title: str, detail: str = "", headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> Response:
        body = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail, **self.more}
        return Response(
            msgspec.json.encode(body), self.status, headers=self.headers, media_type="application/problem+json"
        )


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON of any msgspec-encodable value."""
    return Response(msgspec.json.encode(content), status, headers=headers, media_type="application/json")


async def read_body(request: Request, kind: type[T], limit: int = BODY_MAX) -> T:
    """The request's JSON body as `kind`; a missing one is `{}`. Raises Problem 413 over `limit` bytes, 422 naming the field, 400
    for no JSON."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "Content Too Large", f"at most {limit} bytes")
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `")
        field = "$" + where.rpartition("$")[2].rstrip("`")  # "`$.plan[2].of`", or "`key` in `$.stages`"
        raise Problem(422, "Unprocessable Content", str(error), field=field, error=text) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "Bad Request", f"the body is not JSON: {error}", field="$") from error


async def require(gate: Gate, request: Request, *scopes: Scope) -> ApiKey:
    """The caller's API key, if its scope is one of `scopes`. Raises Problem 401 or 403, or whatever the gate's store raises."""
    recognised: ApiKey | None = request.scope.get(CALLER)
    holder = recognised or await gate.holder(request.headers.get("authorization"))
    if holder is None:
        raise Problem(
            401, "Unauthorized", "send `Authorization: Bearer KEY` with a valid API key", {"WWW-Authenticate": "Bearer"}
        )
    if holder.scope not in scopes:
        raise Problem(403, "Forbidden", f"a key of scope {holder.scope!r} may not do this")
    return holder


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Problem(error.status_code, error.detail, headers=dict(error.headers or {})).response()


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    Problem: _problem,
    HTTPException: _http_exception,
}
"""Pass these to every Starlette app."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own affair."""
        yield


def parse_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` (IPv6 in brackets). Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def listen(address: str) -> socket.socket:
    """A listening socket at HOST:PORT (port 0: any). A supervisor makes it before it forks the process that serves it, so that
    callers wait, and are not refused, while that process is replaced. Raises ValueError, OSError."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def why_not(error: OSError | ValueError) -> str:
    """What keeps an address from being had: what is wrong with it, or the system's or the resolver's words."""
    if not isinstance(error, OSError) or not error.errno:
        return str(error)
    if error.errno > 0:
        return os.strerror(error.errno)
    return str(error.strerror).partition(" (")[0]  # the resolver's own number; `create_server` adds the address


def base_url(listening: socket.socket) -> str:
    """`http://HOST:PORT` of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serving(
    app: Starlette, where: str | socket.socket, head_deadline: float = HEAD_DEADLINE
) -> AsyncIterator[str]:
    """Serves `app` at HOST:PORT, or on a socket that listens, while the context is open; yields the base URL. The head of a
    request may take `head_deadline` seconds. Requests under way get 1 s at the end. What a client gets wrong is not logged.
    Raises ValueError, OSError when the address can't be had."""
    listening = listen(where) if isinstance(where, str) else where
    config = uvicorn.Config(
        app, http=bounded(head_deadline), loop="none", ws="none", lifespan="off", log_config=None, log_level="error",
        access_log=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield base_url(listening)  # the kernel takes connections from here on
    finally:
        server.should_exit = True
        await task
        listening.close()
