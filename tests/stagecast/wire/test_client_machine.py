"""The client session under any order of events, beside a model that is a few dictionaries."""

import random
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stagecast.wire.client_session import ClientSession, Phase
from stagecast.wire.effects import Effect, FetchDue, GiveUp, Send, Switched
from stagecast.wire.frames import Ack, Hello, Ping, Position
from stagecast.wire.sampling import ack_hash

EVENTS = ["final", "semi"]
GENS = [1764000000000, 1764000000001]
Order = tuple[int, int]

events = st.sampled_from(EVENTS)
gens = st.sampled_from(GENS)
versions = st.sampled_from([f"176400000000{i}-x" for i in range(4)])
states = st.fixed_dictionaries(
    {
        "t": st.just("state"), "e": events, "gen": gens, "seq": st.integers(1, 6),
        "stage": st.sampled_from(["live", "pause", "gone"]), "ts": st.just(1), "map": st.none() | versions,
        "fetch": st.integers(0, 20_000),
        "ack": st.none() | st.fixed_dictionaries({"p": st.sampled_from([1, 2**31, 2**32]), "w": st.integers(0, 5000)}),
    }
)  # fmt: skip
maps = st.fixed_dictionaries(
    {
        "t": st.just("map"), "e": events, "gen": gens, "map": versions,
        "stages": st.dictionaries(st.sampled_from(["live", "pause"]), st.integers(0, 9)),
        "default": st.none() | st.integers(0, 9), "ttl": st.integers(1, 500), "cohort": st.booleans(),
    }
)  # fmt: skip


