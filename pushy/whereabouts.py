"""The sessions of one host: where they are, who replaces whom, and what of it goes to the registry. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, cast

from pushy.link import Began, Ended, Replaced
from pushy.registry import Registry

HOLDER_BITS = 60
"""As many as an int of 32 bytes holds."""
START_BITS, SID_BITS = 44, 36
"""Of a place: when the session began, wall ms; a hash of its id. The worker's index is in front: 48 bytes up to 1023."""
HOLDER_MASK, SID_MASK, START_MASK = (1 << HOLDER_BITS) - 1, (1 << SID_BITS) - 1, (1 << START_BITS) - 1
WORKER_AT = START_BITS + SID_BITS

Holder = int
"""Who holds a session: member and device. Their hash by Python's, which has a secret key for each process: of 100,000 sessions
two have one holder once in 200 million hosts, and then an earlier session of one of them may stay until its lifetime is over."""
Place = int
"""Where a session is: worker, id and start."""


def holder_of(member: str, device: str) -> Holder:
    return hash((member, device)) & HOLDER_MASK


def place_of(worker: int, sid: str, start: int) -> Place:
    return worker << WORKER_AT | (hash(sid) & SID_MASK) << START_BITS | start


class Late(NamedTuple):
    """This worker holds a session that one of `start` replaces."""

    worker: int
    start: int


class Places:
    """The sessions of this host: who replaces whom. At most one for each (member, device), in 110 bytes."""

    def __init__(self) -> None:
        self._places: dict[Holder, Place] = {}
        self._counts: defaultdict[int, int] = defaultdict(int)

    def began(self, holder: Holder, worker: int, sid: str, start: int) -> Late | None:
        """The worker to tell that its session is replaced, if that is another worker's than the later session's."""
        place = place_of(worker, sid, start)
        before = self._places.setdefault(holder, place)
        if before is place:
            self._counts[worker] += 1
            return None
        earlier, began = before >> WORKER_AT, before & START_MASK
        if began > start:
            return Late(worker, began) if earlier != worker else None
        self._places[holder] = place
        self._counts[earlier] -= 1
        self._counts[worker] += 1
        return Late(earlier, start) if earlier != worker and began < start else None

    def began_all(self, worker: int, begun: Sequence[Began]) -> list[Holder] | None:
        """Their holders, if none of them had a session here, nor has two of these; else None, and nothing has happened."""
        holders = [hash((one.member, one.device)) & HOLDER_MASK for one in begun]
        at = worker << WORKER_AT
        new = dict(
            zip(holders, [at | (hash(one.sid) & SID_MASK) << START_BITS | one.start for one in begun], strict=True)
        )
        if len(new) < len(holders) or not self._places.keys().isdisjoint(new):
            return None
        self._places.update(new)
        self._counts[worker] += len(new)
        return holders

    def ended(self, holder: Holder, sid: str) -> None:
        """Forgets the session, unless a later one stands there."""
        place = self._places.get(holder)
        if place is not None and place >> START_BITS & SID_MASK == hash(sid) & SID_MASK:
            del self._places[holder]
            self._counts[place >> WORKER_AT] -= 1

    def left(self, worker: int) -> None:
        """The worker is gone, with all it held."""
        self._places = {holder: place for holder, place in self._places.items() if place >> WORKER_AT != worker}
        self._counts.pop(worker, None)

    def known(self, holder: Holder) -> bool:
        return holder in self._places

    def count(self, worker: int) -> int:
        return self._counts.get(worker, 0)


class Replacement(NamedTuple):
    """What workers are to be told: `only` this one, or all but `but`."""

    message: Replaced
    only: int | None
    but: int | None

    def concerns(self, worker: int) -> bool:
        return worker == self.only if self.only is not None else worker != self.but


class Whereabouts:
    """Takes what workers tell of their sessions, and keeps `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.places = Places()

    def moved(self, worker: int, changes: Sequence[Began | Ended], complete: bool) -> Sequence[Replacement]:
        """What has to be told to whom of these changes at `worker`.

        `complete` says whether all living sessions have been told. Workers don't tell those again that began before this feed
        did, so until the last of them has reached its lifetime an earlier session may be at any worker.
        """
        # A storm, in which nobody is replaced, goes through twice as fast all at once.
        if complete and set(map(type, changes)) == {Began}:
            begun = cast("Sequence[Began]", changes)
            if (holders := self.places.began_all(worker, begun)) is not None:
                self._registry.began_all(holders, worker, begun)
                return ()
        replaced: list[Replacement] = []
        places, registry = self.places, self._registry
        for change in changes:
            holder = holder_of(change.member, change.device)
            if isinstance(change, Ended):
                places.ended(holder, change.sid)
                registry.ended(holder, change)
                continue
            unknown = not complete and not places.known(holder)
            late = places.began(holder, worker, change.sid, change.start)
            if late is None or late.worker != worker:
                registry.began(holder, worker, change)
            if late is not None:
                replaced.append(Replacement(Replaced(change.member, change.device, late.start), late.worker, None))
            elif unknown:
                replaced.append(Replacement(Replaced(change.member, change.device, change.start), None, worker))
        return replaced
