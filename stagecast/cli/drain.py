"""`stagecast drain`: empty a host of devices, at a pace that the others accept and not just before a stage."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
import httpx

from stagecast.cli.api import Api, find_api
from stagecast.cli.credentials import Duration
from stagecast.cli.options import settings_options
from stagecast.settings import Settings

ADMIN_PORT = 8082
GUARD = 15 * 60.0
"""Seconds before a planned stage within which a drain needs --force."""
LOOK_EVERY = 1.0
PATIENCE = 15.0
"""Seconds that a host may be silent while its feed is replaced."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage that the plan will fire."""

    event: str
    stage: str
    due: float
    """Wall seconds."""


def admin_url(host: str) -> str:
    """`http://pushy-1:8082`, from itself, `pushy-1:8082` or `pushy-1`. Raises ValueError."""
    url = httpx.URL(host if "://" in host else f"http://{host}")
    if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
        raise ValueError(f"{host!r} is no host and no URL of an admin port")
    if url.port is None and "://" not in host:
        url = url.copy_with(port=ADMIN_PORT)
    return str(url).rstrip("/")


def planned_of(view: dict[str, Any]) -> Planned | None:
    """What an event's plan does next, by `GET /v1/events/{id}`; None if it waits for something, or is on hold."""
    following = view.get("next")
    if view.get("hold") or not following or not following.get("due"):
        return None
    due = datetime.fromisoformat(following["due"]).timestamp()
    return Planned(view["id"], following["stage"], due)


def too_soon(planned: Iterable[Planned], now: float, guard: float) -> list[Planned]:
    """Stages due within `guard` seconds, the first one first; one that is overdue may come any moment."""
    return sorted((one for one in planned if one.due - now < guard), key=lambda one: one.due)


def alive(progresses: Iterable[dict[str, Any]]) -> int:
    """Hosts that speak, as far as receipts tell: a host is known by the events that its devices follow."""
    names: set[str] = set()
    most = 0
    for one in progresses:
        names |= {row["host"] for row in one.get("by_host", ()) if row["silent_since"] is None}
        most = max(most, one["hosts"] - one["silent"])
    return max(len(names), most)


def pace(wanted: float, hosts: int, accept_rate: float) -> float:
    """Connections per second: as wanted, and at most what the hosts but one take. 0: there is nobody to take them. Without
    knowledge of any host (0) as wanted."""
    return min(wanted, (hosts - 1) * accept_rate) if hosts else wanted


@click.command()
@click.argument("host", metavar="URL|HOST")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="connections a second  [the setting drain_rate]"
)
@click.option(
    "--guard", type=Duration(), default=GUARD, help="how long before a planned stage it needs --force  [default: 15m]"
)
@click.option("--force", is_flag=True, help="although a stage is near, or no other host is known, or the API is silent")
@click.option("--wait", is_flag=True, help="show how far it is until the host is empty")
@click.option("--url", envvar="STAGECAST_URL", help="base URL of the HTTP API  [STAGECAST_URL; else what DATA says]")
@settings_options("data", "accept_rate", "drain_rate")
def drain(
    settings: Settings, host: str, rate: float | None, guard: float, force: bool, wait: bool, url: str | None
) -> None:
    """Empty a host of its devices, by its admin port (default 8082).

    The pace is at most what the other hosts accept: their number, by their receipts, × accept_rate.
    """
    try:
        base = admin_url(host)
    except (ValueError, httpx.InvalidURL) as error:
        raise click.UsageError(str(error)) from error
    api = find_api(settings.data_dir, url)
    chosen = rate or settings.drain_rate
    if not force:
        views = list(_views(api))
        _check_plans(views, guard)
        chosen = _paced(chosen, views, api, settings.accept_rate)
    admin = Api(base, api.key)
    click.get_current_context().call_on_close(admin.close)
    begun = admin.call("POST", "/drain", {"rate": chosen})
    click.echo(f"{base}: {begun['left']:,} connections, {chosen:g} a second: about {begun['seconds']:.0f} s")
    if wait:
        _watch(admin, time.monotonic())


def _views(api: Api) -> Iterator[dict[str, Any]]:
    """Every event that is not deleted, whole."""
    after = None
    while True:
        page = api.call("GET", "/v1/events", after=after)
        for line in page["events"]:
            if line["stage"] != "gone":
                yield api.call("GET", f"/v1/events/{line['id']}")
        after = page["after"]
        if after is None:
            return


def _check_plans(views: Iterable[dict[str, Any]], guard: float) -> None:
    now = time.time()
    near = too_soon(filter(None, map(planned_of, views)), now, guard)
    if near:
        first = near[0]
        minutes = math.ceil((first.due - now) / 60)
        when = f"in {minutes} min" if minutes > 0 else "now"
        raise click.ClickException(
            f"{first.event} goes to {first.stage!r} {when}: every device that comes back then is one more at the door. "
            "Wait, or use --force."
        )


def _paced(wanted: float, views: Iterable[dict[str, Any]], api: Api, accept_rate: float) -> float:
    hosts = alive(api.call("GET", f"/v1/events/{view['id']}/progress") for view in views)
    chosen = pace(wanted, hosts, accept_rate)
    if not hosts:
        click.echo("No host has sent a receipt: the pace is as you say.")
    elif not chosen:
        raise click.ClickException("No other host speaks that could take its devices. Start one, or use --force.")
    elif chosen < wanted:
        click.echo(f"The {hosts - 1} other hosts accept {chosen:g} a second: {wanted:g} would be too many.")
    return chosen


def _watch(admin: Api, now: float) -> None:
    """Until it is empty. A host whose feed is replaced meanwhile is waited for."""
    began = heard = now
    said = -1
    while True:
        far = _progress(admin)
        now = time.monotonic()
        if far is None:
            if now - heard > PATIENCE:
                raise click.ClickException(f"{admin.url} does not answer any more")
        else:
            heard = now
            if not far["draining"]:
                raise click.ClickException(f"{admin.url} does not drain any more: it was started anew")
            if far["left"] != said:
                said = far["left"]
                share = 1 - said / far["connections"] if far["connections"] else 1.0
                click.echo(f"{said:,} left ({share:.0%} gone)")
            if far["empty"]:
                click.echo(f"Empty after {now - began:.0f} s.")
                return
        time.sleep(LOOK_EVERY)


def _progress(admin: Api) -> dict[str, Any] | None:
    try:
        far: dict[str, Any] = admin.call("GET", "/drain")
        return far
    except click.ClickException:
        return None
