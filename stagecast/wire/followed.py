"""One event as a device holds it: where it is, its stage maps, and what it has planned (at most one ack and one fetch). Pure."""

import random
from dataclasses import dataclass

from stagecast.broadcast import State
from stagecast.names import GONE, EventId, MapVersion
from stagecast.wire.effects import Filled, Switched
from stagecast.wire.frames import Ack, AckResult, Hint, Payload, Position, StageMap
from stagecast.wire.sampling import ack_hash

JITTER = 0.2
"""Every ttl and refresh is longer or shorter by up to this share: what was given out together must not end together."""
REFRESH_MIN = 1.0
"""Seconds to the next fetch at least, whatever `refresh_after` says."""
NOTHING_YET = (0, 0)
"""The order of an event of which no state has come."""


@dataclass(frozen=True, slots=True)
class Held:
    """A stage map, until when (monotonic seconds)."""

    map: StageMap
    until: float


@dataclass(frozen=True, slots=True)
class Planned:
    """A fetch: at a moment, for at least a version ("": whichever there is)."""

    at: float
    version: MapVersion


class Followed:
    """One followed event. Moments are monotonic seconds, windows are ms as on the wire."""

    def __init__(self, event: EventId, device: str, rng: random.Random) -> None:
        self.event = event
        self.state: State | None = None
        self.refused = False
        """The node said `err`: it does not follow the event for us."""
        self.ask_at: float | None = None
        """When to ask for a refused event again."""
        self.fetch: Planned | None = None
        self.in_flight: MapVersion | None = None
        """What the fetch under way is for; None: none is."""
        self.ack: tuple[float, Ack] | None = None
        self._device = device
        self._rng = rng
        self._own: Held | None = None
        self._cohort: Held | None = None
        self._arrived = 0.0
        self._acked = NOTHING_YET
        self._fetched_for: tuple[tuple[int, int], MapVersion] | None = None
        self._refresh_after: float | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.state.order if self.state else NOTHING_YET

    @property
    def version(self) -> MapVersion | None:
        """Of the own map: a cohort map does not count as held."""
        return self._own.map.map if self._own else None

    @property
    def position(self) -> Position:
        gen, seq = self.order
        return Position(self.event, gen, seq, self.version)

    @property
    def map(self) -> StageMap | None:
        """The map in use: the own one, else the cohort's."""
        held = self._own or self._cohort
        return held.map if held else None

    @property
    def moments(self) -> list[float]:
        """When `expire` has something to do, connected or not."""
        found = [held.until for held in (self._own, self._cohort) if held]
        if self.fetch and self.in_flight is None:
            found.append(self.fetch.at)
        return found

    def payload(self) -> tuple[AckResult, Payload]:
        """What the current stage shows: own stage, own default, the cohort's, or missing. A null default is no default."""
        stage = self.state.stage if self.state else ""
        for held in (self._own, self._cohort):
            if held and stage in held.map.stages:
                return "switched", held.map.stages[stage]
            if held and held.map.default is not None:
                return "switched", held.map.default
        return "missing", None

    def take(self, state: State, now: float) -> Switched | None:
        """A state arrived. Applied only if greater by (gen, seq); apart from that, it may plan a fetch or an ack."""
        self.refused, self.ask_at = False, None
        if state.order < self.order or state.order == NOTHING_YET:
            return None
        switched = None
        if state.order > self.order:
            switched = self._switch(state, now)
        elif state.ack is not None and self._acked != state.order:
            self._plan_ack(state, "ignored", now)
        self._look_for_map(state, now)
        return switched

    def applied(self, now: float) -> None:
        """What the device switched to is on the screen: says how long that took, if an ack is pending."""
        if self.ack:
            at, ack = self.ack
            took = max(0, round((now - self._arrived) * 1000))
            self.ack = at, Ack(ack.e, ack.gen, ack.seq, ack.r, took)

    def hold(self, got: StageMap, now: float) -> Filled | None:
        """A map was pushed or fetched. Dropped when of another gen, or not greater than what is held of its kind."""
        if self.state and got.gen != self.state.gen:
            return None
        before = self._cohort if got.cohort else self._own
        if before and got.map <= before.map.map:
            return None
        was_missing = self.payload()[0] == "missing"
        held = Held(got, now + self._jittered(got.ttl))
        if got.cohort:
            self._cohort = held
        else:
            self._own = held
            if self.fetch and got.map >= self.fetch.version:
                self.fetch = None
        result, payload = self.payload()
        if self.state and was_missing and result == "switched":
            return Filled(self.state, payload)
        return None

    def hinted(self, hint: Hint, now: float) -> None:
        """A newer map exists: plans one fetch within the window, unless it is not newer than what is held or planned."""
        known = max(self.version or "", self.fetch.version if self.fetch else "", self.in_flight or "")
        if (self.state and hint.gen != self.state.gen) or hint.map <= known:
            return
        self._plan_fetch(hint.w, hint.map, now)

    def expire(self, now: float) -> bool:
        """Drops maps whose time is over. True when the planned fetch is due: it is now in flight."""
        own, cohort = self._own, self._cohort
        if cohort and cohort.until <= now:
            self._cohort = None
        if own and own.until <= now:
            self._own = self._fetched_for = None
            if self.state:
                self._look_for_map(self.state, now)
        if self.fetch is None or self.in_flight is not None or self.fetch.at > now:
            return False
        self.in_flight, self.fetch = self.fetch.version, None
        return True

    def fetched(self, got: StageMap | None, refresh_after: float | None, now: float) -> Filled | None:
        """The fetch ended with a map, or with "what you hold is current" (None). Plans the next one where the answer says so."""
        filled = self.hold(got, now) if got else None
        self.in_flight = None
        if got is None and self._own:
            self._own = Held(self._own.map, now + self._jittered(self._own.map.ttl))
        self._refresh_after = refresh_after if got else self._refresh_after
        if self._refresh_after and not self._over:
            self._plan_at(now + self._jittered(max(self._refresh_after, REFRESH_MIN)), "")
        return filled

    def fetch_failed(self) -> None:
        """No second try now: the next state, hint or connect plans it again."""
        self.in_flight = self._fetched_for = None

    def disconnected(self) -> None:
        """Acks belong to the connection that asked; a refused event is asked for again by the next `hello`."""
        self.ack = self.ask_at = None
        self.refused = False

    @property
    def _over(self) -> bool:
        return self.state is not None and self.state.stage == GONE

    def _switch(self, state: State, now: float) -> Switched:
        self.state, self._arrived, self.ack = state, now, None
        if self._own and self._own.map.gen != state.gen:
            self._own = None
        if self._cohort and self._cohort.map.gen != state.gen:
            self._cohort = None
        result, payload = self.payload()
        self._plan_ack(state, result, now)
        return Switched(state, result, payload)

    def _plan_ack(self, state: State, result: AckResult, now: float) -> None:
        if state.ack is None or ack_hash(self._device, state.gen, state.seq) >= state.ack.p:
            return
        self._acked = state.order
        self.ack = now + self._rng.uniform(0, state.ack.w) / 1000, Ack(self.event, state.gen, state.seq, result, 0)

    def _look_for_map(self, state: State, now: float) -> None:
        """Once per state: without a map, or with an older one than the state wants, one fetch within its window."""
        if self._over:
            self.fetch = None  # nothing is left to show, and a deleted event must not send everyone to the API
            return
        wanted = state.map or ""
        if (self._own and self._own.map.map >= wanted) or self._fetched_for == (state.order, wanted):
            return
        self._fetched_for = state.order, wanted
        self._plan_fetch(state.fetch, wanted, now)

    def _plan_fetch(self, window: int, version: MapVersion, now: float) -> None:
        self._plan_at(now + self._rng.uniform(0, window) / 1000, version)

    def _plan_at(self, at: float, version: MapVersion) -> None:
        """At most one is planned: the sooner moment, the greater version."""
        if self.fetch:
            at, version = min(at, self.fetch.at), max(version, self.fetch.version)
        self.fetch = Planned(at, version)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
