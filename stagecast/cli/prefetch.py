"""`stagecast prefetch`: the service, and what operators do with stage maps and campaigns."""

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
@click.option("--key-file", type=click.Path(path_type=Path), help="file with a service API key, for pushing to hosts")
@settings_options()
@click.pass_context
def prefetch(ctx: click.Context, settings: Settings, http: str, key_file: Path | None) -> None:
    """Without a sub-command: run the prefetch service (stage-map API and campaigns). Any number may run."""
    if ctx.invoked_subcommand is None:
        from prefetch.service import run_prefetch
        from stagecast.cli.logs import log_to_stderr

        log_to_stderr()
        run_prefetch(settings, http, key_file=key_file)


@prefetch.command("import")
@click.argument("event")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--kind", type=click.Choice(["maps", "titles", "members"]), default="maps", show_default=True)
@api_options
def import_(api: Api, event: str, file: Path, kind: str) -> None:
    """Import FILE (NDJSON): ready stage maps, or titles and members for the vector recommender.

    Bad lines are reported with their number and reason, the others are imported. Run again after a break: it resumes.
    """
    got = api.upload(f"/v1/stage-maps/{event}/import", _chunks(file), kind=kind)
    for bad in got["bad"]:
        click.echo(f"{file}:{bad['line']}: {bad['reason']}", err=True)
    click.echo(f"{event}: {got['imported']:,} {kind} imported, {got['bad_lines']:,} bad lines")
    if got["bad_lines"]:
        raise SystemExit(1)


def _chunks(file: Path) -> Iterator[bytes]:
    size, sent = file.stat().st_size, 0
    with file.open("rb") as lines, click.progressbar(length=size, label=file.name) as bar:  # type: ignore[var-annotated]
        while chunk := lines.read(1 << 16):
            yield chunk
            sent += len(chunk)
            bar.update(len(chunk))


@prefetch.command()
@click.argument("event")
@click.option(
    "--recommender", default=None, help="stored, vectors, or a plug-in's name  [vectors if there are members]"
)
@click.option("--no-wait", is_flag=True, help="start it and return")
@api_options
def run(api: Api, event: str, recommender: str | None, no_wait: bool) -> None:
    """Run EVENT's campaign: compute, store and push every member's stage map."""
    api.call("POST", f"/v1/campaigns/{event}", {"recommender": recommender} if recommender else {})
    if no_wait:
        return
    with click.progressbar(length=1, label=f"{event}: stage maps") as bar:  # type: ignore[var-annotated]
        while True:
            got = api.call("GET", f"/v1/campaigns/{event}")
            bar.length = max(got["total"], 1)
            bar.update(got["done"] - bar.pos)
            if got["phase"] in ("done", "failed"):
                break
            time.sleep(0.2)
    click.echo(status_line(event, got))
    if got["phase"] == "failed":
        raise SystemExit(1)


@prefetch.command()
@click.argument("event")
@api_options
def status(api: Api, event: str) -> None:
    """How far EVENT's campaign is."""
    click.echo(status_line(event, api.call("GET", f"/v1/campaigns/{event}")))


def status_line(event: str, got: dict[str, Any]) -> str:
    return (
        f"{event}: {got['phase']}, {got['done']:,} of {got['total']:,} members, pushed to {got['pushed']:,} devices, "
        f"map {got['map'] or '-'}"
    )


@prefetch.command()
@click.argument("event")
@click.argument("member")
@api_options
def show(api: Api, event: str, member: str) -> None:
    """MEMBER's stage map for EVENT."""
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
