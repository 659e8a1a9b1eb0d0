"""The node's session: every rule of PROTOCOL that is the node's, with time as an argument."""

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stagecast.tokens import GRACE, Claims, TokenError
from stagecast.wire.closing import CloseCode
from stagecast.wire.frames import EVENTS_MAX
from stagecast.wire.server_session import (
    TRANSITIONS,
    Acked,
    At,
    End,
    Follow,
    Greeted,
    Leave,
    Phase,
    Rearm,
    Rules,
    Send,
    ServerSession,
    Step,
    Want,
)

WALL = 1_764_000_000_000
FINAL = {"e": "final", "gen": 1, "seq": 4, "map": None}


class Node:
    """What a session asks of its worker: tokens by name, heads by event."""

    def __init__(self, **rules: Any) -> None:
        self.heads: dict[str, bytes] = {"final": b'{"t":"state","e":"final"}', "other": b'{"t":"state","e":"other"}'}
        self.tokens: dict[str, Claims] = {
            "good": Claims("m1", "d1", ["*"], WALL / 1000 + 3600),
            "short": Claims("m1", "d1", ["*"], WALL / 1000 + 100),
            "narrow": Claims("m1", "d1", ["final", "abs*"], WALL / 1000 + 3600),
            "device": Claims("m1", "d2", ["*"], WALL / 1000 + 3600),
            "member": Claims("m2", "d1", ["*"], WALL / 1000 + 3600),
        }
        self.rules = Rules(self.admit, self.heads.get, random.Random(1), **rules)

    def admit(self, token: str, wall: int) -> Claims:
        if token not in self.tokens:
            raise TokenError("no good")
        return self.tokens[token]

    def session(self) -> ServerSession:
        return ServerSession(self.rules, 7, 0.0)


def say(session: ServerSession, now: float = 1.0, **fields: Any) -> list[Step]:
    return session.receive(json.dumps(fields).encode(), now, WALL + round(now * 1000))


def hello(
    session: ServerSession, token: str = "good", at: Any = (FINAL,), now: float = 1.0, device: str = "d1"
) -> list[Step]:
    return say(session, now, t="hello", token=token, device=device, app="", at=list(at))


def sent(steps: list[Step]) -> list[dict[str, Any]]:
    return [json.loads(step.data) for step in steps if isinstance(step, Send)]


def ended(steps: list[Step]) -> int | None:
    return next((int(step.code) for step in steps if isinstance(step, End)), None)


def welcomed(node: Node | None = None, token: str = "good") -> ServerSession:
    session = (node or Node()).session()
    assert sent(hello(session, token))[0]["t"] == "welcome"
    return session


def test_a_hello_with_known_heads_is_welcomed_at_once() -> None:
    """Greeted, welcome with every head as it is, Follow with the positions: in this order."""
    session = Node(maps="https://maps.example").session()
    steps = hello(session)
    assert [type(step) for step in steps] == [Greeted, Rearm, Send, Follow]
    (welcome,) = sent(steps)
    assert welcome == {
        "t": "welcome", "sid": "0-7", "now": WALL + 1000, "ping": 45.0, "back": [2000, 5000], "refresh": welcome["refresh"],
        "maps": "https://maps.example", "state": [{"t": "state", "e": "final"}],
    }  # fmt: skip
    assert session.events == ("final",)


def test_the_welcome_waits_for_every_head() -> None:
    """Nothing is sent until each followed event is known or refused; then welcome comes first, then one err per refused event."""
    node = Node()
    session = node.session()
    steps = hello(session, "narrow", [FINAL, {"e": "abs1"}, {"e": "abs2"}, {"e": "secret"}])
    assert sent(steps) == []
    assert [step.events for step in steps if isinstance(step, Want)] == [["abs1", "abs2"]]
    assert session.settle("abs1", "unavailable", 1.0, WALL) == []
    node.heads["abs2"] = b'{"t":"state","e":"abs2"}'
    answers = sent(session.settle("abs2", None, 1.0, WALL))
    assert [state["e"] for state in answers[0]["state"]] == ["final", "abs2"]
    assert {(a["t"], a["e"], a["code"]) for a in answers[1:]} == {
        ("err", "secret", "unknown_event"),
        ("err", "abs1", "unavailable"),
    }


def test_forbidden_and_absent_look_alike() -> None:
    """An event that does not exist and one that the token does not allow give the same err."""
    session = welcomed(token="narrow")
    (forbidden,) = sent(say(session, t="sub", at=[{"e": "zzz"}]))
    say(session, t="sub", at=[{"e": "absent"}])
    (absent,) = sent(session.settle("absent", "unknown_event", 1.0, WALL))
    assert forbidden | {"e": ""} == absent | {"e": ""}


