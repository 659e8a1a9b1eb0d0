"""Every setting as a flag, and the settings of a command read once."""

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from stagecast.http import listen, why_not
from stagecast.settings import LISTS, PREFIX, Settings, SettingsError, load_settings

F = TypeVar("F", bound=Callable[..., Any])

LOCAL = ("data", "log", "log_password_file", "store", "store_password_file", "keys")
"""Settings of commands that only look at or write to the log and the store."""


def settings_options(*names: str) -> Callable[[F], F]:
    """Flags for these settings (all, when none is named); the command gets `settings: Settings` instead."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name) for name in chosen}
            flags = {
                name: (list(value) or None) if isinstance(value, tuple) else value for name, value in flags.items()
            }
            return command(*args, settings=settings_from(flags, kwargs.pop("config")), **kwargs)

        chosen = names or Settings.__struct_fields__
        decorated: Any = wrapped
        for name in reversed(chosen):
            decorated = click.option(
                f"--{LISTS.get(name, name)}".replace("_", "-"),
                name,
                multiple=name in LISTS,
                default=None,
                metavar="URL" if name in ("log", "store", "maps", "advertise") else "VALUE",
                help=f"{_meaning(name)}  [{PREFIX}{name.upper()}]",
            )(decorated)
        config = click.option("--config", type=click.Path(path_type=Path), help="TOML file  [./stagecast.toml]")
        return config(decorated)  # type: ignore[no-any-return]

    return decorate


def settings_from(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Settings by flags, environment and file. A wrong one ends the command with a usage error."""
    try:
        return load_settings(flags, os.environ, config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def wants_echo() -> bool:
    """Whether the device port also serves /echo, for conformance tests of the WebSocket layer; no setting of a service."""
    return os.environ.get(PREFIX + "TEST_ECHO") == "1"


def _meaning(name: str) -> str:
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    field = next(field for field in info.fields if field.name == name)
    assert isinstance(field.type, msgspec.inspect.Metadata)
    says: str = (field.type.extra_json_schema or {})["description"]
    return says


def listening(option: str, address: str) -> socket.socket:
    """A socket that listens at HOST:PORT. What is wrong with the address ends the command with one line."""
    try:
        return listen(address)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{option} {address}: {why_not(error)}; choose another address") from error
