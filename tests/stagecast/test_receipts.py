"""How receipts add up: identity, lives of workers, silence, convergence, latency."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagecast.names import WIRE_INT_MAX
from stagecast.receipts import (
    LEFT_AFTER,
    MAPS_MAX,
    ROWS_MAX,
    SILENT_AFTER,
    AppCensus,
    AppProgress,
    HostBeat,
    HostProgress,
    Progress,
    Receipt,
    Share,
    decode_counted,
    decode_receipt,
    encode_receipt,
    latency_bucket,
    latency_quantile,
    progress,
    share_of,
)

GEN = 1_764_000_000_000
counts = st.integers(0, 10**6)


def receipt(host: str = "h1", *, boot: str = "b1", worker: int = 0, seq: int = 5, **more: int) -> Receipt:
    fields = {"written": 0, "pending": 0, "superseded": 0, "closed": 0} | more
    audience = sum(fields[part] for part in ("written", "pending", "superseded", "closed"))
    return msgspec.structs.replace(Receipt(host, boot, worker, 0, "final", GEN, seq), audience=audience, **fields)


def there(host: str = "h1", *, subscribed: int, at: int, **more: object) -> Receipt:
    return msgspec.structs.replace(receipt(host), subscribed=subscribed, at_or_past=at, **more)


def summed(*receipts: Receipt | tuple[Receipt, float], seq: int = 5) -> Progress:
    return progress("final", [r if isinstance(r, tuple) else (r, 1.0) for r in receipts], GEN, seq)


@given(
    st.lists(
        st.tuples(st.sampled_from(("h1", "h2")), st.sampled_from(("b1", "b2")), st.integers(0, 1), st.integers(4, 6)),
        unique=True,
    ),
    st.data(),
)
def test_the_identity_holds_for_every_sum(places: list[tuple[str, str, int, int]], data: st.DataObject) -> None:
    """audience = written + pending + superseded + closed, whatever workers restart, fall silent or leave."""
    drawn = []
    for host, boot, worker, seq in places:
        parts = {name: data.draw(counts) for name in ("written", "pending", "superseded", "closed")}
        one = receipt(host, boot=boot, worker=worker, seq=seq, **parts)
        one = msgspec.structs.replace(one, left=data.draw(st.booleans()))
        drawn.append((one, data.draw(st.sampled_from((0.5, SILENT_AFTER + 1, LEFT_AFTER + 1)))))
    p = progress("final", drawn, GEN, 5)
    assert p.audience == p.written + p.pending + p.superseded + p.closed
    assert p.audience == sum(r.audience for r, _ in drawn if r.seq == 5)
    assert min(p.pending, p.closed) >= 0


def test_sums_are_of_one_seq_of_one_event() -> None:
    """Every counter of (gen, seq) is summed over workers; other seqs, gens and events are not in it."""
    other_gen = msgspec.structs.replace(receipt("h3", written=100), gen=GEN - 1)
    other_event = msgspec.structs.replace(receipt("h4", written=100), e="other")
    p = summed(
        receipt("h1", written=5, pending=1, asked=4, switched=2, missing=1, ignored=1),
        receipt("h1", worker=1, written=7, closed=2, asked=3, switched=3),
        receipt("h2", superseded=4),
        receipt("h2", seq=4, written=100),
        other_gen,
        other_event,
    )
    assert (p.audience, p.written, p.pending, p.superseded, p.closed) == (19, 12, 1, 4, 2)
    assert (p.asked, p.switched, p.missing, p.ignored) == (7, 5, 1, 1)


def test_a_restarted_worker_is_one_worker() -> None:
    """Its connections are those of the new boot alone; what the old boot wrote stays written, what it owed is closed."""
    old = msgspec.structs.replace(receipt(boot="b1", written=90, pending=10), subscribed=100, at_or_past=90)
    new = msgspec.structs.replace(receipt(boot="b2"), subscribed=60, at_or_past=60)
    p = summed((old, 10.0), (new, 1.0))
    assert (p.subscribed, p.at_or_past, p.hosts, p.silent) == (60, 60, 1, 0)
    assert (p.audience, p.written, p.pending, p.closed) == (100, 90, 0, 10)
    assert p.converged


def test_a_restarted_worker_may_be_behind_its_earlier_life() -> None:
    """The youngest boot tells, even when an earlier one knew a newer seq."""
    old = there(subscribed=100, at=100)
    new = msgspec.structs.replace(receipt(boot="b2", seq=4), subscribed=50, at_or_past=50)
    p = summed((old, 8.0), (new, 1.0))
    assert (p.subscribed, p.at_or_past) == (50, 0)


def test_a_worker_still_behind_counts_at_zero() -> None:
    """A worker whose newest seq is older than the asked one has its connections in `subscribed` alone."""
    behind = msgspec.structs.replace(receipt("h2", seq=4), subscribed=10, at_or_past=10)
    p = summed(there(subscribed=990, at=990), behind)
    assert (p.subscribed, p.at_or_past, p.converged) == (1000, 990, False)


def test_a_worker_already_past_counts() -> None:
    """Asked about a superseded seq, devices at or past the newer one count."""
    past = msgspec.structs.replace(receipt(seq=6), subscribed=10, at_or_past=9)
    assert summed(past, receipt(written=10)).at_or_past == 9


def test_nothing_converges_behind_a_silent_host() -> None:
    """After 15 s without a word a host keeps its subscribed and counts 0 at_or_past; after 120 s it is in neither sum."""
    talking = there("h1", subscribed=900, at=900)
    other = there("h2", subscribed=100, at=100)
    seen = [
        (p.subscribed, p.at_or_past, p.hosts, p.silent, p.converged)
        for p in (
            summed(talking, (other, age)) for age in (SILENT_AFTER, SILENT_AFTER + 0.1, LEFT_AFTER, LEFT_AFTER + 0.1)
        )
    ]
    assert seen == [
        (1000, 1000, 2, 0, True),
        (1000, 900, 2, 1, False),
        (1000, 900, 2, 1, False),
        (900, 900, 1, 0, True),
    ]


def test_any_receipt_is_a_sign_of_life() -> None:
    """A worker that talks about another seq is not silent about this one."""
    p = summed((there(subscribed=10, at=10), 100.0), (receipt(seq=4), 1.0))
    assert (p.silent, p.at_or_past) == (0, 10)


def test_a_goodbye_leaves_the_census_and_keeps_the_counts() -> None:
    """A worker that left is in neither sum, also when older receipts of it are still known; what it counted happened."""
    older = msgspec.structs.replace(receipt("h2", seq=4), subscribed=100, at_or_past=100)
    goodbye = msgspec.structs.replace(receipt("h2", written=98, pending=2), subscribed=100, at_or_past=98, left=True)
    p = summed(there("h1", subscribed=10, at=10), (older, 3.0), (goodbye, 2.0))
    assert (p.subscribed, p.at_or_past, p.hosts, p.converged) == (10, 10, 1, True)
    assert (p.audience, p.written, p.pending, p.closed) == (100, 98, 0, 2)


@pytest.mark.parametrize(
    ("at", "subscribed", "converged"), [(0, 0, False), (999, 1000, True), (998, 1000, False), (1, 1, True)]
)
def test_converged_is_999_of_1000(at: int, subscribed: int, converged: bool) -> None:
    """99.9 % of the subscribed, and never of nobody."""
    assert summed(there(subscribed=subscribed, at=at)).converged is converged


def test_no_receipts_is_an_answer() -> None:
    """Before the first receipt everything is 0 and there is no latency."""
    p = progress("final", [], GEN, 5)
    assert (p.audience, p.hosts, p.converged) == (0, 0, False)
    assert p.latency_ms == {"p50": None, "p95": None, "p99": None}


@given(st.lists(st.integers(1, WIRE_INT_MAX), min_size=1, max_size=200), st.sampled_from((0.0, 0.5, 0.95, 0.99, 1.0)))
def test_quantiles_are_within_5_percent(values: list[int], q: float) -> None:
    """The sketch's answer is within ± 5 % of the exact quantile of the values (rank ⌊q(n − 1)⌋)."""
    buckets: dict[int, int] = {}
    for value in values:
        buckets[latency_bucket(value)] = buckets.get(latency_bucket(value), 0) + 1
    found = latency_quantile(buckets, q)
    assert found is not None
    assert found == pytest.approx(sorted(values)[int(q * (len(values) - 1))], rel=0.05)


