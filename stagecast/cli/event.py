"""`stagecast event`: run events from a terminal."""

import shutil
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from stagecast.cli.api import Api, api_options
from stagecast.cli.control import COMMANDS
from stagecast.cli.plan_files import read_plan_file


@click.group()
def event() -> None:
    """Create and run live events.

    \b
    stagecast event create final --stages upcoming,live,ended
    stagecast event go final live     switch every device to `live`
    stagecast event watch final       did they get it?
    stagecast event revert final      back to the stage before; holds the plan
    stagecast event resume final      let the plan go on
    stagecast event shift final +5m   all later stages, together
    stagecast event ready final       go or no-go; then: arm
    stagecast event report final --html out.html

    A plan is a JSON or TOML file with the stages in order. A stage has `at` (a time with its zone), or `after` (a
    duration since the stage before it, or since the one named by `of`), or neither: then it waits for a person. A stage
    with `armed: true` fires at its time only if somebody has armed it; one that `stays` for a duration is left earlier
    only by an --urgent transition.

    \b
    {"title": "The final", "plan": [
      {"stage": "upcoming"},
      {"stage": "live", "at": "2026-12-05T19:00:00Z"},
      {"stage": "ended", "after": "PT2H"}]}
    """


def _stages(text: str) -> list[dict[str, str]]:
    return [{"stage": name.strip()} for name in text.split(",")]


_file = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)


@event.command()
@click.argument("id")
@_file
@click.option("--title", help="shown to producers")
@click.option("--stages", help="a plan without times: stage names separated by commas")
@api_options
def create(api: Api, id: str, file: Path | None, title: str | None, stages: str | None) -> None:
    """Create event ID, at its plan's first stage.

    The plan (and a title) come from a JSON or TOML FILE, or are just names: --stages upcoming,live,ended.
    """
    body = read_plan_file(file) if file else {}
    if stages:
        body["plan"] = _stages(stages)
    if "plan" not in body:
        raise click.UsageError("give a FILE with a plan, or --stages")
    made = api.call("POST", "/v1/events", {**body, "id": id, "title": title or body.get("title", id)})
    click.echo(f"{made['id']}: created, stage {made['stage']} (gen {made['gen']}, seq {made['seq']})")


@event.command("list")
@api_options
def list_(api: Api) -> None:
    """All events and where they are."""
    none = True
    for one in api.pages("/v1/events", "events"):
        held = "  on hold" if one.get("hold") else ""
        click.echo(f"{one['id']:<24} {one['stage']:<20} seq {one['seq']:<5} {one['title']}{held}")
        none = False
    if none:
        click.echo("no events yet; `stagecast event create ID --stages upcoming,live,ended` makes one", err=True)


@event.command()
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="the API's answer as it is")
@api_options
def show(api: Api, id: str, as_json: bool) -> None:
    """Event ID: its plan, and where it is."""
    one = api.call("GET", f"/v1/events/{id}")
    if as_json:
        click.echo(msgspec.json.encode(one))
        return
    click.echo(f"{one['id']}  {one['title']}  gen {one['gen']}  seq {one['seq']}  plan revision {one['revision']}")
    if one["stage"] == "gone":
        click.echo("  gone: devices have dropped it. Creating it again gives it a greater gen")
        return
    for planned in one["plan"]:
        click.echo(f"  {'▶' if planned['stage'] == one['stage'] else ' '} {planned['stage']:<24} {when(planned)}")
    if one.get("arming"):
        click.echo(f"  armed for {one['arming']['stage']} (by {one['arming']['by']})")
    if one.get("hold"):
        click.echo(
            f"  on hold: {one['hold']['why']} (by {one['hold']['by']}); `stagecast event resume {id}` lets it go on"
        )
    elif one.get("next"):
        click.echo(f"  next: {one['next']['stage']} {_moment(one['next'])}")


def when(planned: dict[str, Any]) -> str:
    """When a planned stage is due, in words."""
    armed = ", if armed" if planned.get("armed") else ""
    stays = f"; stays {duration(planned['stays'])}" if "stays" in planned else ""
    if "at" in planned:
        return f"at {planned['at']}{armed}{stays}"
    if "after" not in planned:
        return f"by hand{stays}"
    return f"{duration(planned['after'])} after {planned.get('of', 'the one before')}{armed}{stays}"


def duration(text: str) -> str:
    """An ISO 8601 duration as people say it: `PT2820S` → `47 min`."""
    seconds = msgspec.convert(text, timedelta).total_seconds()
    units = [("d", 86400), ("h", 3600), ("min", 60)]
    said = []
    for unit, size in units:
        if seconds >= size:
            said.append(f"{int(seconds // size)} {unit}")
            seconds %= size
    if seconds or not said:
        said.append(f"{seconds:g} s")
    return " ".join(said)


