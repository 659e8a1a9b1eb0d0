"""How commands find their Stagecast, and say how to be called."""

import json
import sys
from pathlib import Path

import click
import pytest

from stagecast.cli.api import find_api, spelt

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


def test_a_folders_key_goes_to_its_own_dev_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another address needs a key of its own: a typing error, or a foreign URL, gets no operator's key."""
    monkeypatch.delenv("STAGECAST_KEY", raising=False)
    (tmp_path / "operator.key").write_text("sc_operator_secret\n")
    (tmp_path / "dev.json").write_text(json.dumps({"http": "http://127.0.0.1:4711"}))
    for url in (None, "http://127.0.0.1:4711", "http://127.0.0.1:4711/"):
        api = find_api(tmp_path, url)
        assert api.url == "http://127.0.0.1:4711"
        api.close()
    with pytest.raises(click.ClickException, match="set STAGECAST_KEY"):
        find_api(tmp_path, "http://127.0.0.1:4712")
    monkeypatch.setenv("STAGECAST_KEY", "sc_viewer_other")
    find_api(tmp_path, "http://127.0.0.1:4712").close()
