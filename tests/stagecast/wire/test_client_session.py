"""The device's side of the protocol: stagecast.wire.client_session, frame by frame, with time and chance in the test's hands."""

import random
from typing import Any

import orjson
import pytest

from stagecast.wire.client_session import TRANSITIONS, ClientSession, LocalError, Phase
from stagecast.wire.codec import NODE_TYPES
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
    Switched,
    TokenDue,
    Welcomed,
)
from stagecast.wire.frames import Ack, Auth, Hello, Ping, Position, Sub, Unsub

GEN = 1764000000000
V1, V2, V3 = (f"1764000000000-{i}" for i in (1, 2, 3))
ALL = 2**32
Frame = dict[str, Any]


def state(seq: int, stage: str = "live", *, gen: int = GEN, event: str = "final", **more: Any) -> Frame:
    base = {"t": "state", "e": event, "gen": gen, "seq": seq, "stage": stage, "ts": 5, "map": None, "fetch": 8000}
    return {**base, "ack": None, **more}


def stage_map(version: str, *, gen: int = GEN, event: str = "final", **more: Any) -> Frame:
    base = {"t": "map", "e": event, "gen": gen, "map": version, "stages": {"live": ["t1"]}, "ttl": 1000}
    return {**base, **more}


def hint(version: str, w: int = 4000, gen: int = GEN) -> Frame:
    return {"t": "hint", "e": "final", "gen": gen, "map": version, "w": w}


def err(code: str, event: str | None = "final") -> Frame:
    return {"t": "err", "code": code, "e": event, "text": "why"}


class Half(random.Random):
    """Chance that always draws the middle, so that a test can name the moment."""

    def random(self) -> float:
        return 0.5


class Bench:
    """A session and its time."""

    def __init__(self, *events: str, rng: random.Random | None = None) -> None:
        self.session = ClientSession("d1", list(events or ["final"]), rng or Half(), app="test")
        self.now = 100.0

    def opened(self) -> list[Effect]:
        return self.session.opened("token", self.now)

    def gets(self, *frames: Frame) -> list[Effect]:
        effects: list[Effect] = []
        for frame in frames:
            effects += self.session.receive(orjson.dumps(frame), self.now)
        return effects

    def welcomed(self, *states: Frame, **more: Any) -> list[Effect]:
        """Connects: hello and welcome."""
        self.opened()
        base = {"t": "welcome", "sid": "s", "now": 1, "ping": 45, "back": [1, 2], "refresh": None, "maps": "http://m/"}
        return self.gets({**base, "state": states, **more})

    def after(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.session.expire(self.now)

    def due(self) -> list[Effect]:
        """Goes to the deadline and does what is due."""
        deadline = self.session.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        return self.session.expire(self.now)

    def due_in(self) -> float | None:
        deadline = self.session.deadline()
        return None if deadline is None else round(deadline - self.now, 6)

    def fetched(self, body: Frame, status: int = 200, **more: Any) -> list[Effect]:
        return self.session.fetched("final", status, orjson.dumps({**body, **more}), self.now)

    def pong(self, effects: list[Effect]) -> None:
        """Answers the ping among the effects."""
        (ping,) = (effect.frame for effect in effects if isinstance(effect, Send) and isinstance(effect.frame, Ping))
        self.gets({"t": "pong", "c": ping.c, "now": 1})


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.frame for effect in effects if isinstance(effect, Send)]


# -- hello, welcome, phases


def test_hello_says_where_the_device_is() -> None:
    """Nothing yet at first; after a reconnect the positions it holds, with the map's version."""
    bench = Bench("final", "semi")
    assert bench.opened() == [Send(Hello("token", "d1", "test", [Position("final"), Position("semi")]))]
    bench.session.closed(bench.now)
    bench.welcomed(state(3))
    bench.gets(stage_map(V1))
    bench.session.closed(bench.now)
    assert sent(bench.opened())[0].at == [Position("final", GEN, 3, V1), Position("semi")]


