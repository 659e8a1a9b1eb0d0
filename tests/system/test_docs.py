"""What the documents tell people to type runs, as it stands there."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.check_docs import ROOT
from tests.system.running import Running, running

BIN = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no {language} block"
    return found


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data") as stage:
        yield stage


PYTHON = [
    ("README.md", 0, "match"),
    ("docs/howto/device-client.md", 0, "final"),
    ("docs/howto/device-client.md", 1, "final"),
]


@pytest.mark.parametrize(("page", "number", "event"), PYTHON)
async def test_python_snippets_are_devices(up: Running, page: str, number: int, event: str) -> None:
    """Each prints the stage it is welcomed with, and the one that is triggered next."""
    await up.create(event, "upcoming", "live")
    environment = {**os.environ, "STAGECAST_WS": up.ws, "STAGECAST_TOKEN": up.token("m-1", "tv-1", event)}
    code = blocks(page, "python")[number]
    device = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", code, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert device.stdout is not None
    try:
        assert b"upcoming" in await asyncio.wait_for(device.stdout.readline(), 20)
        await up.go(event, "live")
        assert b"live" in await asyncio.wait_for(device.stdout.readline(), 20)
    finally:
        device.kill()
        await device.wait()


async def test_the_readmes_commands(up: Running) -> None:
    """In their order, up to and with the answer of the HTTP API."""
    script = "\n".join(
        line.removeprefix("$ ")
        for block in blocks("README.md", "console")
        for line in block.splitlines()
        if re.match(r"\$ (stagecast|curl)|   +-d", line)
    )
    assert "curl" in script
    script = script.replace("http://127.0.0.1:8080", up.http).replace(".stagecast/", f"{up.data}/")
    script = script.replace("stagecast event watch match", "timeout 3 stagecast event watch match || true")
    said = await shell(up, script)
    assert "match: created, stage upcoming" in said
    assert "match: stage live (seq 2)" in said
    answer, _ = json.JSONDecoder().raw_decode(said[said.index('{"e"') :])
    assert (answer["stage"], answer["seq"], answer["log"]) == ("ended", 3, "ok")
    assert said.strip().splitlines()[-1].count(".") == 2, "the token"


async def test_the_howtos_imports(up: Running, tmp_path: Path) -> None:
    """The three kinds of lines import as they are shown, and a campaign makes a map of them."""
    maps, title, member = blocks("docs/howto/stage-maps.md", "json")
    await up.create("final", "upcoming", "live")
    for kind, line in (("maps", maps), ("titles", title), ("members", member)):
        file = tmp_path / f"{kind}.ndjson"
        file.write_text(line)
        said = await stagecast(up, "prefetch", "import", "final", str(file), "--kind", kind)
        assert "0 bad lines" in said
    assert "done, 1 of 1 members" in await stagecast(up, "prefetch", "run", "final", "--recommender", "vectors")
    assert "t001" in await stagecast(up, "prefetch", "show", "final", "m-1")


async def shell(up: Running, script: str, folder: Path = ROOT) -> str:
    """What the commands print; the first that fails ends the test."""
    path = {"PATH": f"{BIN}:{os.environ['PATH']}", "STAGECAST_DATA": str(up.data)}
    bash = await asyncio.create_subprocess_exec(
        "bash", "-euxc", script, cwd=folder, env={**os.environ, **path},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(bash.communicate(), 90)
    assert bash.returncode == 0, out.decode()
    return out.decode()


async def stagecast(up: Running, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        BIN / "stagecast", *command, env={**os.environ, "STAGECAST_DATA": str(up.data)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_producers_howto(up: Running, tmp_path: Path) -> None:
    """Its plan is created and every command of it runs, in its order."""
    (tmp_path / "plan.toml").write_text(blocks("docs/howto/produce.md", "toml")[0])
    commands = [
        line.removeprefix("$ ").replace("stagecast event watch match", "timeout 2 stagecast event watch match || true")
        for block in blocks("docs/howto/produce.md", "console")
        for line in block.splitlines()
    ]
    script = "\n".join(commands).replace("event ready match", "event ready match || true")
    script = script.replace("stagecast event revert", "sleep 1.1; stagecast event revert")  # a person takes that long
    async with up.devices(2, "match", "other"):
        said = await shell(up, script.replace("explain tv-1", "explain d-1"), tmp_path)
    assert "match: created, stage upcoming" in said
    assert "match: stage live (seq 2)" in said
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


async def test_a_load_run(up: Running) -> None:
    """As an SRE starts it: a storm in the middle, exit status 0, and the oracle's word at the end."""
    command = [
        str(BIN / "locust"),
        "-f",
        "loadtest/locustfile.py",
        "--headless",
        "--dev",
        str(up.data),
        "-u",
        "2",
        "-r",
        "2",
    ]
    command += ["--connections", "100", "--every", "1.1", "--storm", "4", "--run-time", "12s"]
    locust = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(locust.communicate(), 90)
    assert locust.returncode == 0, out.decode()
    assert "oracle: 200 of 200 connections ended on the last accepted stage" in out.decode()
