"""The hub against a naive model: latest wins, overtaking, receipts that add up, the census."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pushy.followed import Outlet, Place, Tally
from pushy.hub import EVENTS_FOLLOWED_MAX, Hub, PythonLoops
from pushy.link import Hinted, Update
from stagecast.receipts import APPS_MAX, MAPS_MAX, OTHER_APP, AppCensus, Receipt
from stagecast.wire.frames import Ack, AckResult, Position
from stagecast.wire.sampling import ack_hash

BLANK = Receipt("host", "boot", 0, 0, "", 0, 0)
ALL = 1 << 32


def state(e: str, seq: int, p: int = ALL, version: str | None = None, gen: int = 1) -> Update:
    return Update(e, gen, seq, version, p, f"state {e} {gen} {seq}".encode(), f"head {e} {gen} {seq}".encode())


class Pipe:
    """A connection that takes `room` frames before bytes wait in it; the frame that does not fit is with the transport."""

    def __init__(self, device: str, room: int = 1_000_000, app: str = "tv") -> None:
        self.device = device
        self.app = app
        self.room = room
        self.unsent = False
        self.places: tuple[Place, ...] = ()
        self.got: list[bytes] = []
        self._held: list[bytes] = []

    def write(self, frame: bytes) -> bool:
        assert not self.unsent, "the hub never adds to what a connection could not take"
        if self.room > 0:
            self.room -= 1
            self.got.append(frame)
            return True
        self._held.append(frame)
        self.unsent = True
        return False

    def read_all(self, hub: Hub, room: int = 1_000_000) -> None:
        """The device reads: what was held goes out, then the hub is told."""
        self.room = room
        if self.unsent:
            self.got += self._held
            self._held = []
            self.unsent = False
            hub.drained(self)

    def states(self, e: str) -> list[tuple[int, int]]:
        split = [frame.decode().split() for frame in self.got if frame.startswith(b"state")]
        return [(int(gen), int(seq)) for _, event, gen, seq in split if event == e]


def write_all(frame: bytes, places: list[Place]) -> list[Place]:
    return [place for place in places if not place.outlet.write(frame)]


def make() -> Hub:
    return Hub(PythonLoops(write_all))


def follow(hub: Hub, outlet: Outlet, e: str = "e", gen: int = 0, seq: int = 0, version: str | None = None) -> None:
    hub.join(outlet, [Position(e, gen, seq, version)], 0.0)


def known(hub: Hub, e: str = "e", seq: int = 1) -> None:
    waiter = Pipe("w")
    hub.want(waiter, [e], 0.0)
    assert hub.update(state(e, seq), 0.0) == [waiter]


def work(hub: Hub, limit: int = 3) -> None:
    for _ in range(10_000):
        if not hub.working:
            return
        hub.step(limit)
    raise AssertionError("the hub never comes to rest")


def receipts(hub: Hub, now: float = 0.0) -> dict[tuple[str, int], Receipt]:
    return {(r.e, r.seq): r for r in hub.receipts(BLANK, now, 5.0)}


def adds_up(tally: Tally) -> None:
    parts = (tally.written, tally.pending, tally.superseded, tally.closed)
    assert tally.audience == sum(parts), (tally.audience, parts)
    assert min(parts) >= 0


def test_many_waiters_ask_once() -> None:
    """The first to want an event is told to ask for its head, the others are not (rule 7: single flight)."""
    hub = make()
    pipes = [Pipe(f"d{i}") for i in range(3)]
    assert [hub.want(pipe, ["e"], 0.0)[0] for pipe in pipes] == [["e"], [], []]
    assert hub.head("e") is None
    assert hub.update(state("e", 5), 0.0) == pipes
    assert hub.head("e") == b"head e 1 5"


def test_nothing_older_is_taken() -> None:
    """Rule 5: only a greater (gen, seq) counts; a greater gen beats any seq."""
    hub = make()
    known(hub, seq=5)
    pipe = Pipe("d")
    follow(hub, pipe)
    for update in (state("e", 5), state("e", 4), state("e", 9, gen=2), state("e", 99, gen=1)):
        hub.update(update, 0.0)
        work(hub)
    assert pipe.states("e") == [(2, 9)]
    assert hub.stale == 3


def test_a_newer_state_overtakes_a_fan_out() -> None:
    """Rule 4: the frame under way is swapped and the cursor goes on, once around: who had the old one gets the new one too, who
    had not gets the new one alone."""
    hub = make()
    known(hub)
    pipes = [Pipe(f"d{i}") for i in range(10)]
    for pipe in pipes:
        follow(hub, pipe)
    hub.update(state("e", 2), 0.0)
    hub.step(4)
    hub.update(state("e", 3), 0.0)
    work(hub)
    seen = Counter(tuple(seq for _, seq in pipe.states("e")) for pipe in pipes)
    assert seen == {(2, 3): 4, (3,): 6}
    two, three = receipts(hub)["e", 2], receipts(hub, 9.0)["e", 3]
    assert (two.audience, two.written, two.superseded) == (10, 4, 6)
    assert (three.audience, three.written) == (10, 10)


def test_no_connection_is_always_last() -> None:
    """Every fan-out starts somewhere else."""
    hub = make()
    known(hub)
    order: list[str] = []

    class Noting(Pipe):
        def write(self, frame: bytes) -> bool:
            order.append(self.device)
            return True

    for i in range(20):
        follow(hub, Noting(str(i)))
    last = []
    for seq in range(2, 12):
        order.clear()
        hub.update(state("e", seq), 0.0)
        work(hub, 7)
        assert sorted(order) == sorted(map(str, range(20)))
        last.append(order[-1])
    assert len(set(last)) > 5


def test_who_leaves_moves_nobody_out_of_a_fan_out() -> None:
    """A seat that is given up while a fan-out is under way is taken by the last one, which still gets the state."""
    for leaver in range(20):
        hub = make()
        known(hub)
        pipes = [Pipe(f"d{i}") for i in range(20)]
        for pipe in pipes:
            follow(hub, pipe)
        hub.update(state("e", 2), 0.0)
        hub.step(4)
        hub.leave(pipes[leaver], None, 0.0)
        work(hub)
        assert all(pipe.states("e") == [(1, 2)] for i, pipe in enumerate(pipes) if i != leaver)


def test_who_joins_takes_nobodys_turn() -> None:
    """A newcomer during a fan-out makes the circle longer, and those at its end still get the state."""
    hub = make()
    known(hub)
    pipes = [Pipe(f"d{i}") for i in range(10)]
    for pipe in pipes:
        follow(hub, pipe)
    hub.update(state("e", 2), 0.0)
    hub.step(2)
    for i in range(3):
        follow(hub, Pipe(f"new{i}"))
    work(hub)
    assert all(pipe.states("e") == [(1, 2)] for pipe in pipes)


def test_a_slow_connection_owes_one_state_and_one_hint() -> None:
    """Latest wins: however much happened, it gets the newest state of each event, then the newest hint; map and msg get 503."""
    hub = make()
    known(hub, "a")
    known(hub, "b")
    pipe = Pipe("d", room=0)
    hub.join(pipe, [Position("a"), Position("b")], 0.0)
    for seq in range(2, 8):
        hub.update(state("a", seq), 0.0)
        hub.update(state("b", seq), 0.0)
        hub.hint(Hinted("a", f"hint {seq}".encode()))
        work(hub)
        assert hub.deliver(pipe, b"msg") == 503
    pipe.read_all(hub)
    assert [frame.decode() for frame in pipe.got] == ["state a 1 2", "state a 1 7", "state b 1 7", "hint 7"]
    assert hub.deliver(pipe, b"msg") == 200
    for tally in (one for e in ("a", "b") for one in hub.followed[e].tallies):
        adds_up(tally)


def test_the_audience_is_fixed_when_the_state_is_first_seen() -> None:
    """Who joins later was welcomed with the state: not in its audience, and not asked for an ack."""
    hub = make()
    known(hub)
    early, late = Pipe("early"), Pipe("late")
    follow(hub, early)
    hub.update(state("e", 2), 0.0)
    follow(hub, late)
    work(hub)
    assert late.got == []
    assert receipts(hub)["e", 2].audience == 1
    assert hub.ack(early, Ack("e", 1, 2, "switched", 5))
    assert not hub.ack(late, Ack("e", 1, 2, "switched", 5))


def test_acks_count_once_and_only_if_asked() -> None:
    """An ack counts if the policy asks this device for it, once per state; where no ack is wanted none counts."""
    hub = make()
    known(hub)
    pipes = [Pipe(f"d{i}") for i in range(200)]
    for pipe in pipes:
        follow(hub, pipe)
    p = 1 << 31
    hub.update(state("e", 2, p), 0.0)
    work(hub)
    asked = [pipe for pipe in pipes if ack_hash(pipe.device, 1, 2) < p]
    for _ in range(2):
        counted = [pipe for pipe in pipes if hub.ack(pipe, Ack("e", 1, 2, "switched", 100))]
        assert counted in (asked, [])
    receipt = receipts(hub)["e", 2]
    assert (receipt.asked, receipt.switched, sum(receipt.latency.values())) == (len(asked),) * 3
    assert not hub.ack(pipes[0], Ack("e", 1, 7, "switched", 1)), "a state that never was"
    hub.update(state("e", 3, 0), 0.0)
    work(hub)
    assert not hub.ack(pipes[0], Ack("e", 1, 3, "switched", 1))


def test_holding_counts_versions_at_or_past_the_wanted_one() -> None:
    """Without a wanted version everybody holds it; with one, those who state it or a newer one."""
    hub = make()
    known(hub)
    for i, version in enumerate((None, "1764000000000-a", "1764000000001-a", "1764000000002-a")):
        follow(hub, Pipe(f"d{i}"), version=version)
    assert receipts(hub)["e", 1].holding == 4
    hub.update(state("e", 2, version="1764000000001-a"), 0.0)
    assert receipts(hub)["e", 2].holding == 2


def test_receipts_come_when_changed_and_as_a_sign_of_life() -> None:
    """Nothing new: nothing said, until `alive` has passed; then the newest state's."""
    hub = make()
    known(hub)
    follow(hub, Pipe("d"))
    assert set(receipts(hub, 0.0)) == {("e", 1)}
    assert receipts(hub, 1.0) == {}
    hub.update(state("e", 2), 0.0)
    work(hub)
    assert set(receipts(hub, 2.0)) == {("e", 2)}
    assert receipts(hub, 6.9) == {}
    assert set(receipts(hub, 7.0)) == {("e", 2)}