def test_a_welcome_with_a_newer_state_is_a_switch() -> None:
    """The head in a welcome is taken if greater; it tells `back` too."""
    effects = Bench().welcomed(state(2))
    assert effects[0] == Welcomed("s", (1, 2))
    assert isinstance(effects[1], Switched)
    assert (effects[1].state.seq, effects[1].result) == (2, "missing")


def test_no_welcome_within_ten_seconds() -> None:
    """A node that takes the hello and says nothing is given up."""
    bench = Bench()
    bench.opened()
    assert bench.due_in() == 10
    assert isinstance(bench.due()[0], GiveUp)
    assert bench.gets(state(1)) == []
    bench.session.closed(bench.now)
    assert bench.session.phase is Phase.AWAY


FRAMES: dict[str, Frame] = {
    "welcome": {"t": "welcome", "sid": "s", "now": 1, "ping": 45, "back": [1, 2], "refresh": None, "maps": None, "state": []},
    "state": state(1), "map": stage_map(V1), "hint": hint(V1), "msg": {"t": "msg", "id": "1", "kind": "k", "body": None},
    "pong": {"t": "pong", "c": 1, "now": 1}, "goaway": {"t": "goaway", "why": "drain", "back": None},
    "err": err("bad_frame", None),
}  # fmt: skip


def test_every_frame_in_every_phase() -> None:
    """What the table has goes on in the phase it names; what it has not, the node's error, gives the connection up."""
    assert set(FRAMES) == NODE_TYPES
    for phase in (Phase.GREETING, Phase.OPEN, Phase.LEAVING):
        for kind, frame in FRAMES.items():
            bench = Bench()
            bench.opened()
            if phase is not Phase.GREETING:
                bench.gets(FRAMES["welcome"])
            if phase is Phase.LEAVING:
                bench.gets(FRAMES["goaway"])
            effects = bench.gets(frame)
            if (phase, kind) in TRANSITIONS:
                assert bench.session.phase is TRANSITIONS[phase, kind]
            else:
                assert bench.session.phase is Phase.GIVEN_UP
                assert [type(effect) for effect in effects] == [GiveUp]


def test_the_drivers_errors() -> None:
    """Input without a connection, a second opening, a close of nothing: LocalError, the driver's own."""
    bench = Bench()
    with pytest.raises(LocalError):
        bench.gets(state(1))
    with pytest.raises(LocalError):
        bench.session.closed(bench.now)
    bench.opened()
    with pytest.raises(LocalError):
        bench.opened()


def test_frames_that_are_none_are_dropped() -> None:
    """They end nothing: a node that sent one to everybody would else bring everybody back at once. Unknown types are no news."""
    bench = Bench()
    bench.welcomed()
    for text in (b"{", b'{"t":"state"}', b"[]"):
        assert [type(effect) for effect in bench.session.receive(text, bench.now)] == [Dropped]
    assert bench.session.receive(b'{"t":"later"}', bench.now) == []
    assert bench.session.phase is Phase.OPEN


# -- applying


def test_only_a_greater_gen_and_seq_is_applied() -> None:
    """Equal and older states are nothing; a greater gen wins over any seq."""
    bench = Bench()
    bench.welcomed(state(5))
    assert bench.gets(state(5, "other"), state(4)) == []
    (switched,) = bench.gets(state(1, gen=GEN + 1))
    assert isinstance(switched, Switched)
    assert bench.gets(state(9)) == []
    assert bench.session.position("final") == Position("final", GEN + 1, 1)


