"""What is run: small worlds in which every promise holds, and the mutations, each of which must be caught by a named promise."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.model.fanout import FanoutModel
from tests.model.search import Result
from tests.model.state import FAULTS, Rules
from tests.model.world import Model


@dataclass(frozen=True)
class Scenario:
    name: str
    expected: str
    """`ok`, or the promise that is broken."""
    run: Callable[[], Result]


def _world(name: str, rules: Rules, expected: str = "ok", **budget: int) -> Scenario:
    assert budget.keys() <= set(FAULTS), budget
    rules = Rules(**{**_fields(rules), "budget": tuple(budget.get(fault, 0) for fault in FAULTS)})  # type: ignore[arg-type]  # its own fields
    return Scenario(name, expected, Model(rules).run)


def _fields(rules: Rules) -> dict[str, object]:
    return {name: getattr(rules, name) for name in rules.__dataclass_fields__}


def _fanout(name: str, model: FanoutModel, expected: str = "ok") -> Scenario:
    return Scenario(name, expected, model.run)


BARE = Rules(cadence=False)
"""Without any repair: what holds here needs none."""
RACING = Rules(producers=2, cadence=False)

HOLDS = [
    # A healthy log and store need no repair, whatever crashes.
    _world("two producers race, their appends are doubled", RACING, requests=2, dup=1),
    _world("a request comes again while its first answer is lost", RACING, requests=2, again=1, cas_lost=1),
    _world("a compare-and-set lands late", Rules(producers=2, cadence=False), requests=2, cas_late=1),
    _world("feed and worker crash, the connection is cut", BARE, requests=2, crash_feed=1, crash_worker=1, cut=1),
    _world("two devices move between two hosts", Rules(hosts=2, devices=2, cadence=False), requests=1, cut=1),
    _world("two hosts, a feed crashes", Rules(hosts=2, cadence=False), requests=1, crash_feed=1, cut=1),
    _world("retention passes a reader, a feed crashes", BARE, requests=2, gap=1, crash_feed=1),
    _world("retention passes a reader, its devices come and go", BARE, requests=2, gap=2, cut=1, linger=1),
    _world("an old append, a worker crashes", Rules(devices=2, cadence=False), requests=1, old=1, crash_worker=1),
    _world("the store does not answer", BARE, requests=1, kv_down=2, crash_feed=1, cut=1),
    # With the cadence, lost appends, dead producers and a log that loses records heal too.
    _world(
        "appends are lost and late, the log loses a record", Rules(), requests=2, append_lost=1, append_late=1, loss=1
    ),
    _world("a producer dies before its append", Rules(producers=2), requests=2, crash_p=1, cas_lost=1),
    _world("the store is stale, a device changes hosts", Rules(hosts=2), requests=1, stale=1, cut=1),
    _world("the store is stale, a producer is behind", Rules(), requests=2, stale=1, old=1, cut=1),
    _world(
        "deleted, created again, appends lost and late", Rules(), requests=1, delete=1, create=1, append_lost=1, cut=1
    ),
    _world("two producers delete and create", Rules(producers=2), requests=1, delete=1, create=1, crash_p=1),
    _world("a deletion is not appended", Rules(), requests=1, delete=1, append_lost=1, crash_feed=1),
    _world("everything once", Rules(), requests=1, crash_p=1, append_late=1, crash_feed=1, kv_down=1, old=1),
    # With the log silent, hosts read the heads.
    _world("the log is silent", Rules(cadence=False, silence=True), requests=2, append_lost=2, crash_feed=1),
    # The hub alone.
    _fanout("fan-out to slow readers", FanoutModel(updates=2, fills=2)),
    _fanout("fan-out while connections leave and come", FanoutModel(updates=2, leavers=2)),
    _fanout("fan-out, all at once", FanoutModel(sockets=2, updates=2, hints=1, leavers=1, fills=1)),
]

MUTATIONS = [
    _world("no compare-and-set", Rules(producers=2, compare_and_set=False), "S3", requests=2),
    _world("no gen", Rules(gens=False), "S3", delete=1, create=1),
    _world("request ids are not remembered", Rules(producers=2, remember=False), "S4", requests=2, cas_lost=1),
    _world("the store is read before the log's end", Rules(end_first=False, cadence=False), "L1", requests=1),
    _world("the log's end is resolved at the first read", Rules(end_explicit=False, cadence=False), "L1", requests=1),
    _world("a gap is not noticed", Rules(gap_noticed=False, cadence=False), "L1", requests=1, gap=1),
    _world("no cadence, an append is lost", BARE, "L1", requests=1, append_lost=1),
    _world("no cadence, a producer dies", BARE, "L1", requests=1, crash_p=1),
    _world("no cadence, the log loses a record", BARE, "L1", requests=1, loss=1),
    _world("no cadence, the store is stale", BARE, "L1", requests=1, stale=1),
    _world("the cadence leaves deletions out", Rules(gone_repeated=False), "L1", delete=1, append_lost=1),
    _world("a refused worker does not ask again", Rules(asks_again=False), "L1", requests=1, crash_feed=1, kv_down=1),
    _world("a device takes anything", Rules(hosts=2, device_drops=False), "S1", requests=1, stale=1, cut=1),
    _world("a hub takes anything", Rules(hub_drops=False), "S6", requests=1, crash_feed=1, kv_down=1, old=1),
    _fanout("a hub does not hear that a socket has drained", FanoutModel(fills=1, told=False), "L1"),
]
SCENARIOS = [*HOLDS, *MUTATIONS]
