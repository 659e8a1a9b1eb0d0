"""What the benchmarks compute, and that their C programs speak with one another."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from stagecast.tokens import Keys, TokenError, load_keys
from tests.bench import growth, slow, workers
from tests.bench.audience import processes_for, shares
from tests.bench.hellos import Issuer, spoiled
from tests.bench.measured import Unmeasurable, on_cores
from tests.bench.page import put, verdict
from tests.bench.paired import Contender, compare, rotated
from tests.bench.table import Figure, kept, write
from tests.bench.unchecked import look_up
from tests.bench.watched import Collection, collections, note
from tests.bench.world import Bench, devices, floor, prepare


def test_who_begins_rotates() -> None:
    """Over a whole cycle each contender comes before each other one as often as after it."""
    orders = [rotated(["a", "b", "c"], number) for number in range(6)]
    assert sorted(order[0] for order in orders) == ["a", "a", "b", "b", "c", "c"]
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        assert sum(order.index(one) < order.index(other) for order in orders) == 3


def test_connections_are_divided_among_processes() -> None:
    """One process as long as its descriptors suffice; 60,000 take four."""
    assert [processes_for(most) for most in (100, 18_000, 18_001, 60_000)] == [1, 1, 2, 4]
    assert shares(10, 3) == [4, 3, 3]


def test_figures_for_other_programs() -> None:
    """By key: median, range, and the median of the ratios; without a key a figure is not kept."""
    figures = [Figure("one", [1, 3, 2], "µs", "≤ 2", [0.9, 1.2, 1.0], "one"), Figure("two", [1], "s")]
    assert kept(figures) == {
        "one": {"value": 2, "unit": "µs", "low": 1, "high": 3, "goal": "≤ 2", "ratio_to_floor": 1.0}
    }


def test_uneven_shares() -> None:
    """The worker that is farthest from its share counts, in points."""
    assert workers.uneven([[0.25, 0.25, 0.25, 0.25], [0.2, 0.3, 0.25, 0.25]]) == pytest.approx([0, 5])


def test_memory_of_stalled_readers_is_that_of_the_worst_moment() -> None:
    """Beyond the run without stalls at the same look, per connection that is still there."""
    assert slow.most([2048, 10_240, 4096], [1024, 0, 0], [0, 5, 10], stalled=10) == 2.0


def test_growth_is_compared_with_the_floors() -> None:
    """A ratio that goes from 1.0 to 1.2 is growth of 20 % beyond the floor's."""
    assert growth.beyond([1.0, 0.9, 1.1], [1.2]) == pytest.approx(20)


def test_a_host_that_checks_tokens_does_not_take_spoiled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the benchmark without the check is known to be without it."""
    issuer = Issuer("HS256", tmp_path)
    good = issuer.hellos("bench", 2)
    bad = spoiled(good)
    keys, (token, *_) = load_keys(issuer.keys), [json.loads(line)["token"] for line in bad.read_text().splitlines()]
    with pytest.raises(TokenError):
        keys.verify(token, time.time())
    monkeypatch.setattr(Keys, "verify", Keys.verify)  # put back afterwards
    look_up(bad)
    assert keys.verify(token, time.time()).dev == "device-0"
    with pytest.raises(TokenError):
        keys.verify("another", time.time())


def test_collections_are_noted(tmp_path: Path) -> None:
    """What the interpreter says at the start and the end of one makes a line."""
    called = note(tmp_path)
    called("start", {"generation": 2})
    called("stop", {"generation": 2})
    (file,) = tmp_path.iterdir()
    (found,) = collections(tmp_path, int(file.name))
    assert isinstance(found, Collection)
    assert (found.generation, found.ns >= 0) == (2, True)
    assert collections(tmp_path, 0) == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
async def test_devices_and_floor_speak_with_one_another(tmp_path: Path) -> None:
    """Devices connect in blocks, read what is published, leave, come again, and read again; two floors share one port."""
    with on_cores(()):  # and back to all cores for the other tests
        await _speak(prepare(tmp_path))


async def _speak(bench: Bench) -> None:
    for processes in (1, 2):
        async with floor(bench, processes) as server, devices(bench, server, 40) as audience:
            for _ in range(2):
                assert (await audience.go(30)).refused == 0
                await audience.go(10)
                contender = Contender("floor", server, audience)
                await asyncio.wait_for(compare([contender], rounds=2, publishes=2), 20)
                assert len(contender.rounds) == 2
                assert contender.last.total() == 5 + 2 * 2
                await audience.close()


def test_a_part_of_the_benchmarks_renews_its_part_of_the_page() -> None:
    """The rest stays, and a page without the section is refused rather than left as it was."""
    page = "a\n<!-- measured: one -->\nold\n<!-- end -->\nb\n<!-- measured: two -->\nkept\n<!-- end -->\n"
    assert put(page, "one", "new\n") == page.replace("old", "new")
    with pytest.raises(Unmeasurable):
        put(page, "three", "new\n")


def test_verdicts() -> None:
    """By the median: of the ratios where the goal is a ratio. What is no bound has none."""
    assert verdict(Figure("", [2.0], "", "≤ 1.10 × floor", [1.0, 1.05, 2.0])) == "met"
    assert verdict(Figure("", [1900.0, 1700.0], "", "≤ 1,800")) == "met"
    assert verdict(Figure("", [1900.0], "", "≤ 1,800")) == "**not met**"
    assert verdict(Figure("", [1.0], "", "printed")) == ""


def test_figures_of_a_part_are_added(tmp_path: Path) -> None:
    """To those of the other parts; a run of all begins anew."""
    file = tmp_path / "figures.json"
    write([Figure("one", [1], "s", key="one")], file, add=False)
    write([Figure("two", [2], "s", key="two")], file, add=True)
    assert list(json.loads(file.read_text())) == ["one", "two"]
    write([Figure("two", [2], "s", key="two")], file, add=False)
    assert list(json.loads(file.read_text())) == ["two"]
