"""How a device reaches its node and the stage-map API: `websockets` and `httpx`, whose errors end here."""

import asyncio
from dataclasses import dataclass

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from stagecast.wire import SUBPROTOCOL
from stagecast.wire.closing import CloseCode
from stagecast.wire.frames import NODE_FRAME_BYTES_MAX

OPEN_WITHIN = 10.0
"""Seconds for TCP, TLS and the handshake."""
CLOSE_WITHIN = 1.0
"""Seconds for the node to answer our close."""
FETCH_WITHIN = 15.0
"""Seconds for one pull of a stage map."""
RETRY_AFTER_MAX = 300
"""Seconds of a refused handshake's Retry-After that are honoured."""


class Unreachable(Exception):
    """No connection to a node; `retry_after` seconds were asked for by whoever refused it."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class NoAnswer(Exception):
    """No HTTP answer, or one that is too large."""


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended: the node's close code, or 1006."""

    code: int
    reason: str


def check_url(url: str) -> None:
    """Raises ValueError for what is no ws:// or wss:// URL."""
    try:
        parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"{url!r} is no ws:// or wss:// URL: {error.msg}") from error


async def dial(url: str) -> ClientConnection:
    """A connection that speaks the device protocol. Raises Unreachable."""
    try:
        ws = await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            proxy=None,
            open_timeout=OPEN_WITHIN,
            close_timeout=CLOSE_WITHIN,
            ping_interval=None,  # the protocol has pings of its own
            max_size=NODE_FRAME_BYTES_MAX,
        )
    except InvalidStatus as error:
        after = error.response.headers.get("Retry-After", "0")
        retry_after = min(int(after), RETRY_AFTER_MAX) if after.isdecimal() else 0
        raise Unreachable(f"the handshake was refused: HTTP {error.response.status_code}", retry_after) from error
    except (OSError, InvalidHandshake, EOFError) as error:  # TimeoutError is an OSError
        raise Unreachable(f"unreachable: {str(error) or type(error).__name__}") from error
    if ws.subprotocol != SUBPROTOCOL:
        ws.transport.abort()
        raise Unreachable(f"{url} does not speak {SUBPROTOCOL}")
    return ws


def close_of(error: ConnectionClosed) -> Close:
    """A close that we began (a frame over 64 KiB, a broken one) is the node's fault, and so a break, whatever it echoes."""
    if error.rcvd is None or (error.sent is not None and not error.rcvd_then_sent):
        return Close(CloseCode.ABNORMAL, "the connection broke")
    return Close(error.rcvd.code, error.rcvd.reason or f"closed with {error.rcvd.code}")


def http_client() -> httpx.AsyncClient:
    """A client for pulls, which many devices may share."""
    return httpx.AsyncClient(trust_env=False, timeout=FETCH_WITHIN)


async def pull(client: httpx.AsyncClient, url: str, token: str, etag: str | None) -> tuple[int, bytes]:
    """Status and body of a GET. Raises NoAnswer, also for a body over 64 KiB."""
    headers = {"Authorization": f"Bearer {token}", **({"If-None-Match": f'"{etag}"'} if etag else {})}
    body = bytearray()
    try:
        async with asyncio.timeout(FETCH_WITHIN), client.stream("GET", url, headers=headers) as got:
            async for chunk in got.aiter_bytes():
                body += chunk
                if len(body) > NODE_FRAME_BYTES_MAX:
                    raise NoAnswer(f"{url}: more than {NODE_FRAME_BYTES_MAX} bytes")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NoAnswer(f"{url}: {str(error) or type(error).__name__}") from error
    return got.status_code, bytes(body)
