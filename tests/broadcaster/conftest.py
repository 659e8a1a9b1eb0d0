"""The world that the broadcaster's tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.broadcaster.world import Broadcaster, World, world_in


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A store, a log and a manual clock."""
    async with world_in(tmp_path) as made:
        yield made


@pytest.fixture
def one(world: World) -> Broadcaster:
    """A broadcaster in this world."""
    return world.broadcaster()
