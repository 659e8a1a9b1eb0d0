"""Independent WebSocket clients against a whole Stagecast: Node's `ws`, and the threaded client of `websockets`."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.system.running import Running, running

HERE = Path(__file__).parent
pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One Stagecast for all clients."""
    async with running(tmp_path_factory.mktemp("interop") / "data") as up:
        for event in ("final", "second"):
            await up.create(event, "upcoming", "live", "ended")
        yield up


@pytest_asyncio.fixture(loop_scope="module")
async def ws_client(tmp_path: Path) -> Path:
    """The client script beside its `ws`, which npm takes from its cache or the registry."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("ws: needs node and npm")
    folder = tmp_path / "ws"
    folder.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc", "client.js"):
        shutil.copy(HERE / name, folder)
    fetching = await asyncio.create_subprocess_exec(npm, "ci", "--prefer-offline", cwd=folder, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(60):
            _, said = await fetching.communicate()
    except TimeoutError:
        fetching.kill()
        await fetching.communicate()
        said = b"it took too long"
    if fetching.returncode:
        pytest.skip("ws: npm can't get it")
    assert (folder / "node_modules" / "ws").is_dir(), said
    return folder / "client.js"


async def test_the_ws_client_of_node(stage: Running, ws_client: Path) -> None:
    """It is welcomed without an extension, follows a transition, pings, sends fragments, closes; its bad frames and handshakes
    get the codes that PROTOCOL names."""
    token = stage.token("member", "node", "final")
    client = await asyncio.create_subprocess_exec("node", ws_client, stage.ws, token, "node", "final", stdout=PIPE)
    assert client.stdout is not None
    seen: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(60):
            while line := await client.stdout.readline():
                found = json.loads(line)
                seen[found.pop("what")] = found
                if "welcome" in seen and "state" not in seen:
                    await stage.go("final", "live")
            assert await client.wait() == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert seen == {
        "open": {"subprotocol": "stagecast.v1", "extensions": ""},
        "welcome": {"t": "welcome", "events": ["final"]},
        "state": {"t": "state", "e": "final", "stage": "live"},
        "pong": {"data": "are you there"},
        "fragments": {"t": "pong", "c": 7},
        "close": {"code": 1000},
        "binary": {"code": 1003},
        "unmasked": {"code": 1002},
        "too big": {"code": 1009},
        "not json": {"code": 4400},
        "no token": {"code": 4401},
        "other subprotocol": {"status": 400},
        "foreign origin": {"status": 403},
    }


async def test_the_threaded_websockets_client(stage: Running) -> None:
    """It offers compression and gets none, is welcomed, sends fragments, follows a transition, and sees how it ends."""
    token = stage.token("member", "sync", "second")
    hello = json.dumps({"t": "hello", "token": token, "device": "sync", "at": [{"e": "second", "gen": 0, "seq": 0}]})

    loop = asyncio.get_running_loop()

    def session() -> list[Any]:
        with connect(stage.ws, subprotocols=[Subprotocol("stagecast.v1")], proxy=None) as client:
            seen: list[Any] = [client.subprotocol, client.protocol.extensions]
            client.send([hello[:10], hello[10:200], hello[200:]])
            seen.append(json.loads(client.recv(timeout=20))["t"])
            asyncio.run_coroutine_threadsafe(stage.go("second", "live"), loop).result(20)
            seen.append(json.loads(client.recv(timeout=20))["stage"])
            client.send(b"binary")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)
            assert closed.value.rcvd
            return [*seen, closed.value.rcvd.code]

    assert await asyncio.to_thread(session) == ["stagecast.v1", [], "welcome", "live", 1003]