def _moment(coming: dict[str, Any]) -> str:
    if coming.get("due") and coming.get("why"):
        return f"{_moment({'due': coming['due']})}, but it has {coming['why']} first"
    if coming.get("due"):
        return str(datetime.fromisoformat(coming["due"]).astimezone().isoformat(" ", "seconds"))
    amount, _, since = str(coming.get("why", "")).partition(" after ")
    return f"{duration(amount)} after {since}" if since else amount


@event.command()
@click.argument("id")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@api_options
def plan(api: Api, id: str, file: Path) -> None:
    """Give event ID a new plan from a JSON or TOML FILE."""
    body = read_plan_file(file)
    if "plan" not in body:
        raise click.ClickException(f"{file}: no `plan` there")
    made = api.call("PUT", f"/v1/events/{id}/plan", {"plan": body["plan"]})
    click.echo(f"{id}: plan revision {made['revision']}")


def _transition(api: Api, id: str, stage: str, if_seq: int | None, urgent: bool, reason: str, key: str | None) -> None:
    body: dict[str, Any] = {"stage": stage, "urgent": urgent, "reason": reason}
    if if_seq is not None:
        body["if_seq"] = if_seq
    got = api.call("POST", f"/v1/events/{id}/transitions", body, {"Idempotency-Key": key} if key else None)
    late = "  (the log is late; devices get it as soon as it is back)" if got["log"] == "late" else ""
    click.echo(f"{id}: stage {got['stage']} (seq {got['seq']}){late}")


def _guards(command: Any) -> Any:
    command = click.option("--key", help="idempotency key: the same key never does it twice")(command)
    command = click.option("--reason", default="", help="for the audit")(command)
    command = click.option("--urgent", is_flag=True, help="even less than 1 s after the previous transition")(command)
    return click.option("--if-seq", type=int, help="only if the event is at this seq")(command)


@event.command()
@click.argument("id")
@click.argument("stage")
@_guards
@api_options
def go(api: Api, id: str, stage: str, if_seq: int | None, urgent: bool, reason: str, key: str | None) -> None:
    """Switch event ID to STAGE: every device shows it within moments.

    \b
    stagecast event go final live
    stagecast event go final penalties --reason "still 1:1"
    stagecast event go final live --if-seq 3      only if nobody was faster

    Going forward by hand skips what the plan had in between; going back holds the plan. A second must lie between two
    transitions, unless one is --urgent. With --key, repeating the command after a lost answer never does it twice.
    """
    _transition(api, id, stage, if_seq, urgent, reason, key)


@event.command()
@click.argument("id")
@click.argument("stage", required=False)
@_guards
@api_options
def revert(
    api: Api, id: str, stage: str | None, if_seq: int | None, urgent: bool, reason: str, key: str | None
) -> None:
    """Switch event ID back to an earlier STAGE.

    Without STAGE: the one before this in the plan. The plan is then on hold until `stagecast event resume`.
    """
    one = api.call("GET", f"/v1/events/{id}")
    names = [planned["stage"] for planned in one["plan"]]
    if stage is None:
        at = names.index(one["stage"]) if one["stage"] in names else 0
        if at == 0:
            raise click.ClickException(f"{one['stage']!r} is the first stage: nothing to revert to")
        stage = names[at - 1]
    elif stage in names and one["stage"] in names and names.index(stage) > names.index(one["stage"]):
        raise click.ClickException(f"{stage!r} comes after {one['stage']!r}: use `stagecast event go`")
    _transition(api, id, stage, one["seq"] if if_seq is None else if_seq, urgent, reason, key)


@event.command()
@click.argument("id")
@_guards
@api_options
def end(api: Api, id: str, if_seq: int | None, urgent: bool, reason: str, key: str | None) -> None:
    """Switch event ID to its plan's last stage."""
    one = api.call("GET", f"/v1/events/{id}")
    _transition(api, id, one["plan"][-1]["stage"], if_seq, urgent, reason, key)


@event.command()
@click.argument("id")
@click.option("--reason", default="", help="for the audit")
@api_options
def hold(api: Api, id: str, reason: str) -> None:
    """Stop event ID's plan from firing; people still can."""
    api.call("POST", f"/v1/events/{id}/hold", {"reason": reason})
    click.echo(f"{id}: on hold")


@event.command()
@click.argument("id")
@api_options
def resume(api: Api, id: str) -> None:
    """Let event ID's plan go on."""
    api.call("POST", f"/v1/events/{id}/resume", {})
    click.echo(f"{id}: the plan goes on")


