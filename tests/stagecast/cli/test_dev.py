"""`stagecast dev` and `stagecast demo` where they can't start: one line that names what is in the way, and no process left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "stagecast.cli"]
ANY_PORT = ["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0"]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("command", [["dev", *ANY_PORT], ["demo", "--once"]])
def test_a_folder_that_can_not_be_had(tmp_path: Path, command: list[str]) -> None:
    """A file in the place of the data folder is named, without a traceback."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    ran = _run(*command, "--data", str(taken))
    assert ran.returncode == 1
    assert ran.stderr == f"Error: --data {taken}: File exists; choose another folder\n"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("keys.json", lambda file: f"Error: {file}: not a JSON Web Key Set\n"),
        ("log.sqlite", lambda file: f"Error: sqlite:///{file}: {file}: file is not a database\n"),
        ("kv.sqlite", lambda file: f"Error: sqlite:///{file}: {file}: file is not a database\n"),
    ],
)
def test_what_is_there_and_no_good(tmp_path: Path, file: str, says: Callable[[Path], str]) -> None:
    """It ends at once: started all the same, its processes would die and come back for ever."""
    (tmp_path / file).write_text("this is none of ours\n" * 100)
    ran = _run("dev", *ANY_PORT, "--data", str(tmp_path))
    assert ran.returncode == 1
    assert ran.stderr == says(tmp_path / file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_demo_is_no_success(tmp_path: Path, number: signal.Signals) -> None:
    """`--once` that is stopped before the plan's end, if only by closing its terminal, did not see every device on the right
    stage, and does not say so; it leaves nothing running."""
    command = [*CLI, "demo", "--once", "--devices", "2", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if line.startswith("connected"))
        supervisor = json.loads((tmp_path / "dev.json").read_text())["pids"]["supervisor"]
        demo.send_signal(number)
        assert demo.stdout.read().endswith("stopped\n")
        assert demo.wait(10) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(supervisor, 0)
    assert not (tmp_path / "dev.json").exists()


def test_a_second_demo_in_the_same_folder(tmp_path: Path) -> None:
    """It says who is there, and leaves the log of the first alone."""
    command = [*CLI, "demo", "--devices", "2", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        next(line for line in first.stdout if line.startswith("connected"))
        before = (tmp_path / "demo.log").read_bytes()
        second = _run("demo", "--data", str(tmp_path))
        assert second.returncode == 1
        assert second.stderr == (
            "Error: the services did not start:\n"
            f"Error: a `stagecast dev` already runs in {tmp_path}; stop it, or choose another --data\n"
        )
        assert (tmp_path / "demo.log").read_bytes().startswith(before)
        assert not list(tmp_path.glob(".demo.log*"))
        first.send_signal(signal.SIGINT)
        first.stdout.read()
