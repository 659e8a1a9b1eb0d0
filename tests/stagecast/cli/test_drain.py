"""`stagecast drain`: at which pace, when not, and until when."""

import asyncio
import contextlib
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from stagecast.cli.drain import Others, Planned, admin_url, others, pace, planned_of, too_soon
from tests.system.running import CLI, Running, running, until


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("pushy-1", "http://pushy-1:8082"),
        ("pushy-1:9000", "http://pushy-1:9000"),
        ("[::1]", "http://[::1]:8082"),
        ("http://pushy-1:8082/", "http://pushy-1:8082"),
        ("https://admin.example", "https://admin.example"),
    ],
)
def test_a_host_is_named_by_name_or_url(said: str, url: str) -> None:
    """The admin port is 8082 unless said otherwise; a URL is taken as it is."""
    assert admin_url(said) == url


@pytest.mark.parametrize("said", ["", "ftp://pushy-1", "http://pushy-1/drain", "http://"])
def test_what_is_no_host(said: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        admin_url(said)


def host(name: str, connections: int = 0, accepting: bool = True, age: float = 1.0) -> dict[str, Any]:
    return {"host": name, "connections": connections, "limit": 100, "log_age": 1.0, "accepting": accepting, "age": age}


def test_others_are_hosts_that_speak_and_accept() -> None:
    """Not the one that is drained, none that drains, none that is silent; a full one has no room."""
    hosts = [host("a", 90), host("b", 40), host("c", 0, accepting=False), host("d", 0, age=16.0), host("e", 120)]
    assert others(hosts, "a") == Others(2, 60)
    assert others(hosts, "unknown") == Others(3, 70)
    assert others([], "a") == Others(0, 0)


def test_the_pace_is_what_the_others_accept() -> None:
    """Their number × accept_rate, at most."""
    assert pace(1000, Others(3, 0), 200) == 600
    assert pace(300, Others(3, 0), 200) == 300


def test_a_stage_with_a_time_is_planned() -> None:
    """One that waits for a person, and a plan on hold, are not."""
    view: dict[str, Any] = {"id": "final", "hold": None, "next": {"stage": "live", "due": "2026-11-25T20:00:00Z"}}
    due = datetime(2026, 11, 25, 20, tzinfo=UTC).timestamp()
    assert planned_of(view) == Planned("final", "live", due)
    assert planned_of(view | {"next": None}) is None
    assert planned_of(view | {"next": {"stage": "live", "why": "a person"}}) is None
    assert planned_of(view | {"hold": {"reason": "rain"}}) is None


def test_soon_is_within_the_guard() -> None:
    """The first one first; one that is overdue counts."""
    late, near, far = (Planned(name, "live", due) for name, due in (("a", -5.0), ("b", 899.0), ("c", 900.0)))
    assert too_soon([far, near, late], 0.0, 900.0) == [late, near]


@pytest.mark.system
async def test_a_host_is_emptied(tmp_path: Path) -> None:
    """Refused while it is alone, and just before a stage; with --force it shows how far it is until the host is empty."""
    async with running(tmp_path / "data") as stage:
        await stage.create("final", "upcoming", {"stage": "live", "at": _at(minutes=10)})
        async with stage.devices(20, "final") as devices:
            await until(lambda: _knows_a_host(stage, 20), "the host is known")
            command = [*CLI, "drain", stage.admin, "--data", str(stage.data), "--rate", "50", "--wait"]
            code, words = await _run(command)
            assert (code, "final goes to 'live' in 10 min" in words) == (1, True), words
            code, words = await _run([*command, "--guard", "1m"])
            assert (code, "No other host" in words) == (1, True), words
            assert all(device.connected for device in devices)
            code, words = await _run([*command, "--force"])
            assert code == 0, words
            assert "20 connections, 50 a second" in words
            assert "Empty after" in words
            assert not any(device.connected for device in devices)
            assert (await stage.api.get(f"{stage.admin}/drain")).json()["empty"]


@pytest.mark.system
async def test_a_drain_goes_on_when_the_feed_is_replaced(tmp_path: Path) -> None:
    """SIGKILL of the feed in the middle: the next one drains on at the same pace, and nobody is let in."""
    async with running(tmp_path / "data", "--drain-rate", "400") as stage:
        await stage.create("final", "upcoming", "live")
        async with stage.devices(20, "final"):
            await until(lambda: _knows_a_host(stage, 20), "the host has counted its devices")
            await stage.call("POST", f"{stage.admin}/drain", {"rate": 10})
            old = stage.pids["feed"]
            os.kill(old, signal.SIGKILL)
            await until(lambda: stage.pids.get("feed", old) != old, "another feed is there")
            far = await _progress(stage)
            assert (far["draining"], far["rate"]) == (True, 10.0)

            async def empty() -> bool:
                return bool((await _progress(stage))["empty"])

            await until(empty, "the host is empty")
            assert (await stage.api.get(f"{stage.admin}/readyz")).status_code == 503


def _at(**later: float) -> str:
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _knows_a_host(stage: Running, devices: int) -> bool:
    """Its sign of life has come, and the gauges that a drain counts by."""
    hosts = (await stage.call("GET", "/v1/hosts"))["hosts"]
    page = (await stage.api.get(f"{stage.admin}/metrics")).text
    return len(hosts) == 1 and f'stagecast_connections{{worker="0"}} {devices}.0' in page


async def _progress(stage: Running) -> Any:
    """Asked again while the feed is being replaced."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            return await stage.call("GET", f"{stage.admin}/drain")


async def _run(command: list[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    words, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, words.decode()
