"""Which browsers may pull: Origins by the same rules as the WebSocket handshake's. Pure."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, If-None-Match",
    "Access-Control-Max-Age": "86400",
}


class Origins:
    """None sent; one whose host:port is the request's own `Host`; others by exact name."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def headers(self, origin: str | None, host: str | None) -> Mapping[str, str] | None:
        """What an answer carries for this Origin; None when it is not allowed."""
        if origin is None:
            return {}
        if origin not in self._allowed and (not host or urlsplit(origin).netloc != host):
            return None
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "ETag, Retry-After"}
