"""The way of a broadcast through real processes, undisturbed: what a producer and a device see."""

import asyncio
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import websockets

from stagecast.client import Device
from tests.system.running import CLI, Running, until


def all_at(devices: list[Device], event: str, seq: int) -> bool:
    return all(device.position(event).seq == seq for device in devices)


async def test_a_stage_change_reaches_every_device(stage: Running, event: str) -> None:
    """Each switches once, to the stage that was accepted, in its order."""
    await stage.create(event, "upcoming", "live", "ended")
    async with stage.devices(50, event) as devices:
        for name in ("live", "ended"):
            accepted = await stage.go(event, name)
            await until(partial(all_at, devices, event, accepted["seq"]), f"all at {name}")


async def test_a_device_that_was_away_gets_the_head(stage: Running, event: str) -> None:
    """In its welcome, whatever it missed in between."""
    await stage.create(event, "upcoming", "live", "break", "ended")
    async with stage.devices(2, event) as (away, _):
        away.cut()
        await until(lambda: not away.connected, "it is cut off")
        await stage.go(event, "live")
        last = await stage.go(event, "break")
        await until(lambda: away.position(event).seq == last["seq"], "it caught up")


async def test_a_deleted_event_comes_back_under_a_greater_gen(stage: Running, event: str) -> None:
    """A device that saw seq 3 of the old one takes seq 1 of the new one."""
    old = await stage.create(event, "upcoming", "live", "ended")
    async with stage.devices(5, event) as devices:
        await stage.go(event, "live")
        last = await stage.go(event, "ended")
        await until(lambda: all(d.position(event).seq == last["seq"] for d in devices), "all at the end")
        gone = await stage.call("DELETE", f"/v1/events/{event}")
        await until(lambda: all(d.position(event).seq == gone["seq"] for d in devices), "all saw it go")
        new = await stage.create(event, "upcoming", "live")
        assert (new["gen"] > old["gen"], new["seq"]) == (True, 1)
        await until(lambda: all(d.position(event).gen == new["gen"] for d in devices), "all at the new gen")


async def test_the_plan_fires_and_two_broadcasters_never_double(stage: Running, event: str, roads: list[str]) -> None:
    """Two instances with one plan: every stage once, gapless seqs."""
    start = datetime.now(UTC) + timedelta(seconds=3)
    times = [(start + timedelta(seconds=1.5 * i)).isoformat() for i in range(4)]
    plan = [{"stage": "upcoming"}, *({"stage": f"s{i}", "at": at} for i, at in enumerate(times))]
    options = [*roads, "--data", str(stage.data), "--http", "127.0.0.1:0"]
    with (stage.data / "second.log").open("wb") as out:
        second = await asyncio.create_subprocess_exec(*CLI, "broadcaster", *options, stdout=out, stderr=out)
    try:
        await stage.create(event, *plan)
        async with stage.devices(3, event) as devices:
            await until(lambda: all(d.position(event).seq == 5 for d in devices), "all at the plan's last stage")
        history = (await stage.call("GET", f"/v1/events/{event}/history"))["history"]
        assert [(one["seq"], one["stage"]) for one in history] == list(
            enumerate(["upcoming", "s0", "s1", "s2", "s3"], 1)
        )
    finally:
        second.terminate()
        assert await second.wait() == 0


async def test_a_revert_is_not_undone_by_the_plan(stage: Running, event: str) -> None:
    """The plan is on hold after it, over the time of its next stage, until a person lets it go on."""
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    await stage.create(event, "upcoming", "live", {"stage": "ended", "at": soon})
    await stage.go(event, "live")
    reverted = await stage.go(event, "upcoming")
    async with stage.devices(1, event) as (device,):
        due = datetime.fromisoformat(soon) + timedelta(seconds=1)
        await until(lambda: datetime.now(UTC) > due, "the planned time has passed")
        assert device.position(event).seq == reverted["seq"]
        now = await stage.call("GET", f"/v1/events/{event}")
        assert (now["stage"], now["hold"] is not None) == ("upcoming", True)
        await stage.call("POST", f"/v1/events/{event}/resume", {})
        await until(lambda: device.position(event).seq == reverted["seq"] + 1, "the plan went on")


async def test_did_they_get_it(stage: Running, event: str) -> None:
    """Receipts say so: the audience was written to, asked devices switched, and nothing is missing from the sum."""
    await stage.create(event, "upcoming", "live")
    async with stage.devices(40, event):
        await stage.go(event, "live")

        async def all_acked() -> bool:
            got = await stage.call("GET", f"/v1/events/{event}/progress")
            assert got["audience"] == got["written"] + got["pending"] + got["superseded"] + got["closed"]
            return bool(got["asked"] == 40 and got["switched"] + got["missing"] == 40)

        await until(all_acked, "40 acks are counted")
        got = await stage.call("GET", f"/v1/events/{event}/progress")
        assert (got["audience"], got["written"], got["subscribed"]) == (40, 40, 40)