def test_a_stage_finds_its_payload_or_the_default() -> None:
    """Own stage, then own default, then missing; a null payload of the stage itself is a payload."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V1, stages={"live": ["t1"], "pause": None}, default="d"))
    got = [bench.gets(state(i, stage))[0] for i, stage in enumerate(("live", "pause", "other"), 1)]
    assert [(one.result, one.payload) for one in got if isinstance(one, Switched)] == [
        ("switched", ["t1"]),
        ("switched", None),
        ("switched", "d"),
    ]
    bench.gets(stage_map(V2))
    (switched,) = bench.gets(state(4, "other"))
    assert isinstance(switched, Switched)
    assert switched.result == "missing"


def test_a_cohort_map_fills_what_the_own_lacks() -> None:
    """It stands behind the own map, and does not count as held."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.gets(stage_map(V2, cohort=True, stages={"live": "c", "other": "c"}))
    assert bench.session.position("final").map is None
    assert bench.session.followed("final").payload() == ("switched", "c")
    bench.gets(stage_map(V1, stages={"live": "own"}))
    assert bench.session.position("final").map == V1
    assert bench.session.followed("final").payload() == ("switched", "own")
    (switched,) = bench.gets(state(2, "other"))
    assert isinstance(switched, Switched)
    assert switched.payload == "c"


def test_map_versions_compare_as_byte_strings() -> None:
    """Only a greater version replaces the held one."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.gets(stage_map("1764000000000-b"))
    assert bench.gets(stage_map("1764000000000-B"), stage_map("1764000000000-b", stages={})) == []
    assert bench.gets(stage_map("1764000000000-ba"))
    assert bench.session.position("final").map == "1764000000000-ba"


def test_a_map_of_another_gen_is_dropped() -> None:
    """Whichever comes first: the map of another gen, or the state of a new gen."""
    bench = Bench()
    bench.welcomed(state(1))
    assert bench.gets(stage_map(V2, gen=GEN - 1), stage_map(V3, gen=GEN + 1)) == []
    bench.gets(stage_map(V1))
    (switched,) = bench.gets(state(1, gen=GEN + 1))
    assert isinstance(switched, Switched)
    assert switched.result == "missing"
    assert bench.session.position("final").map is None


def test_a_missing_payload_that_comes_late_is_told() -> None:
    """Once: the switch was `missing`, then a map fills it; the position stays."""
    bench = Bench()
    bench.welcomed(state(1))
    held, filled = bench.gets(stage_map(V1))
    assert isinstance(held, MapHeld)
    assert isinstance(filled, Filled)
    assert (filled.state.seq, filled.payload) == (1, ["t1"])
    assert [type(one) for one in bench.gets(stage_map(V2))] == [MapHeld]


def test_a_map_ends_with_its_ttl() -> None:
    """ttl ± 20 %: then it is forgotten, and fetched once more."""
    for draw, ttl in ((0.0, 800), (0.5, 1000), (1.0, 1200)):
        rng = random.Random()
        rng.random = lambda draw=draw: draw  # type: ignore[method-assign, misc]
        bench = Bench(rng=rng)
        bench.welcomed(state(1))
        bench.gets(stage_map(V1))
        bench.session.closed(bench.now)
        assert bench.due_in() == ttl
        bench.due()
        assert bench.session.position("final").map is None
        planned = bench.session.followed("final").fetch
        assert draw == 0 or (planned is not None and planned.at - bench.now == draw * 8)


def test_states_of_events_not_followed_are_nothing() -> None:
    """What arrives late for an event that was unfollowed changes nothing."""
    bench = Bench()
    bench.welcomed(state(1), state(1, event="other"))
    assert bench.gets(state(2, event="other"), stage_map(V1, event="other")) == []
    assert bench.session.unfollow("final", bench.now) == [Send(Unsub(["final"]))]
    assert bench.gets(state(2), stage_map(V1), hint(V1)) == []
    assert bench.session.fetched("final", 200, b"", bench.now) == []


# -- acks


def test_an_ack_comes_within_its_window_and_once() -> None:
    """At U(0, w), with what the device did and how long that took; a repeated state asks for no second one."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V1), state(1, ack={"p": ALL, "w": 3000}))
    bench.session.applied("final", bench.now + 0.02)
    assert bench.due_in() == 1.5
    assert sent(bench.due()) == [Ack("final", GEN, 1, "switched", 20)]
    bench.gets(state(1, ack={"p": ALL, "w": 0}))
    assert not any(isinstance(frame, Ack) for frame in sent(bench.after(3)))


