"""`stagecast device`: be a device, in a terminal."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from stagecast.cli.api import found_dev
from stagecast.client import Device


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
    try:
        asyncio.run(_watch(ws, token or _minted(data, name, events), name, events))
    except KeyboardInterrupt:
        click.echo()


def _minted(data: Path, name: str, events: tuple[str, ...]) -> str:
    import random
    import time

    from stagecast.tokens import KeysError, load_keys

    keys_file = Path(os.environ.get("STAGECAST_KEYS") or data / "keys.json")
    try:
        return load_keys(keys_file).mint("terminal", name, list(events), 3600, time.time(), random.SystemRandom())
    except KeysError as error:
        raise click.ClickException(f"no token given, and none can be made: {error}") from error


async def _watch(ws: str, token: str, name: str, events: tuple[str, ...]) -> None:
    async with Device(ws, token, device=name, events=list(events), app="terminal") as connected:
        click.echo(f"{name}: connecting to {ws} (Ctrl-C ends)")
        async for change in connected.stages():
            click.echo(f"{change.event}: {change.stage} (seq {change.seq}, {change.result}){_shown(change.payload)}")


def _shown(payload: Any) -> str:
    if not payload:
        return ""
    items = [str(one) for one in payload] if isinstance(payload, list) else [str(payload)]
    return "  " + ", ".join(items[:5]) + (" …" if len(items) > 5 else "")
