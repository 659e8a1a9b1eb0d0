"""Receipts: what a worker counted for one (event, gen, seq), and how receipts add up to an answer to "did they get it?". Pure.

A receipt is cumulative: the last one of a (host, boot, worker, event, gen, seq) replaces those before it, then all are summed.
So a receipt may be lost, repeated or read from any point, and any number of readers come to the same sums.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from ddsketch.mapping import LogarithmicMapping
from msgspec import Meta, Struct

from stagecast.names import WIRE_INT_MAX, Count, EventId, MapVersion

SILENT_AFTER = 15.0
"""Seconds without a receipt after which a host's connections count as not at the head."""
LEFT_AFTER = 120.0
"""Seconds without a receipt after which a host leaves the sums."""
CONVERGED = 0.999
LATENCY = LogarithmicMapping(relative_accuracy=1 / 21)
"""The sketch of latencies: bucket i holds (1.1^(i-1), 1.1^i] ms, ± 5 % (DDSketch; Masson et al., VLDB 2019). Sketches merge by
adding their buckets."""
BUCKET_MAX: int = LATENCY.key(WIRE_INT_MAX)
"""Of the longest time the wire can say."""
APPS_MAX = 16
"""Distinct `app` labels that one worker counts by; the others are OTHER_APP together."""
OTHER_APP = "other"
DROPPED_BY_DEVICE = "peer"
"""The label of connections that the device closed, whatever code it gave: it could give any."""
LABEL_MAX = 4
"""Characters of what an end is counted under: a close code, or DROPPED_BY_DEVICE."""
MAPS_MAX = 8
"""Map versions that a receipt counts holders of: the newest ones."""
ROWS_MAX = 200
"""Rows by host or by app in a progress: those with the most devices behind; `hosts` still counts all."""
SURE = 1.96
"""Standard deviations of a 95 % confidence interval."""


class AppCensus(Struct, frozen=True, array_like=True):
    """Devices of one app, now."""

    subscribed: Count = 0
    at_or_past: Count = 0


class Receipt(Struct, frozen=True, tag_field="t", tag="receipt"):
    """`audience` = `written` + `pending` + `superseded` + `closed`, always; it is fixed when the hub first sees the seq, and
    welcomes are not in it. `written` went into a socket buffer, which is not "delivered"."""

    host: str
    boot: str
    """New for every start of the worker."""
    worker: int
    ts: int
    """When it was counted, wall ms of the host: a sign of life, not an order."""
    e: EventId
    gen: int
    seq: int
    audience: Count = 0
    written: Count = 0
    pending: Count = 0
    superseded: Count = 0
    closed: Count = 0
    # of the sample of acks
    asked: Count = 0
    """Devices of the audience that the ack policy asks."""
    switched: Count = 0
    missing: Count = 0
    ignored: Count = 0
    latency: dict[Annotated[int, Meta(ge=0, le=BUCKET_MAX)], Count] = {}
    """Bucket → acks, of `ack.ms`: from the frame's arrival at the device until it was applied."""
    # the census of this worker's connections, now
    subscribed: Count = 0
    at_or_past: Count = 0
    holding: Count = 0
    """Subscribed devices that hold the map version the broadcast asks for, or a newer one; all, when it asks for none."""
    left: bool = False
    """A goodbye: this worker is gone and leaves the sums."""
    maps: dict[MapVersion, Count] = {}
    """Map version → subscribed devices that hold it; the MAPS_MAX newest."""
    apps: dict[str, AppCensus] = {}
    """`app` of the hello → its devices; at most APPS_MAX, and OTHER_APP."""
    drops: dict[Annotated[str, Meta(max_length=LABEL_MAX)], Count] = {}
    """Connections that followed the event and ended while this was its newest state, by close code; DROPPED_BY_DEVICE where the
    device closed it. Not part of the audience's sum: most had been given the state by then."""


class HostBeat(Struct, frozen=True, tag_field="t", tag="host"):
    """A host's sign of life, under the log key `_`: how it is, whether anybody follows an event there or not."""

    host: str
    ts: int
    """Wall ms of the host."""
    connections: Count
    limit: Count
    """Connections that it takes at most."""
    log_age: float
    """Seconds since its feed read the last record of the log: beats come every 5 s, so a healthy one is below 10."""
    accepting: bool
    """Whether devices may come: false while it drains, or both its roads are silent."""
    admin: str = ""
    """Base URL of its admin port, as other services reach it."""


