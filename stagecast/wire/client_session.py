"""The device's side of `stagecast.v1`, without a socket: frames and moments in, effects out.

A `ClientSession` lives as long as the device and sees many connections. A driver tells it what happened (`opened`, `receive`,
`closed`, `fetched`, …), each time with `now` in monotonic seconds, does the effects that come back, in order, and calls
`expire` at `deadline()`. All chance is drawn from the `rng` given. The phases:

    phase      input                                  next
    ---------  -------------------------------------  ---------
    away       opened                                 greeting
    greeting   welcome                                open
    greeting   goaway                                 leaving
    open       state, map, hint, msg, pong, err       open
    open       goaway                                 leaving
    leaving    state, map, hint, msg, pong, err,      leaving
               goaway
    all but    closed                                 away
    away

A frame that is not in the table is the node's error: the session gives the connection up. An input that is not in it is the
driver's: LocalError. Frames that do not decode are dropped, never answered by a reconnect: a node that sends one to everybody
would else bring everybody back at once.
"""

import random
from enum import Enum

from stagecast.names import EventId
from stagecast.wire.codec import FrameError, decode_node_frame, decode_pulled_map
from stagecast.wire.effects import (
    Dropped,
    Effect,
    FetchDue,
    Filled,
    GiveUp,
    Leaving,
    MapHeld,
    Message,
    Refused,
    Send,
    TokenDue,
    Welcomed,
)
from stagecast.wire.followed import JITTER, Followed
from stagecast.wire.frames import (
    EVENTS_MAX,
    Auth,
    Err,
    Goaway,
    Hello,
    Hint,
    Msg,
    NodeFrame,
    Ping,
    Pong,
    Position,
    StageMap,
    State,
    Sub,
    Unsub,
    Welcome,
)

PONG_WITHIN = 10.0
"""Seconds from a ping to its pong, and from `hello` to `welcome`."""
LEAVE_WITHIN = 10.0
"""Seconds from `goaway` until the device closes by itself; the node does so within 4."""
CENSUS_WITHIN = 45.0
"""Seconds from applying something until the ping that tells the positions, at most (or the ping interval, if shorter)."""
ASK_AGAIN = (30.0, 60.0)
"""Seconds until a refused event is asked for again."""
RENEW_AGAIN = (5.0, 15.0)
"""Seconds until a token that could not be had is asked for again."""
RENEW_EVERY_MIN = 10.0
"""Seconds between two renewals at least, whatever `refresh` says."""


class LocalError(RuntimeError):
    """The driver called what this phase does not take."""


class Phase(Enum):
    AWAY = "away"
    GREETING = "greeting"
    OPEN = "open"
    LEAVING = "leaving"
    GIVEN_UP = "given up"


_OPEN = ("state", "map", "hint", "msg", "pong", "err")
TRANSITIONS: dict[tuple[Phase, str], Phase] = {
    (Phase.AWAY, "opened"): Phase.GREETING,
    (Phase.GREETING, "welcome"): Phase.OPEN,
    (Phase.GREETING, "goaway"): Phase.LEAVING,
    **{(Phase.OPEN, kind): Phase.OPEN for kind in _OPEN},
    (Phase.OPEN, "goaway"): Phase.LEAVING,
    **{(Phase.LEAVING, kind): Phase.LEAVING for kind in (*_OPEN, "goaway")},
    **{(phase, "closed"): Phase.AWAY for phase in Phase if phase is not Phase.AWAY},
}


