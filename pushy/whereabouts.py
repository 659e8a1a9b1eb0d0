"""The sessions of one host: where they are, who replaces whom, and what of it goes to the registry."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from pushy.link import Began, Ended
from pushy.registry import Holder, Registry
from stagecast.records import Session


class Place(Struct, frozen=True, gc=False):
    """Where this host has a session."""

    worker: int
    sid: str
    start: int


@dataclass(frozen=True, slots=True)
class Late:
    """This worker holds a session that a later one replaces."""

    worker: int
    start: int


class Places:
    """The sessions of this host: who replaces whom. Pure. At most one for each (member, device)."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        """By holder as one string, a third of a tuple of two."""
        self._counts: dict[int, int] = {}

    def began(self, holder: Holder, place: Place) -> Late | None:
        """The worker to tell that its session is replaced, if that is another worker's than the later session's."""
        before = self._places.get(_one(holder))
        if before is not None and before.start > place.start:
            return Late(place.worker, before.start) if before.worker != place.worker else None
        self._set(_one(holder), place)
        if before is not None and before.worker != place.worker and before.start < place.start:
            return Late(before.worker, place.start)
        return None

    def ended(self, holder: Holder, sid: str) -> None:
        """Forgets the session, unless a later one stands there."""
        place = self._places.get(_one(holder))
        if place is not None and place.sid == sid:
            self._set(_one(holder), None)

    def left(self, worker: int) -> None:
        """The worker is gone, with all it held."""
        for holder in [holder for holder, place in self._places.items() if place.worker == worker]:
            self._set(holder, None)

    def known(self, holder: Holder) -> bool:
        return _one(holder) in self._places

    def count(self, worker: int) -> int:
        return self._counts.get(worker, 0)

    def _set(self, holder: str, place: Place | None) -> None:
        before = self._places.pop(holder, None)
        if before is not None:
            self._counts[before.worker] -= 1
        if place is not None:
            self._places[holder] = place
            self._counts[place.worker] = self._counts.get(place.worker, 0) + 1


def _one(holder: Holder) -> str:
    """Device ids hold no blank, so no two holders have one."""
    return f"{holder[1]} {holder[0]}"


class Whereabouts:
    """Takes what workers tell of their sessions: keeps `registry`, and calls `replace` with (which workers are to close an
    earlier session, whose session it is, the start of the later one).

    `complete` says whether all living sessions have been told. Workers don't tell those again that began before this feed did,
    so until the last of them has reached its lifetime an earlier session may be at any worker.
    """

    def __init__(
        self,
        host: str,
        admin_url: str,
        registry: Registry,
        complete: Callable[[], bool],
        replace: Callable[[Callable[[int], bool], Began, int], None],
    ) -> None:
        self._host = host
        self._admin_url = admin_url
        self._registry = registry
        self._complete = complete
        self._replace = replace
        self.places = Places()

    def began(self, worker: int, change: Began) -> None:
        holder, place = (change.member, change.device), Place(worker, change.sid, change.start)
        known = self.places.known(holder)
        late = self.places.began(holder, place)
        if late is None or late.worker != worker:
            session = Session(change.sid, self._host, self._admin_url, worker, change.start)
            self._registry.began(change.member, change.device, session)
        if late is not None:
            self._replace(lambda other: other == late.worker, change, late.start)
        elif not known and not self._complete():
            self._replace(lambda other: other != worker, change, change.start)

    def ended(self, change: Ended) -> None:
        self.places.ended((change.member, change.device), change.sid)
        self._registry.ended(change.member, change.device, change.sid)
