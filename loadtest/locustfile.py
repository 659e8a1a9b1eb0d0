"""A load run against a running host: `make load`, or `locust -f loadtest/locustfile.py --web-host 127.0.0.1`.

A Locust user is a swarm of --connections devices. One publisher sends a transition every --every seconds; each device's
state is timed from the accepted `ts`. At the end the oracle holds every connection against the ledger of what was accepted:
one that did not end on the last stage fails the run (exit status 1), whatever the percentiles say.

    make load ARGS="--users 2 --connections 4000 --run-time 1m"         # against `stagecast dev` in this folder
    make load ARGS="--users 2 --connections 4000 --storm 30 -t 1m"      # and all connections break at second 30
    locust -f loadtest/locustfile.py --headless --processes 4 -u 4 ...  # swarms in four processes

Times are wall clock: on several machines they are as good as their clocks. The event's id starts with `load-`: devices of viewers
never follow it.
"""

import json
import logging
import os
import random
import time
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import msgspec
import requests
from locust import User, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.oracle import Order, Verdict, judge
from loadtest.swarm import Swarm
from stagecast.tokens import Keys, load_keys
from stagecast.wire.codec import encode
from stagecast.wire.frames import Hello, Position

STAGES = ("warm-up", "a", "b")
SETTLE = 30.0
"""Seconds after the last transition in which every connection must arrive at it."""
WINDOW = 256
_log = logging.getLogger("loadtest")


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Stagecast")
    group.add_argument("--connections", type=int, default=2000, help="devices of one swarm (one Locust user)")
    group.add_argument("--every", type=float, default=2.0, help="seconds between two transitions, at least 1.1")
    group.add_argument(
        "--storm", type=float, default=0.0, help="second at which every connection breaks at once; 0: never"
    )
    group.add_argument("--event", default="load-test", help="event id; created if absent")
    group.add_argument(
        "--dev", default=os.environ.get("STAGECAST_DATA", ".stagecast"), help="folder of a `stagecast dev`"
    )
    group.add_argument("--api", default="", help="URL of the HTTP API  [what --dev says]")
    group.add_argument("--ws", default="", help="HOST:PORT of devices  [what --dev says]")


class Target:
    """Where the load goes, and the keys to it. Raises SystemExit with what to do when it is not there."""

    def __init__(self, options: Any) -> None:
        folder = Path(options.dev)
        try:
            said = json.loads((folder / "dev.json").read_text()) if not (options.api and options.ws) else {}
            key = os.environ.get("STAGECAST_KEY") or (folder / "operator.key").read_text().strip()
            self.keys: Keys = load_keys(Path(os.environ.get("STAGECAST_KEYS") or folder / "keys.json"))
        except (OSError, ValueError) as error:
            raise SystemExit(
                f"no target: {error}. Start `stagecast dev`, or give --api, --ws and STAGECAST_KEY"
            ) from error
        host, _, port = (options.ws or said["ws"].removeprefix("ws://").removesuffix("/ws")).rpartition(":")
        self.address = host, int(port)
        self.event: str = options.event
        self._url: str = (options.api or said["http"]) + "/v1/events"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Bearer {key}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        got = self._http.request(method, self._url + path, json=body, timeout=10)
        got.raise_for_status()
        return got.json()

    def create(self) -> Any:
        """The event as it is, made if absent."""
        plan = [{"stage": name} for name in STAGES]
        got = self._http.post(self._url, json={"id": self.event, "title": "Load test", "plan": plan}, timeout=10)
        return got.json() if got.ok else self.call("GET", f"/{self.event}")


@dataclass
class Run:
    """What this process keeps of the run."""

    swarms: list[Swarm] = field(default_factory=list)
    ledger: list[Order] = field(default_factory=list)
    """Accepted transitions; empty in a worker of a distributed run, which doesn't publish."""
    publisher: Any = None
    verdict: Verdict = field(default_factory=Verdict)


_run = Run()


class SwarmUser(User):
    """So many devices. Ends them with the run."""

    wait_time = constant(1)

    def on_start(self) -> None:
        options = self.environment.parsed_options
        target = Target(options)
        rng = random.Random()
        name = f"swarm-{os.getpid()}-{id(self):x}"
        devices = [(f"{name}-{i}", _hello(target, f"{name}-{i}", rng)) for i in range(options.connections)]
        self.swarm = Swarm(target.address, devices, WINDOW, rng)
        _run.swarms.append(self.swarm)
        gevent.spawn(self.swarm.connect_all)
        gevent.spawn(self.swarm.keep)

    @task
    def report(self) -> None:
        """Figures of the last second, into Locust's own."""
        merge(self.environment, self.swarm)


