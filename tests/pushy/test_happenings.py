"""What a worker remembers of its devices: bounded, in words, nothing secret."""

from pushy.happenings import Happenings, Hello, standing
from pushy.hub import Hub, PythonLoops
from pushy.link import Happening
from stagecast.wire.frames import Ack, Position
from tests.pushy.test_hub import Pipe, follow, known, state, work, write_all

MAP = "1764000000000-a"


def test_a_device_is_told_of_in_order() -> None:
    """Hellos, acks, positions, closes, oldest first; others' are not in it."""
    kept = Happenings()
    kept.began(1, "d1", Hello("0a", 26, 0, "tv"))
    kept.began(2, "d2", Hello("0a", 2, 0, ""))
    kept.position(4, "d1", "census", [Position("final", 7, 3, MAP)])
    kept.position(3, "d1", "ack", Ack("final", 7, 3, "switched", 12))
    kept.session(5, "d1", "closed", "4002: slow")
    assert kept.of("d1") == [
        Happening(1, "hello", "session 0a-1a at worker 0, app tv"),
        Happening(3, "ack", "final at gen 7 seq 3: switched 12 ms after it arrived"),
        Happening(4, "census", f"final at gen 7 seq 3, map {MAP}"),
        Happening(5, "closed", "4002: slow"),
    ]
    assert kept.of("d3") == []


def test_memory_is_bounded_and_acks_push_out_no_close() -> None:
    """Each ring drops its own oldest."""
    kept = Happenings(2, 2)
    kept.session(0, "d1", "closed", "1006")
    for n in range(10):
        kept.position(n, "d1", "ack", Ack("final", 7, n + 1, "switched", 0))
    assert [one.what for one in kept.of("d1")] == ["closed", "ack", "ack"]
    for n in range(10):
        kept.began(n, "d2", Hello("0a", n, 0, ""))
    assert [one.what for one in kept.of("d1")] == ["ack", "ack"]


def test_a_live_session_in_words() -> None:
    """Where it stands at each event, what it is owed, how far it is behind."""
    hub = Hub(PythonLoops(write_all))
    known(hub, seq=2)
    device = Pipe("d1", room=0)
    assert standing(device, "0a-1", 0) == "session 0a-1 at worker 0 of app tv: follows no event"
    follow(hub, device, gen=1, seq=2, version=MAP)
    assert standing(device, "0a-1", 0).endswith(f"e last said gen 1 seq 2, map {MAP}")
    hub.update(state("e", 3), 0.0)
    work(hub)
    hub.update(state("e", 4), 0.0)
    work(hub)
    said = standing(device, "0a-1", 0)
    assert "bytes wait for it" in said
    assert "e last said gen 1 seq 2" in said
    assert said.endswith("head is gen 1 seq 4, owed the newest state")