async def test_a_client_of_another_library(stage: Running, event: str) -> None:
    """Written from the protocol's page alone: raw frames over `websockets`."""
    await stage.create(event, "upcoming", "live")
    async with websockets.connect(stage.ws, subprotocols=[websockets.Subprotocol("stagecast.v1")]) as socket:
        at = [{"e": event, "gen": 0, "seq": 0, "map": None}]
        token = stage.token("m", "raw", event)
        await socket.send(json.dumps({"t": "hello", "token": token, "device": "raw", "app": "test", "at": at}))
        welcome = json.loads(await socket.recv())
        assert [(one["t"], one["stage"], one["seq"]) for one in welcome["state"]] == [("state", "upcoming", 1)]
        await stage.go(event, "live")
        state = json.loads(await socket.recv())
        assert (state["t"], state["stage"], state["seq"]) == ("state", "live", 2)
        await socket.send(json.dumps({"t": "ping", "c": 7}))
        assert json.loads(await socket.recv())["c"] == 7


async def test_a_revoked_device_is_closed(stage: Running, event: str) -> None:
    """With 4401, and so is its next hello with a token from before."""
    await stage.create(event, "upcoming")
    subprotocols = [websockets.Subprotocol("stagecast.v1")]
    hello = json.dumps({"t": "hello", "token": stage.token("m", "raw", event), "device": "raw", "at": [{"e": event}]})
    async with websockets.connect(stage.ws, subprotocols=subprotocols) as socket:
        await socket.send(hello)
        await socket.recv()
        await stage.call("POST", "/v1/revocations", {"device": "raw"})
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    async with websockets.connect(stage.ws, subprotocols=subprotocols) as socket:
        await socket.send(hello)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_sigterm_says_goodbye_and_is_gone(stage: Running, event: str) -> None:
    """goaway, close 1001, and no process is left within 2 s."""
    await stage.create(event, "upcoming")
    pids = stage.pids
    everybody = [pids["supervisor"], pids["broadcaster"], pids["prefetch"], pids["feed"], *pids["workers"]]
    async with websockets.connect(stage.ws, subprotocols=[websockets.Subprotocol("stagecast.v1")]) as socket:
        token = stage.token("m", "raw", event)
        await socket.send(json.dumps({"t": "hello", "token": token, "device": "raw", "at": [{"e": event}]}))
        await socket.recv()
        stopping = asyncio.create_task(stage.stop())
        assert json.loads(await socket.recv())["t"] == "goaway"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert await stopping < 2.5  # the promise is 2 s; the rest is this machine's
    assert stage.process.returncode == 0
    for pid in everybody:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_second_dev_in_the_same_folder_is_refused(stage: Running, roads: list[str]) -> None:
    """With one line that says what to do."""
    command = [*CLI, "dev", "--data", str(stage.data), "--http", "127.0.0.1:0", *roads]
    second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await second.communicate()
    assert second.returncode == 1
    assert b"already runs" in said


async def test_keys_and_files_are_private(stage: Running) -> None:
    """What opens doors is readable by its owner alone."""
    for name in ("operator.key", "service.key", "keys.json"):
        assert (stage.data / name).stat().st_mode & 0o777 == 0o600, name


async def test_ctrl_c_is_as_sigterm(stage: Running, tmp_path: Path) -> None:
    """Exit status 0, nothing left running."""
    pids = stage.pids
    os.kill(pids["supervisor"], signal.SIGINT)
    assert await asyncio.wait_for(stage.process.wait(), 10) == 0
    for pid in [pids["feed"], *pids["workers"]]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_what_happened_to_a_device(stage: Running, event: str) -> None:
    """Its time line tells how it came and, once it has gone, that it left: hosts are asked though the registry knows none."""
    await stage.create(event, "upcoming")

    async def told() -> list[str]:
        got = await stage.call("GET", f"/v1/devices/d-0/explain?event={event}")
        return [line["what"] for line in got["timeline"]]

    async def came() -> bool:
        return {"registry", "hello", "connected", "head"} <= set(await told())

    async def left() -> bool:
        line = await told()
        return "closed by the device" in line and "connected" not in line

    async with stage.devices(1, event):
        await until(came, "it is there")
    await until(left, "it is known that it left")
