"""Go or no-go: each check for itself, at its edges."""

from typing import Any

import msgspec
import pytest

from broadcaster.readiness import Findings, failed, judge
from broadcaster.receipts import HostLife
from stagecast.receipts import HostBeat, progress

NOW = 1_764_000_000_000
OLD, NEW, NEWER = "1764000000000-a", "1764000000001-b", "1764000000002-c"
NOBODY = progress("final", [], 7, 1)


def life(name: str = "h1", *, age: float = 1.0, ahead: int = 0, **more: Any) -> tuple[str, HostLife]:
    beat = HostBeat(name, NOW, 10, 100, 1.0, True)
    return name, HostLife(msgspec.structs.replace(beat, **more), NOW - round(age * 1000), ahead)


def found(**more: Any) -> Findings:
    """All is well, but for what is given."""
    well = Findings(NOBODY, None, dict([life(), life("h2")]), "ok", 1.0, True, 0, NOW)
    return Findings(**{**{name: getattr(well, name) for name in well.__slots__}, **more})


def connected(subscribed: int, **maps: int) -> Any:
    versions = {"old": OLD, "new": NEW, "newer": NEWER}
    return msgspec.structs.replace(NOBODY, subscribed=subscribed, maps={versions[name]: n for name, n in maps.items()})


def test_all_is_well() -> None:
    """Go, with seven checks."""
    verdict = judge(found())
    assert verdict.go
    assert len(verdict.checks) == 7


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"required": NEW}, "coverage", "no device is connected"),
        ({"required": NEW, "progress": connected(1000, new=949)}, "coverage", "949 of 1,000 connected devices"),
        ({"required": NEW, "progress": connected(1000, old=1000)}, "coverage", "0 of 1,000"),
        ({"required": NEW, "progress": connected(2000, new=1899)}, "coverage", "94.9 %"),
        ({"hosts": dict([life(), life("h2", age=15.1)])}, "hosts", "1 of 2 hosts silent: h2"),
        ({"hosts": dict([life(), life("h2", accepting=False)])}, "hosts", "1 of 2 hosts take no devices: h2"),
        ({"hosts": dict([life(), life("h2", log_age=10.1)])}, "feed", "h2 read nothing from the log for 10 s"),
        ({"hosts": dict([life(connections=91)])}, "capacity", "91 of 100 connections used, 9 left (9.0 %)"),
        ({"hosts": dict([life(), life("h2", ahead=2001)])}, "clock", "h2's clock is 2.0 s ahead of the log's"),
        ({"hosts": dict([life(), life("h2", ahead=-3000)])}, "clock", "h2's clock is 3.0 s behind the log's"),
        ({"here": 2500}, "clock", "this producer's clock is 2.5 s ahead of"),
        ({"log": "late", "log_age": 30.0}, "log", "30.0 s ago"),
        ({"log": "late", "log_age": None}, "log", "nothing yet"),
        ({"store": False}, "store", "does not answer"),
    ],
)
def test_one_thing_is_wrong(change: dict[str, Any], name: str, text: str) -> None:
    """It alone says no-go, and why."""
    verdict = judge(found(**change))
    assert not verdict.go
    assert [check.name for check in failed(verdict)] == [name]
    assert text in failed(verdict)[0].text


def test_no_host_at_all() -> None:
    """Everything that hosts tell is unknown, and unknown is not ok."""
    assert [check.name for check in failed(judge(found(hosts={})))] == ["hosts", "feed", "capacity"]


@pytest.mark.parametrize(
    "change",
    [
        {"required": NEW, "progress": connected(1000, old=50, new=900, newer=50)},
        {"hosts": dict([life(age=15.0, log_age=10.0, connections=90, ahead=2000)])},
        {"here": -2000},
    ],
)
def test_edges_are_inclusive(change: dict[str, Any]) -> None:
    """95 % coverage (a newer version counts), 15 s, 10 s, a tenth of the capacity, 2 s."""
    assert judge(found(**change)).go


def test_many_silent_hosts_are_not_all_named() -> None:
    """Three names, and how many more."""
    hosts = dict(life(f"h{n}", age=20) for n in range(5))
    assert "5 of 5 hosts silent: h0, h1, h2 and 2 more" in failed(judge(found(hosts=hosts)))[0].text