def test_each_sub_is_answered_by_itself() -> None:
    """After the welcome a sub is answered by a state per event as soon as it is known; again for an event that is followed."""
    node = Node()
    session = welcomed(node)
    steps = say(session, t="sub", at=[{"e": "other"}, {"e": "late"}, FINAL])
    assert [frame["e"] for frame in sent(steps)] == ["other", "final"]
    node.heads["late"] = b'{"t":"state","e":"late"}'
    assert [frame["e"] for frame in sent(session.settle("late", None, 1.0, WALL))] == ["late"]
    assert session.events == ("final", "other", "late")
    assert session.settle("late", None, 1.0, WALL) == [], "settled once"


def test_at_most_eight_events() -> None:
    """Wanted ones count too; what is over gets too_many_events, what was let go makes room."""
    node = Node()
    for i in range(12):
        node.heads[f"e{i}"] = b'{"t":"state"}'
    session = node.session()
    steps = hello(session, at=[{"e": f"e{i}"} for i in range(10)])
    assert [frame["code"] for frame in sent(steps)[1:]] == ["too_many_events"] * 2
    assert len(session.events) == EVENTS_MAX
    assert sent(say(session, t="sub", at=[{"e": "e11"}]))[0]["code"] == "too_many_events"
    assert say(session, t="unsub", e=["e0", "never"]) == [Leave(["e0"])]
    assert sent(say(session, t="sub", at=[{"e": "e11"}]))[0]["t"] == "state"


def test_unsub_before_the_welcome() -> None:
    """What is unsubscribed while its head is awaited holds the welcome up no more."""
    session = Node().session()
    hello(session, at=[{"e": "late"}, FINAL])
    steps = say(session, t="unsub", e=["late"])
    assert steps[0] == Leave(["late"])
    assert [state["e"] for state in sent(steps)[0]["state"]] == ["final"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"nonsense", 4400),
        (b"[]", 4400),
        (b'"hello"', 4400),
        (b"{}", 4400),
        (b'{"t":"ping","c":1}', 4400),
        (b'{"t":"nothing"}', 4400),
        (b'{"t":"hello"}', 4400),
        (b"[" * 8000, 4400),
        (b'{"t":"hello","token":"good","device":"d1","at":[{"e":"UPPER"}]}', 4400),
        (b'{"t":"hello","token":"bad","device":"d1"}', 4401),
        (b'{"t":"hello","token":"device","device":"d1"}', 4403),
    ],
)
def test_the_first_frame_must_be_a_good_hello(message: bytes, code: int) -> None:
    """Anything else ends the session: 4400, 4401 or 4403."""
    session = Node().session()
    assert ended(session.receive(message, 1.0, WALL)) == code
    assert session.receive(b'{"t":"ping","c":1}', 1.0, WALL) == [], "and nothing comes after"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b'{"t":"ping","c":1}', "the first frame must be hello"),
        (
            b'{"t":"hello","token":"good","device":"a b"}',
            "the first frame must be a good hello; hello: Expected .*device",
        ),
        (b'{"t":"nothing"}', "the first frame must be a good hello; unknown type 'nothing'"),
    ],
)
def test_what_is_wrong_with_a_hello_is_said(message: bytes, says: str) -> None:
    """Who writes a client must not look for a missing hello when it is a field of it that is wrong."""
    (end,) = Node().session().receive(message, 1.0, WALL)
    assert isinstance(end, End)
    assert re.match(says, end.reason)


def test_later_frames_are_answered_by_err_or_end() -> None:
    """After the welcome: unknown types and bad fields get an err, a second hello and no JSON 4400."""
    assert sent(say(welcomed(), t="nothing"))[0]["code"] == "unknown_type"
    assert sent(say(welcomed(), t="ping", c="x"))[0]["code"] == "bad_frame"
    assert ended(hello(welcomed())) == 4400
    assert ended(welcomed().receive(b"{", 1.0, WALL)) == 4400


def test_ping_is_answered_and_moves_positions() -> None:
    """pong with its clock; positions of followed events alone are passed on."""
    steps = say(welcomed(), t="ping", c=1.5, at=[FINAL, {"e": "other", "gen": 9}])
    assert sent(steps) == [{"t": "pong", "c": 1.5, "now": WALL + 1000}]
    (at,) = [step for step in steps if isinstance(step, At)]
    assert [position.e for position in at.at] == ["final"]
    assert sent(say(welcomed(), t="ping", c=-3))[0]["c"] == -3


