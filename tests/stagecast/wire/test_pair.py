"""Both sides of the protocol joined in memory: the device's session and the node's, with one clock and no socket."""

import random

from stagecast.broadcast import AckPolicy, State, for_welcome
from stagecast.tokens import Claims, TokenError
from stagecast.wire.client_session import ClientSession, Phase
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import encode
from stagecast.wire.effects import Effect, Leaving, Refused, Switched, TokenDue, Welcomed
from stagecast.wire.effects import Send as DeviceSends
from stagecast.wire.frames import Ack, Position
from stagecast.wire.server_session import Acked, At, End, Follow, Rules, Send, ServerSession, Step, Want

GEN = 1764000000000


def state(seq: int, stage: str = "live", event: str = "final", ack: AckPolicy | None = None) -> State:
    return State(event, GEN, seq, stage, GEN, None, 0, ack)


class Pair:
    """A device and a node; what one sends the other gets at once."""

    def __init__(self, *events: str, life: float = 10_000.0) -> None:
        self.now = 0.0
        self.life = life
        self.heads: dict[str, State] = {"final": state(3)}
        self.effects: list[Effect] = []
        self.steps: list[Step] = []
        self.rules = Rules(self._admit, self._head, random.Random(1), maps="http://maps.example")
        self.device = ClientSession("d1", list(events or ["final"]), random.Random(2))
        self.node = ServerSession(self.rules, 1, 0.0)

    @property
    def wall(self) -> int:
        return GEN + round(self.now * 1000)

    def _admit(self, token: str, wall: int) -> Claims:
        if token == "bad":
            raise TokenError("no good")
        return Claims("m1", "d1", ["*"], exp=GEN / 1000 + self.now + self.life)

    def _head(self, event: str) -> bytes | None:
        head = self.heads.get(event)
        return for_welcome(head) if head else None

    def open(self, token: str = "good") -> None:
        self.node = ServerSession(self.rules, 1, self.now)
        self._device_did(self.device.opened(token, self.now))

    def broadcast(self, head: State) -> None:
        self.heads[head.e] = head
        self._device_did(self.device.receive(encode(head), self.now))

    def run_until(self, end: float) -> None:
        """Lets time pass, from deadline to deadline, until `end` or the node's close."""
        while not self.closed_with() and self.device.phase is not Phase.GIVEN_UP:
            moments = [moment for moment in (self.device.deadline(), self.node.deadline()) if moment is not None]
            if min(moments) > end:
                self.now = end
                return
            self.now = max(self.now, min(moments))
            self._node_did(self.node.expire(self.now, self.wall))
            self._device_did(self.device.expire(self.now))

    def closed_with(self) -> CloseCode | None:
        return next((step.code for step in self.steps if isinstance(step, End)), None)

    def _device_did(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, DeviceSends):
                self._node_did(self.node.receive(encode(effect.frame), self.now, self.wall))
            elif isinstance(effect, TokenDue):
                self._device_did(self.device.renewed("good", self.now))

    def _node_did(self, steps: list[Step]) -> None:
        self.steps += steps
        for step in steps:
            if isinstance(step, Send):
                self._device_did(self.device.receive(step.data, self.now))
            elif isinstance(step, Want):
                for event in step.events:
                    known = None if event in self.heads else "unknown_event"
                    self._node_did(self.node.settle(event, known, self.now, self.wall))  # type: ignore[arg-type]


def test_hello_and_welcome() -> None:
    """The device is welcomed, takes the head, and the node follows the event for it."""
    pair = Pair()
    pair.open()
    assert pair.device.phase is Phase.OPEN
    assert any(isinstance(effect, Welcomed) for effect in pair.effects)
    assert pair.device.position("final").seq == 3
    assert [step for step in pair.steps if isinstance(step, Follow)] == [Follow([Position("final")])]


def test_a_device_stays_until_its_lifetime_ends() -> None:
    """Half an hour of pings, none of them too rare; then goaway and 4001."""
    pair = Pair()
    pair.open()
    pair.run_until(3600)
    assert pair.closed_with() is CloseCode.LIFETIME
    assert 27 * 60 <= pair.now <= 30 * 60
    assert isinstance(pair.effects[-1], Leaving)


def test_short_tokens_are_renewed_in_time() -> None:
    """A token of two minutes lasts a whole lifetime, by `auth` on the open connection."""
    pair = Pair(life=120)
    pair.open()
    pair.run_until(3600)
    assert pair.closed_with() is CloseCode.LIFETIME


def test_a_bad_token() -> None:
    """4401, before any welcome."""
    pair = Pair()
    pair.open("bad")
    assert pair.closed_with() is CloseCode.UNAUTHORIZED
    assert pair.device.phase is Phase.GREETING


def test_the_census_reaches_the_node_within_45_s() -> None:
    """After a switch the node knows the new position, and the ack came before it."""
    pair = Pair()
    pair.open()
    pair.run_until(100)
    pair.steps.clear()
    pair.broadcast(state(4, ack=AckPolicy(2**32, 2000)))
    pair.run_until(102)
    assert [step for step in pair.steps if isinstance(step, Acked)] == [Acked(Ack("final", GEN, 4, "missing", 0))]
    pair.run_until(145)
    assert At([Position("final", GEN, 4)]) in pair.steps


def test_an_event_that_comes_to_exist() -> None:
    """Refused at the hello, asked for again within a minute, and followed from then on."""
    pair = Pair("final", "semi")
    pair.open()
    assert any(isinstance(effect, Refused) and effect.event == "semi" for effect in pair.effects)
    pair.heads["semi"] = state(1, event="semi")
    pair.run_until(61)
    assert pair.device.position("semi").seq == 1
    assert pair.node.events == ("final", "semi")


def test_resume() -> None:
    """A second connection: the hello's positions, one switch for all that was missed, none when nothing was."""
    pair = Pair()
    pair.open()
    for missed, switches in ((state(9, "ended"), 1), (state(9, "ended"), 0)):
        pair.device.closed(pair.now)
        pair.heads["final"] = missed
        pair.effects.clear()
        pair.open()
        assert len([effect for effect in pair.effects if isinstance(effect, Switched)]) == switches
    assert pair.device.position("final").seq == 9
