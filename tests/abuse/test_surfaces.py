"""What an outsider can reach, learn or forge at a whole Stagecast: tokens in logs, log lines of their own making, admin routes on
the device port, routes without a key, events of others, replayed requests.

Take a defence out, and the test of its name fails.
"""

import asyncio
import json
import os
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from stagecast.cli.credentials import create_api_key
from stagecast.settings import Settings
from tests.abuse.probe import NOISE, ending, pour, resident, upgrade
from tests.pushy.rig import PATIENCE, Raw, masked
from tests.system.running import Running, running, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]
CANARY = "CANARY" + uuid.uuid4().hex
OPEN = {"/", "/healthz", "/readyz", "/metrics", "/openapi.json"}
"""What answers without a key, and says nothing of events."""
SERVICE_MAY = re.compile("/transitions$|/cloudevents$")
"""What a key of scope `service` may change by the HTTP API: it triggers transitions."""
FORGED = [
    'plain\r\n{"level":"error","event":"forged"}',
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "line\u2028separator\u2029next\x85line",
    "nul\x00backspace\x08delete\x7f",
    "\u202eright to left",
    "x" * 65_536,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One Stagecast for all."""
    async with running(tmp_path_factory.mktemp("abuse") / "data") as up:
        yield up


def address(stage: Running) -> tuple[str, int]:
    host, port = stage.ws.removeprefix("ws://").removesuffix("/ws").rsplit(":", 1)
    return host, int(port)


async def device(stage: Running, token: str, name: str, *events: str, **more: Any) -> Raw:
    raw = await Raw.connect(address(stage), **more)
    raw.hello(token, name, [{"e": event, "gen": 0, "seq": 0} for event in events])
    return raw


async def key(stage: Running, scope: str) -> dict[str, str]:
    """The header of a new API key."""
    return {"Authorization": f"Bearer {await create_api_key(Settings(data=str(stage.data)), scope)}"}


async def pages(stage: Running) -> str:
    """All that is shown to who looks after it: metrics of every service, and what they logged."""
    maps = httpx.URL(stage.http)
    async with httpx.AsyncClient(trust_env=False) as client:
        found = [(await client.get(f"{base}/metrics")).text for base in (maps, stage.admin)]
    return "\n".join([*found, stage.output.read_text()])


def log_lines(stage: Running) -> list[str]:
    """Of all services, split at line feeds alone: whatever else might end a line for a reader must not be in them."""
    return [line for line in stage.output.read_bytes().decode().split("\n") if line]


def is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


async def test_secrets_are_nowhere(stage: Running) -> None:
    """Tokens and keys, good and bad, sent by every way there is, are in no log line, no metric, no answer."""
    await stage.create("secrets", "upcoming", "live")
    good = stage.token("member", "device", "secrets")
    operator = stage.api.headers["Authorization"].removeprefix("Bearer ")
    answers: list[str] = []
    for token in (f"{CANARY}.{CANARY}.{CANARY}", good[:-4] + "AAAA", CANARY * 50):
        async with await device(stage, token, "device", "secrets") as raw:
            opcode, payload = await raw.raw_frame()
            assert (opcode, payload[:2]) == (8, (4401).to_bytes(2, "big"))
            answers.append(payload.decode(errors="replace"))
    async with await device(stage, good, "device", "secrets") as raw:
        answers.append((await raw.raw_frame())[1].decode())
        raw.json(t="auth", token=f"{CANARY}.x.y")
        answers.append((await raw.raw_frame())[1].decode(errors="replace"))
    for request in (
        upgrade(f"GET /ws?token={CANARY} HTTP/1.1", f"Authorization: Bearer {CANARY}", f"Cookie: session={CANARY}"),
        upgrade(f"GET /{CANARY} HTTP/1.1", Sec_WebSocket_Protocol=f"bearer.{CANARY}"),
        upgrade(f"GET /ws HTTP/1.1\x00{CANARY}", Origin=f"https://{CANARY}.example"),
    ):
        async with await Raw.open(address(stage)) as raw:
            await raw.send(request)
            head = await raw.head()
            answers.append(head.decode("latin-1"))
            if b" 101 " not in head:
                answers.append((await raw.rest()).decode("latin-1"))
    bad = {"Authorization": f"Bearer {CANARY}", "Idempotency-Key": CANARY, "Cookie": f"session={CANARY}"}
    async with httpx.AsyncClient(trust_env=False, headers=bad) as client:
        for method, url in (
            ("GET", f"{stage.http}/v1/events/secrets?key={CANARY}"),
            ("POST", f"{stage.http}/v1/events/secrets/transitions"),
            ("GET", f"{stage.http}/v1/stage-maps/secrets"),
            ("POST", f"{stage.admin}/push"),
            ("POST", f"{stage.admin}/drain"),
        ):
            got = await client.request(method, url, json={"stage": CANARY} if method == "POST" else None)
            assert got.status_code == 401, (url, got.status_code)
            answers.append(got.text + str(got.headers))
        pulled = await client.get(f"{stage.http}/v1/stage-maps/secrets", headers={"Authorization": f"Bearer {good}"})
        answers.append(pulled.text + str(pulled.headers))
    shown = await pages(stage) + "\n".join(answers)
    for secret in (CANARY, good, good.rsplit(".", 1)[1], operator, (stage.data / "service.key").read_text().strip()):
        assert secret not in shown


async def test_no_client_writes_a_log_line(stage: Running) -> None:
    """Control characters, line ends of every kind and 64 KB, in each place that a client can fill: every line of the log is one
    JSON object still, in plain ASCII, and nothing of what was forged stands at the beginning of one."""
    await stage.create("forged", "upcoming", "live")
    token = stage.token("member", "forger", "forged")
    for text in FORGED:
        odd = text.encode()
        for request in (
            upgrade("GET /ws HTTP/1.1").replace(b"tv.example", odd[:4000]),
            upgrade("GET /ws HTTP/1.1").replace(b"/ws", b"/" + odd),
            upgrade("GET /ws HTTP/1.1").replace(b"stagecast.v1", odd),
            odd + b"\r\n\r\n",
        ):
            async with await Raw.open(address(stage)) as raw:
                await raw.send(request)
                await raw.rest()
        async with await Raw.connect(address(stage)) as raw:
            raw.json(t="hello", token=token, device="forger", app=text[:64], at=[{"e": "forged"}])
            await raw.send(masked(b"\x03\xe8" + odd[:100].decode(errors="ignore").encode(), opcode=8))
            await ending(raw)
        for path, body in (
            ("/v1/events", {"id": "f" + uuid.uuid4().hex, "title": text[:100], "plan": [{"stage": "a"}]}),
            ("/v1/events/forged/transitions", {"stage": "live", "reason": text[:200], "urgent": True}),
            ("/v1/events/forged/hold", {"reason": text[:200]}),
            ("/v1/events/forged/resume", {}),
            (f"/v1/events/{quote(text[:200], safe='')}/hold", {"reason": "x"}),
        ):
            await stage.api.post(path, json=body)
        for base in (stage.http, stage.admin):  # the HTTP server's own words about what is no request
            host, port = base.removeprefix("http://").rsplit(":", 1)
            async with await Raw.open((host, int(port))) as raw:
                await raw.send(odd + b"\r\n\r\n")
                await raw.rest()
    transitions = [one for one in log_lines(stage) if "forged" in one]
    assert transitions, "the log does speak of what was done"
    for line in log_lines(stage):
        assert is_object(line), line[:200]
        assert line.isascii(), line[:200]
        assert line.isprintable(), line[:200]


async def test_the_device_port_serves_devices_alone(stage: Running) -> None:
    """No route of any API answers on the device port, with the best key there is, by any method, nor /echo."""
    schema = (await stage.api.get("/openapi.json")).json()
    paths = {re.sub(r"{[^}]*}", "secrets", path) for path in schema["paths"]} | OPEN
    paths |= {"/push", "/drain", "/v1/stage-maps/secrets", "/v1/campaigns/secrets", "/console", "/debug", "/echo"}
    bearer = f"Authorization: {stage.api.headers['Authorization']}"
    host, port = address(stage)
    for path in sorted(paths):
        for method in ("GET", "POST"):
            async with await Raw.open((host, port)) as raw:
                await raw.send(
                    f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                answer = await raw.rest()
                assert answer.startswith(b"HTTP/1.1 400 "), (method, path, answer[:100])
        async with await Raw.open((host, port)) as raw:
            await raw.send(upgrade(f"GET {path} HTTP/1.1", bearer))
            assert (await raw.rest()).startswith(b"HTTP/1.1 404 "), path


async def test_every_route_wants_a_key_and_the_right_one(stage: Running) -> None:
    """By the OpenAPI document: without a key, or with a wrong one, 401; a viewer changes nothing, 403; a service key neither
    makes events nor changes plans. The admin port's and the stage maps' routes likewise."""
    schema = (await stage.api.get("/openapi.json")).json()
    routes = [
        (method.upper(), stage.http + re.sub(r"{[^}]*}", "secrets", path))
        for path, operations in schema["paths"].items()
        if path not in OPEN
        for method in operations
        if method in ("get", "post", "put", "delete", "patch")
    ]
    assert len(routes) > 10, "the document names the routes"
    unsafe = [route for route in routes if route[0] != "GET"]
    others = [
        ("POST", f"{stage.admin}/push"),
        ("POST", f"{stage.admin}/drain"),
        ("POST", f"{stage.http}/v1/stage-maps/secrets/import?kind=maps"),
        ("GET", f"{stage.http}/v1/stage-maps/secrets/members/m"),
        ("POST", f"{stage.http}/v1/campaigns/secrets"),
    ]
    viewer, service = await key(stage, "viewer"), await key(stage, "service")
    device_token = {"Authorization": f"Bearer {stage.token('m', 'd', '*')}"}
    async with httpx.AsyncClient(trust_env=False) as client:

        async def ask(route: tuple[str, str], headers: dict[str, str]) -> int:
            body: dict[str, str] | None = {} if route[0] != "GET" else None
            return (await client.request(*route, json=body, headers=headers)).status_code

        for route in (*routes, *others):
            for headers in (
                {},
                {"Authorization": "Bearer sc_operator_no"},
                {"Authorization": "Basic Og=="},
                device_token,
            ):
                assert await ask(route, headers) == 401, (route, headers)
        for route in (*unsafe, *(other for other in others if other[0] == "POST")):
            assert await ask(route, viewer) == 403, route
        for route in unsafe:
            if not SERVICE_MAY.search(route[1]):
                assert await ask(route, service) == 403, route
    assert await stage.metric("stagecast_connections") >= 0, "and nobody drained the host"


async def test_the_http_ports_bound_a_request(stage: Running) -> None:
    """A request whose head never ends takes neither the broadcaster's memory nor the feed's: 431 and the end, where 30 MB would
    have been kept of each."""
    for base, child in ((stage.http, "broadcaster"), (stage.admin, "feed")):
        host, port = base.removeprefix("http://").rsplit(":", 1)
        before = resident(stage.pids[child])
        for begun, endless in ((b"GET /healthz HTTP/1.1\r\n", b"X: a\r\n" * 10_000), (b"GET /", b"a" * 60_000)):
            async with await Raw.open((host, int(port))) as raw:
                await raw.send(begun)
                assert await pour(raw, endless, 500) < 20 << 20
        assert resident(stage.pids[child]) - before < 2 * NOISE
        assert (await stage.api.get(f"{base}/healthz")).status_code == 200


async def test_no_byte_of_another_event(stage: Running) -> None:
    """A device whose token allows one event never receives a byte of another: not by asking in hello, sub or ping, not by pushes
    to its member or hints to the event's followers, not by name in an error."""
    mine, other = "mine", "others-event"
    canary = "canary-" + uuid.uuid4().hex[:12]
    for event in (mine, other):
        await stage.create(event, "upcoming", {"stage": "live"}, {"stage": canary})
    narrow = await device(stage, stage.token("member", "narrow", mine), "narrow", mine, other)
    wide = await device(stage, stage.token("member", "wide", "*"), "wide", mine, other)
    async with narrow, wide:
        seen = [(await narrow.raw_frame())[1] for _ in range(2)]
        assert (await wide.frame())["t"] == "welcome"
        narrow.json(t="sub", at=[{"e": other}])
        seen.append((await narrow.raw_frame())[1])
        narrow.json(t="ping", c=1, at=[{"e": other, "gen": 1, "seq": 1, "map": None}])
        seen.append((await narrow.raw_frame())[1])
        await stage.go(other, canary)
        assert (await wide.until("state"))["stage"] == canary
        map_ = {"t": "map", "e": other, "gen": 1, "map": "1764000000000-x", "stages": {"live": canary}}
        got = await stage.api.post(
            f"{stage.admin}/push",
            json=[{"member": "member", "frame": map_}, {"device": "narrow", "frame": map_}],
            headers=await key(stage, "service"),
        )
        assert got.status_code == 200, got.text
        assert [one["device"] for one in got.json() if one["status"] == 200] == ["wide"], got.text
        assert (await wide.until("map"))["stages"]["live"] == canary
        await stage.go(mine, "live")
        while b'"live"' not in seen[-1]:
            seen.append((await narrow.raw_frame())[1])
        received = b"".join(seen)
        assert canary.encode() not in received
        assert all(frame["code"] == "unknown_event" for frame in map(json.loads, seen) if frame["t"] == "err")


async def test_a_device_token_opens_no_other_event_s_map(stage: Running) -> None:
    """The pull API too: 403 for an event that the token does not name, the same for one that does not exist."""
    await stage.create("pulled", "upcoming")
    headers = {"Authorization": f"Bearer {stage.token('m', 'd', 'pulled')}"}
    async with httpx.AsyncClient(trust_env=False, base_url=stage.http, headers=headers) as client:
        there, absent = await client.get("/v1/stage-maps/secrets"), await client.get("/v1/stage-maps/absent")
        assert (there.status_code, there.text) == (absent.status_code, absent.text)
        assert there.status_code == 403


async def test_a_replayed_request_does_nothing_new(stage: Running) -> None:
    """The same Idempotency-Key with the same body gets the same answer; with another body 422, and nothing happens; for another
    event it is another request, of which the first event hears nothing."""
    for event in ("replay", "replay-2"):
        await stage.create(event, "upcoming", "live", "ended")
    headers, body = {"Idempotency-Key": uuid.uuid4().hex}, {"stage": "live", "urgent": True}
    first = await stage.api.post("/v1/events/replay/transitions", json=body, headers=headers)
    again = await stage.api.post("/v1/events/replay/transitions", json=body, headers=headers)
    assert first.status_code == again.status_code == 202
    same = ("e", "gen", "seq", "stage", "ts")
    assert [first.json()[name] for name in same] == [again.json()[name] for name in same]
    other = await stage.api.post("/v1/events/replay/transitions", json={"stage": "ended"}, headers=headers)
    assert other.status_code == 422
    await stage.api.post("/v1/events/replay-2/transitions", json=body, headers=headers)
    assert (await stage.call("GET", "/v1/events/replay"))["seq"] == first.json()["seq"]


async def test_a_revocation_reaches_the_device(stage: Running) -> None:
    """POST /v1/revocations: the device's connection ends with 4401, its token opens nothing any more, neither a connection nor a
    stage map; the same member's other device stays."""
    await stage.create("revoked", "upcoming")
    token = stage.token("robbed", "stolen", "revoked")
    kept_token = stage.token("robbed", "kept", "revoked")
    stolen, kept = await device(stage, token, "stolen", "revoked"), await device(stage, kept_token, "kept", "revoked")
    async with stolen, kept:
        assert (await stolen.frame())["t"] == (await kept.frame())["t"] == "welcome"
        await stage.call("POST", "/v1/revocations", {"device": "stolen"})
        async with asyncio.timeout(PATIENCE):
            assert await stolen.closed() == 4401
        async with await device(stage, token, "stolen", "revoked") as again:
            assert await again.closed() == 4401

        async def refused() -> bool:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(trust_env=False, base_url=stage.http, headers=headers) as client:
                return (await client.get("/v1/stage-maps/revoked")).status_code == 401

        await until(refused, "the stage-map API knows of the revocation")
        kept.json(t="ping", c=1)
        assert (await kept.frame())["t"] == "pong"


async def test_no_traceback_anywhere(stage: Running) -> None:
    """After all of the above: no service told a client, or needed to tell its log, of an exception that nobody expected, and none
    of them had to be started again."""
    log = stage.output.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:2000]
    assert "child died" not in log
    os.kill(stage.pids["feed"], 0)