def test_who_is_not_sampled_does_not_ack() -> None:
    """h < p decides: 3890218178 of the device d1 at seq 2."""
    for p, acks in ((3890218178, 0), (3890218179, 1)):
        bench = Bench()
        bench.welcomed()
        bench.gets(state(2, ack={"p": p, "w": 0}))
        assert len([frame for frame in sent(bench.after(0)) if isinstance(frame, Ack)]) == acks


def test_a_newer_state_cancels_the_ack() -> None:
    """Also one that asks for none."""
    bench = Bench()
    bench.welcomed()
    bench.gets(state(1, ack={"p": ALL, "w": 4000}), state(2))
    assert not any(isinstance(frame, Ack) for frame in sent(bench.after(4)))


def test_a_state_already_held_is_acked_as_ignored() -> None:
    """A welcome brought it and asked for nothing; the broadcast that follows asks, and is counted on."""
    bench = Bench()
    bench.welcomed(state(1))
    assert bench.gets(state(1, ack={"p": ALL, "w": 0})) == []
    assert sent(bench.after(0)) == [Ack("final", GEN, 1, "ignored", 0)]


def test_an_ack_dies_with_its_connection() -> None:
    """The worker that asked is gone: another one did not count on it."""
    bench = Bench()
    bench.welcomed()
    bench.gets(state(1, ack={"p": ALL, "w": 1000}))
    bench.session.closed(bench.now)
    bench.welcomed()
    assert not any(isinstance(frame, Ack) for frame in sent(bench.after(2)))


# -- pings


def test_pings_come_every_interval_without_news() -> None:
    """`ping` ± 20 %, positions only if changed since the last one (or the hello)."""
    bench = Bench()
    bench.welcomed()
    assert bench.due_in() == 45
    (ping,) = sent(due := bench.due())
    assert (ping.c, ping.at) == (145000, None)
    bench.pong(due)
    assert bench.due_in() == 45
    rngs = [random.Random(seed) for seed in range(200)]
    waits = []
    for rng in rngs:
        bench = Bench(rng=rng)
        bench.welcomed()
        waits.append(bench.due_in() or 0)
    assert 36 <= min(waits) < 38
    assert 52 < max(waits) <= 54


def test_something_applied_brings_the_ping_forward() -> None:
    """At a random moment within min(45 s, ping), once, with the newest positions."""
    bench = Bench()
    bench.welcomed(state(1, map=V1), ping=60)
    bench.gets(stage_map(V1))
    assert bench.due_in() == 22.5
    bench.now += 10
    bench.gets(state(2))
    assert bench.due_in() == 12.5
    (ping,) = sent(due := bench.due())
    assert ping.at == [Position("final", GEN, 2, V1)]
    bench.pong(due)
    assert bench.due_in() == 60
    assert sent(bench.due())[0].at is None


def test_the_census_is_drawn_once_until_its_ping() -> None:
    """What is applied later rides on the ping already drawn: many changes must not draw it ever sooner."""
    rng = Half()
    bench = Bench(rng=rng)
    bench.welcomed()
    bench.gets(stage_map(V1))
    moment = bench.session.deadline()
    rng.random = lambda: 0.0  # type: ignore[method-assign]
    for seq in range(1, 5):
        bench.now += 1
        bench.gets(state(seq))
    assert bench.session.deadline() == moment


def test_the_census_leaves_out_what_the_node_refused() -> None:
    """A refused event is not followed: its position is nobody's business until it is."""
    bench = Bench("final", "semi")
    bench.welcomed()
    bench.gets(err("unknown_event", "semi"), stage_map(V1), state(1))
    assert sent(bench.due())[0].at == [Position("final", GEN, 1, V1)]


