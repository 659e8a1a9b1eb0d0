"""`stagecast token` and `stagecast key`: device tokens and API keys."""

import asyncio
import random
import re
import time
from typing import Any

import click
import msgspec

from kv import Put, StoreError, open_store
from stagecast.access import SCOPES, new_key
from stagecast.cli.options import LOCAL, settings_options
from stagecast.clock import SystemClock
from stagecast.names import DeviceId, EventId, MemberId
from stagecast.records import API_KEYS
from stagecast.settings import Settings
from stagecast.tokens import KeysError, create_keys, load_keys

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """`90`, `90s`, `15m`, `1h`, `2d` → seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 1h or 2d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


@click.group()
def token() -> None:
    """Device tokens."""


@token.command("device")
@click.option("--member", required=True, help="whose device it is")
@click.option("--device", required=True, help="the device's id: the only one this token is good for")
@click.option("--events", required=True, help="event ids or prefixes ending in *, separated by commas")
@click.option(
    "--ttl", type=Duration(), default="1h", show_default=True, help="life, such as 15m or 2d; jittered by ± 10 %"
)
@settings_options("data", "keys")
def token_device(settings: Settings, member: str, device: str, events: str, ttl: float) -> None:
    """Print a device's token, signed by the first key of the keys file."""
    _check("--member", member, MemberId)
    _check("--device", device, DeviceId)
    names = [name.strip() for name in events.split(",")]
    for name in names:
        if name != "*":
            _check("--events", name.removesuffix("*"), EventId)
    try:
        keys = load_keys(settings.keys_file)
        click.echo(keys.mint(member, device, names, ttl, time.time(), random.SystemRandom()))
    except KeysError as error:
        hint = (
            ""
            if settings.keys_file.exists()
            else "\n`stagecast key device` makes one; `stagecast dev` does so by itself."
        )
        raise click.ClickException(f"{error}{hint}") from error


def _check(option: str, value: str, kind: Any) -> None:
    """A token that every node would refuse is not made."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{option}: {value!r}: {error}") from error


@click.group()
def key() -> None:
    """API keys, and the key set that signs device tokens."""


@key.command("create")
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    required=True,
    help="operator: all; viewer: reads; service: trigger, push, drain",
)
@settings_options(*(name for name in LOCAL if name != "keys"))
def key_create(settings: Settings, scope: Any) -> None:
    """Print a new API key, once: only its hash is kept, in the store."""
    try:
        click.echo(asyncio.run(create_api_key(settings, scope)))
    except (StoreError, ValueError) as error:
        raise click.ClickException(f"{settings.store_url}: {error}") from error


@key.command("device")
@settings_options("data", "keys")
def key_device(settings: Settings) -> None:
    """Make the keys file that signs device tokens (HS256), unless there is one."""
    try:
        create_keys(settings.keys_file)
    except OSError as error:
        raise click.ClickException(f"{settings.keys_file}: {error.strerror}") from error
    click.echo(settings.keys_file)


async def create_api_key(settings: Settings, scope: Any) -> str:
    """A new API key, kept (hashed) in the settings' store."""
    store = await open_store(settings.store_url, settings.store_password)
    try:
        text, digest, kept = new_key(scope, SystemClock().now())
        await store.put([Put(API_KEYS, digest, msgspec.json.encode(kept))])
    finally:
        await store.close()
    return text
