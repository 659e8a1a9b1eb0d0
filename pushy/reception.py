"""Who may come in to a worker, who is here, and what of that goes to the feed."""

import math
import random
from collections.abc import Callable, Iterable

from pushy.connection import Connection, Floor
from pushy.directory import Directory
from pushy.handshake import BUSY, RETRY_AFTER, Refusal
from pushy.happenings import Hello
from pushy.limits import Crowd
from pushy.link import Began, Ended
from pushy.news import News
from pushy.turnstile import Turnstile
from stagecast.clock import Clock
from stagecast.wire.closing import CloseCode


class Reception:
    """`floor` is set by its owner: each knows the other. `tell` is called when there begin to be news."""

    floor: Floor

    def __init__(
        self, index: int, crowd: Crowd, turnstile: Turnstile, clock: Clock, rng: random.Random, tell: Callable[[], None]
    ) -> None:
        self._index = index
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self.crowd = crowd
        self.turnstile = turnstile
        self.directory: Directory[Connection] = Directory()
        self.news = News()
        self.leaving = False
        """Whether the worker is draining or stopping: nobody else comes in."""

    @property
    def by_address(self) -> bool:
        """Whether it matters where a connection comes from."""
        return bool(self.crowd.per_address or self.floor.proxies.networks)

    def arrived(self, connection: Connection) -> bool:
        """A TCP connection is there: whether to keep it."""
        if self.by_address:
            peer: tuple[str, int] | None = connection.transport.get_extra_info("peername")
            if peer is None:  # reset before it was accepted: nobody to count, but its end will be
                self.crowd.arrived(None)
                return False
            connection.proxied = self.floor.proxies.trusts(peer[0])
            if not connection.proxied:
                connection.address = self.crowd.key(peer[0])
        return self._kept(self.crowd.arrived(connection.address))

    def introduced(self, connection: Connection, address: str | None) -> bool:
        """A proxy has told the client's address: whether to keep the connection."""
        connection.address = self.crowd.key(address) if address else None
        return self._kept(self.crowd.known(connection.address))

    def _kept(self, reason: str | None) -> bool:
        if reason is not None:
            self.floor.refusals[reason] += 1
        return reason is None

    def busy(self, connection: Connection) -> Refusal | None:
        """Before any costly work: whom to send away, and for how long, so that the crowd comes back spread out."""
        if self.leaving or self.crowd.over(connection.address, self.floor.upgraded):
            wait = self._rng.uniform(*self.floor.rules.back) / 1000
            return Refusal(503, BUSY.text, max(RETRY_AFTER, math.ceil(wait)))
        wait = self.turnstile.enter(self._clock.monotonic())
        return Refusal(503, "too many at once", math.ceil(wait), "rate") if wait else None

    def greeted(self, connection: Connection) -> None:
        """Its hello is good: an earlier session of the same device ends."""
        claims, session = connection.claims, connection.session
        if others := self.directory.device(claims.dev):
            self.end(
                (one for one in others if one.member == claims.sub), CloseCode.REPLACED, "replaced by a later session"
            )
        self.directory.add(connection)
        self._change(Began(claims.sub, claims.dev, session.sid, session.start))
        hello = Hello(self.floor.rules.node, session.number, self._index, session.app)
        self.floor.happenings.began(session.start, claims.dev, hello)

    def left(self, connection: Connection) -> None:
        """Its session is over."""
        if connection.session.claims is not None:
            self.directory.remove(connection)
            self._change(Ended(connection.member, connection.device, connection.session.sid))

    def end(self, connections: Iterable[Connection], code: CloseCode, reason: str) -> None:
        """Ends these sessions, for a reason that is not the devices' doing."""
        now, wall = self._clock.monotonic(), self._clock.now()
        for connection in connections:
            connection.end(code, reason, now, wall)

    def _change(self, change: Began | Ended) -> None:
        if self.news.add(change):
            self._tell()
