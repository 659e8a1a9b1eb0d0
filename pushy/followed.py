"""What a worker knows of an event that somebody follows: seats, the newest state, what became of each. Pure data."""

from collections import Counter, deque
from typing import Protocol

from stagecast.names import MapVersion
from stagecast.receipts import Receipt

TALLIES_MAX = 3
"""States of an event whose acks are still counted."""
ACK_ALL = 1 << 32
GOLDEN = 0.6180339887498949

Order = tuple[int, int]
"""(gen, seq)."""

STATE, HINT, IN_FLIGHT = 1, 2, 4
"""What a place is owed; IN_FLIGHT: its newest state is partly with the transport."""


class Outlet(Protocol):
    """A connection, as the hub knows it."""

    unsent: bool
    """Whether bytes written to it wait in this process."""
    places: "tuple[Place, ...]"

    def write(self, frame: bytes) -> bool:
        """Takes the whole frame; true if all of it went to the kernel at once."""
        ...

    @property
    def device(self) -> str: ...

    @property
    def app(self) -> str:
        """Of its hello, as the device says it."""
        ...


class Place:
    """One connection's seat at one event."""

    __slots__ = ("acked", "app", "at", "event", "index", "map", "outlet", "owes", "sent")

    def __init__(self, outlet: Outlet, event: "Followed", order: Order, app: str = "") -> None:
        self.outlet = outlet
        self.app = app
        """The label that it is counted under."""
        self.event = event
        self.index = 0
        self.sent = order
        """The newest state it was given or is owed. Compared by identity with its event's."""
        self.acked = order
        """Acks of states up to this one don't count: it joined here, or has acked it."""
        self.at: Order = NOWHERE
        self.map: MapVersion | None = None
        self.owes = 0


NOWHERE: Order = (0, 0)


class Tally:
    """What became of one state. `audience` = `written` + `pending` + `superseded` + `closed`, always."""

    __slots__ = (
        "asked", "audience", "closed", "drops", "ignored", "latency", "missing", "order", "p", "pending", "superseded",
        "switched", "unhashed", "written",
    )  # fmt: skip

    def __init__(self, order: Order, p: int, audience: list[Place]) -> None:
        self.order = order
        self.p = p
        self.audience = self.pending = len(audience)
        self.written = self.superseded = self.closed = 0
        self.asked = self.audience if p >= ACK_ALL else 0
        self.switched = self.missing = self.ignored = 0
        self.latency: dict[int, int] = {}
        self.drops: dict[str, int] = {}
        """Why connections ended while this was the newest state → how many, of all that followed the event."""
        self.unhashed = [place.outlet.device for place in audience] if 0 < p < ACK_ALL else []
        """Devices of the audience of which it is not known yet whether they are asked: that waits until all have the state."""


class Lane:
    """The way of one frame around an event's places: `left` places from `cursor` on have not been passed."""

    __slots__ = ("cursor", "left", "rounds")

    def __init__(self) -> None:
        self.cursor = self.left = self.rounds = 0

    def start(self, places: int) -> None:
        """Once around. One under way goes on where it is; a new one starts somewhere else than those before, so that nobody is
        always last (multiples of the golden section spread evenly over the circle)."""
        if not self.left:
            self.rounds += 1
            self.cursor = int(self.rounds * GOLDEN % 1 * places)
        self.left = places

    def take(self, places: list[Place], limit: int) -> list[Place]:
        """The next places, at most `limit`."""
        if self.cursor >= len(places):
            self.cursor = 0
        part = places[self.cursor : self.cursor + min(limit, self.left)]
        self.left = min(self.left, len(places)) - len(part)
        self.cursor += len(part)
        return part


class Followed:
    """An event that somebody of this worker follows or waits for."""

    __slots__ = (
        "began", "e", "frame", "hint", "hints", "idle", "map", "maps", "order", "orders", "places", "states", "tallies",
        "told", "waiters", "wanted", "welcome",
    )  # fmt: skip

    def __init__(self, e: str, now: float) -> None:
        self.e = e
        self.order: Order | None = None
        self.frame = self.welcome = b""
        self.map: MapVersion | None = None
        self.hint: bytes | None = None
        self.places: list[Place] = []
        self.states, self.hints = Lane(), Lane()
        self.tallies: deque[Tally] = deque(maxlen=TALLIES_MAX)
        self.waiters: dict[Outlet, None] = {}
        self.wanted = now
        """When its head was asked for."""
        self.idle: float | None = None
        """Since when nobody follows it."""
        self.began = now
        """When the fan-out under way began."""
        self.orders: Counter[tuple[str, Order]] = Counter()
        """By app and order."""
        self.maps: Counter[MapVersion | None] = Counter()
        self.told: dict[Order, tuple[float, Receipt]] = {}
