"""The opening handshake of RFC 6455 §4.2, the server's side. Pure: the request's bytes in, a request or a refusal out.

The parser is strict, so that no proxy in front and this server can read one request in two ways: CRLF alone ends a line, no
obs-fold, no body, no `Transfer-Encoding`, one `Host`. A WebSocket client has no need of more.
"""

import base64
import hashlib
import re
from binascii import Error, a2b_base64
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from stagecast.wire import SUBPROTOCOL

REQUEST_BYTES_MAX = 8 * 1024
FIELDS_MAX = 100
RETRY_AFTER = 5
"""Seconds, in a 503."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]{1,5})?")
_ONCE = frozenset(
    {b"host", b"origin", b"sec-websocket-key", b"sec-websocket-version", b"content-length", b"transfer-encoding"}
)
"""Fields that make a request ambiguous when repeated (RFC 9112 §3.2, RFC 6455 §11.3)."""


_KEY_FIELD = b"\r\nSec-WebSocket-Key: "
_KEY_BYTES = 24
_SHAPES_MAX = 256
_SHAPE_BYTES_MAX = 1024
_shapes: "dict[bytes, Upgrade]" = {}
"""Good requests by their bytes without the key's. The field's first place in them is where the key was, so equal bytes with
another key there are read in the same way: a third of a connection's time in Python, saved."""


class Upgrade(Struct, frozen=True, gc=False):
    """A valid request for a WebSocket. Nothing about limits or Origin has been decided yet."""

    path: str
    """Without the query."""
    key: bytes
    version: str
    host: str
    """Lower case, as sent."""
    origin: str | None
    protocols: tuple[str, ...]
    forwarded: str = ""
    """`X-Forwarded-For`, which says something only when a trusted proxy sent it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not 101, after which the connection ends."""

    status: int
    text: str
    retry_after: int = RETRY_AFTER
    """Seconds, in a 503."""
    reason: str = ""
    """What it is counted under, where the status does not say it."""


_PHRASES = {400: "Bad Request", 403: "Forbidden", 404: "Not Found", 426: "Upgrade Required", 503: "Service Unavailable"}
_EXTRA = {426: "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n", 503: "Retry-After: {}\r\n"}


