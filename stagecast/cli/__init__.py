"""The `stagecast` command: the top layer, the only one that imports tiers.

Sub-commands are imported when they are called, so that `stagecast --help` answers at once.
"""

import importlib

import click

_COMMANDS = {
    "demo": ("stagecast.cli.demo", "demo"),
    "dev": ("stagecast.cli.dev", "dev"),
    "status": ("stagecast.cli.status", "status"),
    "event": ("stagecast.cli.event", "event"),
    "explain": ("stagecast.cli.explain", "explain"),
    "device": ("stagecast.cli.device", "device"),
    "prefetch": ("stagecast.cli.prefetch", "prefetch"),
    "token": ("stagecast.cli.credentials", "token"),
    "key": ("stagecast.cli.credentials", "key"),
    "broadcaster": ("stagecast.cli.services", "broadcaster"),
    "pushy": ("stagecast.cli.services", "pushy"),
    "drain": ("stagecast.cli.drain", "drain"),
    "doctor": ("stagecast.cli.doctor", "doctor"),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stagecast", message="stagecast %(version)s")
def main() -> None:
    """Real-time fan-out for live events.

    \b
    Try it:       stagecast demo                    the whole way on this machine
    Develop:      stagecast dev                     every tier, embedded parts
    Produce:      stagecast event create|go|watch   run an event
    Be a device:  stagecast device watch EVENT
    Operate:      stagecast broadcaster | prefetch | pushy | drain | doctor

    Commands that talk to a running Stagecast find it by STAGECAST_URL and STAGECAST_KEY, or by the folder of a
    `stagecast dev` (--data, STAGECAST_DATA, default .stagecast).
    """
