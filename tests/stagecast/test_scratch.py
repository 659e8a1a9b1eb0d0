"""Folders of killed processes are removed by the next one; those of living ones, and what is none of ours, are not."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from stagecast.scratch import scratch_folder

HOLDER = """
import sys
from pathlib import Path
from stagecast.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "link").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_is_gone_at_the_end(tmp_path: Path) -> None:
    """With what was in it."""
    with scratch_folder(tmp_path) as folder:
        (folder / "link").touch()
        assert [one.name for one in tmp_path.iterdir()] == [folder.name]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """While its owner lives a folder stays; after a SIGKILL the next one to start removes it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        with scratch_folder(tmp_path):
            assert (left / "link").exists()
        owner.kill()
    assert (left / "link").exists()
    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_bells_that_nobody_hears() -> None:
    """Of the folders in which logs with long paths have their bells, a dead one goes, and one with a living listener stays."""
    with contextlib.ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # enough for the path of a socket
        dead, living = (short / f"stagecast-{os.geteuid()}-{name}" for name in ("a" * 16, "b" * 16))
        for folder, name in ((dead, "1.sock"), (living, "1.sock"), (living, "2.sock")):
            folder.mkdir(exist_ok=True)
            bell = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            bell.bind(str(folder / name))
            if name == "1.sock":
                bell.close()
        with scratch_folder(short):
            pass
        assert not dead.exists()
        assert [one.name for one in living.iterdir()] == ["2.sock"]


def test_what_is_none_of_ours(tmp_path: Path) -> None:
    """A folder without a lock, a file and a link to elsewhere stay, and what the link leads to."""
    (tmp_path / "stagecast-notes").mkdir()
    (tmp_path / "stagecast-file").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "stagecast-link").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
