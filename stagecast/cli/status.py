"""`stagecast status`: is everything up, and where are the events?"""

from pathlib import Path

import click
import httpx

from stagecast.cli.api import find_api, found_dev


@click.command()
@click.option(
    "--data", envvar="STAGECAST_DATA", default=".stagecast", type=click.Path(path_type=Path), show_default=True
)
@click.option("--url", envvar="STAGECAST_URL", help="base URL of the HTTP API")
@click.option("--admin", envvar="STAGECAST_ADMIN_URL", help="base URL of a host's admin port")
def status(data: Path, url: str | None, admin: str | None) -> None:
    """Readiness of the API and of a host, and how far each event's last transition has come."""
    said = found_dev(data)
    admin = admin or (said["admin"] if said else "http://127.0.0.1:8082")
    api = find_api(data, url)
    events = list(api.pages("/v1/events", "events"))
    click.echo(f"API   {api.url}  up, {len(events)} events")
    try:
        ready = httpx.get(f"{admin}/readyz", timeout=5, trust_env=False)
        click.echo(f"host  {admin}  {'ready' if ready.is_success else 'NOT ready: ' + ready.text}")
    except httpx.TransportError as error:
        click.echo(f"host  {admin}  does not answer ({error})")
    for one in events:
        got = api.call("GET", f"/v1/events/{one['id']}/progress")
        share = f"{got['at_or_past'] / got['subscribed']:.2%}" if got["subscribed"] else "-"
        click.echo(
            f"event {one['id']:<20} {one['stage']:<16} seq {one['seq']:<4} {share} of {got['subscribed']:,} devices"
        )
