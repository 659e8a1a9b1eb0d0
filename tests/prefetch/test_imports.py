"""Imports into the store: streamed, resumable, idempotent."""

import random
from collections.abc import AsyncIterator

import pytest

from prefetch.events import read_view
from prefetch.imports import BATCH_ITEMS, Importer, NotThere
from prefetch.stage_maps import StageMaps
from prefetch.tastes import ImportedMembers
from stagecast.clock import SystemClock
from tests.prefetch.conftest import Caller, Site, ndjson, set_event


class BrokeOff(Exception):
    pass


async def chunks(data: bytes, broken: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]
    if broken:
        raise BrokeOff


@pytest.fixture
async def importer(site: Site) -> Importer:
    await set_event(site.store, "final")
    view = await read_view(site.store, "final")
    assert view is not None
    return Importer(site.store, view, StageMaps(site.store, "final", 1, random.Random(1)), SystemClock())


async def test_an_import_that_broke_off_goes_on_where_it_was(importer: Importer, site: Site) -> None:
    """What had been settled by then is not sent again; line numbers, counts and the maps' version go on."""
    lines = [{"member": f"m{i}", "stages": {"live": [i]}} for i in range(3 * BATCH_ITEMS)]
    data = ndjson(*lines[:700]) + b"nonsense\n" + ndjson(*lines[700:])
    with pytest.raises(BrokeOff):
        await importer.run("maps", "digest", 0, chunks(data[: int(len(data) * 0.6)], broken=True))
    state = await importer.state("maps", "digest")
    assert 0 < state.bytes < len(data) * 0.6
    assert data[: state.bytes].count(b"\n") == state.lines >= BATCH_ITEMS
    assert not state.complete
    done = await importer.run("maps", "digest", state.bytes, chunks(data[state.bytes :]))
    assert (done.imported, done.lines, done.bytes, done.complete) == (
        3 * BATCH_ITEMS,
        3 * BATCH_ITEMS + 1,
        len(data),
        True,
    )
    assert [bad.line for bad in done.bad] == [701]
    maps = StageMaps(site.store, "final", 1, random.Random(1))
    first, last = await maps.get("m0"), await maps.get(f"m{3 * BATCH_ITEMS - 1}")
    assert first is not None
    assert last is not None
    assert first.map == last.map == done.version


async def test_going_on_from_elsewhere_is_refused(importer: Importer) -> None:
    """Or lines would be lost without a word; the error says where the import is."""
    await importer.run("members", "digest", 0, chunks(b'{"id":"m1"}\n'))
    with pytest.raises(NotThere) as refused:
        await importer.run("members", "digest", 5, chunks(b""))
    assert refused.value.state.bytes == 12


async def test_importing_again_changes_nothing(importer: Importer, site: Site) -> None:
    """The same items under the same ids, counted anew; two files of one event are two imports."""
    data = ndjson({"id": "m1", "vector": [1, 2]}, {"id": "m2", "cohort": "de"})
    first = await importer.run("members", "one", 0, chunks(data))
    roster = ImportedMembers(site.store, "final")
    before = [await roster.find("m1"), await roster.find("m2")]
    again = await importer.run("members", "one", 0, chunks(data))
    assert (again.imported, again.lines, again.bytes) == (first.imported, first.lines, first.bytes)
    assert [await roster.find("m1"), await roster.find("m2")] == before
    assert (await importer.state("members", "two")).bytes == 0


async def test_members_vectors_are_as_long_as_the_titles(importer: Importer) -> None:
    """And a new file of titles may change the length."""
    await importer.run("titles", "", 0, chunks(ndjson({"id": "t1", "vector": [1, 2, 3]})))
    wrong = ndjson({"id": "m1", "vector": [1, 2]})
    assert (await importer.run("members", "", 0, chunks(wrong))).bad[0].reason == (
        "a vector of 2 numbers; this event's have 3"
    )
    await importer.run("titles", "", 0, chunks(ndjson({"id": "t1", "vector": [1, 2]})))
    assert (await importer.run("members", "", 0, chunks(wrong))).imported == 1


async def test_the_api_reports_bad_lines_and_takes_the_rest(caller: Caller) -> None:
    """200 with each bad line's number and reason."""
    await set_event(caller.site.store, "final")
    got = (await caller.import_("members", ndjson({"id": "m1"}) + b"oops\n" + ndjson({"id": "m2"}), digest="d")).json()
    assert (got["imported"], got["bad_lines"], got["complete"]) == (2, 1, True)
    assert got["bad"][0]["line"] == 2
    state = await caller.http.get("/v1/stage-maps/final/import", params={"kind": "members", "digest": "d"})
    assert state.json() == got


@pytest.mark.parametrize(
    ("event", "query", "status", "says"),
    [
        ("nothing", {"kind": "maps"}, 404, "no such event"),
        ("final", {"kind": "films"}, 422, "none of maps, titles, members"),
        ("final", {"kind": "maps", "offset": "x"}, 422, "whole number"),
        ("final", {"kind": "maps", "digest": "x" * 200}, 422, "128"),
        ("final", {"kind": "maps", "digest": "x", "offset": "7"}, 409, "at byte 0"),
    ],
)
async def test_a_wrong_import_is_refused(
    caller: Caller, event: str, query: dict[str, str], status: int, says: str
) -> None:
    """As problem details that say what to do."""
    await set_event(caller.site.store, "final")
    got = await caller.http.post(f"/v1/stage-maps/{event}/import", params=query, content=b"")
    assert got.status_code == status
    assert got.headers["content-type"] == "application/problem+json"
    assert says in got.json()["detail"]


async def test_viewers_do_not_import(caller: Caller) -> None:
    """Operators and services do; without a key nobody."""
    await set_event(caller.site.store, "final")
    viewer, service = await caller.site.api_key("viewer"), await caller.site.api_key("service")
    for authorization, status in ((f"Bearer {viewer}", 403), ("", 401), (f"Bearer {service}", 200)):
        got = await caller.http.post(
            "/v1/stage-maps/final/import?kind=maps", content=b"", headers={"Authorization": authorization}
        )
        assert got.status_code == status
