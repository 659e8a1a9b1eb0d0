"""The opening handshake: what is let in, what is refused and with what, and requests that two parsers could read differently."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.uri import parse_uri

from pushy.handshake import BUSY, Door, Refusal, Upgrade, accept, read_request, refuse

GOOD = [
    ("Host", "tv.example:8081"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "other, stagecast.v1"),
]
DOOR = Door(frozenset({"https://app.example", "http://127.0.0.1:8080"}))


def request(
    line: str = "GET /ws HTTP/1.1", without: str = "", more: tuple[tuple[str, str], ...] = (), **changed: str
) -> bytes:
    names = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    fields = [(name, names.get(name.lower(), value)) for name, value in GOOD if name.lower() != without.lower()]
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in (*fields, *more)), "", ""]).encode("latin-1")


def status(data: bytes, door: Door = DOOR) -> int:
    """What the request is answered with, limits aside."""
    found = read_request(data)
    assert found is not None, "not complete"
    result, _ = found
    if isinstance(result, Refusal):
        return result.status
    refusal = door.check(result)
    return refusal.status if refusal else 101


def test_the_accept_is_the_rfcs() -> None:
    """RFC 6455 §1.3's key gives its accept value, and only the real subprotocol is named."""
    found = read_request(request())
    assert found is not None
    upgrade, length = found
    assert isinstance(upgrade, Upgrade)
    assert length == len(request())
    answer = accept(upgrade)
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"\r\nSec-WebSocket-Protocol: stagecast.v1\r\n" in answer


def test_the_websockets_client_takes_the_answer() -> None:
    """An independent client's own request is accepted, and it takes the 101."""
    client = ClientProtocol(parse_uri("ws://127.0.0.1:8081/ws?x=1"), subprotocols=["stagecast.v1"])  # type: ignore[list-item]
    client.send_request(client.connect())
    found = read_request(b"".join(client.data_to_send()))
    assert found is not None
    assert isinstance(found[0], Upgrade)
    assert DOOR.check(found[0]) is None
    client.receive_data(accept(found[0]))
    assert client.handshake_exc is None
    assert client.subprotocol == "stagecast.v1"
    assert any(isinstance(event, Response) for event in client.events_received())


