"""`stagecast broadcaster` and `stagecast pushy`: the services of a fleet. (`stagecast prefetch` is beside its sub-commands.)"""

import sys

import click

from stagecast.cli.options import listening, settings_options, wants_echo
from stagecast.settings import Settings


@click.command()
@click.option("--http", default="127.0.0.1:8080", show_default=True, help="HOST:PORT of the HTTP API")
@settings_options()
def broadcaster(settings: Settings, http: str) -> None:
    """Accept transitions and publish them: the HTTP API, the plans, the cadence. Any number may run."""
    from broadcaster.service import run_broadcaster
    from stagecast.cli.logs import log_to_stderr

    log_to_stderr()
    run_broadcaster(settings, listening("--http", http))


@click.command()
@click.option("--ws", default="127.0.0.1:8081", show_default=True, help="HOST:PORT of devices")
@click.option(
    "--admin", default="127.0.0.1:8082", show_default=True, help="HOST:PORT of health, metrics, delivery, drain"
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="worker processes")
@settings_options()
def pushy(settings: Settings, ws: str, admin: str, workers: int) -> None:
    """One host of the WebSocket tier: a feed and its workers. SIGTERM drains it at --drain-rate, then it exits."""
    from pushy.service import serve_host
    from stagecast.cli.logs import log_to_stderr

    log_to_stderr()
    sys.exit(serve_host(settings, ws, admin, workers, echo=wants_echo()))