def read_request(data: bytes | bytearray) -> tuple[Upgrade | Refusal, int] | None:
    """The request at the start of `data` and its length; None while it is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > REQUEST_BYTES_MAX:
            return Refusal(400, "the request is too long"), len(data)
        return None
    if end > REQUEST_BYTES_MAX:
        return Refusal(400, "the request is too long"), len(data)
    head = bytes(data[:end])
    return _known(head) or _read(head), end + 4


def _known(head: bytes) -> Upgrade | None:
    """A request that is equal, but for its key, to one that was good: devices of one app send the same."""
    at = head.find(_KEY_FIELD) + len(_KEY_FIELD)
    if at < len(_KEY_FIELD):  # taking 24 bytes out of anything else could put the field's name together
        return None
    known = _shapes.get(head[:at] + head[at + _KEY_BYTES :])
    if known is None:
        return None
    key = head[at : at + _KEY_BYTES]
    return replace(known, key=key) if _is_key(key) else None


def _read(head: bytes) -> Upgrade | Refusal:
    request = _request(head.split(b"\r\n"))
    at = head.find(_KEY_FIELD) + len(_KEY_FIELD)
    if isinstance(request, Upgrade) and len(head) <= _SHAPE_BYTES_MAX and head[at : at + _KEY_BYTES] == request.key:
        if len(_shapes) >= _SHAPES_MAX:
            _shapes.clear()
        _shapes[head[:at] + head[at + _KEY_BYTES :]] = request
    return request


def _request(lines: list[bytes]) -> Upgrade | Refusal:
    method, _, rest = lines[0].partition(b" ")
    target, _, protocol = rest.partition(b" ")
    if protocol != b"HTTP/1.1" or method != b"GET" or not _TARGET.fullmatch(target):
        return Refusal(400, "GET and HTTP/1.1 are expected")  # RFC 6455 §4.1, 1 and 2
    fields = _fields(lines[1:])
    if isinstance(fields, Refusal):
        return fields
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
        return Refusal(400, "a body is not expected")
    host = fields.get(b"host")
    if host is None or not _HOST.fullmatch(host):
        return Refusal(400, "one valid Host is expected")  # RFC 9112 §3.2
    if not _lists(fields, b"upgrade", b"websocket") or not _lists(fields, b"connection", b"upgrade"):
        return Refusal(400, "an upgrade to websocket is expected")  # §4.2.1, 3 and 4
    key = fields.get(b"sec-websocket-key", b"")
    if not _is_key(key):
        return Refusal(400, "Sec-WebSocket-Key: 16 bytes in base64 are expected")  # §4.2.1, 5
    version = fields.get(b"sec-websocket-version")
    if version is None:
        return Refusal(400, "Sec-WebSocket-Version is expected")  # §4.2.1, 6
    origin = fields.get(b"origin")
    offered = fields.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return Upgrade(
        target.partition(b"?")[0].decode(),
        key,
        version.decode("latin-1"),
        host.decode().lower(),
        origin.decode("latin-1") if origin is not None else None,
        tuple(name.strip(" \t") for name in offered.split(",")) if offered else (),
        fields.get(b"x-forwarded-for", b"").decode("latin-1"),
    )


def _fields(lines: list[bytes]) -> dict[bytes, bytes] | Refusal:
    """The header fields; repeated ones are joined by a comma (RFC 9110 §5.3) unless that would hide something."""
    if len(lines) > FIELDS_MAX:
        return Refusal(400, "too many header fields")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            return Refusal(400, "a header field is malformed")
        name, value = name.lower(), value.strip(b" \t")
        if name in fields:
            if name in _ONCE:
                return Refusal(400, f"{name.decode()} is repeated")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def _lists(fields: dict[bytes, bytes], name: bytes, member: bytes) -> bool:
    """Whether a comma-separated field has `member`, in any case."""
    value = fields.get(name, b"").lower()
    return value == member or member in (part.strip(b" \t") for part in value.split(b","))


def _is_key(key: bytes) -> bool:
    if len(key) != _KEY_BYTES or not key.endswith(b"=="):
        return False
    try:
        return len(a2b_base64(key, strict_mode=True)) == 16
    except Error:
        return False


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in by `/ws`, besides limits."""

    origins: frozenset[str]
    """Exact Origins allowed beyond the request's own host."""

    def check(self, upgrade: Upgrade) -> Refusal | None:
        """Why not, in the protocol's order: path and subprotocol, version, Origin."""
        if upgrade.path != "/ws":
            return Refusal(404, "there is nothing here")
        if SUBPROTOCOL not in upgrade.protocols:
            return Refusal(400, f"the subprotocol {SUBPROTOCOL} is expected")
        if upgrade.version != "13":
            return Refusal(426, "Sec-WebSocket-Version 13 is expected")  # §4.4
        if upgrade.origin is not None and not self._allows(upgrade.origin, upgrade.host):
            return Refusal(403, "this Origin is not allowed")
        return None

    def _allows(self, origin: str, host: str) -> bool:
        """RFC 6455 §10.2. The same host:port means the page came from here; an `https` page behind a TLS proxy counts as well."""
        if origin in self.origins:
            return True
        scheme, found, authority = origin.partition("://")
        return bool(found) and scheme in ("http", "https") and authority == host


BUSY = Refusal(503, "too many connections")


def accept(upgrade: Upgrade, subprotocol: str | None = SUBPROTOCOL) -> bytes:
    """The 101 (RFC 6455 §4.2.2)."""
    digest = base64.b64encode(hashlib.sha1(upgrade.key + _GUID, usedforsecurity=False).digest())
    chosen = b"Sec-WebSocket-Protocol: %s\r\n" % subprotocol.encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n%s\r\n" % (digest, chosen)
    )


def refuse(refusal: Refusal) -> bytes:
    """The refusal's answer. It says nothing of what the client sent."""
    body = refusal.text + "\n"
    extra = _EXTRA.get(refusal.status, "").format(refusal.retry_after)
    return (
        f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}\r\nConnection: close\r\n"
        f"{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