def test_a_short_ping_interval_bounds_the_census() -> None:
    """The census comes within the ping interval where that is shorter than 45 s."""
    bench = Bench()
    bench.welcomed(ping=4)
    bench.gets(stage_map(V1), state(1, map=V1))
    assert bench.due_in() == 2


def test_a_pong_that_does_not_come() -> None:
    """10 s after the ping the connection is given up; another ping's pong does not count."""
    bench = Bench()
    bench.welcomed()
    bench.due()
    bench.gets({"t": "pong", "c": 7, "now": 1})
    assert bench.due_in() == 10
    assert isinstance(bench.due()[0], GiveUp)


def test_no_second_ping_before_the_pong() -> None:
    """A short interval and a slow node: the next ping waits, and the driver is not woken for it."""
    bench = Bench()
    bench.welcomed(ping=4)
    due = bench.due()
    assert bench.due_in() == 10
    assert bench.after(6) == []
    bench.pong(due)
    assert [type(frame) for frame in sent(bench.due())] == [Ping]


# -- the token


def test_a_due_token_is_renewed() -> None:
    """`refresh` seconds after the welcome, and so again after each renewal, until the connection ends."""
    bench = Bench()
    bench.welcomed(refresh=30)
    assert bench.due_in() == 30
    assert bench.due() == [TokenDue()]
    assert bench.session.renewed("t2", bench.now) == [Send(Auth("t2"))]
    assert bench.due_in() == 15  # the ping
    bench.pong(bench.due())
    assert bench.due_in() == 15
    assert bench.due() == [TokenDue()]
    bench.session.closed(bench.now)
    assert bench.session.renewed("t3", bench.now) == []


def test_a_token_that_could_not_be_had() -> None:
    """Asked for again in 5 to 15 s: there is grace."""
    bench = Bench()
    bench.welcomed(refresh=30)
    bench.due()
    bench.session.renewal_failed(bench.now)
    assert bench.due_in() == 10
    assert bench.due() == [TokenDue()]


# -- refused events, goaway, messages


@pytest.mark.parametrize("code", ["unknown_event", "unavailable", "too_many_events"])
def test_a_refused_event_is_asked_for_again(code: str) -> None:
    """After U(30, 60) s, and left out of the census until a state comes for it."""
    bench = Bench()
    bench.welcomed(ping=40)
    assert bench.gets(err(code)) == [Refused("final", code, "why")]
    assert bench.due_in() == 40
    (ping,) = sent(due := bench.due())
    assert ping.at is None
    bench.pong(due)
    assert bench.due_in() == 5
    assert bench.due() == [Send(Sub([Position("final")]))]
    assert [type(effect) for effect in bench.gets(state(1))] == [Switched]


def test_a_refused_event_is_asked_for_by_the_next_hello() -> None:
    """A reconnect asks at once."""
    bench = Bench()
    bench.welcomed()
    bench.gets(err("unknown_event"))
    bench.session.closed(bench.now)
    assert bench.due_in() is None
    assert sent(bench.opened())[0].at == [Position("final")]


def test_an_error_of_no_event_is_told() -> None:
    """Nothing is done about it."""
    bench = Bench()
    bench.welcomed()
    assert bench.gets(err("bad_frame", None)) == [Refused(None, "bad_frame", "why")]
    assert bench.due_in() == 45


def test_goaway() -> None:
    """The device takes what still comes, says nothing more but acks, and closes by itself if the node does not."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V1))
    assert bench.gets({"t": "goaway", "why": "drain", "back": [7, 9]}) == [Leaving("drain", (7, 9))]
    (switched,) = bench.gets(state(1, ack={"p": ALL, "w": 0}))
    assert isinstance(switched, Switched)
    assert [type(frame) for frame in sent(bench.after(0))] == [Ack]
    assert bench.session.follow("semi", bench.now) == []
    assert bench.session.unfollow("semi", bench.now) == []
    assert bench.due_in() == 10
    assert [type(effect) for effect in bench.due()] == [GiveUp]


def test_messages_are_told() -> None:
    """A `msg` is the application's."""
    bench = Bench()
    bench.welcomed()
    assert bench.gets({"t": "msg", "id": "1", "kind": "k", "body": [1]}) == [Message("1", "k", [1])]


