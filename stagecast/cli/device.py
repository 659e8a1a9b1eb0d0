"""`stagecast device`: be a device, in a terminal."""

import asyncio
import functools
import os
from pathlib import Path
from typing import Any

import click

from stagecast.cli.api import found_dev
from stagecast.client import (
    Change,
    Connected,
    Device,
    DeviceError,
    Disconnected,
    Dismissed,
    Message,
    Refused,
    TokenRefused,
    TokenSource,
)
from stagecast.wire.closing import CloseCode


@click.group()
def device() -> None:
    """Be a device."""


@device.command()
@click.argument("events", nargs=-1, required=True)
@click.option("--ws", envvar="STAGECAST_WS", help="ws:// or wss:// URL of devices  [STAGECAST_WS; else what DATA says]")
@click.option(
    "--token",
    envvar="STAGECAST_TOKEN",
    help="[STAGECAST_TOKEN; else made from the keys in DATA]",
)
@click.option("--device", "name", default="terminal", show_default=True, help="the token's device")
@click.option(
    "--data", envvar="STAGECAST_DATA", default=".stagecast", type=click.Path(path_type=Path), show_default=True
)
def watch(events: tuple[str, ...], ws: str | None, token: str | None, name: str, data: Path) -> None:
    """Connect, follow EVENTS and print each stage as this device switches to it."""
    said = found_dev(data)
    ws = ws or (said["ws"] if said else "ws://127.0.0.1:8081/ws")
    source: TokenSource = token or _minted(data, name, events)
    if not token:
        source = functools.partial(_minted, data, name, events)  # a fresh one whenever the node wants it
    try:
        asyncio.run(_watch(ws, source, name, events))
    except KeyboardInterrupt:
        click.echo()
    except DeviceError as error:
        raise click.ClickException(_explained(error, name)) from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _minted(data: Path, name: str, events: tuple[str, ...]) -> str:
    import random
    import time

    from stagecast.tokens import KeysError, load_keys

    keys_file = Path(os.environ.get("STAGECAST_KEYS") or data / "keys.json")
    try:
        return load_keys(keys_file).mint("terminal", name, list(events), 3600, time.time(), random.SystemRandom())
    except KeysError as error:
        raise click.ClickException(
            f"no token given, and none can be made: {error}\n"
            "Give one with --token, or name the folder of your `stagecast dev` with --data."
        ) from error


async def _watch(ws: str, token: TokenSource, name: str, events: tuple[str, ...]) -> None:
    async with Device(ws, token, device=name, events=events, app="terminal") as device:
        click.echo(f"{name}: connecting to {ws} (Ctrl-C ends)")
        beside = asyncio.create_task(_tell_notices(device))
        try:
            async for change in device.stages(late=True):
                click.echo(_told(change))
        finally:
            await device.close()  # ends the notices too, after those not told yet
            await beside
    click.echo(f"{name}: the node closed the connection")


async def _tell_notices(device: Device) -> None:
    """Connections and refusals go to stderr, so that stdout holds the stages alone."""
    async for notice in device.notices():
        match notice:
            case Connected():
                again = "again " if device.connections > 1 else ""
                click.echo(f"connected {again}(session {notice.session})", err=True)
            case Disconnected():
                click.echo(f"{notice.why} ({notice.code}); trying again in {notice.again_in:.1f} s", err=True)
            case Refused():
                click.echo(f"{notice.event or 'the node'}: {notice.text or notice.code}{_advice(notice)}", err=True)
            case Message():
                click.echo(f"message {notice.id} ({notice.kind}): {notice.body}", err=True)


def _advice(refused: Refused) -> str:
    if refused.code == "unknown_event":
        return ": there is none, or the token does not allow it; asking again within a minute"
    return ""


def _told(change: Change) -> str:
    """One line: the stage, and what this device would show."""
    place = f"{change.event}: {change.stage} (gen {change.gen}, seq {change.seq}"
    if change.late:
        return f"{place}, its payload has come){_shown(change.payload)}"
    after = f"{change.applied_at - change.ts} ms after it was accepted"
    if change.caught_up:
        return f"{place}, caught up, {change.result}){_shown(change.payload)}"
    return f"{place}, {change.result}, {after}){_shown(change.payload)}"


def _explained(error: DeviceError, name: str) -> str:
    """The error, and what to do about it."""
    match error:
        case TokenRefused():
            return f"{error}\nMake another with `stagecast token device`, or let one be made from the keys of --data."
        case Dismissed(code=CloseCode.FORBIDDEN):
            return f"{error}\nThe token is another device's than {name!r}: name its device with --device."
        case Dismissed(code=CloseCode.REPLACED):
            return f"{error}\nAnother session of {name!r} is connected: give this one a name of its own with --device."
        case _:
            return str(error)


def _shown(payload: Any) -> str:
    """What the screen would show: the first few of a list, or any other value as it is."""
    if not payload:
        return ""
    items = [str(one) for one in payload] if isinstance(payload, list) else [str(payload)]
    return "  " + ", ".join(items[:5]) + (" …" if len(items) > 5 else "")
