"""The vectors that other SDKs are tested by are what this code does."""

import json

import pytest

from tests.stagecast.wire.make_vectors import FOLDER, vectors

CURRENT = vectors()


@pytest.mark.parametrize("name", CURRENT)
def test_the_vectors_are_current(name: str) -> None:
    """`python -m tests.stagecast.wire.make_vectors` writes them anew after a meant change."""
    assert (FOLDER / name).read_bytes() == CURRENT[name]


def test_there_are_no_others() -> None:
    """A vector that nothing writes would test other SDKs by what this code no longer does."""
    assert {file.name for file in FOLDER.iterdir()} == set(CURRENT)


def test_the_scenarios_reach_every_effect() -> None:
    """Each effect that a session can have is in some scenario, but a message, which is passed on as it is."""
    seen = {
        effect["type"]
        for scenario in json.loads(CURRENT["session.json"])
        for step in scenario["steps"]
        for effect in step["effects"]
    }
    assert seen >= {
        "Send", "Welcomed", "Leaving", "Switched", "Filled", "MapHeld", "FetchDue", "TokenDue", "Refused", "Dropped", "GiveUp"
    }  # fmt: skip