def test_events_come_and_go() -> None:
    """`sub` and `unsub` on the open connection, eight events at most, each once."""
    bench = Bench()
    assert bench.session.follow("early", bench.now) == []
    bench.welcomed()
    assert bench.session.follow("semi", bench.now) == [Send(Sub([Position("semi")]))]
    assert bench.session.follow("semi", bench.now) == []
    assert bench.session.unfollow("never", bench.now) == []
    for i in range(5):
        bench.session.follow(f"e{i}", bench.now)
    with pytest.raises(ValueError, match="at most 8"):
        bench.session.follow("one-more", bench.now)
    with pytest.raises(ValueError, match="at most 8"):
        ClientSession("d1", [f"e{i}" for i in range(9)], Half())


# -- fetches


def test_without_a_map_one_fetch_within_the_states_window() -> None:
    """At U(0, fetch), once for a state, with no ETag; also when no version is asked for."""
    bench = Bench()
    bench.welcomed(state(1))
    assert bench.due_in() == 4
    assert bench.due() == [FetchDue("final", "http://m/v1/stage-maps/final", None)]
    bench.gets(state(1))
    assert bench.session.followed("final").fetch is None
    bench.fetched(stage_map(V1))
    assert bench.session.position("final").map == V1


def test_an_older_map_than_the_state_wants_is_fetched_anew() -> None:
    """With the held version as ETag; the device shows what it has until then."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V1))
    (switched,) = bench.gets(state(1, map=V2))
    assert isinstance(switched, Switched)
    assert switched.result == "switched"
    assert bench.due_in() == 4
    assert bench.due() == [FetchDue("final", "http://m/v1/stage-maps/final", V1)]


def test_a_held_map_asks_no_server() -> None:
    """An equal or newer version than wanted: no fetch."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V2), state(1, map=V1), state(2, map=V2), state(3))
    assert bench.session.followed("final").fetch is None


def test_a_pushed_map_cancels_the_planned_fetch() -> None:
    """If it is new enough; a cohort map never is."""
    bench = Bench()
    bench.welcomed(state(1, map=V2))
    bench.gets(stage_map(V1), stage_map(V3, cohort=True))
    assert bench.session.followed("final").fetch is not None
    bench.gets(stage_map(V2))
    assert bench.session.followed("final").fetch is None


def test_at_most_one_fetch_is_planned() -> None:
    """More reasons: the sooner moment, the greater version."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.gets(state(2, map=V1, fetch=2000), hint(V3, 60_000))
    planned = bench.session.followed("final").fetch
    assert planned is not None
    assert (planned.at - bench.now, planned.version) == (1, V3)
    assert [type(effect) for effect in bench.due()] == [FetchDue]
    assert bench.session.followed("final").fetch is None


@pytest.mark.parametrize("version", [V1, V2])
def test_a_hint_not_newer_than_held_or_planned_is_nothing(version: str) -> None:
    """Held, planned or under way: the hint that is repeated every minute costs nothing."""
    bench = Bench()
    bench.welcomed()
    bench.gets(stage_map(V2), state(1))
    bench.gets(hint(version))
    assert bench.session.followed("final").fetch is None
    bench.gets(hint(V3))
    planned = bench.session.followed("final").fetch
    bench.now += 1
    bench.gets(hint(version), hint(V3))
    assert bench.session.followed("final").fetch == planned
    assert bench.due() == [FetchDue("final", "http://m/v1/stage-maps/final", V2)]
    bench.gets(hint(V3))
    assert bench.session.followed("final").fetch is None
    bench.gets(hint(V3, gen=GEN + 1))
    assert bench.session.followed("final").fetch is None


def test_a_hint_during_a_fetch_waits_for_its_end() -> None:
    """A version newer than the fetch under way is fetched after it, unless that brought it."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.due()
    bench.gets(hint(V3, 0))
    assert not any(isinstance(effect, FetchDue) for effect in bench.after(1))
    bench.fetched(stage_map(V1))
    assert bench.due() == [FetchDue("final", "http://m/v1/stage-maps/final", V1)]
    bench = Bench()
    bench.welcomed(state(1))
    bench.due()
    bench.gets(hint(V3, 0))
    bench.fetched(stage_map(V3))
    assert bench.session.followed("final").fetch is None


