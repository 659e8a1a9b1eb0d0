"""The API over real HTTP on the real embedded store and log."""

import asyncio
from pathlib import Path
from typing import Any

from tests.prefetch.conftest import Caller, ndjson, set_event

TITLES = ndjson(
    {"id": "a", "vector": [1, 0], "popularity": 1},
    {"id": "b", "vector": [0, 1], "popularity": 2},
    {"id": "c", "vector": [0.5, 0.5], "popularity": 3, "stages": {"live": 9}},
)
SAMPLE = Path(__file__).parents[2] / "examples" / "final" / "titles.ndjson"
MEMBERS = ndjson({"id": "m1", "vector": [1, 0]}, {"id": "m2", "vector": [0, 1]}, {"id": "m3"})


async def finished(caller: Caller, event: str = "final") -> dict[str, Any]:
    """The campaign's status once it no longer runs."""
    while True:
        got = (await caller.http.get(f"/v1/campaigns/{event}")).json()
        if got["phase"] != "running":
            return dict(got)
        await asyncio.sleep(0.02)


async def test_the_way_of_a_campaign(caller: Caller) -> None:
    """Titles and members imported, a campaign run, and each member's device pulls what its tastes say."""
    await set_event(caller.site.store, "final")
    assert (await caller.import_("titles", TITLES)).json()["imported"] == 3
    assert (await caller.import_("members", MEMBERS)).json()["imported"] == 3
    begun = await caller.http.post("/v1/campaigns/final", json={})
    assert begun.status_code == 202, begun.text
    done = await finished(caller)
    assert (done["phase"], done["done"], done["total"], done["recommender"]) == ("done", 3, 3, "vectors")
    got = await caller.pull("m1")
    assert got.status_code == 200
    stage_map = got.json()
    assert stage_map["t"] == "map"
    assert stage_map["stages"] == {"upcoming": ["a", "c", "b"], "live": ["c", "a", "b"], "ended": ["a", "c", "b"]}
    assert stage_map["map"] == done["map"]
    assert got.headers["etag"] == f'"{done["map"]}"'


async def test_the_sample_catalogue_imports(caller: Caller) -> None:
    """The example's 320 titles, and nine lines of what its stages like, go in without a bad line."""
    await set_event(caller.site.store, "final")
    got = (await caller.import_("titles", SAMPLE.read_bytes())).json()
    assert (got["imported"], got["bad_lines"]) == (329, 0)
