"""Devices through the documented TLS proxies, and whose word about a client's address a host takes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pushy.worker import Options
from stagecast.client import Device
from tests.deploy.fronts import front, haproxy_configuration, nginx_configuration, opened
from tests.deploy.programs import program, said
from tests.pushy.rig import REQUEST, worker
from tests.servers.certificates import Certificates, make_certificates
from tests.system.running import Running, running, until

FRONTS = {"haproxy": ["--proxy-protocol", "true"], "nginx": []}
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light"}
TRUST = ["--trusted-proxy", "127.0.0.1/32"]

pytestmark = pytest.mark.system


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture(params=list(FRONTS))
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    program(chosen, PACKAGES[chosen])
    return chosen


@contextlib.asynccontextmanager
async def fronted(name: str, folder: Path, made: Certificates) -> AsyncIterator[tuple[Running, int]]:
    """A Stagecast with the proxy before it."""
    async with running(folder / "data", *TRUST, *FRONTS[name]) as stage:
        ws, admin = stage.ws.removeprefix("ws://").removesuffix("/ws"), stage.admin.removeprefix("http://")
        async with front(name, folder / name, made, ws, admin) as port:
            yield stage, port


async def test_a_device_over_wss(
    name: str, made: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is welcomed, gets the next stage, and finds the proxy's other host dead without noticing."""
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
    async with fronted(name, tmp_path, made) as (stage, port):
        await stage.create("final", "upcoming", "live")
        token = stage.token("m1", "d1", "final")
        async with Device(f"wss://localhost:{port}/ws", token, device="d1", events=["final"]) as device:
            await until(lambda: device.connected, "the device is connected")
            last = await stage.go("final", "live")
            await until(lambda: device.position("final").seq == last["seq"], "the device is at the last stage")


@pytest.mark.parametrize("forged", ["", "X-Forwarded-For: 198.51.100.1\r\n"])
async def test_limits_are_by_the_clients_address(name: str, made: Certificates, tmp_path: Path, forged: str) -> None:
    """Two connections of one client pass, its third is 503, another client is served: whatever header the client sends itself."""
    settings: dict[str, Any] = {
        "trusted_proxies": ["127.0.0.1/32"],
        "proxy_protocol": name == "haproxy",
        "connections_per_address": 2,
    }
    async with worker(tmp_path, Options(per_address_on_loopback=True), **settings) as rig, _admin() as admin:
        ws = f"127.0.0.1:{rig.address[1]}"
        async with front(name, tmp_path / name, made, ws, admin) as port, contextlib.AsyncExitStack() as held:

            async def answer(source: str) -> str:
                reader, writer = await opened(port, made, source)
                held.callback(writer.close)
                key = "MDEyMzQ1Njc4OWFiY2RlZg=="
                writer.write(REQUEST.format(path="/ws", host="localhost", port=port, key=key, more=forged).encode())
                return (await asyncio.wait_for(reader.readline(), 15)).split()[1].decode()

            async def enters(source: str) -> bool:
                with contextlib.suppress(
                    IndexError, ConnectionError
                ):  # HAProxy has not looked at the host's health yet
                    return await answer(source) == "101"
                return False

            await until(lambda: enters("127.0.0.5"), "the first connection")
            assert await answer("127.0.0.5") == "101"
            assert await answer("127.0.0.5") == "503"
            assert await answer("127.0.0.6") == "101"


@contextlib.asynccontextmanager
async def _admin() -> AsyncIterator[str]:
    """An admin port that says it is ready: the rig's worker has no feed of the real kind."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def test_a_host_that_drains_gets_nobody_new(made: Certificates, tmp_path: Path) -> None:
    """HAProxy goes by /readyz: after POST /drain it has no host left to send anybody to."""
    program("haproxy", "haproxy")
    async with fronted("haproxy", tmp_path, made) as (stage, port):

        async def served() -> bool:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await opened(port, made)
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                line = await asyncio.wait_for(reader.readline(), 15)
                writer.close()
                return line.startswith(b"HTTP/1.1 400")
            return False

        async def refused() -> bool:
            return not await served()

        await until(served, "the host serves through the proxy")
        await stage.call("POST", f"{stage.admin}/drain")
        await until(refused, "the proxy has taken the host out")


def test_a_planted_fault_is_seen(name: str, made: Certificates, tmp_path: Path) -> None:
    """The programs themselves read the configuration: a wrong word ends the test of the test."""
    hosts = [("127.0.0.1:1", "127.0.0.1:1")] * 2
    file = tmp_path / "configuration"
    if name == "haproxy":
        text = haproxy_configuration(1, made, hosts)
        command = [program("haproxy", "haproxy"), "-c", "-f", str(file)]
    else:
        text = nginx_configuration(1, made, hosts, tmp_path)
        nginx = program("nginx", "nginx-light")
        command = [nginx, "-t", "-c", str(file), "-p", str(tmp_path), "-e", str(tmp_path / "errors")]
    good, bad = {"haproxy": ("default_backend", "default_backhand"), "nginx": ("least_conn", "last_conn")}[name]
    for written, status in ((text, 0), (text.replace(good, bad), 1)):
        file.write_text(written)
        got, words = said(*command, cwd=tmp_path)
        assert got == status, words