def test_refresh_after_plans_the_next_fetch() -> None:
    """± 20 %, also for a cohort map, which was the answer of a server at its limit."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.due()
    held, filled = bench.fetched(stage_map(V2, cohort=True), refresh_after=300)
    assert isinstance(held, MapHeld)
    assert isinstance(filled, Filled)
    planned = bench.session.followed("final").fetch
    assert planned is not None
    assert planned.at - bench.now == 300
    bench.now = planned.at
    bench.session.closed(bench.now)
    assert bench.session.expire(bench.now) == [FetchDue("final", "http://m/v1/stage-maps/final", None)]


def test_a_map_that_is_current_is_kept_on() -> None:
    """304 begins its ttl anew, and its refresh."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.due()
    bench.fetched(stage_map(V1), refresh_after=600)
    bench.session.closed(bench.now)
    assert bench.due() == [FetchDue("final", "http://m/v1/stage-maps/final", V1)]
    assert bench.session.fetched("final", 304, b"", bench.now) == []
    assert bench.due_in() == 600
    bench.due()
    assert bench.session.position("final").map == V1


@pytest.mark.parametrize(
    ("status", "body"), [(404, b""), (500, b"{}"), (200, b"<html>"), (200, orjson.dumps(stage_map(V1, event="x")))]
)
def test_a_failed_fetch_is_planned_again_by_the_next_state_or_connect(status: int, body: bytes) -> None:
    """And by nothing else: a failing API is not hammered."""
    bench = Bench()
    bench.welcomed(state(1))
    bench.due()
    effects = bench.session.fetched("final", status, body, bench.now)
    assert [type(effect) for effect in effects] == ([Dropped] if status == 200 else [])
    assert bench.session.followed("final").fetch is None
    bench.session.closed(bench.now)
    bench.welcomed(state(1))
    assert bench.session.followed("final").fetch is not None
    bench.due()
    bench.session.fetch_failed("final", bench.now)
    bench.gets(state(2))
    assert bench.session.followed("final").fetch is not None


def test_a_planned_fetch_survives_the_connection() -> None:
    """A drain in the window is no reason to forget the map, nor to plan a second fetch."""
    bench = Bench()
    bench.welcomed(state(1))
    planned = bench.session.followed("final").fetch
    bench.session.closed(bench.now)
    bench.now += 1
    bench.welcomed(state(1))
    assert bench.session.followed("final").fetch == planned


def test_a_gone_event_is_not_fetched_for() -> None:
    """A deletion must not send everyone who lacks a map to the API."""
    bench = Bench()
    bench.welcomed(state(1))
    (switched,) = bench.gets(state(2, "gone", map=V1))
    assert isinstance(switched, Switched)
    assert bench.session.followed("final").fetch is None


def test_without_an_address_no_fetch() -> None:
    """`maps` null: nothing to ask; the next welcome may know better."""
    bench = Bench()
    bench.welcomed(state(1), maps=None)
    assert bench.after(4) == []
    bench.session.closed(bench.now)
    bench.welcomed(state(1))
    assert any(isinstance(effect, FetchDue) for effect in bench.due())
