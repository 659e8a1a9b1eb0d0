"""More of `stagecast event`: the control room's commands."""

import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from stagecast.cli.api import Api, api_options
from stagecast.cli.plan_files import as_json, as_toml
from stagecast.cli.report_page import report_page, seconds

_SHIFT = re.compile(r"([+-]?)((?:\d+(?:h|min|m|s))+)")
_PART = re.compile(r"(\d+)(h|min|m|s)")
SETTLE = 6.0
"""Seconds."""
_SECONDS = {"h": 3600, "min": 60, "m": 60, "s": 1}


def duration_of(text: str) -> timedelta:
    """`+5m`, `-90s`, `1h30m`, or ISO 8601 as the API takes it. Raises click.BadParameter."""
    said = _SHIFT.fullmatch(text)
    if said:
        seconds = sum(int(amount) * _SECONDS[unit] for amount, unit in _PART.findall(said[2]))
        return timedelta(seconds=-seconds if said[1] == "-" else seconds)
    try:
        return msgspec.convert(text.removeprefix("+"), timedelta)
    except (msgspec.ValidationError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no duration such as +5m, -90s, 1h30m or PT5M") from error


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@click.argument("by")
@click.option("--from", "start", help="only this stage and those after it")
@api_options
def shift(api: Api, id: str, by: str, start: str | None) -> None:
    """Move all later stages of event ID together.

    \b
    stagecast event shift final +5m
    stagecast event shift final -90s --from half

    What has been reached stays; what waits for a person goes on waiting; what is armed stays armed.
    """
    one = api.call("GET", f"/v1/events/{id}")
    body = {"by": msgspec.to_builtins(duration_of(by)), "revision": one["revision"]} | (
        {"from": start} if start else {}
    )
    made = api.call("POST", f"/v1/events/{id}/shift", body)
    click.echo(f"{id}: plan revision {made['revision']}")
    coming = made.get("next") or {}
    if coming.get("due"):
        click.echo(f"next: {coming['stage']} at {_local(coming['due'])}")


@click.command()
@click.argument("id")
@click.option("--override", default="", help="why it is to be armed although the checks say no-go; for the audit")
@api_options
def arm(api: Api, id: str, override: str) -> None:
    """Let event ID's plan fire its next `armed` stage.

    It does so when that stage is due; armed later, at once.
    Under no-go (`stagecast event ready ID`) this wants --override REASON.
    """
    got = api.call("POST", f"/v1/events/{id}/arm", {"armed": True, "override": override})
    due = (got.get("next") or {}).get("due")
    click.echo(f"{id}: armed for {got['arming']['stage']}{f', due {_local(due)}' if due else ''}")


@click.command()
@click.argument("id")
@api_options
def disarm(api: Api, id: str) -> None:
    """Let event ID's plan wait before its next `armed` stage."""
    api.call("POST", f"/v1/events/{id}/arm", {"armed": False})
    click.echo(f"{id}: not armed")


@click.command()
@click.argument("id")
@api_options
def ready(api: Api, id: str) -> None:
    """Go or no-go for event ID, check by check; exit 1 on no-go."""
    got = api.call("GET", f"/v1/events/{id}/readiness")
    for check in got["checks"]:
        click.echo(f"{'✓' if check['ok'] else '✗'} {check['name']:<10} {check['text']}")
    click.echo("GO" if got["go"] else "NO-GO")
    raise SystemExit(0 if got["go"] else 1)


@click.command()
@click.argument("id")
@api_options
def audit(api: Api, id: str) -> None:
    """Everything done to event ID, oldest first: who, when, why."""
    for line in api.pages(f"/v1/events/{id}/audit", "audit"):
        at = datetime.fromtimestamp(line["ts"] / 1000).astimezone().isoformat(" ", "milliseconds")
        what = line["stage"] if line["what"] == "transition" else line["what"]
        click.echo(f"{line['seq']:>5}  {at}  {what:<20} {line['who']:<16} {_reasons(line)}")


@click.command()
@click.argument("id")
@click.option("--toml", is_flag=True, help="TOML instead of JSON")
@api_options
def export(api: Api, id: str, toml: bool) -> None:
    """Print event ID's title and plan as a file.

    `stagecast event create` and `plan` take it.
    """
    one = api.call("GET", f"/v1/events/{id}")
    click.echo((as_toml if toml else as_json)(one["title"], one["plan"]), nl=False)


@click.command()
@click.argument("id")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="write one self-contained page to this file"
)
@click.option("--json", "plain", is_flag=True, help="the API's answer as it is")
@api_options
def report(api: Api, id: str, html: Path | None, plain: bool) -> None:
    """What became of event ID, stage by stage.

    Reach and times of every stage, what went missing, reconnect storms, the audit.
    """
    got = api.call("GET", f"/v1/events/{id}/report")
    if plain:
        click.echo(msgspec.json.encode(got))
    if html is not None or not plain:
        _show(got, html)


