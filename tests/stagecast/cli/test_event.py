"""`stagecast event` against a real broadcaster: what an operator types and reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stagecast.cli import main
from stagecast.cli.api import DEV_FILE
from stagecast.cli.control import COMMANDS
from stagecast.cli.event import count, duration, progress_line
from stagecast.receipts import Receipt, progress
from tests.broadcaster.process import broadcaster, operator_key

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A broadcaster for all tests of this module: its folder and address."""
    data = tmp_path_factory.mktemp("cli")
    operator_key(data)
    with broadcaster(data) as one:
        one.until_ready()
        (data / DEV_FILE).write_text(json.dumps({"http": one.url}))  # its key is for this address
        yield data, one.url


@pytest.fixture
def run(running: tuple[Path, str]) -> Run:
    """Runs `stagecast event …` against it."""
    data, url = running

    def call(*words: str, ok: bool = True) -> Result:
        options = ["--data", str(data), "--url", url]
        result = CliRunner().invoke(main, ["event", words[0], *options, *words[1:]])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return call


def test_an_event_from_its_creation_to_its_end(run: Run) -> None:
    """The everyday words, one after the other, and what they say."""
    assert "e1: created, stage upcoming" in run("create", "e1", "--stages", "upcoming,live,half,ended").output
    assert run("go", "e1", "live", "--reason", "kick-off").output == "e1: stage live (seq 2)\n"
    assert run("go", "e1", "half", "--urgent", "--if-seq", "2").output == "e1: stage half (seq 3)\n"
    assert run("revert", "e1", "--urgent").output == "e1: stage live (seq 4)\n"
    shown = run("show", "e1").output
    assert "▶ live" in shown
    assert "on hold: reverted to live" in shown
    assert run("resume", "e1").output == "e1: the plan goes on\n"
    assert run("end", "e1", "--urgent").output == "e1: stage ended (seq 5)\n"
    history = run("history", "e1").output.splitlines()
    assert [line.split()[0] for line in history] == ["1", "2", "3", "4", "5"]
    assert history[1].endswith("kick-off")
    assert "e1 " in run("list").output
    assert run("regen", "e1", "--yes").output.endswith("stage ended\n")
    assert run("delete", "e1", "--yes").output == "e1: gone (seq 2)\n"
    assert "gone" in run("show", "e1").output


def test_plans_from_files(run: Run, tmp_path: Path) -> None:
    """JSON and TOML, with times; a new plan for a running event; the plan in words."""
    toml = tmp_path / "event.toml"
    toml.write_text(
        'title = "The final"\n[[plan]]\nstage = "upcoming"\n[[plan]]\nstage = "live"\nat = 2036-12-05T19:00:00Z\n'
        '[[plan]]\nstage = "half"\nafter = "PT47M"\n[[plan]]\nstage = "ended"\nafter = "PT2H"\nof = "live"\n'
    )
    run("create", "e2", str(toml))
    shown = run("show", "e2").output
    assert "at 2036-12-05T19:00:00Z" in shown
    assert "47 min after the one before" in shown
    assert "2 h after live" in shown
    assert "next: live 2036-12-05" in shown
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"stage": "upcoming"}, {"stage": "live"}]))
    assert run("plan", "e2", str(plan)).output == "e2: plan revision 2\n"
    assert "next: live by hand" in run("show", "e2").output
    assert json.loads(run("show", "e2", "--json").output)["revision"] == 2


def test_errors_say_what_to_do(run: Run, tmp_path: Path) -> None:
    """Every failure is one clear line or two, never a traceback."""
    run("create", "e3", "--stages", "upcoming,live")
    for words, text in [
        (("go", "e3", "lve"), "no stage 'lve' in the plan, which has upcoming, live"),
        (("go", "e3", "upcoming"), "The event is at stage 'upcoming'"),
        (("go", "nix", "live"), "no event 'nix'"),
        (("create", "e3", "--stages", "upcoming"), "an event of this id is living"),
        (("create", "E3", "--stages", "upcoming"), "$.id"),
        (("create", "e4", "--stages", "a,a"), "$.plan[1].stage"),
        (("create", "e4"), "give a FILE with a plan, or --stages"),
        (("revert", "e3"), "is the first stage"),
        (("regen", "e3"), "say --yes"),
        (("watch", "e3", "--timeout", "0.1"), "has not converged within 0.1 s"),
    ]:
        result = run(*words, ok=False)
        assert text in result.output, result.output
        assert "Traceback" not in result.output
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "broken.json" in run("create", "e5", str(broken), ok=False).output


