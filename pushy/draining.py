"""A host's drain: its pace, how far it is, and a file that outlives the feed which began it.

The file lies beside the link's socket, in a folder of the supervisor's: a feed that is started again in the middle of a drain
goes on with it, and a host that is started anew begins without one.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

FILE = "drain.json"


class Drain(Struct, frozen=True):
    """A drain that has begun. `rate` in connections per second of the whole host; `since` is monotonic, which all processes of a
    machine share; `connections` were open then."""

    rate: float
    since: float
    connections: int


class Progress(Struct, frozen=True):
    """How far a drain is: what the admin port answers."""

    draining: bool
    connections: int
    """When it began; without one, now."""
    left: int
    rate: float
    """Connections a second; 0 without a drain."""
    seconds: float
    """That the rest will take at this rate; 0 without a drain."""
    empty: bool = False
    """Whether the drain is over: every worker has said so since it began."""
    host: str = ""
    """The host's name, as in its receipts."""


@dataclass
class Drains:
    """The host's present drain, if there is one. `file` None keeps it in memory alone."""

    file: Path | None = None
    host: str = ""
    now: Drain | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            self.now = _read(self.file)

    def begin(self, rate: float, connections: int, now: float) -> Drain:
        """Begins a drain, or gives the one under way another pace."""
        before = self.now
        self.now = Drain(rate, before.since, before.connections) if before else Drain(rate, now, connections)
        if self.file is not None:
            new = self.file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(self.now))
            new.replace(self.file)
        return self.now

    def progress(self, left: int, empty: bool = False) -> Progress:
        """With `left` connections open now; `empty` when that is sure to be none."""
        if self.now is None:
            return Progress(False, left, left, 0.0, 0.0, host=self.host)
        return Progress(
            True, max(self.now.connections, left), left, self.now.rate, left / self.now.rate, empty, self.host
        )

    def values(self, left: int) -> dict[str, float]:
        """For `/metrics`."""
        far = self.progress(left)
        return {
            "stagecast_feed_draining": float(far.draining),
            "stagecast_feed_drain_connections": far.connections if far.draining else 0,
            "stagecast_feed_drain_left": far.left if far.draining else 0,
            "stagecast_feed_drain_rate": far.rate,
        }


def _read(file: Path) -> Drain | None:
    with contextlib.suppress(OSError, msgspec.DecodeError):  # no drain; half a file can't be, it is put in place whole
        return msgspec.json.decode(file.read_bytes(), type=Drain)
    return None
