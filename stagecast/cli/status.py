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
    """Readiness of the API and of a host, and how far each event's last transition has come. Exit 1 if the host is not ready or
    does not answer."""
    dev = found_dev(data)
    admin = admin or (dev["admin"] if dev else "http://127.0.0.1:8082")
    api = find_api(data, url)
    events = list(api.pages("/v1/events", "events"))
    click.echo(f"API   {api.url}  up, {len(events)} events")
    ready, said = _host(admin)
    click.echo(f"host  {admin}  {said}")
    for one in events:
        got = api.call("GET", f"/v1/events/{one['id']}/progress")
        share = f"{got['at_or_past'] / got['subscribed']:.2%}" if got["subscribed"] else "-"
        click.echo(
            f"event {one['id']:<20} {one['stage']:<16} seq {one['seq']:<4} {share} of {got['subscribed']:,} devices"
        )
    raise SystemExit(0 if ready else 1)


def _host(admin: str) -> tuple[bool, str]:
    """Whether it is ready, and that in words."""
    try:
        got = httpx.get(f"{admin}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError as error:
        return False, f"does not answer ({error})"
    return got.is_success, "ready" if got.is_success else f"NOT ready: {got.text}"