def test_sketches_of_workers_merge() -> None:
    """Latency is that of all acks of the seq together."""
    fast = msgspec.structs.replace(receipt("h1"), latency={latency_bucket(10): 90})
    slow = msgspec.structs.replace(receipt("h2"), latency={latency_bucket(1000): 10})
    p = summed(fast, slow)
    assert p.latency_ms["p50"] == pytest.approx(10, rel=0.05)
    assert p.latency_ms["p95"] == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("buckets", [{}, {3: 0}])
def test_no_value_has_no_quantile(buckets: dict[int, int]) -> None:
    """Nothing counted is None, not 0 ms."""
    assert latency_quantile(buckets, 0.5) is None


def test_a_receipt_survives_its_encoding() -> None:
    """What the log gives back is what was counted."""
    one = msgspec.structs.replace(receipt(written=3), latency={latency_bucket(WIRE_INT_MAX): 1, 0: 2}, left=True)
    assert decode_receipt(encode_receipt(one)) == one


@pytest.mark.parametrize(
    "bad",
    [
        {"audience": -1},
        {"written": 2**53},
        {"latency": {"100000": 1}},
        {"latency": {"-1": 1}},
        {"e": "A"},
        {"t": "beat"},
    ],
)
def test_what_a_host_could_break_sums_with_is_refused(bad: dict[str, object]) -> None:
    """Hosts may write here, and a compromised one must not stop the others' sums: counts and buckets are bounded."""
    fields = msgspec.json.decode(encode_receipt(receipt()))
    with pytest.raises(ValueError, match=r"Expected|Invalid"):
        decode_receipt(msgspec.json.encode({**fields, **bad}))