Counted = Receipt | HostBeat
"""What the receipts log holds."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Receipt)
_counted: msgspec.json.Decoder[Counted] = msgspec.json.Decoder(Counted)


def encode_receipt(receipt: Counted) -> bytes:
    return _encoder.encode(receipt)


def decode_counted(data: bytes) -> Counted:
    """A record of the receipts log. Raises msgspec.DecodeError (a ValueError) for anything that is none."""
    return _counted.decode(data)


def decode_receipt(data: bytes) -> Receipt:
    """Raises msgspec.DecodeError (a ValueError) for anything that is no receipt."""
    return _decoder.decode(data)


def latency_bucket(ms: float) -> int:
    """Bucket 0 is for all up to 1 ms: the mapping has none for 0."""
    return LATENCY.key(ms) if ms > 1 else 0


def latency_quantile(buckets: dict[int, int], q: float) -> float | None:
    """The q-quantile in ms (± 5 %), or None without a value."""
    rank = q * (sum(buckets.values()) - 1)
    if rank < 0:
        return None
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank < 0:
            return float(LATENCY.value(bucket))
    return None


class Share(Struct, frozen=True):
    """A share, with its 95 % confidence interval where it is a sample's; of a count of all, `low` = `value` = `high`."""

    value: float
    low: float
    high: float


def share_of(part: int, asked: int, whole: int) -> Share | None:
    """`part` of `asked`, which were drawn at random from `whole`; None when nobody was asked. The interval is Wilson's (1927),
    which stays inside 0…1 and is honest at the ends, where the usual one says ± 0."""
    if asked <= 0:
        return None
    p = part / asked
    if asked >= whole:
        return Share(p, p, p)
    z2 = SURE * SURE
    middle = (p + z2 / (2 * asked)) / (1 + z2 / asked)
    half = SURE / (1 + z2 / asked) * math.sqrt(p * (1 - p) / asked + z2 / (4 * asked * asked))
    return Share(p, min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p))


class HostProgress(Struct, frozen=True):
    """One host's part in it."""

    host: str
    subscribed: int
    at_or_past: int
    written: int
    pending: int
    silent_since: int | None
    """Its last sign of life, wall ms of the host, once that is older than 15 s; None while it speaks."""


class AppProgress(Struct, frozen=True):
    """One app's devices, by the census."""

    app: str
    subscribed: int
    at_or_past: int


class Progress(Struct, frozen=True):
    """One event's answer at one moment, for its newest (gen, seq)."""

    e: str
    gen: int
    seq: int
    audience: int
    written: int
    pending: int
    superseded: int
    closed: int
    asked: int
    switched: int
    missing: int
    ignored: int
    latency_ms: dict[str, float | None]
    subscribed: int
    at_or_past: int
    holding: int
    hosts: int
    silent: int
    """Hosts that have said nothing for 15 s: counted in `subscribed`, at 0 `at_or_past`."""
    converged: bool
    confirmed: Share | None = None
    """Of the audience, how many have said that they show something: acks `switched` of those asked. While acks still come in, a
    lower bound."""
    by_host: tuple[HostProgress, ...] = ()
    """The hosts with the most devices behind first; ROWS_MAX at most."""
    by_app: tuple[AppProgress, ...] = ()
    """Likewise, by the `app` of the hello."""
    maps: dict[str, int] = {}
    """Map version → subscribed devices that hold it, by the census; the newest ones."""
    drops: dict[str, int] = {}
    """Close code → connections that ended while this was the newest state; "peer": the device closed them."""
    reached_ms: dict[str, int | None] = {}
    """"50", "95", "99", "99.9" (per cent) → ms from the transition until the census had so many at it, at most a second and the
    acks' window late; None while it is not so far."""


class _Worker(NamedTuple):
    """A worker's present life: its last boot."""

    boot: str
    age: float
    """Seconds since its last sign of life."""
    census: Receipt
    """Its receipt of the newest seq it knows."""
    left: bool


def _workers(receipts: list[tuple[Receipt, float]]) -> dict[tuple[str, int], _Worker]:
    """Every worker by (host, worker), as it is now: what an earlier boot counted says nothing about its connections."""
    found: dict[tuple[str, int], _Worker] = {}
    for r, age in sorted(receipts, key=lambda one: one[1]):  # the youngest first: it tells the boot and the age
        place = (r.host, r.worker)
        seen = found.get(place)
        if seen is None:
            found[place] = _Worker(r.boot, age, r, r.left)
        elif seen.boot == r.boot:
            newest = max(seen.census, r, key=lambda one: (one.gen, one.seq))
            found[place] = seen._replace(census=newest, left=seen.left or r.left)
    return found


