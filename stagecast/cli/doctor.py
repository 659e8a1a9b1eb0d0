"""`stagecast doctor`: is this machine ready, are the servers set as they must be, and what is to change?"""

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import click
import msgspec

from kv import StoreError, store_facts
from stagecast.cli.doctor_checks import Finding, Wanted, check_log, check_machine, check_store
from stagecast.cli.doctor_machine import read_machine
from stagecast.cli.options import LOCAL, settings_options
from stagecast.log import LogError, log_facts
from stagecast.settings import Settings

ANSWER_WITHIN = 20.0
_MARKS = {"ok": "ok    ", "advice": "advice", "wrong": "WRONG "}


@click.command()
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="workers of a host here")
@click.option("--json", "as_json", is_flag=True, help="the findings as JSON")
@settings_options(*LOCAL, "connections")
def doctor(settings: Settings, workers: int, as_json: bool) -> None:
    """Check this machine and its servers, and say what to change. Exit status 1 if anything is wrong.

    It changes nothing, and makes nothing in Kafka or Cassandra.
    """
    files = any(urlsplit(url).scheme == "sqlite" for url in (settings.log_url, settings.store_url))
    wanted = Wanted(workers, settings.connections, files)
    findings = [*check_machine(read_machine(settings), wanted), *asyncio.run(_servers(settings))]
    wrong = sum(one.level == "wrong" for one in findings)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"ok": not wrong, "findings": findings})).decode())
    else:
        click.echo("\n".join(_lines(findings)))
        click.echo(f"\n{wrong} wrong" if wrong else "\nNothing is wrong.")
    raise SystemExit(1 if wrong else 0)


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(one.name) for one in findings)
    for one in findings:
        yield f"{_MARKS[one.level]}  {one.name:<{width}}  {one.found}"
        if one.change:
            yield f"{'':<{width + 10}}-> {one.change}"


async def _servers(settings: Settings) -> list[Finding]:
    """The log and the store, side by side. A file that is not there yet is not made for this."""
    return [*await _log(settings), *await _store(settings)]


async def _log(settings: Settings) -> list[Finding]:
    url = settings.log_url
    if _absent(url):
        return [Finding("log", "ok", "a file that is not there yet: made at the start")]
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return list(check_log(await log_facts(url, settings.log_password)))
    except (LogError, ValueError, TimeoutError) as error:
        return [_unreachable("log", url, error)]


async def _store(settings: Settings) -> list[Finding]:
    url = settings.store_url
    if _absent(url):
        return [Finding("store", "ok", "a file that is not there yet: made at the start")]
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return list(check_store(await store_facts(url, settings.store_password)))
    except (StoreError, ValueError, TimeoutError) as error:
        return [_unreachable("store", url, error)]


def _absent(url: str) -> bool:
    from stagecast.sqlite import path_of

    return urlsplit(url).scheme == "sqlite" and not path_of(url).exists()


def _unreachable(name: str, url: str, error: Exception) -> Finding:
    said = str(error).replace("\n", " ") or "no answer"
    return Finding(
        name, "wrong", f"{url}: {said}", "is it running, is the address right, does a firewall stand between?"
    )