@pytest.mark.parametrize(
    "data",
    [
        request("POST /ws HTTP/1.1"),
        request("GET /ws HTTP/1.0"),
        request("GET /ws HTTP/2"),
        request("get /ws HTTP/1.1"),
        request("GET  /ws HTTP/1.1"),
        request("GET /ws  HTTP/1.1"),
        request("GET http://tv.example/ws HTTP/1.1"),
        request("GET ws HTTP/1.1"),
        request("GET /ws\x00 HTTP/1.1"),
        request("GET /ws HTTP/1.1 "),
        request(" GET /ws HTTP/1.1"),
        request("\r\nGET /ws HTTP/1.1"),
        request("GET /ws"),
        request(without="Host"),
        request(host=""),
        request(host="a b"),
        request(host="a/b"),
        request(host="tv.example:x"),
        request(more=(("Host", "tv.example:8081"),)),
        request(without="Upgrade"),
        request(upgrade="h2c"),
        request(upgrade="websocketx"),
        request(without="Connection"),
        request(connection="keep-alive"),
        request(without="Sec-WebSocket-Key"),
        request(sec_websocket_key="short"),
        request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ=!"),
        request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZXh4"),
        request(more=(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),)),
        request(without="Sec-WebSocket-Version"),
        request(more=(("Sec-WebSocket-Version", "8"),)),
        request(without="Sec-WebSocket-Protocol"),
        request(sec_websocket_protocol="stagecast.v2"),
        request(sec_websocket_protocol="stagecast.v1x"),
        request(sec_websocket_version="8", sec_websocket_protocol="other"),
        request(more=(("Content-Length", "5"),)),
        request(more=(("Content-Length", "0"), ("Content-Length", "0"))),
        request(more=(("Content-Length", "+0"),)),
        request(more=(("Transfer-Encoding", "chunked"),)),
        request(more=(("Transfer-Encoding", "identity"),)),
        request(more=(("Transfer-Encoding", "chunked"), ("Content-Length", "0"))),
        request(more=(("Transfer-Encoding ", "chunked"),)),
        request(more=((" folded", "x"),)),
        request(more=(("X", "a\r\n folded"),)),
        request(more=(("X", "a\nHost: evil"),)),
        request(more=(("X", "a\rb"),)),
        request(more=(("X", "a\x00b"),)),
        request(more=(("X y", "a"),)),
        request(more=(("", "a"),)),
        request(more=(("Origin", "https://app.example"), ("Origin", "https://evil.example"))),
        request(more=tuple((f"X-{i}", "a") for i in range(101))),
        request().replace(b"Host:", b"Host"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_valid_upgrade_is_400(data: bytes) -> None:
    """Every oddity gets 400: wrong request lines, smuggling, repeated or missing fields, bare LF, folding, bodies."""
    assert status(data) == 400


def test_order_of_refusals() -> None:
    """400 before 426 before 403; another path is 404."""
    assert status(request()) == 101
    assert status(request(sec_websocket_version="8")) == 426
    assert status(request(sec_websocket_version="8", more=(("Origin", "https://evil.example"),))) == 426
    assert status(request(more=(("Origin", "https://evil.example"),))) == 403
    assert status(request("GET /other HTTP/1.1")) == 404
    assert status(request("GET /ws?token=x HTTP/1.1")) == 101


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("http://127.0.0.1:8080", True),
        ("http://tv.example:8081", True),
        ("https://tv.example:8081", True),
        ("https://evil.com", False),
        ("https://app.example.evil.com", False),
        ("https://evil-app.example", False),
        ("https://APP.example", False),
        ("https://app.example.", False),
        ("https://app.example:444", False),
        ("http://app.example", False),
        ("http://tv.example", False),
        ("http://tv.example:8082", False),
        ("ftp://tv.example:8081", False),
        ("http://x@tv.example:8081", False),
        ("tv.example:8081", False),
        ("null", False),
        ("", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    """Exact Origins, or the request's own host and port; nothing that only looks like one (CWE-1385)."""
    assert status(request(more=(("Origin", origin),))) == (101 if allowed else 403)


def test_a_request_has_a_size() -> None:
    """Beyond 8 KiB it is refused, complete or not; below it is waited for."""
    assert read_request(request()[:-1]) is None
    assert read_request(b"GET /ws HTTP/1.1\r\nX: " + b"a" * 5000) is None
    long = read_request(b"GET /ws HTTP/1.1\r\nX: " + b"a" * 9000)
    assert long is not None
    assert isinstance(long[0], Refusal)
    assert status(request(more=(("X", "a" * 9000),))) == 400


def test_no_key_in_the_middle_of_its_name() -> None:
    """A request that would be equal to one seen before, were a key cut out of the name of a field, is read as what it is."""
    start, key = b"GET /ws HTTP/1.1\r\n", b"dGhlIHNhbXBsZSBub25jZQ=="
    rest = b"".join(f"{name}: {value}\r\n".encode() for name, value in GOOD if name != "Sec-WebSocket-Key")
    assert status(start + b"Sec-WebSocket-Key: " + key + b"\r\n" + rest + b"\r\n") == 101
    for cut in range(1, 18):
        name = b"Sec-WebSocket-Key: "
        assert status(start + name[:cut] + key + name[cut:] + b"\r\n" + rest + b"\r\n") == 400


def test_answers_are_complete_http() -> None:
    """A refusal closes, has a length, and says what helps: 426 the version, 503 when to come back."""
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in refuse(Refusal(426, "x"))
    assert b"\r\nRetry-After: 5\r\n" in refuse(BUSY)
    for number in (400, 403, 404, 426, 503):
        head, _, body = refuse(Refusal(number, "why")).partition(b"\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in head
        assert f"\r\nContent-Length: {len(body)}".encode() in head


@given(st.binary(max_size=400))
def test_any_bytes_are_taken(data: bytes) -> None:
    """No request raises."""
    found = read_request(data + b"\r\n\r\n")
    assert found is not None
    if isinstance(found[0], Upgrade):
        DOOR.check(found[0])


@given(st.data())
def test_no_mutation_of_a_line_end_is_let_in(data: st.DataObject) -> None:
    """Taking any CR or LF out, or putting one in, never gives a request that means something else."""
    good = request()
    at = data.draw(st.integers(0, len(good) - 5))
    for changed in (good[:at] + b"\n" + good[at:], good[:at] + b"\r" + good[at:], good[:at] + b"\x00" + good[at:]):
        assert status(changed) == 400


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
KEYS = st.sampled_from(
    [KEY, "AAAAAAAAAAAAAAAAAAAAAA==", "", "AA==", "A" * 24, KEY[:-1] + "A", "\r\nX: y\r\nZ: AAAAAAAAA==", "é" * 24]
)


@given(
    KEYS,
    st.sampled_from(["/ws", "/other", "/ws?x=1"]),
    st.sampled_from([(), (("X-Sec", f"\r\nSec-WebSocket-Key: {KEY}"),)]),
)
def test_a_request_of_a_known_shape_is_read_like_a_new_one(
    key: str, path: str, more: tuple[tuple[str, str], ...]
) -> None:
    """What was read before, with another key: the same answer as by a reader that has never seen it, also for a bad key and for
    a key that would smuggle a field in."""
    line = f"GET {path} HTTP/1.1"
    read_request(request(line, more=more, sec_websocket_key=KEY))
    data = request(line, more=more, sec_websocket_key=key)
    never_seen = request(line, more=(*more, ("X-New", str(next(NUMBERS)))), sec_websocket_key=key)
    found, expected = read_request(data), read_request(never_seen)
    assert found is not None
    assert expected is not None
    assert (found[0], found[1] if isinstance(found[0], Upgrade) else 0) == (
        expected[0],
        len(data) if isinstance(found[0], Upgrade) else 0,
    )


NUMBERS = itertools.count()
