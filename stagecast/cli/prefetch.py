"""`stagecast prefetch`: the service, and what operators do with stage maps and campaigns."""

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from stagecast.cli.api import Api, api_options
from stagecast.cli.options import settings_options
from stagecast.settings import Settings


@click.group(invoke_without_command=True)
@click.option("--http", default="127.0.0.1:8083", show_default=True, help="HOST:PORT of the stage-map API")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="file with a service API key, for pushing to hosts  [--service-key-file]",
)
@settings_options()
@click.pass_context
def prefetch(ctx: click.Context, settings: Settings, http: str, key_file: Path | None) -> None:
    """Without a sub-command: run the prefetch service (stage-map API and campaigns). Any number may run."""
    if ctx.invoked_subcommand is None:
        from prefetch.service import run_prefetch
        from stagecast.cli.logs import log_to_stderr

        log_to_stderr()
        named = key_file or (Path(settings.service_key_file) if settings.service_key_file else None)
        run_prefetch(settings, http, key_file=named)


@prefetch.command("import")
@click.argument("event")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--kind", type=click.Choice(["maps", "titles", "members"]), default="maps", show_default=True)
@click.option("--again", is_flag=True, help="from the first line, even if FILE is in already")
@api_options
def import_(api: Api, event: str, file: Path, kind: str, again: bool) -> None:
    """Import FILE (NDJSON): ready stage maps, or titles and members for the vector recommender.

    \b
    maps     {"member": "m1", "stages": {"live": ["t1", "t2"]}, "default": ["t3"]}
             ("cohort": "NAME" in place of "member": the map that a cohort shares)
    titles   {"id": "t1", "vector": [0.1, 0.2], "genres": ["drama"], "popularity": 3, "stages": {"live": 0.5}}
             {"stage": "half-time", "genres": {"interview": 0.4}}    what a stage likes
    members  {"id": "m1", "vector": [0.1, 0.2], "cohort": "de", "seen": ["t3"]}

    Bad lines are reported with their number and reason, the others are imported. Run again after a break: it resumes.
    """
    path, digest = f"/v1/stage-maps/{event}/import", _digest(file)
    state = api.call("GET", path, kind=kind, digest=digest)
    offset = 0 if again else state["bytes"]
    if state["complete"] and state["bytes"] == file.stat().st_size and not again:
        click.echo(f"{file} is in already (--again imports it once more)", err=True)
    else:
        if offset:
            click.echo(f"{file}: going on after line {state['lines']:,}", err=True)
        state = api.upload(path, _chunks(file, offset), kind=kind, digest=digest, offset=offset)
    for bad in state["bad"]:
        click.echo(f"{file}:{bad['line']}: {bad['reason']}", err=True)
    if state["bad_lines"] > len(state["bad"]):
        click.echo(f"{file}: and {state['bad_lines'] - len(state['bad']):,} more bad lines", err=True)
    click.echo(f"{event}: {state['imported']:,} {kind} imported, {state['bad_lines']:,} bad lines")
    if state["bad_lines"]:
        raise SystemExit(1)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _chunks(file: Path, offset: int) -> Iterator[bytes]:
    size = file.stat().st_size
    with (
        file.open("rb") as lines,
        click.progressbar(length=size, label=file.name, file=sys.stderr) as bar,
    ):
        lines.seek(offset)
        bar.update(offset)
        while chunk := lines.read(1 << 16):
            yield chunk
            bar.update(len(chunk))


@prefetch.command()
@click.argument("event")
@click.option(
    "--recommender", default=None, help="stored, vectors, or a plug-in's name  [vectors if there are members]"
)
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), help="members per second at most  [5000]")
@click.option(
    "--freeze", help="when to stop computing, such as 2026-12-05T18:50:00Z  [10 min before the plan's next time]"
)
@click.option("--no-wait", is_flag=True, help="start it and return")
@api_options
def run(api: Api, event: str, recommender: str | None, budget: float | None, freeze: str | None, no_wait: bool) -> None:
    """Run EVENT's campaign: compute, store and push every member's stage map.

    While one runs, this follows it. It goes on without this command; Ctrl-C stops only the watching.
    """
    wanted = {"recommender": recommender, "budget": budget, "freeze": freeze}
    got = api.call(
        "POST", f"/v1/campaigns/{event}", {name: value for name, value in wanted.items() if value is not None}
    )
    if no_wait:
        click.echo(status_line(event, got))
        return
    with click.progressbar(length=1, label=f"{event}: stage maps", file=sys.stderr) as bar:
        while got["phase"] == "running":
            bar.length = max(got["total"], 1)
            bar.update(got["done"] - bar.pos)
            time.sleep(0.2)
            got = api.call("GET", f"/v1/campaigns/{event}")
        bar.update(got["done"] - bar.pos)
    click.echo(status_line(event, got))
    if got["phase"] != "done":
        raise SystemExit(1)


@prefetch.command()
@click.argument("event")
@api_options
def status(api: Api, event: str) -> None:
    """How far EVENT's campaign is."""
    click.echo(status_line(event, api.call("GET", f"/v1/campaigns/{event}")))


def status_line(event: str, got: dict[str, Any]) -> str:
    text = (
        f"{event}: {got['phase']}, {got['done']:,} of {got['total']:,} members, pushed to {got['pushed']:,} devices "
        f"({got['absent']:,} members not connected, {got['busy']:,} devices busy: they pull), map {got['map'] or '-'}"
    )
    if got["phase"] == "running":
        text += f", {got['rate']:,.0f} members/s"
    return f"{text}\n{got['error']}" if got["error"] else text


@prefetch.command()
@click.argument("event")
@click.argument("member")
@api_options
def show(api: Api, event: str, member: str) -> None:
    """MEMBER's stage map for EVENT (`cohort:NAME`: a cohort's)."""
    got = api.call("GET", f"/v1/stage-maps/{event}/members/{member}")
    click.echo(msgspec.json.format(msgspec.json.encode(got), indent=1))


@prefetch.command()
@click.argument("event")
@click.option("--window", default=60.0, show_default=True, help="seconds in which devices fetch")
@api_options
def hint(api: Api, event: str, window: float) -> None:
    """Tell EVENT's devices that newer stage maps exist."""
    api.call("POST", f"/v1/campaigns/{event}/hint", {"window": window})
    click.echo(f"{event}: hinted, devices fetch within {window:g} s")
