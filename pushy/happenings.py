"""What happened to devices at one worker lately: for `stagecast explain`. Pure.

Two rings for all devices together, so that it costs an idle connection nothing and acks can't push closes out; noted at hello,
close, ack and census, never at a delivery. Texts are made when somebody asks. Tokens are not in it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import assert_never, cast

from msgspec import Struct

from pushy.followed import Outlet, Place
from pushy.link import Happening
from stagecast.wire.frames import Ack, Position

SESSIONS_KEPT = 20_000
"""Hellos and closes; a hello takes 32 bytes while its session lasts."""
POSITIONS_KEPT = 20_000
"""Acks and positions; looking through all of both takes about 2 ms."""


class Hello(Struct, frozen=True, gc=False):
    """A session that began."""

    node: str
    number: int
    worker: int
    app: str


Subject = str | Ack | list[Position]
Noted = tuple[int, str, str | int, Subject]
"""Wall ms, device, what, of what; for a hello the session's number and its app: the rest is the worker's and kept once."""
FIELDS = 4


class Ring:
    """The newest notes, `kept` at most. Their fields stand in one row: a hello's are all of its session, so that it costs
    four references and no object."""

    def __init__(self, kept: int) -> None:
        self._fields: deque[int | str | Subject] = deque(maxlen=FIELDS * kept)
        self.note: Callable[[Noted], None] = self._fields.extend

    def __iter__(self) -> Iterator[Noted]:
        fields = iter(self._fields)
        return cast("Iterator[Noted]", zip(fields, fields, fields, fields, strict=True))


class Happenings:
    def __init__(self, sessions: int = SESSIONS_KEPT, positions: int = POSITIONS_KEPT) -> None:
        self._sessions, self._positions = Ring(sessions), Ring(positions)
        self.note_session = self._sessions.note
        """Of (wall ms, device, a session's number, its app): `began` of a hello of the same node and worker as one before."""
        self._node, self._worker = "", 0

    def began(self, wall: int, device: str, hello: Hello) -> None:
        """A session began. All of one worker's have one node."""
        self._node, self._worker = hello.node, hello.worker
        self._sessions.note((wall, device, hello.number, hello.app))

    def session(self, wall: int, device: str, what: str, detail: str) -> None:
        """A session ended."""
        self._sessions.note((wall, device, what, detail))

    def position(self, wall: int, device: str, what: str, subject: Ack | list[Position]) -> None:
        """The device said where it stands."""
        self._positions.note((wall, device, what, subject))

    def of(self, device: str) -> list[Happening]:
        """All that is kept of this device, oldest first."""
        found = [one for ring in (self._sessions, self._positions) for one in ring if one[1] == device]
        found.sort(key=lambda one: one[0])
        return [self._happening(one) for one in found]

    def _happening(self, noted: Noted) -> Happening:
        wall, _, what, subject = noted
        if isinstance(what, str):
            return Happening(wall, what, said(subject))
        return Happening(wall, "hello", f"session {self._node}-{what:x} at worker {self._worker}, app {subject or '–'}")


def said(subject: Subject) -> str:
    """In words."""
    match subject:
        case str():
            return subject
        case Ack():
            return f"{subject.e} at gen {subject.gen} seq {subject.seq}: {subject.r} {subject.ms} ms after it arrived"
        case list():
            return (
                "; ".join(f"{at.e} at gen {at.gen} seq {at.seq}, map {at.map or 'none'}" for at in subject)
                or "no event"
            )
        case _:
            assert_never(subject)


def standing(outlet: Outlet, sid: str, worker: int) -> str:
    """A live session in words."""
    since = f"session {sid} at worker {worker}" + (f" of app {outlet.app}" if outlet.app else "")
    slow = ", bytes wait for it" if outlet.unsent else ""
    return f"{since}{slow}: " + ("; ".join(_seat(place) for place in outlet.places) or "follows no event")


def _seat(place: Place) -> str:
    head = place.event.order
    behind = "" if head is None or place.at >= head else f", head is gen {head[0]} seq {head[1]}"
    owed = ", owed the newest state" if place.owes else ""
    return f"{place.event.e} last said gen {place.at[0]} seq {place.at[1]}, map {place.map or 'none'}{behind}{owed}"
