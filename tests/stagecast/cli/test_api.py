"""How commands find their Stagecast, and say how to be called."""

import sys
from pathlib import Path

import pytest

from stagecast.cli.api import spelt

COMMAND = Path(sys.executable).with_name("stagecast")


def test_the_command_is_spelt_as_this_shell_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its name on the path; else by the way to it, from here if it is below."""
    monkeypatch.setenv("PATH", str(COMMAND.parent))
    assert spelt(Path(".stagecast"))[0] == "stagecast"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert spelt(Path(".stagecast"))[0] == str(COMMAND)
    monkeypatch.chdir(COMMAND.parent.parent)
    assert spelt(Path(".stagecast"))[0] == "bin/stagecast"


def test_the_folder_is_named_unless_it_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Quoted for a shell."""
    monkeypatch.chdir(tmp_path)
    assert spelt(tmp_path / ".stagecast")[1] == ""
    assert spelt(tmp_path / "my data")[1] == " --data 'my data'"
