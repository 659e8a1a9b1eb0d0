"""`stagecast token` and `stagecast key`."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stagecast.cli import main
from stagecast.tokens import load_keys


def _run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--data", str(data)])


def _token(data: Path, **changed: str) -> Result:
    given = {"member": "m 1", "device": "tv-1", "events": "final, cup-*,*"} | changed
    return _run(data, "token", "device", *(part for name, value in given.items() for part in (f"--{name}", value)))


def test_a_devices_token_says_what_was_asked(tmp_path: Path) -> None:
    """Spaces around event ids are no part of them."""
    assert _run(tmp_path, "key", "device").exit_code == 0
    made = _token(tmp_path)
    assert made.exit_code == 0, made.output
    claims = load_keys(tmp_path / "keys.json").verify(made.output.strip(), time.time())
    assert (claims.sub, claims.dev, claims.evt) == ("m 1", "tv-1", ["final", "cup-*", "*"])


@pytest.mark.parametrize(
    ("option", "value"),
    [("member", ""), ("device", "a b"), ("events", ""), ("events", "final,"), ("events", "Final"), ("events", "a*b")],
)
def test_a_token_that_every_node_would_refuse_is_not_made(tmp_path: Path, option: str, value: str) -> None:
    """The error names the option."""
    assert _run(tmp_path, "key", "device").exit_code == 0
    made = _token(tmp_path, **{option: value})
    assert made.exit_code == 2
    assert f"Error: --{option}: " in made.output


def test_a_keys_file_that_can_not_be_made(tmp_path: Path) -> None:
    """One line, no traceback."""
    (tmp_path / "file").write_text("")
    made = _run(tmp_path / "file", "key", "device")
    assert made.exit_code == 1
    assert made.output.startswith(f"Error: {tmp_path}/file/keys.json: ")
