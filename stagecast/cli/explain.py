"""`stagecast explain`: what happened to one device."""

from datetime import datetime

import click

from stagecast.cli.api import Api, api_options


@click.command()
@click.argument("device")
@click.option("--event", help="and how it stands at this event")
@api_options
def explain(api: Api, device: str, event: str | None) -> None:
    """One time line of DEVICE: where it is connected, what it was told and said, why it was closed.

    \b
    stagecast explain tv-9
    stagecast explain tv-9 --event final
    """
    for moment in api.call("GET", f"/v1/devices/{device}/explain", event=event)["timeline"]:
        at = datetime.fromtimestamp(moment["ts"] / 1000).astimezone().isoformat(" ", "milliseconds")
        click.echo(f"{at}  {moment['what']:<20} {moment['detail']}")
