"""What a feed knows and asks for, without any I/O."""

from pushy.heads import HINT_REPEAT, KV_RETRY, Heads, Read, Refuse, Silence, Tell
from stagecast.wire.frames import Hint
from tests.pushy.hosting import GEN, broadcast

OLDER, SAME, NEWER = f"{GEN}-a", f"{GEN + 1}-a", f"{GEN + 2}-a"


def resolved() -> Heads:
    heads = Heads()
    assert heads.resolved() == []
    return heads


def ask(heads: Heads, worker: int = 1, event: str = "final", now: float = 0.0) -> Read:
    """Follows an event that must be read first."""
    [read] = heads.follow(worker, [event], now)
    assert isinstance(read, Read)
    return read


def told(*workers: int, seq: int) -> list[Tell]:
    return [Tell(frozenset(workers), broadcast(seq=seq))]


def test_nothing_is_read_before_the_end_is_resolved() -> None:
    """Rule 3: followers wait until the log's end is known; then each event is asked for once."""
    heads = Heads()
    assert heads.follow(1, ["final"], 0.0) == []
    assert heads.follow(2, ["final"], 0.0) == []
    [read] = heads.resolved()
    assert isinstance(read, Read)
    assert heads.found(read, broadcast(seq=3)) == told(1, 2, seq=3)


def test_one_question_however_many_ask() -> None:
    """Rule 7: while the store is asked nobody asks again, and afterwards memory answers."""
    heads = resolved()
    read = ask(heads)
    for worker in range(2, 1000):
        assert heads.follow(worker, ["final"], 0.0) == []
    [answer] = heads.found(read, broadcast(seq=3))
    assert isinstance(answer, Tell)
    assert answer.workers == frozenset(range(1, 1000))
    assert heads.follow(1000, ["final"], 0.0) == told(1000, seq=3)


def test_the_greater_of_log_and_store_wins() -> None:
    """An answer older than what the log said meanwhile is not what subscribers get; they get one answer, after both."""
    heads = resolved()
    read = ask(heads)
    assert heads.said(broadcast(seq=5)) == []
    assert heads.found(read, broadcast(seq=4)) == told(1, seq=5)


def test_a_greater_gen_wins_over_any_seq() -> None:
    """Order is by (gen, seq)."""
    heads = resolved()
    heads.found(ask(heads), broadcast(seq=9))
    again = broadcast(seq=1, gen=GEN + 1)
    assert heads.said(again) == [Tell(frozenset({1}), again)]
    assert heads.said(broadcast(seq=10)) == []


def test_a_late_append_does_not_take_back() -> None:
    """H18: seq 1 appended after seq 2 is nothing new, and neither is a repeat."""
    heads = resolved()
    heads.found(ask(heads), broadcast(seq=1))
    assert heads.said(broadcast(seq=2)) == told(1, seq=2)
    assert heads.said(broadcast(seq=1)) == []
    assert heads.said(broadcast(seq=2)) == []


def test_a_change_at_the_same_seq_is_nothing_new() -> None:
    """Rule 5: a head that was changed without a transition (its plan, a hold) has the same seq, and devices hear nothing."""
    heads = resolved()
    heads.found(ask(heads), broadcast(seq=1))
    assert heads.said(broadcast(seq=1, stage="other")) == []
    assert heads.follow(2, ["final"], 0.0) == told(2, seq=1)


def test_the_first_subscriber_reads_even_what_the_log_has_said() -> None:
    """The log alone may be behind: a late append, a lost one. The store is asked all the same."""
    heads = resolved()
    heads.said(broadcast(seq=1))
    assert heads.found(ask(heads), broadcast(seq=2)) == told(1, seq=2)


def test_a_verified_head_outlives_its_followers() -> None:
    """Rule 7: devices that all come back at once (their worker died) cost no read: the log is read on without followers."""
    heads = resolved()
    heads.found(ask(heads), broadcast(seq=1))
    heads.left(1)
    heads.said(broadcast(seq=2))
    assert heads.follow(2, ["final"], 0.0) == told(2, seq=2)


def test_an_unknown_event_is_refused_to_all_who_wait() -> None:
    """And it is not remembered: the next question reads again."""
    heads = resolved()
    read = ask(heads)
    heads.follow(2, ["final"], 0.0)
    assert heads.absent(read) == [Refuse(frozenset({1, 2}), "final", "unknown_event")]
    assert heads.known == 0
    ask(heads)


def test_an_event_only_the_log_knows_is_told() -> None:
    """H17: another region's log may be ahead of this region's store."""
    heads = resolved()
    heads.said(broadcast(seq=4))
    assert heads.absent(ask(heads)) == told(1, seq=4)