def test_devices_ahead_of_the_head_are_counted() -> None:
    """Rule 6: a position past the head means that something went back."""
    hub = make()
    known(hub, seq=5)
    follow(hub, Pipe("a"), gen=1, seq=5)
    assert hub.ahead == 0
    follow(hub, Pipe("b"), gen=1, seq=6)
    assert hub.ahead == 1


def test_ends_are_counted_by_their_reason() -> None:
    """By event and newest state, whoever followed it; who only unsubscribes has not dropped out."""
    hub = make()
    known(hub)
    pipes = [Pipe(str(n)) for n in range(4)]
    for pipe in pipes:
        follow(hub, pipe)
    hub.leave(pipes[0], None, 1.0, "1006")
    hub.update(state("e", 2), 2.0)
    work(hub)
    hub.leave(pipes[1], None, 3.0, "4000")
    hub.leave(pipes[2], None, 3.0, "4000")
    hub.leave(pipes[3], ["e"], 3.0)
    hub.leave(pipes[3], None, 4.0, "peer")
    assert {order: one.drops for order, one in receipts(hub, 5.0).items()} == {
        ("e", 1): {"1006": 1},
        ("e", 2): {"4000": 2},
    }


def test_what_nobody_follows_is_let_go_after_a_while() -> None:
    """The last follower leaves: the event is kept until the linger has passed, unless somebody comes."""
    hub = make()
    known(hub)
    pipe = Pipe("d")
    follow(hub, pipe)
    hub.leave(pipe, ["e"], 10.0)
    assert hub.abandoned(10.0) == []
    follow(hub, pipe)
    assert hub.abandoned(99.0) == []
    hub.leave(pipe, None, 20.0)
    assert hub.abandoned(20.1) == ["e"]
    assert hub.head("e") is None


