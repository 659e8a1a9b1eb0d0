"""The ledger of receipts: the last one of every worker counts, for any reader, from any start."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from broadcaster.receipts import KEEP_MS, RECEIPTS_MAX, STATES_KEPT, HostLife, Ledger, keep_ledger
from stagecast.clock import ManualClock
from stagecast.log import LogGap, LogUnavailable, Positions, Record, Topic
from stagecast.receipts import HostBeat, Receipt, encode_receipt
from tests.broadcaster.world import World, until

NOW = 1_764_000_000_000


def receipt(
    seq: int = 1, *, host: str = "h1", worker: int = 0, boot: str = "b", n: int = 10, left: bool = False
) -> Receipt:
    return Receipt(host, boot, worker, NOW, "final", 7, seq, n, n, subscribed=n, at_or_past=n, holding=n, left=left)


def far(ledger: Ledger, seq: int = 1, now: int = NOW) -> tuple[int, int, int]:
    """Written, subscribed, at_or_past."""
    found = ledger.progress("final", 7, seq, now)
    return found.written, found.subscribed, found.at_or_past


def test_the_last_receipt_of_a_worker_counts() -> None:
    """Receipts are cumulative: a later one replaces the earlier, those of other workers and hosts are added."""
    ledger = Ledger()
    for one in (receipt(n=1), receipt(n=10), receipt(worker=1, n=5), receipt(host="h2", n=2)):
        ledger.take(one, NOW)
    assert far(ledger) == (17, 17, 17)
    assert ledger.progress("other", 7, 1, NOW).hosts == 0


def test_repeats_and_rereading_change_nothing() -> None:
    """A receipt may come twice: the sums stay."""
    ledger = Ledger()
    for _ in range(3):
        ledger.take(receipt(), NOW)
        ledger.take(receipt(worker=1), NOW)
    assert far(ledger) == (20, 20, 20)
    assert ledger.kept == 2


def test_a_silent_host_is_behind_and_then_away() -> None:
    """By the log's stamps: silent after 15 s (subscribed stays, at_or_past does not), out of the census after 120 s."""
    ledger = Ledger()
    ledger.take(receipt(), NOW)
    assert far(ledger, now=NOW + 15_000)[1:] == (10, 10)
    assert far(ledger, now=NOW + 15_001)[1:] == (10, 0)
    assert far(ledger, now=NOW + 120_000)[1:] == (10, 0)
    assert far(ledger, now=NOW + 120_001)[1:] == (0, 0)


def test_a_goodbye_leaves_the_census() -> None:
    """A worker that said goodbye is not subscribed any more; what it wrote stays written."""
    ledger = Ledger()
    ledger.take(receipt(), NOW)
    ledger.take(receipt(left=True), NOW + 10)
    assert far(ledger, now=NOW + 20) == (10, 0, 0)


def test_memory_is_bounded() -> None:
    """Few states per worker and event, and a total over which receipts are refused and counted."""
    ledger = Ledger()
    for seq in range(1, 50):
        ledger.take(receipt(seq), NOW)
    assert ledger.kept == STATES_KEPT
    assert far(ledger, 49) == (10, 10, 10)
    small = Ledger(limit=2)
    for worker in range(5):
        small.take(receipt(worker=worker), NOW)
    assert (small.kept, small.refused) == (2, 3)
    assert RECEIPTS_MAX > 5000 * 20 * 2


def test_large_sums_are_given_again() -> None:
    """Of 100 receipts a sum is kept for 5 ms, for one (gen, seq) alone."""
    ledger = Ledger()
    for worker in range(100):
        ledger.take(receipt(worker=worker), NOW)
    assert far(ledger) == (1000, 1000, 1000)
    ledger.take(receipt(worker=100), NOW)
    assert far(ledger, now=NOW + 4)[0] == 1000
    assert far(ledger, 2, now=NOW + 4)[0] == 0
    assert far(ledger, now=NOW + 9)[0] == 1010


