"""`stagecast prefetch` against the real service."""

import asyncio
from pathlib import Path

from click.testing import CliRunner, Result

from stagecast.cli import main
from tests.prefetch.conftest import Caller, ndjson, set_event
from tests.prefetch.test_api import MEMBERS, SAMPLE, TITLES


async def stagecast(caller: Caller, *words: str) -> Result:
    key = caller.http.headers["Authorization"].removeprefix("Bearer ")
    env = {"STAGECAST_URL": str(caller.http.base_url), "STAGECAST_KEY": key}
    return await asyncio.to_thread(CliRunner().invoke, main, ["prefetch", *words], env=env)


async def test_an_operator_imports_runs_and_looks(caller: Caller, tmp_path: Path) -> None:
    """The whole way by commands; an import that is in is not sent again."""
    await set_event(caller.site.store, "final")
    titles, members = tmp_path / "titles.ndjson", tmp_path / "members.ndjson"
    titles.write_bytes(TITLES)
    members.write_bytes(MEMBERS)
    for file, kind in ((titles, "titles"), (members, "members")):
        got = await stagecast(caller, "import", "final", str(file), "--kind", kind)
        assert (got.exit_code, f"final: 3 {kind} imported, 0 bad lines" in got.stdout) == (0, True), got.output
    again = await stagecast(caller, "import", "final", str(members), "--kind", "members")
    assert "is in already" in again.output
    run = await stagecast(caller, "run", "final")
    assert run.exit_code == 0, run.output
    assert "final: done, 3 of 3 members" in run.stdout
    assert (await stagecast(caller, "status", "final")).stdout == run.stdout
    assert '"live"' in (await stagecast(caller, "show", "final", "m1")).stdout
    assert "fetch within 5 s" in (await stagecast(caller, "hint", "final", "--window", "5")).stdout


async def test_bad_lines_are_told_by_number(caller: Caller, tmp_path: Path) -> None:
    """As FILE:LINE: reason, with exit status 1; the others are in."""
    await set_event(caller.site.store, "final")
    file = tmp_path / "members.ndjson"
    file.write_bytes(ndjson({"id": "m1"}) + b"oops\n" + ndjson({"id": "m2"}))
    got = await stagecast(caller, "import", "final", str(file), "--kind", "members")
    assert got.exit_code == 1
    assert f"{file}:2: " in got.output
    assert "2 members imported, 1 bad lines" in got.output


async def test_a_broken_upload_goes_on(caller: Caller, tmp_path: Path) -> None:
    """The part that is in is not sent again; --again starts over."""
    await set_event(caller.site.store, "final")
    file = tmp_path / "members.ndjson"
    data = ndjson(*({"id": f"m{i}"} for i in range(1500)))
    file.write_bytes(data)
    from stagecast.cli.prefetch import _digest

    half = data[: data.index(b"\n", len(data) // 2) + 1]
    await caller.import_("members", half, digest=_digest(file))
    state = (
        await caller.http.get("/v1/stage-maps/final/import", params={"kind": "members", "digest": _digest(file)})
    ).json()
    assert state["bytes"] == len(half)
    rest = await stagecast(caller, "import", "final", str(file), "--kind", "members")
    assert f"going on after line {state['lines']:,}" in rest.output
    assert "1,500 members imported, 0 bad lines" in rest.output
    again = await stagecast(caller, "import", "final", str(file), "--kind", "members", "--again")
    assert "1,500 members imported, 0 bad lines" in again.output


async def test_what_goes_wrong_says_what_to_do(caller: Caller) -> None:
    """No event, nothing to run on, nothing run yet."""
    missing = await stagecast(caller, "run", "final")
    assert (missing.exit_code, "no such event" in missing.output) == (1, True)
    await set_event(caller.site.store, "final")
    assert "stagecast prefetch run final" in (await stagecast(caller, "status", "final")).output
    assert "stagecast prefetch run final" in (await stagecast(caller, "hint", "final")).output
    await stagecast(caller, "import", "final", str(SAMPLE), "--kind", "titles")
    empty = await stagecast(caller, "run", "final")
    assert (empty.exit_code, "--kind members|maps" in empty.output) == (1, True)