def test_refusals_reach_those_who_wait() -> None:
    """A refused event is forgotten if its head was never known, and kept if it was."""
    hub = make()
    pipe = Pipe("d")
    hub.want(pipe, ["x"], 0.0)
    assert hub.overdue(0.1) == ["x"]
    assert hub.refused("x") == [pipe]
    assert hub.events == []
    known(hub)
    assert hub.refused("e") == []
    assert hub.head("e") is not None


def test_a_worker_follows_a_bounded_number_of_events() -> None:
    """A token of `*` can't make a worker remember every name a device thinks of: beyond the bound events are refused."""
    hub = make()
    names = [f"e{i}" for i in range(EVENTS_FOLLOWED_MAX + 1)]
    new, over = hub.want(Pipe("d"), names, 0.0)
    assert (new, over) == (names[:-1], names[-1:])
    assert len(hub.events) == EVENTS_FOLLOWED_MAX


EVENTS = st.sampled_from(["a", "b"])


class HubMachine(RuleBasedStateMachine):
    """Connections come, stall, read, leave; states and hints arrive at any moment of any fan-out."""

    pipes = Bundle("pipes")

    def __init__(self) -> None:
        super().__init__()
        self.hub = make()
        self.heads = {"a": 1, "b": 1}
        self.open: list[Pipe] = []
        self.where: dict[tuple[Pipe, str], tuple[int, int]] = {}
        self.welcomed: dict[tuple[Pipe, str], int] = {}
        for e in self.heads:
            known(self.hub, e)

    @rule(target=pipes, room=st.integers(0, 3), n=st.integers(0, 99))
    def connect(self, room: int, n: int) -> Pipe:
        pipe = Pipe(f"d{n}", room)
        self.open.append(pipe)
        return pipe

    @rule(pipe=pipes, e=EVENTS, seq=st.integers(0, 5))
    def join(self, pipe: Pipe, e: str, seq: int) -> None:
        follow(self.hub, pipe, e, 1, seq)
        self.where[pipe, e] = (1, seq)
        self.welcomed.setdefault((pipe, e), self.heads[e])

    @rule(pipe=pipes, e=EVENTS)
    def unsubscribe(self, pipe: Pipe, e: str) -> None:
        self.hub.leave(pipe, [e], 0.0)
        self.where.pop((pipe, e), None)
        self.welcomed.pop((pipe, e), None)

    @rule(pipe=consumes(pipes))
    def close(self, pipe: Pipe) -> None:
        self.hub.leave(pipe, None, 0.0)
        self.open.remove(pipe)
        self.where = {key: at for key, at in self.where.items() if key[0] is not pipe}
        self.welcomed = {key: at for key, at in self.welcomed.items() if key[0] is not pipe}

    @rule(e=EVENTS, step=st.integers(-1, 2), p=st.sampled_from([0, 1 << 31, ALL]))
    def update(self, e: str, step: int, p: int) -> None:
        seq = self.heads[e] + step
        self.hub.update(state(e, seq, p), 0.0)
        self.heads[e] = max(self.heads[e], seq)

    @rule(e=EVENTS)
    def hint(self, e: str) -> None:
        self.hub.hint(Hinted(e, b"hint"))

    @rule(limit=st.integers(1, 4))
    def step(self, limit: int) -> None:
        self.hub.step(limit)

    @rule(pipe=pipes, room=st.integers(0, 3))
    def read(self, pipe: Pipe, room: int) -> None:
        pipe.read_all(self.hub, room)

    @rule(pipe=pipes, e=EVENTS, seq=st.integers(0, 5))
    def ping(self, pipe: Pipe, e: str, seq: int) -> None:
        self.hub.moved(pipe, [Position(e, 1, seq)])
        if (pipe, e) in self.where:
            self.where[pipe, e] = (1, seq)

    @rule(pipe=pipes, e=EVENTS, back=st.integers(0, 2), r=st.sampled_from(["switched", "missing", "ignored"]))
    def ack(self, pipe: Pipe, e: str, back: int, r: AckResult) -> None:
        seq = self.heads[e] - back
        if self.hub.ack(pipe, Ack(e, 1, seq, r, 1)):
            assert seq > self.welcomed[pipe, e], "only what came as a broadcast is acked"
            self.where[pipe, e] = max(self.where[pipe, e], (1, seq))

    @rule()
    def rest(self) -> None:
        """After quiescence every connection has the newest seq of everything that it follows."""
        work(self.hub, 2)
        for pipe in self.open:
            pipe.read_all(self.hub)
            pipe.read_all(self.hub)
        for pipe, e in self.where:
            seen = [self.welcomed[pipe, e], *(seq for _, seq in pipe.states(e))]
            assert self.heads[e] in seen
        for e in self.heads:
            assert self.hub.followed[e].tallies[-1].pending == 0

    @invariant()
    def every_receipt_adds_up(self) -> None:
        for e, seq in self.heads.items():
            followed = self.hub.followed[e]
            for tally in followed.tallies:
                adds_up(tally)
                assert tally.switched + tally.missing + tally.ignored <= tally.audience
            assert followed.order == (1, seq)

    @invariant()
    def the_census_is_exact(self) -> None:
        found = receipts(self.hub, 1e9)
        for e, seq in self.heads.items():
            at = [position for (_, event), position in self.where.items() if event == e]
            newest = self.hub._receipt(BLANK, self.hub.followed[e], self.hub.followed[e].tallies[-1])
            assert newest.subscribed == len(at) == newest.holding
            assert sum(app.subscribed for app in newest.apps.values()) == newest.subscribed
            assert sum(app.at_or_past for app in newest.apps.values()) == newest.at_or_past
            assert newest.at_or_past == sum(position >= (1, seq) for position in at)
        assert all(r.audience == r.written + r.pending + r.superseded + r.closed for r in found.values())

    @invariant()
    def nobody_goes_back(self) -> None:
        for pipe in self.open:
            for e in self.heads:
                assert pipe.states(e) == sorted(set(pipe.states(e)))


