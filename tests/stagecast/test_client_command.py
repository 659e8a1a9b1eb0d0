"""`stagecast device watch` against a node that never saw its code."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stagecast.cli import main
from tests.stagecast.peer import GEN, Session, running_node, stage_map, state

Play = Callable[[Session], Awaitable[None]]


async def watched(*played: Play) -> Result:
    """Runs the command; each connection it makes is played with in turn. The last one must close for good."""
    async with running_node() as node:
        arguments = ["device", "watch", "final", "--ws", node.url, "--token", "t", "--device", "tv"]
        command = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, arguments))
        for seq, play in enumerate(played, start=1):
            session = await node.session()
            node.states = [state(10 * seq, "round")]  # what the next welcome brings
            await play(session)
        return await command


def closing(code: int, reason: str = "why") -> Play:
    async def play(session: Session) -> None:
        await session.ws.close(code, reason)

    return play


async def test_stages_payloads_catch_ups_and_reconnects() -> None:
    """Stages on stdout with what would be shown; connections beside them on stderr."""

    async def first(session: Session) -> None:
        await session.send(stage_map("1", {"live": list("abcdefg")}), state(2, "live", ack={"p": 2**32, "w": 0}))
        await session.expect("ack")
        session.ws.transport.abort()

    async def second(session: Session) -> None:
        await session.send({"t": "err", "code": "unknown_event", "e": "semi", "text": "no such event"})
        await session.ws.close(1000)

    result = await watched(first, second)
    assert result.exit_code == 0, result.output
    stages = result.stdout.splitlines()
    assert stages[1].startswith(f"final: live (gen {GEN}, seq 2, switched, ")
    assert stages[1].endswith("  a, b, c, d, e …")
    assert stages[2:] == [f"final: round (gen {GEN}, seq 10, caught up, missing)", "tv: the node closed the connection"]
    assert "connected (session s)" in result.stderr
    assert "the connection broke (1006); trying again in" in result.stderr
    assert "connected again (session s)" in result.stderr
    assert "semi: no such event: there is none, or the token does not allow it" in result.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (4401, "the node refused the token: why"),
        (4403, "forbidden (4403): why"),
        (4409, "replaced (4409): why"),
        (4400, "malformed (4400): why"),
    ],
)
async def test_why_it_ended_and_what_to_do(code: int, said: str) -> None:
    """A device that must not come back ends the command with status 1 and one clear error."""
    result = await watched(closing(code))
    assert result.exit_code == 1
    assert f"Error: {said}" in result.stderr
    assert "--device" in result.stderr or code in (4400, 4401)


def test_without_a_token_or_keys(tmp_path: Path) -> None:
    """Says what is missing, and both ways to give it."""
    result = CliRunner().invoke(main, ["device", "watch", "final", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "keys.json" in result.stderr
    assert "--token" in result.stderr
    assert "--data" in result.stderr


def test_a_name_that_is_none() -> None:
    """An event id that the protocol does not take is refused before anything connects."""
    result = CliRunner().invoke(main, ["device", "watch", "Final!", "--ws", "ws://127.0.0.1:1/ws", "--token", "t"])
    assert result.exit_code == 1
    assert "'Final!'" in result.stderr
