"""`stagecast demo`, what `make run` does: the whole way of an event on this machine, with an audience."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import httpx

from stagecast.cli.api import OPERATOR_KEY, spelt
from stagecast.cli.audience import Audience, Ending, Tally, tastes
from stagecast.http import listen
from stagecast.tokens import load_keys

EXAMPLE = Path(__file__).parents[2] / "examples" / "final"
PLAY = 44.0
"""Seconds that the plan takes at speed 1."""
GAP_MIN = 1.2
"""Seconds between two stages at least, whatever the speed: the broadcaster wants 1 s."""
SETTLE = 20.0
"""Seconds that a transition may take to reach every device, one that was away included, before it counts as wrong."""
AWAY_AT = 4
"""The transition that one device misses."""
CUT_EARLY = 0.15
"""Seconds before the transition's time when that device is cut off; it comes back within 5 s by itself."""
LOG = "demo.log"
"""In the data folder: what the services say of themselves."""
INTERRUPTED = 128 + signal.SIGINT
"""The status of a `--once` that was stopped before it could tell right from wrong."""
PORTS = {"--http": "127.0.0.1:8080", "--ws": "127.0.0.1:8081", "--admin": "127.0.0.1:8082"}


@click.command()
@click.option("--speed", default=1.0, type=click.FloatRange(0.1, 20), show_default=True, help="plays so much faster")
@click.option("--once", is_flag=True, help="end after the plan: status 0, or 1 if any device ended on a wrong stage")
@click.option("--devices", default=500, type=click.IntRange(2, 5000), show_default=True, help="simulated devices")
@click.option(
    "--workers", default=1, type=click.IntRange(1, 16), show_default=True, help="worker processes of the host"
)
@click.option(
    "--example",
    default=EXAMPLE,
    type=click.Path(path_type=Path, file_okay=False),
    help="folder with event.json, titles.ndjson",
)
@click.option(
    "--data", envvar="STAGECAST_DATA", default=".stagecast", type=click.Path(path_type=Path), show_default=True
)
def demo(speed: float, once: bool, devices: int, workers: int, example: Path, data: Path) -> None:
    """See it work: every tier, an audience of devices, a live event played in under a minute."""
    if not (example / "event.json").is_file():
        raise click.ClickException(f"{example}: no event.json there; name the folder of an example with --example")
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data / LOG).touch()
    except OSError as error:
        raise click.ClickException(f"--data {data}: {error.strerror}; choose another folder") from error
    try:
        status = asyncio.run(_demo(example, data, speed, once, devices, workers))
    except KeyboardInterrupt:
        status = 0
    raise SystemExit(status)


async def _demo(example: Path, data: Path, speed: float, once: bool, devices: int, workers: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    stopped = False
    services: list[asyncio.subprocess.Process] = []

    def stop() -> None:
        nonlocal stopped
        stopped = True
        for dev in services:
            _terminate(dev)  # they end while the devices do, and not after: 2 s is for all of it
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last: its terminal was closed
        loop.add_signal_handler(number, stop)
    try:
        async with _dev(data, workers, services) as ready:
            return await _play(example, ready, speed, once, devices)
    except asyncio.CancelledError:
        if not stopped:
            raise
        click.echo("\nstopped")
        return INTERRUPTED if once else 0


@contextlib.asynccontextmanager
async def _dev(data: Path, workers: int, services: list[asyncio.subprocess.Process]) -> AsyncIterator[dict[str, Any]]:
    """A `stagecast dev` of this demo's own; yields what it says of itself. On the usual ports, or free ones if any is taken.
    Its process is added to `services`."""
    log = data / f".{LOG}.{os.getpid()}"  # LOG itself may be that of a demo which holds this folder
    line = b""
    try:
        taken = _taken()
        if not taken:
            line = await _start(data, workers, PORTS, log, services)
            taken = [] if line else _taken()  # somebody was faster
        if taken:
            click.echo(f"{', '.join(taken)} taken: using other ports")
            line = await _start(data, workers, dict.fromkeys(PORTS, "127.0.0.1:0"), log, services)
        if not line:
            raise click.ClickException(f"the services did not start:\n{log.read_text().strip()}")
        log.replace(data / LOG)
        yield json.loads(line)
    finally:
        for dev in services:
            _terminate(dev)
            await asyncio.shield(dev.wait())
        log.unlink(missing_ok=True)


async def _start(
    data: Path, workers: int, addresses: dict[str, str], log: Path, services: list[asyncio.subprocess.Process]
) -> bytes:
    """Starts a dev on these addresses, and adds it to `services`; its ready line, empty if it could not start."""
    flags = [part for flag in addresses.items() for part in flag]
    with log.open("wb") as out:
        dev = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stagecast.cli", "dev", "--json", "--data", str(data), "--workers", str(workers), *flags,
            stdout=asyncio.subprocess.PIPE, stderr=out, start_new_session=True,
        )  # fmt: skip
    services.append(dev)
    assert dev.stdout is not None
    return await dev.stdout.readline()


