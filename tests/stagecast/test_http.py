"""What the HTTP APIs share, over real sockets: problem details, bodies, who may call, serving."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stagecast.access import SCOPES, ApiKey, Gate, key_digest
from stagecast.http import EXCEPTION_HANDLERS, Problem, answer, listen, parse_address, read_body, require, serving

KEYS = {key_digest(scope): msgspec.json.encode(ApiKey("id", scope, 0)) for scope in SCOPES}


class Inner(Struct):
    of: str = ""


class Body(Struct, forbid_unknown_fields=True):
    stage: Annotated[str, Meta(max_length=8)]
    plan: list[Inner] = []
    maps: dict[Annotated[str, Meta(max_length=3)], int] = {}


async def read(digest: str) -> bytes | None:
    return KEYS.get(digest)


gate = Gate(read, lambda: 0.0)
begun = asyncio.Event()


async def echo(request: Request) -> Response:
    return answer(await read_body(request, Body, limit=1000), 201, {"X-Seen": "yes"})


async def guarded(request: Request) -> Response:
    return answer({"scope": (await require(gate, request, "operator", "service")).scope})


async def conflict(_: Request) -> Response:
    raise Problem(409, "Conflict", "the event has moved on", {"Retry-After": "1"}, head={"seq": 5})


async def waits(request: Request) -> Response:
    """Answers once its own server takes no more connections."""
    begun.set()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", request.url.port)
        except OSError:
            return answer("done")
        writer.close()
        await writer.wait_closed()


app = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/guarded", guarded),
        Route("/conflict", conflict),
        Route("/waits", waits),
    ],
    exception_handlers=EXCEPTION_HANDLERS,
)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app, "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as one:
        yield one


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be problem details."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    return body


async def test_an_answer_is_json(client: httpx.AsyncClient) -> None:
    """Any value that msgspec encodes, with status and headers."""
    response = await client.post("/echo", json={"stage": "live", "plan": [{"of": "x"}]})
    assert (response.status_code, response.headers["content-type"]) == (201, "application/json")
    assert response.headers["x-seen"] == "yes"
    assert response.json() == {"stage": "live", "plan": [{"of": "x"}], "maps": {}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "$"),
        (b"[]", "$"),
        (b'{"stage": 5}', "$.stage"),
        (b'{"stage": "much too long"}', "$.stage"),
        (b'{"stage": "live", "plan": [{}, {"of": null}]}', "$.plan[1].of"),
        (b'{"stage": "live", "when": 1}', "$"),
        (b'{"stage": "live", "maps": {"a": "x"}}', "$.maps[...]"),
        (b'{"stage": "live", "maps": {"long": 1}}', "$.maps"),
    ],
)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, body: bytes, field: str) -> None:
    """422 with the field as a path and what was expected there."""
    found = problem(await client.post("/echo", content=body), 422)
    assert found["field"] == field
    assert found["error"]
    assert "`" not in found["field"]


@pytest.mark.parametrize("body", [b"{", b'{"stage": "live"} x', b"\xff", b'{"stage": "\xff"}'])
async def test_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    """Bytes that are not JSON at all, UTF-8 included, are the caller's fault and no traceback."""
    problem(await client.post("/echo", content=body), 400)


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient) -> None:
    """With a length in front or streamed without one, it is refused and not held in memory; at the limit it passes."""
    fits = b'{"stage": "live"}'.ljust(1000)
    assert (await client.post("/echo", content=fits)).status_code == 201
    problem(await client.post("/echo", content=fits + b" "), 413)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    problem(await client.post("/echo", content=chunks()), 413)


async def test_problems_carry_headers_and_extensions(client: httpx.AsyncClient) -> None:
    """RFC 9457: extension members stand beside the standard ones."""
    response = await client.get("/conflict")
    found = problem(response, 409)
    assert (found["detail"], found["head"]) == ("the event has moved on", {"seq": 5})
    assert response.headers["retry-after"] == "1"


async def test_the_frameworks_errors_are_problems_too(client: httpx.AsyncClient) -> None:
    """An unknown path and a wrong method answer in the same shape, with their headers."""
    problem(await client.get("/nowhere"), 404)
    response = await client.get("/echo")
    problem(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("wrong", 401), ("viewer", 403), ("operator", 200), ("service", 200)]
)
async def test_scopes(client: httpx.AsyncClient, key: str | None, status: int) -> None:
    """401 says how to come in; 403 says which scope may not; the rest pass."""
    response = await client.get("/guarded", headers={"Authorization": f"Bearer {key}"} if key else {})
    assert response.status_code == status
    if status == 401:
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    elif status == 403:
        assert "viewer" in problem(response, 403)["detail"]


async def test_serving_on_a_socket_made_before() -> None:
    """Callers that come before the server do wait, and are answered; afterwards the address is free again."""
    with listen("127.0.0.1:0") as listening:
        host, port = listening.getsockname()
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as early:
            waiting = asyncio.create_task(early.post("/echo", json={"stage": "live"}))
            async with serving(app, listening) as url:
                assert url == f"http://{host}:{port}"
                assert (await waiting).status_code == 201
    with listen(f"127.0.0.1:{port}"):
        pass


async def test_requests_under_way_are_finished() -> None:
    """Leaving the context answers what is being answered."""
    async with httpx.AsyncClient() as client:
        async with serving(app, "127.0.0.1:0") as url:
            waiting = asyncio.create_task(client.get(f"{url}/waits"))
            await begun.wait()
        assert (await waiting).json() == "done"


async def test_an_address_in_use_is_an_os_error() -> None:
    """The caller hears of it at once."""
    with listen("127.0.0.1:0") as taken, pytest.raises(OSError, match="in use"):
        async with serving(app, f"127.0.0.1:{taken.getsockname()[1]}"):
            pass


async def test_ipv6_addresses_are_in_brackets() -> None:
    """In what is read and in the base URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listening = listen("[::1]:0")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    async with serving(app, listening) as url:
        assert url.startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        (":0", ("0.0.0.0", 0)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, int]) -> None:
    """HOST:PORT; no host is every interface."""
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", "80", "host", "host:", "host:x", "host:-1", "host:65536", "host:8 0"])
def test_what_is_no_address(address: str) -> None:
    """Is refused by name."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(address)