def test_a_store_that_fails_is_replaced_by_memory() -> None:
    """Rule 8: what the log said is told; what nobody said is unavailable; the store is asked again later."""
    heads = resolved()
    heads.said(broadcast(seq=4))
    assert heads.failed(ask(heads), 100.0) == told(1, seq=4)
    assert heads.follow(2, ["final"], 101.0) == told(2, seq=4)
    assert heads.failed(ask(heads, event="other"), 100.0) == [Refuse(frozenset({1}), "other", "unavailable")]
    assert heads.unverified(100.0 + KV_RETRY - 0.1) == []
    [read] = heads.unverified(100.0 + KV_RETRY)
    assert isinstance(read, Read)
    assert heads.found(read, broadcast(seq=5)) == told(1, 2, seq=5)
    assert heads.unverified(1000.0) == []


def test_a_read_from_before_a_gap_does_not_count() -> None:
    """A head read before the end was resolved anew may miss what the gap swallowed: it is told, and read again."""
    heads = resolved()
    before = ask(heads)
    heads.lost()
    assert heads.resolved() == []  # the question is still open
    actions = heads.found(before, broadcast(seq=1))
    assert actions[0] == told(1, seq=1)[0]
    assert isinstance(actions[1], Read)
    assert heads.found(actions[1], broadcast(seq=2)) == told(1, seq=2)


def test_a_gap_reads_all_followed_heads_again() -> None:
    """Rule 3; those that nobody follows are read when somebody does."""
    heads = resolved()
    for event in ("one", "two", "idle"):
        heads.found(ask(heads, event=event), broadcast(event))
    heads.unfollow(1, ["idle"])
    heads.lost()
    assert {read.event for read in heads.resolved() if isinstance(read, Read)} == {"one", "two"}
    ask(heads, 2, "idle")


def test_while_the_log_is_lost_the_store_answers() -> None:
    """A new event is read and told, but trusted only once the log is read again."""
    heads = resolved()
    heads.lost()
    assert heads.found(ask(heads), broadcast(seq=1)) == told(1, seq=1)
    [read] = heads.follow(2, ["final"], 0.0)
    assert isinstance(read, Read)


def test_a_store_behind_what_was_known_is_counted() -> None:
    """Rule 6: a head less than what devices have means that the store was restored. A race with the log does not count."""
    heads = resolved()
    race = ask(heads)
    heads.said(broadcast(seq=5))
    heads.found(race, broadcast(seq=4))
    assert heads.behind == 0
    [read] = heads.reread()
    assert isinstance(read, Read)
    assert heads.found(read, broadcast(seq=4)) == []
    assert heads.behind == 1


def test_events_nobody_follows_are_bounded() -> None:
    """The longest unheard goes first; followed ones never go."""
    heads = Heads(remembered=3)
    heads.resolved()
    heads.found(ask(heads, event="followed"), broadcast("followed"))
    for event in ("a", "b", "c"):
        heads.said(broadcast(event))
    heads.said(broadcast("a", 2))
    heads.said(broadcast("d"))
    assert heads.known == 4
    assert heads.failed(ask(heads, 1, "b"), 0.0) == [Refuse(frozenset({1}), "b", "unavailable")]
    assert heads.failed(ask(heads, 1, "a"), 0.0) == [Tell(frozenset({1}), broadcast("a", 2))]


def test_hints_are_the_newest_of_their_event() -> None:
    """An older hint goes to nobody; the same one again after a while, for the devices that came since."""
    heads = resolved()
    heads.found(ask(heads), broadcast())
    assert heads.hinted(Hint("final", GEN, SAME, 100), 0.0) == {1}
    assert heads.hinted(Hint("final", GEN, SAME, 100), HINT_REPEAT - 1) == frozenset()
    assert heads.hinted(Hint("final", GEN, SAME, 100), HINT_REPEAT) == {1}
    assert heads.hinted(Hint("final", GEN, OLDER, 100), 100.0) == frozenset()
    assert heads.hinted(Hint("final", GEN, NEWER, 100), 100.0) == {1}
    assert heads.hinted(Hint("other", GEN, NEWER, 100), 100.0) == frozenset()


def test_rounds_begin_when_the_log_falls_silent() -> None:
    """Every 15 s while it is silent, and not before."""
    silence = Silence(0.0)
    silence.log_spoke(100.0)
    assert not silence.round_due(114.9)
    assert silence.round_due(115.0)
    assert not silence.round_due(129.9)
    assert silence.round_due(130.0)
    silence.log_spoke(131.0)
    assert not silence.round_due(145.0)


def test_only_both_silent_close_the_door() -> None:
    """30 s without the log and without the store; either one opens it again."""
    silence = Silence(0.0)
    assert not silence.both_silent(29.9)
    assert silence.both_silent(30.0)
    silence.kv_spoke(30.0)
    assert not silence.both_silent(59.9)
    assert silence.both_silent(60.0)
    silence.log_spoke(60.0)
    assert not silence.both_silent(89.0)