def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)


def _taken() -> list[str]:
    return [address for address in PORTS.values() if not _is_free(address)]


def _is_free(address: str) -> bool:
    try:
        listen(address).close()
    except OSError:
        return False
    return True


async def _play(example: Path, ready: dict[str, Any], speed: float, once: bool, devices: int) -> int:
    body = json.loads((example / "event.json").read_text())
    event, data = body["id"], Path(ready["data"])
    catalogue = [json.loads(line) for line in (example / "titles.ndjson").read_text().splitlines()]
    titles = [line for line in catalogue if "vector" in line]  # the others say what a stage likes
    members = tastes(titles, devices, random.Random(2026))
    key = (data / OPERATOR_KEY).read_text().strip()
    click.echo(f"{body['title']}: {len(body['plan'])} stages, {len(titles)} titles, {devices} devices")
    async with contextlib.AsyncExitStack() as stack:
        api = httpx.AsyncClient(
            base_url=ready["http"], headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )
        await stack.enter_async_context(api)
        await _create(api, body)
        for kind, lines in (("titles", catalogue), ("members", members)):
            got = await _call(api, "POST", f"/v1/stage-maps/{event}/import?kind={kind}", lines=lines)
            click.echo(f"imported {got['imported']} lines of {kind}")
        audience = Audience(ready["ws"], load_keys(data / "keys.json"), [one["id"] for one in members], event)
        await stack.enter_async_context(audience)
        await _connect(audience)
        await _hold_maps(api, event, audience)
        await _fire(api, body, speed)
        ending = await _watch_plan(api, event, audience)
        if not once:
            _next_steps(ready, event, audience, data)
            await _watch_on(audience)
    return ending.status


async def _call(api: httpx.AsyncClient, method: str, path: str, body: Any = None, lines: Any = None) -> Any:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode() if lines is not None else None
    try:
        got = await api.request(method, path, json=body if content is None else None, content=content)
    except httpx.TransportError as error:
        raise click.ClickException(f"{method} {path}: {type(error).__name__} {error}") from error
    if got.is_error:
        raise click.ClickException(f"{method} {path}: {got.status_code} {got.text}")
    return got.json()


async def _create(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """The event anew, even if it stands there from the last time: then its gen is greater, and its plan waits for `_fire`."""
    there = await api.get(f"/v1/events/{body['id']}")
    if there.is_success and there.json()["stage"] != "gone":
        await _call(api, "DELETE", f"/v1/events/{body['id']}")
    plan = [{"stage": one["stage"]} for one in body["plan"]]
    await _call(api, "POST", "/v1/events", {**body, "plan": plan})


class Line:
    """One line of the terminal that is written again and again; elsewhere only its last state."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def show(self, text: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{text}", nl=False)

    def end(self, text: str) -> None:
        click.echo(f"\r\x1b[K{text}" if self._live else text)


async def _until(done: Callable[[], bool], show: Callable[[], str], line: Line, within: float) -> bool:
    """Shows a state until it is reached. False when it is not, in time."""
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            return False
        line.show(show())
        await asyncio.sleep(0.05)
    return True


async def _connect(audience: Audience) -> None:
    line, start, count = Line(), time.monotonic(), len(audience.devices)
    connecting = asyncio.create_task(audience.connect())
    try:
        await _until(connecting.done, lambda: f"connected {audience.connected} of {count} devices", line, 60)
    finally:
        if not connecting.done():
            connecting.cancel()
    await connecting
    line.end(f"connected {count} devices in {time.monotonic() - start:.1f} s")


async def _hold_maps(api: httpx.AsyncClient, event: str, audience: Audience) -> None:
    """The campaign, until every device holds its stage map."""
    line, start, count = Line(), time.monotonic(), len(audience.devices)
    await _call(api, "POST", f"/v1/campaigns/{event}", {})
    held = await _until(
        lambda: audience.holding == count,
        lambda: f"{audience.holding} of {count} devices hold their stage map",
        line,
        60,
    )
    if not held:
        status = await _call(api, "GET", f"/v1/campaigns/{event}")
        raise click.ClickException(f"{audience.holding} of {count} devices hold their stage map after 60 s: {status}")
    line.end(
        f"all {count} devices hold their stage map after {time.monotonic() - start:.1f} s: "
        f"{count - audience.fetches} pushed, {audience.fetches} fetched"
    )


async def _fire(api: httpx.AsyncClient, body: dict[str, Any], speed: float) -> None:
    """Gives the event its plan with compressed times; the broadcaster's schedule does the rest."""
    gaps = _gaps(body["plan"], PLAY / speed)
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    plan = [{"stage": body["plan"][0]["stage"]}]
    for planned, gap in zip(body["plan"][1:], [0.0, *gaps[1:]], strict=True):
        due += timedelta(seconds=gap)
        plan.append({"stage": planned["stage"], "at": due.isoformat()})
    await _call(api, "PUT", f"/v1/events/{body['id']}/plan", {"plan": plan})
    click.echo(f"playing the plan in {sum(gaps[1:]):.0f} s; ms until so many devices had switched:\n")
    click.echo(f"{'stage':<18}{'devices':>9}{'50 %':>7}{'95 %':>7}{'99 %':>7}{'100 %':>7}{'payload':>10}{'asked':>7}")


def _gaps(plan: list[dict[str, Any]], total: float) -> list[float]:
    """Seconds before each later stage: every stage gets its least, the rest goes by the plan's own proportions (square roots,
    so that a pause of three minutes can be seen beside a half of 47)."""
    real = [_minutes(before, after) ** 0.5 for before, after in itertools.pairwise(plan)]
    spare = max(0.0, total - GAP_MIN * len(real))
    return [GAP_MIN + spare * one / sum(real) for one in real]


def _minutes(before: dict[str, Any], after: dict[str, Any]) -> float:
    if "after" in after:
        return float(after["after"].removeprefix("PT").removesuffix("M"))
    if "at" in before and "at" in after:
        return (datetime.fromisoformat(after["at"]) - datetime.fromisoformat(before["at"])).total_seconds() / 60
    return 15.0


async def _watch_plan(api: httpx.AsyncClient, event: str, audience: Audience) -> Ending:
    """A line per transition, until the plan's last stage, and how it ended."""
    plan = (await _call(api, "GET", f"/v1/events/{event}"))["plan"]
    fetched = audience.fetches
    start = audience.newest.seq if audience.newest else 1
    missed = plan[min(AWAY_AT, len(plan) - 1)]
    away = asyncio.create_task(_cut(audience, datetime.fromisoformat(missed["at"])))
    for seq, planned in enumerate(plan[1:], start + 1):
        await _watch_one(audience, seq, fetched, planned["stage"])
    name = await away
    await _until(lambda: audience.connected == len(audience.devices), lambda: f"{name} is coming back", Line(), SETTLE)
    head = await _call(api, "GET", f"/v1/events/{event}")
    ending = audience.ending(head["gen"], head["seq"])
    for device, change in audience.caught_up:
        if device == name:
            click.echo(f"\n{name} was cut off and missed it: its welcome brought {change.stage!r} (seq {change.seq})")
    click.echo(
        f"{'' if name else chr(10)}{ending.right} of {ending.devices} devices ended on {head['stage']!r}; "
        f"devices asked a server {audience.fetches - fetched} times"
    )
    return ending


async def _cut(audience: Audience, due: datetime) -> str:
    """Cuts one device off just before a transition."""
    name = random.Random(4).choice(list(audience.devices))
    await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() - CUT_EARLY))
    audience.devices[name].cut()
    return name


