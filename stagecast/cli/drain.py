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
from stagecast.receipts import SILENT_AFTER
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


@dataclass(frozen=True, slots=True)
class Others:
    """The hosts that take devices, without the one that is drained."""

    hosts: int
    room: int
    """Connections that they can take."""


def others(hosts: Iterable[dict[str, Any]], drained: str) -> Others:
    """Who accepts and speaks, by `GET /v1/hosts`."""
    there = [one for one in hosts if one["host"] != drained and one["accepting"] and one["age"] <= SILENT_AFTER]
    return Others(len(there), sum(max(0, one["limit"] - one["connections"]) for one in there))


def pace(wanted: float, there: Others, accept_rate: float) -> float:
    """Connections per second: as wanted, and at most what the others accept."""
    return min(wanted, there.hosts * accept_rate)


@click.command()
@click.argument("host", metavar="URL|HOST")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="connections a second  [the setting drain_rate]"
)
@click.option(
    "--guard", type=Duration(), default=GUARD, help="how long before a planned stage it needs --force  [default: 15m]"
)
@click.option(
    "--force", is_flag=True, help="although a stage is near, or the others have no room, or the API is silent"
)
@click.option("--wait", is_flag=True, help="show how far it is until the host is empty")
@click.option("--url", envvar="STAGECAST_URL", help="base URL of the HTTP API  [STAGECAST_URL; else what DATA says]")
@settings_options("data", "accept_rate", "drain_rate")
def drain(
    settings: Settings, host: str, rate: float | None, guard: float, force: bool, wait: bool, url: str | None
) -> None:
    """Empty a host of its devices, by its admin port (default 8082).

    The pace is at most what the others accept: so many as say that they take devices, × accept_rate.
    """
    try:
        base = admin_url(host)
    except (ValueError, httpx.InvalidURL) as error:
        raise click.UsageError(str(error)) from error
    api = find_api(settings.data_dir, url)
    admin = Api(base, api.key)
    click.get_current_context().call_on_close(admin.close)
    chosen = rate or settings.drain_rate
    if not force:
        _check_plans(_views(api), guard)
        chosen = _paced(chosen, api, admin, settings.accept_rate)
    begun = admin.call("POST", "/drain", {"rate": chosen})
    click.echo(f"{base}: {begun['left']:,} connections, {chosen:g} a second: about {begun['seconds']:.0f} s")
    if wait:
        _watch(admin, time.monotonic())


def _views(api: Api) -> Iterator[dict[str, Any]]:
    """Every event that is not deleted, whole."""
    for line in api.pages("/v1/events", "events"):
        if line["stage"] != "gone":
            yield api.call("GET", f"/v1/events/{line['id']}")


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


def _paced(wanted: float, api: Api, admin: Api, accept_rate: float) -> float:
    far = admin.call("GET", "/drain")
    there = others(api.call("GET", "/v1/hosts")["hosts"], far["host"])
    if not there.hosts:
        raise click.ClickException("No other host says that it takes devices. Start one, or use --force.")
    if there.room < far["left"]:
        raise click.ClickException(
            f"The other hosts have room for {there.room:,} connections, {far['host']} has {far['left']:,}. "
            "Start one more, or use --force."
        )
    chosen = pace(wanted, there, accept_rate)
    if chosen < wanted:
        click.echo(f"{there.hosts} other hosts accept {chosen:g} a second: {wanted:g} would be too many.")
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
