"""What happened to devices at one worker lately: for `stagecast explain`. Pure.

Two rings for all devices together, so that it costs an idle connection nothing and acks can't push closes out; noted at hello,
close, ack and census, never at a delivery. Texts are made when somebody asks. Tokens are not in it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from msgspec import Struct

from pushy.followed import Outlet, Place
from pushy.link import Happening
from stagecast.wire.frames import Ack, Position

SESSIONS_KEPT = 20_000
"""Hellos and closes; some 150 bytes each."""
POSITIONS_KEPT = 20_000
"""Acks and positions; looking through all of both takes about 2 ms."""


class Hello(Struct, frozen=True, gc=False):
    """A session that began: what makes its text, half as large and without its work."""

    node: str
    number: int
    worker: int
    app: str


Subject = str | Hello | Ack | list[Position]
Noted = tuple[int, str, str, Subject]
"""Wall ms, device, what, of what."""


@dataclass(slots=True)
class Happenings:
    sessions: deque[Noted] = field(default_factory=lambda: deque(maxlen=SESSIONS_KEPT))
    positions: deque[Noted] = field(default_factory=lambda: deque(maxlen=POSITIONS_KEPT))

    def began(self, wall: int, device: str, hello: Hello) -> None:
        """A session began."""
        self.sessions.append((wall, device, "hello", hello))

    def session(self, wall: int, device: str, what: str, detail: str) -> None:
        """A session ended."""
        self.sessions.append((wall, device, what, detail))

    def position(self, wall: int, device: str, what: str, subject: Ack | list[Position]) -> None:
        """The device said where it stands."""
        self.positions.append((wall, device, what, subject))

    def of(self, device: str) -> list[Happening]:
        """All that is kept of this device, oldest first."""
        found = [one for ring in (self.sessions, self.positions) for one in ring if one[1] == device]
        found.sort(key=lambda one: one[0])
        return [Happening(ts, what, said(subject)) for ts, _, what, subject in found]


def said(subject: Subject) -> str:
    """In words."""
    match subject:
        case str():
            return subject
        case Hello(node, number, worker, app):
            return f"session {node}-{number:x} at worker {worker}, app {app or '–'}"
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