async def _watch_one(audience: Audience, seq: int, fetched: int, stage: str) -> None:
    """The line of one transition, until every device that is connected has switched or the next one has begun."""
    line, everybody = Line(), len(audience.devices)

    def tally() -> Tally | None:
        newest = audience.newest
        return newest if newest and newest.seq >= seq else None

    await _until(lambda: tally() is not None, lambda: f"{stage:<18}{'coming up':>9}", line, PLAY * 10)
    found = tally()
    if found is None:
        raise click.ClickException(f"no device has switched to {stage!r}")

    def row() -> str:
        return _row(found, everybody, audience.fetches - fetched)

    await _until(lambda: found.switched >= audience.connected or audience.newest is not found, row, line, SETTLE)
    line.end(row())


def _row(tally: Tally, everybody: int, fetches: int) -> str:
    times = [tally.within(share) for share in (0.5, 0.95, 0.99, 1.0)]
    shown = "".join(f"{one:>7}" if one is not None else f"{'-':>7}" for one in times)
    return f"{tally.stage:<18}{f'{tally.switched}/{everybody}':>9}{shown}{tally.with_payload:>10}{fetches:>7}"


async def _watch_on(audience: Audience) -> None:
    """A line per further transition, whoever fires it, until Ctrl-C."""
    shown = audience.newest
    fetched = audience.fetches
    while True:
        await audience.changed.wait()
        audience.changed.clear()
        newest = audience.newest
        if newest is not None and newest is not shown:
            shown = newest
            await _watch_one(audience, newest.seq, fetched, newest.stage)


def _next_steps(ready: dict[str, Any], event: str, audience: Audience, data: Path) -> None:
    stagecast, where = spelt(data)
    keys = load_keys(data / "keys.json")
    token = keys.mint("you", "mine", [event], 24 * 3600, time.time(), random.SystemRandom())
    click.echo(f"""
Stagecast stays up: HTTP {ready["http"]}, devices {ready["ws"]}
A device's token (member "you", device "mine"): {token}

In a browser, side by side:
  {ready["http"]}/console/  the control room; the key is in {data / OPERATOR_KEY}
  {ready["http"]}/demo/     a viewer's screen

Try, in another terminal:
  {stagecast} event go{where} {event} second-half
  {stagecast} device watch{where} {event}
  {stagecast} status{where}
Ctrl-C stops everything. What devices do shows up here:
""")