def test_the_hello_has_a_deadline() -> None:
    """No hello within 5 s: 4008; signs of life do not move it."""
    session = Node().session()
    session.touch(4.9)
    assert session.deadline() == 5.0
    assert session.expire(4.99, WALL) == []
    assert ended(session.expire(5.0, WALL)) == CloseCode.SILENT


def test_silence() -> None:
    """110 s without anything at a ping of 45 s: 4008; every message and every touch starts it over."""
    session = welcomed()
    assert session.deadline() == pytest.approx(111)
    session.touch(50.0)
    assert session.expire(159.9, WALL) == []
    assert ended(session.expire(160.0, WALL)) == CloseCode.SILENT
    assert welcomed(Node(ping=9.0)).deadline() == pytest.approx(23)


def test_lifetime() -> None:
    """Between 27 and 30 min: goaway with `back`, then 4001."""
    ends = set()
    node = Node(ping=10_000.0)
    for _ in range(50):
        ends.add(welcomed(node).deadline() - 1.0)
    assert min(ends) >= 1620
    assert max(ends) <= 1800
    assert len(ends) == 50
    node.rules.back = (3000, 9000)
    session = welcomed(node)
    steps = session.expire(1802.0, WALL)
    assert sent(steps) == [{"t": "goaway", "why": "lifetime", "back": [3000, 9000]}]
    assert ended(steps) == CloseCode.LIFETIME


def test_expiry_and_grace() -> None:
    """After `exp` there are 120 s of grace for `auth`, then 4401; a fresh token of the same holder goes on."""
    node = Node(ping=10_000.0)
    session = welcomed(node, "short")
    at = 100 + GRACE
    assert session.deadline() == pytest.approx(at)
    assert session.expire(at - 0.1, WALL + round((at - 0.1) * 1000)) == []
    assert ended(session.expire(at, WALL + round(at * 1000))) == CloseCode.UNAUTHORIZED
    session = welcomed(node, "short")
    assert say(session, 150.0, t="auth", token="good") == [Rearm()]
    assert session.expire(at, WALL + round(at * 1000)) == []


def test_refresh_is_told() -> None:
    """`refresh` lies before `exp`, and is null where the connection does not live that long."""
    assert 0 < sent(hello(Node().session(), "short"))[0]["refresh"] < 99
    assert sent(hello(Node().session(), "good"))[0]["refresh"] is None


@pytest.mark.parametrize(("token", "code"), [("device", 4403), ("member", 4401), ("bad", 4401)])
def test_auth_is_for_the_same_holder(token: str, code: int) -> None:
    """A bad token, another member's, another device's."""
    assert ended(say(welcomed(), t="auth", token=token)) == code


def test_fewer_rights_before_the_welcome() -> None:
    """An event whose head is known while another is waited for is lost by such an `auth` as well: the welcome is without it."""
    node = Node()
    session = node.session()
    hello(session, "good", [{"e": "other"}, {"e": "abs1"}])
    steps = say(session, t="auth", token="narrow")
    assert [step.events for step in steps if isinstance(step, Leave)] == [["other"]]
    welcome, *errors = sent(session.settle("abs1", "unknown_event", 1.0, WALL))
    assert welcome["state"] == []
    assert [(error["e"], error["code"]) for error in errors] == [
        ("other", "unknown_event"),
        ("abs1", "unknown_event"),
    ]
    assert session.events == ()


def test_auth_with_fewer_rights_loses_events() -> None:
    """What the fresh token does not allow is left, with an err."""
    session = welcomed()
    say(session, t="sub", at=[{"e": "other"}])
    steps = say(session, t="auth", token="narrow")
    assert Leave(["other"]) in steps
    assert sent(steps) == [{"t": "err", "code": "unknown_event", "e": "other", "text": "no such event"}]
    assert session.events == ("final",)


def test_the_rate_is_twenty_in_ten_seconds() -> None:
    """The 21st message at once ends with 4029; twenty in every ten seconds go on for ever; bad frames count as well."""
    session = welcomed()
    assert [ended(say(session, t="ping", c=1)) for _ in range(20)] == [None] * 19 + [4029]
    session = welcomed()
    for burst in range(1, 6):
        assert [ended(say(session, 10.0 * burst + 1.1, t="ping", c=1)) for _ in range(20)] == [None] * 20
    session = welcomed()
    assert [ended(say(session, t="nothing")) for _ in range(20)][-1] == 4029