@event.command()
@click.argument("id")
@click.confirmation_option(prompt="Devices will drop this event. Delete it?")
@api_options
def delete(api: Api, id: str) -> None:
    """Delete event ID: its stage becomes `gone`."""
    got = api.call("DELETE", f"/v1/events/{id}")
    click.echo(f"{id}: gone (seq {got['seq']})")


@event.command()
@click.argument("id")
@click.option("--yes", is_flag=True, help="do it")
@api_options
def regen(api: Api, id: str, yes: bool) -> None:
    """Give event ID a greater gen.

    For after the store was restored from a backup: devices may have seen what the store has forgotten, and ignore what
    comes. With a greater gen every device takes the current stage anew.
    """
    if not yes:
        raise click.UsageError("this makes every device take the current stage anew; say --yes")
    got = api.call("POST", f"/v1/events/{id}/regen", {})
    click.echo(f"{id}: gen {got['gen']}, stage {got['stage']}")


@event.command()
@click.argument("id")
@api_options
def history(api: Api, id: str) -> None:
    """Every accepted transition of event ID, oldest first."""
    for entry in api.pages(f"/v1/events/{id}/history", "history"):
        at = datetime.fromtimestamp(entry["ts"] / 1000).astimezone().isoformat(" ", "milliseconds")
        click.echo(f"{entry['seq']:>5}  {at}  {entry['stage']:<20} {entry['who']:<16} {entry['reason']}")


@event.command()
@click.argument("id")
@click.option("--stay", is_flag=True, help="go on after it has converged")
@click.option("--timeout", type=float, default=600, show_default=True, help="seconds; then exit 1")
@api_options
def watch(api: Api, id: str, stay: bool, timeout: float) -> None:
    """Did they get it? Watch event ID's newest transition.

    Ends once it has converged: 99.9 % of the devices are at it.

    \b
    at it     devices at this transition or past it, by the census, which
              is exact within a ping interval
    written   connections whose socket took the message, of those that
              were there when it was sent
    acks      devices that switched, of the sample that was asked
    missing   of these, devices that had nothing to show for the stage
    """
    deadline = time.monotonic() + timeout
    seq, said = None, ""
    while time.monotonic() < deadline:
        got = api.call("GET", f"/v1/events/{id}/progress")
        if _terminal():
            if seq not in (None, got["seq"]):
                click.echo()  # a newer transition gets a line of its own
            click.echo("\r\x1b[K" + progress_line(got, shutil.get_terminal_size().columns - 1), nl=False)
        elif (line := progress_line(got)) != said:
            said = line
            click.echo(line)
        seq = got["seq"]
        if got["converged"] and not stay:
            if _terminal():
                click.echo()
            return
        time.sleep(0.5)
    if _terminal():
        click.echo()
    raise click.ClickException(f"{id} has not converged within {timeout:g} s")


NOBODY = "no device is subscribed"


def _terminal() -> bool:
    return sys.stdout.isatty()


def progress_line(got: dict[str, Any], width: int = 200) -> str:
    """One line of at most `width` columns: what does not fit is left out, the least telling first."""
    share = got["at_or_past"] / got["subscribed"] if got["subscribed"] else 0.0
    p99 = got["latency_ms"].get("p99")
    parts = [  # rank of what to leave out first, text
        (0, f"seq {got['seq']}"),
        (0, f"{_percent(share)} of {count(got['subscribed'])} at it" if got["subscribed"] else NOBODY),
        (2, f"written {count(got['written'])}/{count(got['audience'])}"),
        (3, f"acks {count(got['switched'])}/{count(got['asked'])}"),
        (4, f"missing {count(got['missing'])}" if got["missing"] else ""),
        (1, f"p99 {p99:.0f} ms" if p99 is not None else ""),
        (5, f"{got['silent']} hosts silent" if got["silent"] else ""),
        (6, "✓" if got["converged"] else ""),
    ]
    kept = [part for part in parts if part[1]]
    while len(line := "  ".join(text for _, text in kept)) > width and any(rank for rank, _ in kept):
        kept.remove(min(part for part in kept if part[0]))
    return line[:width]


def _percent(share: float) -> str:
    """Never rounded up to 100 % while one is missing."""
    return f"{share:.2%}" if share in (0.0, 1.0) else f"{min(share, 0.9999):.2%}"


def count(n: int) -> str:
    """Exact up to a million, then with three digits."""
    return f"{n:,}" if n < 1_000_000 else f"{n / 1_000_000:.2f} M" if n < 10_000_000 else f"{n / 1_000_000:.1f} M"


for _command in COMMANDS:
    event.add_command(_command)