class ClientSession:
    """One device's protocol state. `device`, `app` and `events` are checked by the node, not here."""

    def __init__(self, device: str, events: list[EventId], rng: random.Random, app: str = "") -> None:
        self.phase = Phase.AWAY
        self._device = device
        self._app = app
        self._rng = rng
        self._followed: dict[EventId, Followed] = {}
        self._told: dict[EventId, Position] = {}
        self._maps: str | None = None
        self._ping = CENSUS_WITHIN
        self._refresh: float | None = None
        self._ping_at: float | None = None
        self._census_drawn = False
        self._answer_by: float | None = None  # welcome, pong or close: what the node owes us next
        self._pinged: int = -1
        self._token_at: float | None = None
        for event in events:
            self._add(event)

    def position(self, event: EventId) -> Position:
        """Where the device is; KeyError for an event it does not follow."""
        return self._followed[event].position

    def followed(self, event: EventId) -> Followed:
        """All that is held of an event; KeyError for one it does not follow."""
        return self._followed[event]

    @property
    def events(self) -> list[EventId]:
        return list(self._followed)

    # -- what the driver tells

    def opened(self, token: str, now: float) -> list[Effect]:
        """A connection is there: says hello, which also subscribes."""
        self._go("opened")
        self._answer_by = now + PONG_WITHIN
        positions = [one.position for one in self._followed.values()]
        self._told = {one.e: one for one in positions}
        return [Send(Hello(token, self._device, self._app, positions))]

    def receive(self, text: str | bytes, now: float) -> list[Effect]:
        """A text message arrived at `now`."""
        if self.phase is Phase.AWAY:
            raise LocalError("a message without a connection")
        if self.phase is Phase.GIVEN_UP:
            return []
        try:
            frame = decode_node_frame(text)
        except FrameError as error:
            return [Dropped(str(error))]
        if frame is None:
            return []
        kind = str(frame.__struct_config__.tag)
        if (self.phase, kind) not in TRANSITIONS:
            return self._give_up(f"a {kind} while {self.phase.value}")
        self._go(kind)
        effects = self._take(frame, now)
        self._draw_census(now)
        return effects

    def closed(self, now: float) -> None:
        """The connection is gone, whoever ended it. Planned fetches and held maps stay."""
        self._go("closed")
        self._ping_at = self._answer_by = self._token_at = None
        self._census_drawn = False
        for one in self._followed.values():
            one.disconnected()

    def follow(self, event: EventId, now: float) -> list[Effect]:
        """Raises ValueError over 8 events."""
        if event in self._followed:
            return []
        added = self._add(event)
        return [self._subscribe(added)] if self.phase in (Phase.GREETING, Phase.OPEN) else []

    def unfollow(self, event: EventId, now: float) -> list[Effect]:
        """Forgets all that is held of the event."""
        if self._followed.pop(event, None) is None:
            return []
        self._told.pop(event, None)
        return [Send(Unsub([event]))] if self.phase in (Phase.GREETING, Phase.OPEN) else []

    def applied(self, event: EventId, now: float) -> None:
        """What `Switched` said is on the screen: the ack will say how long it took."""
        if event in self._followed:
            self._followed[event].applied(now)

    def given(self, stage_map: StageMap, now: float) -> list[Effect]:
        """A stage map that came some other way than through the node: held as a pushed one is."""
        return self._take(stage_map, now)

    def renewed(self, token: str, now: float) -> list[Effect]:
        """The answer to TokenDue; tells the node, if the connection is still there."""
        if self.phase is not Phase.OPEN:
            return []
        if self._refresh is not None:
            self._token_at = now + max(self._refresh, RENEW_EVERY_MIN)
        return [Send(Auth(token))]

    def renewal_failed(self, now: float) -> None:
        """No token to be had: asked for again soon; there is grace after its end."""
        if self.phase is Phase.OPEN:
            self._token_at = now + self._rng.uniform(*RENEW_AGAIN)

    def fetched(self, event: EventId, status: int, body: bytes, now: float) -> list[Effect]:
        """The HTTP answer to FetchDue. Anything but 304 and a 200 that holds the event's map is a failure."""
        one = self._followed.get(event)
        if one is None:
            return []
        got, refresh_after = None, None
        try:
            if status == 200:
                got, refresh_after = decode_pulled_map(body, event)
        except FrameError as error:
            one.fetch_failed()
            return [Dropped(str(error))]
        if status not in (200, 304):
            one.fetch_failed()
            return []
        before = one.map
        filled = one.fetched(got, refresh_after, now)
        self._draw_census(now)
        return self._map_effects(one, before, filled)

    def fetch_failed(self, event: EventId, now: float) -> None:
        """No HTTP answer to FetchDue."""
        if event in self._followed:
            self._followed[event].fetch_failed()

    def deadline(self) -> float | None:
        """When to call `expire`; None: not before something else happens."""
        moments = [moment for one in self._followed.values() for moment in one.moments]
        if self.phase is not Phase.AWAY and self._answer_by is not None:
            moments.append(self._answer_by)
        if self.phase in (Phase.OPEN, Phase.LEAVING):
            moments += [one.ack[0] for one in self._followed.values() if one.ack]
        if self.phase is Phase.OPEN:
            moments += [one.ask_at for one in self._followed.values() if one.ask_at is not None]
            if self._token_at is not None:
                moments.append(self._token_at)
            if self._ping_at is not None and self._answer_by is None:
                moments.append(self._ping_at)
        return min(moments, default=None)

    def expire(self, now: float) -> list[Effect]:
        """Does what is due. Call it at `deadline()`; earlier or later does no harm."""
        if self.phase is not Phase.AWAY and self._answer_by is not None and self._answer_by <= now:
            return self._give_up(f"no answer from the node while {self.phase.value}")
        effects: list[Effect] = []
        for one in self._followed.values():
            effects += self._expire_event(one, now)
        self._draw_census(now)
        if self.phase is Phase.OPEN:
            effects += self._expire_connection(now)
        return effects

    # -- inside

    def _go(self, kind: str) -> None:
        after = TRANSITIONS.get((self.phase, kind))
        if after is None:
            raise LocalError(f"{kind} while {self.phase.value}")
        self.phase = after

    def _give_up(self, why: str) -> list[Effect]:
        self.phase, self._answer_by = Phase.GIVEN_UP, None
        return [GiveUp(why)]

    def _add(self, event: EventId) -> Followed:
        if len(self._followed) >= EVENTS_MAX:
            raise ValueError(f"at most {EVENTS_MAX} events can be followed")
        self._followed[event] = Followed(event, self._device, self._rng)
        return self._followed[event]

    def _subscribe(self, one: Followed) -> Send:
        self._told[one.event] = one.position
        return Send(Sub([one.position]))

    def _take(self, frame: NodeFrame, now: float) -> list[Effect]:
        match frame:
            case Welcome():
                return self._welcome(frame, now)
            case State():
                return self._state(frame, now)
            case StageMap():
                one = self._followed.get(frame.e)
                return self._map_effects(one, one.map, one.hold(frame, now)) if one else []
            case Hint():
                if frame.e in self._followed:
                    self._followed[frame.e].hinted(frame, now)
                return []
            case Msg():
                return [Message(frame.id, frame.kind, frame.body)]
            case Pong():
                if frame.c == self._pinged and self.phase is Phase.OPEN:
                    self._answer_by = None
                return []
            case Goaway():
                self._answer_by = now + LEAVE_WITHIN
                return [Leaving(frame.why, frame.back)]
            case Err():
                return self._refused(frame, now)

    def _welcome(self, frame: Welcome, now: float) -> list[Effect]:
        self._answer_by = None
        self._maps, self._ping, self._refresh = frame.maps, frame.ping, frame.refresh
        self._ping_at = now + self._ping * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._token_at = None if frame.refresh is None else now + frame.refresh
        effects: list[Effect] = [Welcomed(frame.sid, frame.back)]
        for state in frame.state:
            effects += self._state(state, now)
        return effects

    def _state(self, state: State, now: float) -> list[Effect]:
        one = self._followed.get(state.e)
        switched = one.take(state, now) if one else None
        return [switched] if switched else []

    def _refused(self, frame: Err, now: float) -> list[Effect]:
        one = self._followed.get(frame.e) if frame.e is not None else None
        if one:
            one.refused, one.ask_at = True, now + self._rng.uniform(*ASK_AGAIN)
        return [Refused(frame.e, frame.code, frame.text)]

    @staticmethod
    def _map_effects(one: Followed, before: StageMap | None, filled: Filled | None) -> list[Effect]:
        effects: list[Effect] = [MapHeld(one.map)] if one.map and one.map is not before else []
        return [*effects, filled] if filled else effects

    def _positions(self) -> list[Position]:
        return [one.position for one in self._followed.values() if not one.refused]

    def _draw_census(self, now: float) -> None:
        """Something was applied: the next ping comes sooner. Drawn once until that ping, however much is applied."""
        if self.phase is not Phase.OPEN or self._census_drawn or self._ping_at is None:
            return
        if any(self._told.get(one.e) != one for one in self._positions()):
            self._census_drawn = True
            self._ping_at = min(self._ping_at, now + self._rng.uniform(0, min(CENSUS_WITHIN, self._ping)))

    def _expire_event(self, one: Followed, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if one.ack and one.ack[0] <= now and self.phase in (Phase.OPEN, Phase.LEAVING):
            effects.append(Send(one.ack[1]))
            one.ack = None
        if one.ask_at is not None and one.ask_at <= now and self.phase is Phase.OPEN:
            one.ask_at = None
            effects.append(self._subscribe(one))
        if one.expire(now):
            if self._maps:
                url = f"{self._maps.rstrip('/')}/v1/stage-maps/{one.event}"
                effects.append(FetchDue(one.event, url, one.version))
            else:
                one.fetch_failed()
        return effects

    def _expire_connection(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self._token_at is not None and self._token_at <= now:
            self._token_at = None
            effects.append(TokenDue())
        if self._ping_at is not None and self._ping_at <= now and self._answer_by is None:
            effects.append(Send(self._next_ping(now)))
        return effects

    def _next_ping(self, now: float) -> Ping:
        positions = self._positions()
        changed = any(self._told.get(one.e) != one for one in positions)
        self._told = {one.e: one for one in positions}
        self._census_drawn = False
        self._pinged = max(round(now * 1000), self._pinged + 1)  # a clock that never says the same twice
        self._answer_by = now + PONG_WITHIN
        self._ping_at = now + self._ping * self._rng.uniform(1 - JITTER, 1 + JITTER)
        return Ping(self._pinged, positions if changed else None)