def progress(event: str, receipts: Iterable[tuple[Receipt, float]], gen: int, seq: int) -> Progress:
    """Sums the last receipts of every worker about (gen, seq); each comes with its age in seconds.

    Every worker gives at most one receipt for (gen, seq), and one of its newest seq, older or not: a worker that is still behind
    counts in `subscribed` at 0 `at_or_past`. What was counted of (gen, seq) stays counted when a worker leaves or restarts (its
    goodbye repeats its counts); only what it still had `pending` is `closed` then. Its connections leave the census.
    """
    mine = [(r, age) for r, age in receipts if r.e == event]
    workers = _workers(mine)
    present = {place: w for place, w in workers.items() if not w.left and w.age <= LEFT_AFTER}
    own = [r for r, _ in mine if (r.gen, r.seq) == (gen, seq)]
    lost = sum(r.pending for r in own if (w := present.get((r.host, r.worker))) is None or w.boot != r.boot)
    latency: Counter[int] = Counter()
    drops: Counter[str] = Counter()
    for r in own:
        latency.update(r.latency)
        drops.update(r.drops)
    census = [(w.census, w.age) for w in present.values()]
    subscribed = sum(r.subscribed for r, _ in census)
    at_or_past = sum(_at(r, age, gen, seq) for r, age in census)
    return Progress(
        e=event,
        gen=gen,
        seq=seq,
        audience=sum(r.audience for r in own),
        written=sum(r.written for r in own),
        pending=sum(r.pending for r in own) - lost,
        superseded=sum(r.superseded for r in own),
        closed=sum(r.closed for r in own) + lost,
        asked=sum(r.asked for r in own),
        switched=sum(r.switched for r in own),
        missing=sum(r.missing for r in own),
        ignored=sum(r.ignored for r in own),
        latency_ms={name: latency_quantile(latency, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        subscribed=subscribed,
        at_or_past=at_or_past,
        holding=sum(r.holding for r, _ in census),
        hosts=len({r.host for r, _ in census}),
        silent=len({r.host for r, age in census if age > SILENT_AFTER}),
        converged=subscribed > 0 and at_or_past / subscribed >= CONVERGED,
        confirmed=share_of(sum(r.switched for r in own), sum(r.asked for r in own), sum(r.audience for r in own)),
        by_host=_by_host(census, own, gen, seq),
        by_app=_by_app(census, gen, seq),
        maps=_newest_maps(r for r, _ in census),
        drops=dict(sorted(drops.items())),
    )


Aged = tuple[Receipt, float]


def _by_host(census: list[Aged], own: list[Receipt], gen: int, seq: int) -> tuple[HostProgress, ...]:
    there: dict[str, list[Aged]] = {}
    for r, age in census:
        there.setdefault(r.host, []).append((r, age))
    sent: dict[str, tuple[int, int]] = {}
    for r in own:
        written, pending = sent.get(r.host, (0, 0))
        sent[r.host] = written + r.written, pending + r.pending
    rows = [
        HostProgress(
            host,
            sum(r.subscribed for r, _ in workers),
            sum(_at(r, age, gen, seq) for r, age in workers),
            *sent.get(host, (0, 0)),
            max(r.ts for r, _ in workers) if min(age for _, age in workers) > SILENT_AFTER else None,
        )
        for host, workers in there.items()
    ]
    rows.sort(key=lambda row: (row.at_or_past - row.subscribed, row.host))
    return tuple(rows[:ROWS_MAX])


def _by_app(census: list[Aged], gen: int, seq: int) -> tuple[AppProgress, ...]:
    sums: dict[str, tuple[int, int]] = {}
    for r, age in census:
        current = _current(r, age, gen, seq)
        for app, count in r.apps.items():
            subscribed, at = sums.get(app, (0, 0))
            sums[app] = subscribed + count.subscribed, at + (count.at_or_past if current else 0)
    rows = [AppProgress(app, subscribed, at) for app, (subscribed, at) in sums.items()]
    rows.sort(key=lambda row: (row.at_or_past - row.subscribed, row.app))
    return tuple(rows[:ROWS_MAX])


def _newest_maps(receipts: Iterable[Receipt]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for r in receipts:
        for version, count in r.maps.items():
            sums[version] = sums.get(version, 0) + count
    return {version: sums[version] for version in sorted(sums, reverse=True)[:MAPS_MAX]}


def _current(r: Receipt, age: float, gen: int, seq: int) -> bool:
    """Whether this worker's `at_or_past` says something of (gen, seq): it knows it, and it speaks."""
    return (r.gen, r.seq) >= (gen, seq) and age <= SILENT_AFTER


def _at(r: Receipt, age: float, gen: int, seq: int) -> int:
    return r.at_or_past if _current(r, age, gen, seq) else 0
