"""The port to recommenders: plug-ins by entry point, and what happens when they fail."""

import sys
from pathlib import Path

import pytest

from prefetch.recommenders import RecommenderError, find_recommender
from prefetch.stage_maps import StageMaps
from tests.prefetch.conftest import Site
from tests.prefetch.test_runner import FAST, running, tastes, until

PLUGIN = """
from prefetch.recommenders import Recommendation

class Mine:
    def __init__(self, event): self.event = event
    async def recommend(self, stages, members):
        if self.event == "final" and any(member.id == "m00003" for member in members):
            raise RuntimeError("no taste for m00003")
        return [
            Recommendation({stage: {"for": member.id} for stage in stages}, "d") if member.id != "m00001" else None
            for member in members
        ]

class Endless:
    async def recommend(self, stages, members):
        return [Recommendation({"live": "x" * 70_000} if member.id == "m00001" else {"live": 1}) for member in members]

class Wrong:
    async def recommend(self, stages, members):
        return [Recommendation({"live": object()}) for member in members]

class Short:
    async def recommend(self, stages, members):
        return []

async def open_mine(source): return Mine(source.event)
async def open_endless(source): return Endless()
async def open_wrong(source): return Wrong()
async def open_short(source): return Short()
"""
POINTS = """
[stagecast.recommenders]
mine = my_recommender:open_mine
endless = my_recommender:open_endless
wrong = my_recommender:open_wrong
short = my_recommender:open_short
broken = my_recommender:not_there
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with recommenders, as pip would leave it."""
    folder = tmp_path / "site"
    info = folder / "my_recommender-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "my_recommender.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-recommender\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_recommender", raising=False)


async def test_a_plugged_in_recommender_runs_a_campaign(site: Site) -> None:
    """Its payloads are any JSON; a member it knows nothing for is skipped and counted."""
    await tastes(site, 3)
    async with running(site) as runner:
        await runner.start("final", FAST.__class__(recommender="mine", budget=1000.0))
        done = await until(site, "done")
    assert (done.done, done.skipped) == (3, 1)
    maps = StageMaps(site.store, "final", 1, site.parts().rng)
    found = await maps.get("m00002")
    assert found is not None
    assert (found.stages["live"], found.default) == ({"for": "m00002"}, "d")
    assert await maps.get("m00001") is None


async def test_a_map_too_large_for_a_frame_is_left_out(site: Site) -> None:
    """The others are made: one member's payload does not end a campaign."""
    await tastes(site, 3)
    async with running(site) as runner:
        await runner.start("final", FAST.__class__(recommender="endless"))
        done = await until(site, "done")
    assert (done.done, done.skipped) == (3, 1)


@pytest.mark.parametrize(
    ("name", "members", "says"),
    [
        ("mine", 4, "recommender 'mine' failed: RuntimeError: no taste for m00003"),
        ("wrong", 2, "recommender 'wrong': its payload for"),
        ("short", 2, "recommender 'short' gave 0 answers for"),
    ],
)
async def test_a_recommender_that_breaks_fails_the_campaign(site: Site, name: str, members: int, says: str) -> None:
    """With its own words, and the service goes on."""
    await tastes(site, members)
    async with running(site) as runner:
        await runner.start("final", FAST.__class__(recommender=name))
        assert says in (await until(site, "failed")).error


def test_one_that_can_not_be_loaded_says_so() -> None:
    """And an unknown name lists the known ones."""
    with pytest.raises(RecommenderError, match="'broken' can't be loaded"):
        find_recommender("broken")
    with pytest.raises(RecommenderError, match="there are: broken, endless, mine, short, stored, vectors, wrong"):
        find_recommender("none")