def test_the_census_is_by_app_and_by_map() -> None:
    """Devices of an app, and those of them that are there; holders of each map version, whichever is asked for."""
    hub = make()
    known(hub, seq=2)
    versions = ("1764000000000-a", "1764000000001-b")
    for n, (app, seq, version) in enumerate([("tv", 2, 0), ("tv", 1, 1), ("phone", 2, 1), ("", 2, None)]):
        follow(hub, Pipe(f"d{n}", app=app), gen=1, seq=seq, version=None if version is None else versions[version])
    got = receipts(hub)["e", 2]
    assert got.apps == {"tv": AppCensus(2, 1), "phone": AppCensus(1, 1), OTHER_APP: AppCensus(1, 1)}
    assert got.maps == {versions[0]: 1, versions[1]: 2}
    assert (got.subscribed, got.at_or_past) == (4, 3)


def test_labels_are_bounded() -> None:
    """However many apps devices name, a receipt counts a few, and the rest together."""
    hub = make()
    known(hub)
    for n in range(APPS_MAX + 20):
        follow(hub, Pipe(f"d{n}", app=f"app-{n}"), gen=1, seq=1, version=f"17640000000{n:02}-a")
    got = receipts(hub)["e", 1]
    assert len(got.apps) == APPS_MAX + 1
    assert got.apps[OTHER_APP].subscribed == 20
    assert sum(app.subscribed for app in got.apps.values()) == got.subscribed
    assert list(got.maps) == [f"17640000000{n:02}-a" for n in range(APPS_MAX + 19, APPS_MAX + 19 - MAPS_MAX, -1)]


HubMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestHub = HubMachine.TestCase
