"""Hosts come and go under their devices: a rolling restart, and a host that dies with all of them."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from stagecast.client import Device
from tests.system.fleet import Fleet, Host, fleet
from tests.system.running import CLI, until

DEVICES = 500
ACCEPT_RATE = 400
DRAIN_RATE = 250

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


async def go(up: Fleet, event: str, stage: str) -> int:
    body, key = {"stage": stage, "urgent": True}, {"Idempotency-Key": uuid.uuid4().hex}
    got = await up.api.post(f"/v1/events/{event}/transitions", json=body, headers=key)
    assert got.is_success, got.text
    seq: int = got.json()["seq"]
    return seq


async def keep_going(up: Fleet, event: str) -> None:
    """A stage each half second, back and forth, until cancelled."""
    for number in range(10_000):
        await go(up, event, ("one", "two")[number % 2])
        await asyncio.sleep(0.5)


async def drained(up: Fleet, host: Host) -> str:
    """`stagecast drain --wait`, as an operator types it; what it said."""
    command = [*CLI, "drain", host.admin, "--data", str(up.data), "--url", up.http, "--rate", str(DRAIN_RATE), "--wait"]
    process = await asyncio.create_subprocess_exec(
        *command, "--accept-rate", str(ACCEPT_RATE), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"STAGECAST_KEY": up.key},
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_a_rolling_restart_costs_nobody_the_stage(tmp_path: Path) -> None:
    """Each host in turn is drained, ended and started anew while stages change: every device ends on the last one and has seen
    them in order, no host is given more than `accept_rate` connections a second, and none is refused."""
    flags = ("--workers", "2", "--accept-rate", str(ACCEPT_RATE), "--accept-burst", str(ACCEPT_RATE))
    async with fleet(tmp_path / "data", 2, *flags) as up:
        plan = [{"stage": one} for one in ("upcoming", "one", "two", "end")]
        await up.call("POST", "/v1/events", {"id": "final", "title": "Final", "plan": plan})
        async with up.devices(DEVICES, DRAIN_RATE, "final") as devices:
            going = asyncio.create_task(keep_going(up, "final"))
            seen = [asyncio.create_task(_in_order(device)) for device in devices]
            for host in up.hosts:
                other = next(one for one in up.hosts if one is not host)
                await until(lambda: _both_accept(up), "both say that they take devices")
                said = await drained(up, host)
                assert "Empty after" in said
                host.process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(host.process.wait(), 10) == 0
                await until(lambda: all(device.connected for device in devices), "all are connected again")
                for reason in ("rate", "503", "full"):
                    assert await up.metric(other, f'stagecast_refusals_total{{reason="{reason}",worker="0"}}') == 0
                    assert await up.metric(other, f'stagecast_refusals_total{{reason="{reason}",worker="1"}}') == 0
                assert await up.metric(other, "stagecast_feed_kv_reads_total") <= 1  # one event
                await host.start(up.log)
                await until(lambda host=host: up.ready(host), f"{host.name} is back")  # type: ignore[misc]
            assert not going.done(), going.exception()
            going.cancel()
            last = await go(up, "final", "end")
            await until(lambda: all(d.position("final").seq == last for d in devices), "all are at the last stage")
            for task in seen:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        assert max(host.busiest(1.0) for host in up.hosts) <= ACCEPT_RATE


async def _in_order(device: Device) -> None:
    """Fails if a device goes back."""
    before = 0
    async for change in device.stages():
        assert change.seq > before
        before = change.seq


async def _both_accept(up: Fleet) -> bool:
    hosts = (await up.call("GET", "/v1/hosts"))["hosts"]
    return [one["accepting"] for one in hosts] == [True, True]


async def test_a_storm_reads_the_store_once_per_event(tmp_path: Path) -> None:
    """A host dies with all its devices, and stages change meanwhile: the other welcomes them with the heads it holds. It reads
    the store once for each event, however many come."""
    events = [f"e{i}" for i in range(4)]
    async with fleet(tmp_path / "data", 2) as up:
        for event in events:
            await up.call("POST", "/v1/events", {"id": event, "title": event, "plan": [{"stage": "a"}, {"stage": "b"}]})
        async with up.devices(200, 200, *events) as devices:
            died, survivor = up.hosts
            held = await up.metric(survivor, "stagecast_accepts_total")
            died.process.kill()
            await died.process.wait()
            began = time.monotonic()
            last = {event: await go(up, event, "b") for event in events}
            await until(
                lambda: all(d.position(event).seq == seq for d in devices for event, seq in last.items()),
                "all are at the last stages",
            )
            assert time.monotonic() - began < 20

            async def came() -> bool:
                return await up.metric(survivor, "stagecast_accepts_total") >= 200 > held

            await until(came, "the survivor has taken all")
            assert await up.metric(survivor, "stagecast_feed_kv_reads_total") <= len(events)