def test_acks_that_were_asked_for_are_free() -> None:
    """An ack is passed on and charged only by whoever knows that nobody asked for it."""
    session = welcomed()
    for _ in range(100):
        (step,) = say(session, t="ack", e="final", gen=1, seq=2, r="switched", ms=3)
        assert isinstance(step, Acked)
    assert [ended(session.charge(1.0)) for _ in range(20)][-1] == 4029


def test_equal_subscriptions_share_one_tuple() -> None:
    """A million devices that follow the same events do not hold a million tuples."""
    assert welcomed().events is welcomed().events


def test_every_device_frame_has_its_place() -> None:
    """The table names a method for every transition, and leaves out what must end a session."""
    assert all(hasattr(ServerSession, name) for name in TRANSITIONS.values())
    assert not any(phase is Phase.ENDED for phase, _ in TRANSITIONS)


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b'{"t":"ping","c":1}', b'{"t":"unsub","e":[]}']), max_size=10)
)
@settings(max_examples=200)
def test_any_messages_give_documented_ends(messages: list[bytes]) -> None:
    """No message raises; what ends a session ends it with a code of PROTOCOL, once."""
    for session in (Node().session(), welcomed()):
        ends = [code for message in messages if (code := ended(session.receive(message, 1.0, WALL))) is not None]
        assert len(ends) <= 1
        assert set(ends) <= {4400, 4401, 4403, 4029}


class SessionMachine(RuleBasedStateMachine):
    """Subs, unsubs and settlements in any order, against plain sets."""

    names = st.lists(st.sampled_from([f"e{i}" for i in range(12)]), max_size=5)

    @initialize(names=names)
    def begin(self, names: list[str]) -> None:
        self.node = Node()
        self.node.heads.clear()
        self.session = self.node.session()
        self.followed: set[str] = set()
        self.wanted: set[str] = set()
        self.answered: list[str] = []
        self.owed: list[str] = []
        self.now = 1.0
        self.take(hello(self.session, at=[{"e": e} for e in names], now=self.now))

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Want(events):
                    assert not self.wanted & set(events), "asked for once"
                    self.wanted |= set(events)
                case Follow(at):
                    self.followed |= {position.e for position in at}
                case Leave(events):
                    self.followed -= set(events)
                    self.wanted -= set(events)
                case End():
                    raise AssertionError(step)
                case _:
                    pass

    @rule(names=names)
    def sub(self, names: list[str]) -> None:
        self.now += 1
        self.take(say(self.session, self.now, t="sub", at=[{"e": e} for e in names]))

    @rule(names=names)
    def unsub(self, names: list[str]) -> None:
        self.now += 1
        self.take(say(self.session, self.now, t="unsub", e=names))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data(), known=st.booleans())
    def settle(self, data: st.DataObject, known: bool) -> None:
        e = data.draw(st.sampled_from(sorted(self.wanted)))
        self.wanted.discard(e)
        if known:
            self.node.heads[e] = b'{"t":"state"}'
        steps = self.session.settle(e, None if known else "unknown_event", self.now, WALL)
        self.take(steps)
        if self.session.phase is Phase.READY:
            assert sent(steps), "each settlement is answered"

    @invariant()
    def the_session_knows_what_it_follows(self) -> None:
        assert set(self.session.events) == self.followed
        assert len(self.followed) + len(self.wanted) <= EVENTS_MAX
        assert (self.session.phase is Phase.READY) or self.wanted, "the welcome waits for heads and for nothing else"


SessionMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestServerSession = SessionMachine.TestCase


@pytest.mark.parametrize("token", ["good", "narrow"])
@pytest.mark.parametrize("event", ["final", "other", "unknown"])
def test_one_event_is_answered_as_several_are(token: str, event: str) -> None:
    """The short way of a hello for one event says what the long way says, which one for two events takes."""
    node = Node()
    one, two = node.session(), node.session()
    position = {"e": event, "gen": 1, "seq": 4, "map": None}
    short = say(one, t="hello", token=token, device="d1", app="a", at=[position])
    long = say(two, t="hello", token=token, device="d1", app="a", at=[position, position])
    assert [type(step) for step in short] == [type(step) for step in long]
    assert [step for step in short if not isinstance(step, Send)] == [
        step for step in long if not isinstance(step, Send)
    ]
    assert (one.phase, one.events, one.claims) == (two.phase, two.events, two.claims)