def test_a_list_of_nothing(tmp_path: Path) -> None:
    """Says that there is nothing, and how to change that; standard output stays empty."""
    operator_key(tmp_path)
    with broadcaster(tmp_path) as one:
        one.until_ready()
        (tmp_path / DEV_FILE).write_text(json.dumps({"http": one.url}))
        result = CliRunner().invoke(main, ["event", "list", "--data", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no events yet; `stagecast event create ID --stages" in result.stderr


def test_watching_without_devices(run: Run) -> None:
    """Off a terminal a line is written when it is new: that nobody is there is said once."""
    run("create", "w1", "--stages", "a,b")
    lines = run("watch", "w1", "--timeout", "1.2", ok=False).output.splitlines()
    assert [line for line in lines if "no device is subscribed" in line] == lines[:1]
    assert len(lines) == 2


def test_the_status_of_a_host_that_is_not_there(running: tuple[Path, str]) -> None:
    """Exit 1: the API alone is not everything."""
    data, url = running
    words = ["status", "--data", str(data), "--url", url, "--admin", "http://127.0.0.1:1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "up, " in result.output
    assert "does not answer" in result.output
    with unready() as admin:
        result = CliRunner().invoke(main, [*words[:-1], admin])
    assert (result.exit_code, "NOT ready: draining" in result.output) == (1, True)


@contextmanager
def unready() -> Iterator[str]:
    """An admin port of a host that is not ready."""

    class Unready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"draining")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Unready) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        thread.join(10)


def test_help_teaches() -> None:
    """The group's help shows the words in use, each command explains itself, and all of it fits 80 columns."""
    runner = CliRunner()
    shown = runner.invoke(main, ["event", "--help"]).output
    assert "stagecast event go final live" in shown
    assert "..." not in shown.partition("Commands:")[2]
    for command in (
        "create",
        "list",
        "show",
        "plan",
        "go",
        "revert",
        "end",
        "hold",
        "resume",
        "delete",
        "regen",
        "history",
        "watch",
        *(command.name or "" for command in COMMANDS),
    ):
        shown += runner.invoke(main, ["event", command, "--help"]).output
    assert max(len(line) for line in shown.splitlines()) <= 80


def said(n: int, **more: Any) -> dict[str, Any]:
    receipt = Receipt(
        "h",
        "b",
        0,
        0,
        "e",
        1,
        12,
        n,
        n,
        asked=n,
        switched=n - 3,
        missing=2,
        latency={40: 5},
        subscribed=n,
        at_or_past=n - 1,
    )
    made = progress("e", [(receipt, 20.0)], 1, 12)
    found: dict[str, Any] = {name: getattr(made, name) for name in made.__struct_fields__}
    return {**found, "at_or_past": n - 1, **more}


def test_the_watch_line() -> None:
    """All that is known where there is room; in 80 columns the essential, whatever the audience."""
    line = progress_line(said(500))
    assert line == "seq 12  99.80% of 500 at it  written 500/500  acks 497/500  missing 2  p99 43 ms  1 hosts silent"
    for n in (500, 100_000, 10**8):
        short = progress_line(said(n, converged=True), 79)
        assert len(short) <= 79
        assert short.startswith("seq 12  99.")
        assert short.endswith("✓")
    assert "100.00%" not in progress_line(said(10**8))


@pytest.mark.parametrize(
    ("iso", "words"),
    [("PT0S", "0 s"), ("PT90S", "1 min 30 s"), ("PT2820S", "47 min"), ("P1DT2H", "1 d 2 h"), ("PT1.5S", "1.5 s")],
)
def test_durations_in_words(iso: str, words: str) -> None:
    """As people say them."""
    assert duration(iso) == words


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (999_999, "999,999"), (1_234_567, "1.23 M"), (10**8, "100.0 M")])
def test_counts(n: int, text: str) -> None:
    """Exact up to a million."""
    assert count(n) == text