def _show(got: dict[str, Any], html: Path | None) -> None:
    if html is not None:
        try:
            html.write_text(report_page(got), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html}: {error.strerror}") from error
        click.echo(f"{html}: written")
    else:
        click.echo(
            f"{'seq':>5}  {'stage':<20} {'audience':>10} {'written':>10} {'missing':>8}  {'50 %':>8} {'99 %':>8} {'99.9 %':>8}"
        )
        for stage in got["stages"]:
            times = " ".join(f"{seconds(stage['reached_ms'][share]):>8}" for share in ("50", "99", "99.9"))
            counts = f"{stage['audience']:>10,} {stage['written']:>10,} {stage['missing']:>8,}"
            click.echo(f"{stage['seq']:>5}  {stage['stage']:<20} {counts}  {times}")


def _local(rfc3339: str) -> str:
    return str(datetime.fromisoformat(rfc3339).astimezone().isoformat(" ", "seconds"))


def _reasons(line: dict[str, Any]) -> str:
    return " · ".join(part for part in (line["why"], line["detail"]) if part)


@click.command()
@click.argument("id")
@click.option("--speed", default=10.0, show_default=True, type=click.FloatRange(0.1, 1000), help="plays so much faster")
@click.option("--devices", default=50, show_default=True, type=click.IntRange(1, 500), help="synthetic devices")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="write its report to this file at the end"
)
@click.option("--timeout", type=float, default=3700, show_default=True, help="seconds; then exit 1")
@api_options
def rehearse(api: Api, id: str, speed: float, devices: int, html: Path | None, timeout: float) -> None:
    """Run event ID's plan as a shadow event with synthetic devices.

    Real devices never see it. Stages that wait for a person follow after 30 s, before --speed. Ends when the shadow event has
    played to its end, with its report.
    """
    shadow = api.call("POST", f"/v1/events/{id}/rehearsals", {"speed": speed, "devices": devices})["id"]
    click.echo(f"{shadow}: playing")
    deadline, seen = time.monotonic() + timeout, 0
    while time.monotonic() < deadline:
        one = api.call("GET", f"/v1/events/{shadow}")
        if one["seq"] != seen:
            seen = one["seq"]
            click.echo(f"  {one['stage']}")
        got = api.call("GET", f"/v1/events/{shadow}/progress")
        if (
            one["stage"] == one["plan"][-1]["stage"]
            and got["seq"] == one["seq"]
            and got["reached_ms"]["99.9"] is not None
        ):
            time.sleep(SETTLE)  # until the last points of its curve are in the store
            _show(api.call("GET", f"/v1/events/{shadow}/report"), html)
            return
        time.sleep(0.5)
    raise click.ClickException(
        f"{shadow} has not ended within {timeout:g} s; `stagecast event report {shadow}` tells how far it came"
    )


COMMANDS = (shift, arm, disarm, ready, audit, export, report, rehearse)
