"""A reverse proxy for one neighbour: under `stagecast dev` the stage-map API is reached on the broadcaster's port."""

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from stagecast.http import Problem

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization"}
)
"""RFC 9110 §7.6.1: headers of one connection, not of the message."""


class Forward:
    """An ASGI app that passes requests on to `base`, bodies streamed both ways. 502 when nobody answers there."""

    def __init__(self, base: str) -> None:
        self._http = httpx.AsyncClient(base_url=base, timeout=httpx.Timeout(60, connect=5), trust_env=False)

    async def close(self) -> None:
        """Closes the connections that it keeps; not needed where the process ends with it."""
        await self._http.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        url = httpx.URL(path=scope["path"], query=scope["query_string"])
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        asked = self._http.build_request(
            request.method,
            url,
            headers=_end_to_end(request.headers.raw),
            content=request.stream() if has_body else None,
        )
        try:
            got = await self._http.send(asked, stream=True)
        except httpx.TransportError as error:
            detail = f"the stage-map service does not answer: {type(error).__name__} {error}"
            await Problem(502, "Bad Gateway", detail).response()(scope, receive, send)
            return
        try:
            # The server in front sets its own Date, and a response has one.
            headers = [(name, value) for name, value in _end_to_end(got.headers.raw) if name.lower() != b"date"]
            await send({"type": "http.response.start", "status": got.status_code, "headers": headers})
            async for chunk in got.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await got.aclose()


def _end_to_end(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