class DeviceMachine(RuleBasedStateMachine):
    """What must hold: no step back, nothing applied twice, one ack at most for a state, one fetch at most under way and one
    planned for an event, positions as the model has them, and time that always moves on."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.session = ClientSession("d1", EVENTS, random.Random(seed))
        self.now = 0.0
        self.order: dict[str, Order] = dict.fromkeys(EVENTS, (0, 0))
        self.asked: dict[tuple[str, Order], int] = {}
        self.acked: dict[tuple[str, Order], int] = {}
        self.flying: set[str] = set()
        self.pinged: int | float | None = None

    # -- inputs

    @precondition(lambda self: self.session.phase is Phase.AWAY)
    @rule(heads=st.lists(states, max_size=3), maps_at=st.sampled_from([None, "http://m"]))
    def connect(self, heads: list[dict[str, Any]], maps_at: str | None) -> None:
        hello = self.session.opened("t", self.now)[0]
        assert isinstance(hello, Send)
        assert isinstance(hello.frame, Hello)
        assert {(one.e, one.gen, one.seq) for one in hello.frame.at} == {(e, *self.order[e]) for e in EVENTS}
        heads = [{**head, "ack": None} for head in heads]
        welcome = {"t": "welcome", "sid": "s", "now": 1, "ping": 45, "back": [1, 2], "refresh": None}
        self.receive({**welcome, "maps": maps_at, "state": heads}, heads)

    @precondition(lambda self: self.session.phase in (Phase.OPEN, Phase.LEAVING))
    @rule(frame=states)
    def state(self, frame: dict[str, Any]) -> None:
        order = frame["gen"], frame["seq"]
        if frame["ack"] and ack_hash("d1", *order) < frame["ack"]["p"]:
            key = frame["e"], order
            self.asked[key] = self.asked.get(key, 0) + 1
        self.receive(frame, [frame])

    @precondition(lambda self: self.session.phase in (Phase.OPEN, Phase.LEAVING))
    @rule(frame=maps)
    def push(self, frame: dict[str, Any]) -> None:
        self.receive(frame, [])

    @precondition(lambda self: self.session.phase in (Phase.OPEN, Phase.LEAVING))
    @rule(event=events, gen=gens, version=versions, w=st.integers(0, 60_000))
    def hint(self, event: str, gen: int, version: str, w: int) -> None:
        self.receive({"t": "hint", "e": event, "gen": gen, "map": version, "w": w}, [])

    @precondition(lambda self: self.session.phase in (Phase.OPEN, Phase.LEAVING))
    @rule(event=events)
    def refuse(self, event: str) -> None:
        self.receive({"t": "err", "code": "unknown_event", "e": event, "text": ""}, [])

    @precondition(lambda self: self.session.phase is Phase.OPEN)
    @rule()
    def goaway(self) -> None:
        self.receive({"t": "goaway", "why": "drain", "back": None}, [])

    @precondition(lambda self: self.session.phase is not Phase.AWAY)
    @rule()
    def lose(self) -> None:
        self.session.closed(self.now)
        self.pinged = None

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), status=st.sampled_from([200, 304, 404, None]), refresh=st.none() | st.integers(0, 900))
    def answer(self, data: st.DataObject, status: int | None, refresh: int | None) -> None:
        event = data.draw(st.sampled_from(sorted(self.flying)))
        self.flying.discard(event)
        if status is None:
            self.session.fetch_failed(event, self.now)
            return
        body = orjson.dumps({**data.draw(maps), "e": event, "refresh_after": refresh})
        self.check(self.session.fetched(event, status, body, self.now), [])

    @rule(share=st.floats(0, 1))
    def wait(self, share: float) -> None:
        """Goes to the deadline, or a part of the way."""
        deadline = self.session.deadline()
        if deadline is None:
            return
        assert deadline >= self.now or deadline == 0.0 or share >= 0
        self.now = max(self.now, self.now + (deadline - self.now) * share)
        self.check(self.session.expire(self.now), [])

    @rule()
    def catch_up_with_time(self) -> None:
        """Everything due now is done in a few steps: no deadline stays in the past, so a driver never spins."""
        for _ in range(4):
            deadline = self.session.deadline()
            if deadline is None or deadline > self.now:
                return
            self.check(self.session.expire(self.now), [])
        raise AssertionError(f"still due at {self.session.deadline()}, now {self.now}")

    # -- the model

    def receive(self, frame: dict[str, Any], heads: list[dict[str, Any]]) -> None:
        self.check(self.session.receive(orjson.dumps(frame), self.now), heads)

    def check(self, effects: list[Effect], heads: list[dict[str, Any]]) -> None:
        expected: list[tuple[str, Order]] = []
        for head in heads:
            order = head["gen"], head["seq"]
            if order > self.order[head["e"]]:
                self.order[head["e"]] = order
                expected.append((head["e"], order))
        switched = [effect.state for effect in effects if isinstance(effect, Switched)]
        assert [(state.e, state.order) for state in switched] == expected
        for effect in effects:
            match effect:
                case Send(Ack() as ack):
                    key = ack.e, (ack.gen, ack.seq)
                    self.acked[key] = self.acked.get(key, 0) + 1
                    assert self.acked[key] == 1, "acked twice"
                    assert self.asked.get(key), "nobody asked"
                    assert (ack.gen, ack.seq) == self.order[ack.e], "an ack for a state that was overtaken"
                case Send(Ping(c)):
                    self.pinged = c
                    self.session.receive(orjson.dumps({"t": "pong", "c": c, "now": 1}), self.now)
                case FetchDue(event):
                    assert event not in self.flying, "two fetches at once"
                    self.flying.add(event)
                case GiveUp():
                    assert self.session.phase is Phase.GIVEN_UP

    @invariant()
    def positions_are_the_models(self) -> None:
        if not hasattr(self, "session"):
            return
        for event in EVENTS:
            position = self.session.position(event)
            assert (position.gen, position.seq) == self.order[event]
            assert isinstance(position, Position)

    @invariant()
    def maps_are_of_the_gen(self) -> None:
        if not hasattr(self, "session"):
            return
        for event in EVENTS:
            one = self.session.followed(event)
            assert one.state is None or one.map is None or one.map.gen == one.state.gen
            assert (one.in_flight is not None) == (event in self.flying)


DeviceMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDeviceMachine = DeviceMachine.TestCase