def _hello(target: Target, device: str, rng: random.Random) -> Any:
    token = target.keys.mint(device, device, [target.event], 4 * 3600, time.time(), rng)

    def hello(at: Order) -> bytes:
        return encode(Hello(token, device, "load", [Position(target.event, *at)]))

    return hello


def merge(environment: Environment, swarm: Swarm) -> None:
    """Locust's own merge path, as for a distributed worker: one lock-step a second instead of one per message."""
    stats, swarm.stats = swarm.stats, type(swarm.stats)(use_response_times_cache=False)
    for (name, method), entry in stats.entries.items():
        environment.stats.get(name, method).extend(entry)
        environment.stats.total.extend(entry)
    for error in stats.errors.values():
        for _ in range(error.occurrences):
            environment.stats.log_error(error.method, error.name, error.error)


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    """In a distributed run each worker's verdict travels with its figures; the master adds them up."""
    reported: dict[str, Verdict] = {}

    def to_master(client_id: str, data: dict[str, Any]) -> None:
        data["verdict"] = msgspec.to_builtins(_run.verdict)

    def from_worker(client_id: str, data: dict[str, Any]) -> None:
        reported[client_id] = msgspec.convert(data["verdict"], Verdict)
        _run.verdict = Verdict()
        for verdict in reported.values():
            _run.verdict.add(verdict)

    if isinstance(environment.runner, WorkerRunner):
        environment.events.report_to_master.add_listener(to_master)
    if isinstance(environment.runner, MasterRunner):
        environment.events.worker_report.add_listener(from_worker)


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    options: Any = environment.parsed_options
    target = Target(options)
    made = target.create()
    _run.ledger = [(made["gen"], made["seq"])]
    _run.publisher = gevent.spawn(publish, environment, target, max(1.1, options.every))
    if options.storm:
        gevent.spawn_later(options.storm, storm)


def publish(environment: Environment, target: Target, every: float) -> None:
    """A transition every so often, as soon as somebody is connected; each accepted one goes into the ledger."""
    while not isinstance(environment.runner, MasterRunner) and not _all_welcomed():
        gevent.sleep(0.1)
    stage = 0
    while True:
        gevent.sleep(every)
        stage = stage % 2 + 1
        start = time.monotonic()
        try:
            got = target.call("POST", f"/{target.event}/transitions", {"stage": STAGES[stage]})
        except requests.RequestException as error:
            environment.stats.log_error("POST", "transition", str(error))
            continue
        _run.ledger.append((got["gen"], got["seq"]))
        environment.stats.log_request("POST", "transition", round((time.monotonic() - start) * 1000), 0)


def _all_welcomed() -> bool:
    return bool(_run.swarms) and all(swarm.welcomed == len(swarm.connections) for swarm in _run.swarms)


def storm() -> None:
    _log.info("storm: every connection breaks now")
    for swarm in _run.swarms:
        swarm.cut_all()


@events.test_stopping.add_listener
def _stopping(environment: Environment, **_: Any) -> None:
    """No more transitions; then every connection gets its time, and the oracle judges."""
    if _run.publisher is not None:
        _run.publisher.kill()
    if not _run.swarms:
        return
    ledger = _run.ledger or history(Target(environment.parsed_options))
    deadline = time.monotonic() + SETTLE
    while True:
        verdict = Verdict()
        for swarm in _run.swarms:
            verdict.add(judge(ledger, swarm.ended()))
        if verdict.passed or time.monotonic() > deadline:
            break
        gevent.sleep(0.2)
    for swarm in _run.swarms:
        merge(environment, swarm)
        swarm.close()
    _run.verdict = verdict


def history(target: Target) -> list[Order]:
    """The ledger as a worker of a distributed run gets it: from the API."""
    gen = target.call("GET", f"/{target.event}")["gen"]
    entries, after = [], None
    while True:
        page = target.call("GET", f"/{target.event}/history" + (f"?after={after}" if after is not None else ""))
        entries += [(gen, entry["seq"]) for entry in page["history"]]
        after = page["after"]
        if after is None:
            return entries


@events.quitting.add_listener
def _quitting(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    print(f"oracle: {_run.verdict}")
    if not _run.verdict.passed:
        environment.process_exit_code = 1