@pytest.mark.parametrize(
    ("part", "asked", "low", "high"),
    [
        (0, 100, 0.0, 0.0370),
        (100, 100, 0.9630, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 10, 0.0179, 0.4042),
        (990, 1000, 0.9817, 0.9946),
    ],
)
def test_a_sample_has_its_confidence_interval(part: int, asked: int, low: float, high: float) -> None:
    """Wilson's, at 95 %, by figures of the literature (Newcombe, Statistics in Medicine 17, 1998, method 3)."""
    share = share_of(part, asked, 10**6)
    assert share is not None
    assert share.value == part / asked
    assert share.low == pytest.approx(low, abs=5e-4)
    assert share.high == pytest.approx(high, abs=5e-4)


def test_a_count_of_all_is_exact() -> None:
    """When all were asked there is nothing to guess; when nobody was, nothing is known."""
    assert share_of(3, 4, 4) == Share(0.75, 0.75, 0.75)
    assert share_of(0, 0, 10) is None


def test_hosts_are_told_apart() -> None:
    """Each with its part, those with the most devices behind first; one that is silent says since when."""
    silent = msgspec.structs.replace(there("h2", subscribed=5, at=5), ts=42)
    p = summed(
        msgspec.structs.replace(there("h1", subscribed=10, at=9), written=8, pending=1, audience=9),
        msgspec.structs.replace(there("h1", subscribed=10, at=10), worker=1, written=10, audience=10),
        (silent, SILENT_AFTER + 1),
        there("h3", subscribed=7, at=7),
    )
    assert p.by_host == (
        HostProgress("h2", 5, 0, 0, 0, 42),
        HostProgress("h1", 20, 19, 18, 1, None),
        HostProgress("h3", 7, 7, 0, 0, None),
    )
    assert sum(row.subscribed for row in p.by_host) == p.subscribed
    assert sum(row.at_or_past for row in p.by_host) == p.at_or_past


def test_apps_and_maps_are_summed() -> None:
    """Over workers; a worker behind or silent counts in `subscribed` alone; the newest map versions are told."""
    apps = {"tv": AppCensus(6, 5), "phone": AppCensus(4, 4)}
    versions = {f"17640000000{n:02}-a": 1 for n in range(MAPS_MAX + 2)}
    p = summed(
        there("h1", subscribed=10, at=9, apps=apps, maps=versions),
        msgspec.structs.replace(there("h2", subscribed=10, at=9, apps=apps), seq=4, maps={"1764000000009-a": 2}),
    )
    assert p.by_app == (AppProgress("tv", 12, 5), AppProgress("phone", 8, 4))
    assert len(p.maps) == MAPS_MAX
    assert p.maps["1764000000009-a"] == 3
    assert max(p.maps) == f"17640000000{MAPS_MAX + 1:02}-a"


def test_rows_are_bounded() -> None:
    """Many hosts: the worst are told one by one, all are counted."""
    hosts = [there(f"h{n}", subscribed=1000, at=n) for n in range(ROWS_MAX + 10)]
    p = summed(*hosts)
    assert p.hosts == ROWS_MAX + 10
    assert [row.host for row in p.by_host] == [f"h{n}" for n in range(ROWS_MAX)]


def test_a_hosts_beat_is_no_receipt() -> None:
    """Both are records of one log, told apart by their tag; a receipt of an older version has neither apps nor maps."""
    beat = HostBeat("h1", 1, 10, 100, 0.5, True)
    assert decode_counted(encode_receipt(beat)) == beat
    one = receipt()
    assert decode_counted(encode_receipt(one)) == one
    old = msgspec.json.decode(encode_receipt(one))
    del old["apps"], old["maps"]
    assert decode_counted(msgspec.json.encode(old)) == one
    with pytest.raises(msgspec.DecodeError):
        decode_receipt(encode_receipt(beat))


def test_ends_add_up_by_reason() -> None:
    """Over all workers, of this state alone, also of those that have left."""
    ours = msgspec.structs.replace(receipt("h1"), drops={"1006": 2, "peer": 1})
    other = msgspec.structs.replace(receipt("h2"), drops={"1006": 3}, left=True)
    before = msgspec.structs.replace(receipt("h1", worker=1, seq=4), drops={"4000": 9})
    assert summed(ours, other, before).drops == {"1006": 5, "peer": 1}


def test_labels_of_ends_are_short() -> None:
    """No receipt makes readers keep long names."""
    long = msgspec.structs.replace(receipt(), drops={"12345": 1})
    with pytest.raises(msgspec.DecodeError):
        decode_counted(encode_receipt(long))
