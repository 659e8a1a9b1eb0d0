"""The import contracts of pyproject.toml hold, and each is seen to fail when it is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.check_docs import ROOT

PACKAGES = ["stagecast", "kv", "pushy", "broadcaster", "prefetch", "loadtest"]
PLANTED = [
    ("pushy/feed.py", "import prefetch.api", "Tiers never import each other"),
    ("stagecast/tokens.py", "import kv", "What all tiers agree on imports no tier and no store"),
    ("kv/store.py", "import stagecast.event", "The store knows nothing of events"),
    ("broadcaster/api.py", "import stagecast.cli.api", "Only the command line imports the command line"),
    ("pushy/hub.py", "import time", "Pure modules do no I/O, read no clock, know no framework"),
    ("prefetch/api.py", "import kv.embedded", "Adapters are imported by their package's open_* alone"),
    ("pushy/registry.py", "import cassandra", "Drivers of the log and the store stay in their adapters"),
    ("stagecast/retry.py", "import starlette", "The device SDK drags in no server"),
    ("loadtest/swarm.py", "import stagecast.client", "Load tests see the wire and not the insides"),
]


def lint(tree: Path) -> str:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False).stdout


def test_each_contract_fails_when_it_is_broken(tmp_path: Path) -> None:
    """All are broken at once in a copy of the tree, so one run shows them."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    for file, line, _ in PLANTED:
        target = tmp_path / file
        text = target.read_text()
        target.write_text(f"{text}\n{line}\n")
    said = lint(tmp_path)
    for _, _, contract in PLANTED:
        assert f"{contract} BROKEN" in said, said


@pytest.mark.parametrize("package", PACKAGES)
def test_the_contracts_cover_every_package(package: str) -> None:
    """A package that nobody named would be free to do anything."""
    assert f'"{package}"' in (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
