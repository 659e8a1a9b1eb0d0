"""Receipts: what a worker counted for one (event, gen, seq), and how receipts add up to an answer to "did they get it?". Pure.

A receipt is cumulative: the last one of a (host, boot, worker, event, gen, seq) replaces those before it, then all are summed.
So a receipt may be lost, repeated or read from any point, and any number of readers come to the same sums.
"""

import math
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from stagecast.names import EventId

SILENT_AFTER = 15.0
"""Seconds without a receipt after which a host's connections count as not at the head."""
LEFT_AFTER = 120.0
"""Seconds without a receipt after which a host leaves the sums."""
CONVERGED = 0.999
LATENCY_GROWTH = 1.1
"""Bucket i of a latency sketch holds (1.1^(i-1), 1.1^i] ms: ± 5 %, the mapping of DDSketch (Masson et al., VLDB 2019)."""


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
    audience: int = 0
    written: int = 0
    pending: int = 0
    superseded: int = 0
    closed: int = 0
    # of the sample of acks
    asked: int = 0
    """Devices of the audience that the ack policy asks."""
    switched: int = 0
    missing: int = 0
    ignored: int = 0
    latency: dict[int, int] = {}
    """Bucket → acks, of `ack.ms`: from the frame's arrival at the device until it was applied."""
    # the census of this worker's connections, now
    subscribed: int = 0
    at_or_past: int = 0
    holding: int = 0
    """Subscribed devices that hold the map version the broadcast asks for, or a newer one; all, when it asks for none."""
    left: bool = False
    """A goodbye: this worker is gone and leaves the sums."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Receipt)


def encode_receipt(receipt: Receipt) -> bytes:
    return _encoder.encode(receipt)


def decode_receipt(data: bytes) -> Receipt:
    """Raises msgspec.DecodeError (a ValueError) for anything that is no receipt."""
    return _decoder.decode(data)


def latency_bucket(ms: float) -> int:
    return 0 if ms <= 1 else math.ceil(math.log(ms, LATENCY_GROWTH))


def latency_quantile(buckets: dict[int, int], q: float) -> float | None:
    """The q-quantile in ms (± 5 %), or None without a value."""
    rank = q * (sum(buckets.values()) - 1)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank < 0:
            return float(LATENCY_GROWTH**bucket * 2 / (1 + LATENCY_GROWTH))
    return None


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


def progress(event: str, receipts: Iterable[tuple[Receipt, float]], gen: int, seq: int) -> Progress:
    """Sums the last receipts of every worker about (gen, seq); each comes with its age in seconds.

    Every worker gives at most one receipt for (gen, seq), and one of its newest seq, older or not: a worker that is still behind
    counts in `subscribed` at 0 `at_or_past`.
    """
    kept = [(r, age) for r, age in receipts if r.e == event and not r.left and age <= LEFT_AFTER]
    own = [r for r, _ in kept if (r.gen, r.seq) == (gen, seq)]
    newest: dict[tuple[str, int], tuple[Receipt, float]] = {}
    for r, age in kept:
        seen = newest.get((r.host, r.worker))
        if seen is None or ((r.gen, r.seq), -age) > ((seen[0].gen, seen[0].seq), -seen[1]):
            newest[(r.host, r.worker)] = (r, age)
    latency: dict[int, int] = {}
    for r in own:
        for bucket, count in r.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
    current = [r for r, age in newest.values() if (r.gen, r.seq) >= (gen, seq) and age <= SILENT_AFTER]
    subscribed = sum(r.subscribed for r, _ in newest.values())
    at_or_past = sum(r.at_or_past for r in current)
    return Progress(
        e=event,
        gen=gen,
        seq=seq,
        audience=sum(r.audience for r in own),
        written=sum(r.written for r in own),
        pending=sum(r.pending for r in own),
        superseded=sum(r.superseded for r in own),
        closed=sum(r.closed for r in own),
        asked=sum(r.asked for r in own),
        switched=sum(r.switched for r in own),
        missing=sum(r.missing for r in own),
        ignored=sum(r.ignored for r in own),
        latency_ms={name: latency_quantile(latency, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        subscribed=subscribed,
        at_or_past=at_or_past,
        holding=sum(r.holding for r, _ in newest.values()),
        hosts=len({r.host for r, _ in newest.values()}),
        silent=len({r.host for r, age in newest.values() if age > SILENT_AFTER}),
        converged=subscribed > 0 and at_or_past / subscribed >= CONVERGED,
    )