def test_old_receipts_are_forgotten() -> None:
    """What no longer counts leaves the memory."""
    ledger = Ledger()
    ledger.read([Record(0, 1, NOW, "final", encode_receipt(receipt()))], NOW)
    assert ledger.kept == 1
    late = NOW + KEEP_MS + 10_000
    ledger.read([Record(0, 2, late, "final", encode_receipt(receipt(host="h2")))], late)
    assert ledger.kept == 1
    assert ledger.progress("final", 7, 1, late).hosts == 1


def test_strange_records_are_counted() -> None:
    """A record that is no receipt harms no other."""
    ledger = Ledger()
    ledger.read([Record(0, 1, NOW, "x", b"\xff{"), Record(0, 2, NOW, "final", encode_receipt(receipt()))], NOW)
    assert (ledger.unreadable, far(ledger)) == (1, (10, 10, 10))


async def test_any_instance_comes_to_the_same_sums(world: World) -> None:
    """A ledger that starts now and one that has read all along agree: only the last 120 s count."""
    early, late = Ledger(), Ledger()
    reading = [asyncio.create_task(keep_ledger(early, world.log, world.clock))]
    append = world.log.append
    await append(Topic.RECEIPTS, "final", encode_receipt(receipt(host="old")))
    world.clock.advance(121)
    for worker in range(3):
        await append(Topic.RECEIPTS, "final", encode_receipt(receipt(worker=worker, n=1)))
        await append(Topic.RECEIPTS, "final", encode_receipt(receipt(worker=worker)))
    reading.append(asyncio.create_task(keep_ledger(late, world.log, world.clock)))
    await until(lambda: all(far(one, now=world.clock.now())[0] == 30 for one in (early, late)))
    assert early.progress("final", 7, 1, world.clock.now()) == late.progress("final", 7, 1, world.clock.now())
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)


class Broken:
    """A log whose reads break off: first as out of reach, then over a gap."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.reads: list[dict[int, int]] = []

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        raise NotImplementedError

    async def end(self, topic: Topic) -> Positions:
        raise NotImplementedError

    async def since(self, topic: Topic, ts: int) -> Positions:
        self.starts.append(ts)
        return {0: 100 * len(self.starts)}

    async def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        self.reads.append(dict(positions))
        at = positions[0]
        yield [Record(0, at, NOW, "final", encode_receipt(receipt(worker=len(self.reads))))]
        match len(self.reads):
            case 1:
                raise LogUnavailable("out of reach")
            case 2:
                raise LogGap("gone")
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_outages_and_gaps() -> None:
    """After an outage it reads on from where it was, after a gap from the stamps again; the sums go on."""
    log, ledger = Broken(), Ledger()
    reading = asyncio.create_task(keep_ledger(ledger, log, ManualClock(NOW), pause=0.01))
    await until(lambda: far(ledger)[0] == 30)
    reading.cancel()
    await asyncio.wait([reading])
    assert log.reads == [{0: 100}, {0: 101}, {0: 200}]
    assert log.starts == [NOW - KEEP_MS] * 2


def test_hosts_say_how_they_are() -> None:
    """The last beat of each host is kept for 120 s, with by how much its clock is ahead of the log's; beats are no receipts."""
    ledger = Ledger()
    beat = HostBeat("h1", NOW + 500, 10, 100, 1.0, True)
    ledger.read([Record(0, 1, NOW, "_", encode_receipt(beat))], NOW + 20)
    assert ledger.hosts == {"h1": HostLife(beat, NOW, 500)}
    assert (ledger.kept, ledger.unreadable, ledger.lag) == (0, 0, 20)
    late = NOW + KEEP_MS + 10_000
    ledger.read([Record(0, 2, late, "_", encode_receipt(HostBeat("h2", late, 0, 100, 1.0, True)))], late)
    assert list(ledger.hosts) == ["h2"]
