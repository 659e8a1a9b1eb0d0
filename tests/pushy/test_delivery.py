"""Delivery: what may be pushed, and how the workers' words become one answer."""

import msgspec
import pytest

from pushy.delivery import BadEntry, Entry, Outcome, Tally, parcels
from pushy.rfc6455 import server_frame
from stagecast.wire.frames import NODE_FRAME_BYTES_MAX
from tests.pushy.hosting import GEN

MAP = {"t": "map", "e": "final", "gen": GEN, "map": f"{GEN}-a", "stages": {"live": [1, 2]}}
HINT = {"t": "hint", "e": "final", "gen": GEN, "map": f"{GEN}-a", "w": 5000}
MSG = {"t": "msg", "id": "1", "kind": "note", "body": {"text": "hello"}}


def entry(frame: object = MSG, member: str | None = "m1", device: str | None = None) -> Entry:
    return Entry(msgspec.Raw(msgspec.json.encode(frame)), member, device)


def test_frames_are_checked_and_framed_once() -> None:
    """A map and a hint are about an event, so that only devices that may follow it get them; a msg is not."""
    made = parcels([entry(MAP), entry(HINT), entry(MSG, None, "d1")])
    assert [(one.member, one.device, one.e) for one in made] == [
        ("m1", None, "final"),
        ("m1", None, "final"),
        (None, "d1", None),
    ]
    assert made[0].frame == server_frame(msgspec.json.encode(MAP))


@pytest.mark.parametrize(
    "frame",
    [
        {
            "t": "state",
            "e": "final",
            "gen": GEN,
            "seq": 9,
            "stage": "live",
            "ts": 1,
            "map": None,
            "fetch": 0,
            "ack": None,
        },
        {"t": "welcome"},
        {"t": "goaway", "why": "because"},
        {"t": "ping", "c": 1},
        {"t": "map", "e": "final"},
        {**MAP, "e": "UPPER"},
        {},
        [],
        "msg",
    ],
)
def test_nothing_else_can_be_pushed(frame: object) -> None:
    """Above all no `state`: hosts flip no screens by order of a service. The answer names the place."""
    with pytest.raises(BadEntry) as error:
        parcels([entry(), entry(frame)])
    assert error.value.field == "$[1].frame"


def test_a_frame_has_a_bound() -> None:
    """64 KiB, as the protocol promises devices."""
    body = "x" * (NODE_FRAME_BYTES_MAX - len(msgspec.json.encode({**MSG, "body": ""})))
    assert len(parcels([entry({**MSG, "body": body})])) == 1
    with pytest.raises(BadEntry, match="at most 65536"):
        parcels([entry({**MSG, "body": body + "x"})])


@pytest.mark.parametrize(("member", "device"), [(None, None), ("m1", "d1")])
def test_an_entry_is_for_a_member_or_a_device(member: str | None, device: str | None) -> None:
    with pytest.raises(BadEntry):
        parcels([entry(MSG, member, device)])


def test_one_outcome_for_each_device_reached() -> None:
    """A member's devices on two workers; one entry that nobody has; one that is busy."""
    entries = [entry(), entry(member="m2"), entry(MSG, None, "d9")]
    tally = Tally(entries)
    for link in (1, 2):
        tally.expect(link, 7, range(3))
    tally.delivered(1, 7, [(0, "d1", 200), (2, "d9", 503)])
    half_way = tally.done
    tally.delivered(2, 7, [(0, "d2", 200)])
    assert (half_way, tally.done) == (False, True)
    assert tally.outcomes() == [
        Outcome(0, "m1", "d1", 200),
        Outcome(0, "m1", "d2", 200),
        Outcome(1, "m2", None, 404),
        Outcome(2, None, "d9", 503),
    ]


def test_a_worker_that_does_not_answer_may_have_had_it() -> None:
    """503 where it might hold devices of the entry, so that the caller tries again; a device that was reached is done."""
    entries = [entry(), entry(member="m2"), entry(MSG, None, "d9")]
    tally = Tally(entries)
    for link in (1, 2):
        tally.expect(link, 7, range(3))
    tally.delivered(1, 7, [(0, "d1", 200), (2, "d9", 200)])
    tally.lost(2)
    assert tally.done
    assert tally.outcomes() == [
        Outcome(0, "m1", "d1", 200),
        Outcome(0, "m1", None, 503),
        Outcome(1, "m2", None, 503),
        Outcome(2, None, "d9", 200),
    ]


def test_places_count_from_the_push() -> None:
    """A call of many bytes is cut into several pushes; statuses outside of one are nobody's."""
    entries = [entry(member=f"m{i}") for i in range(4)]
    tally = Tally(entries)
    tally.expect(1, 1, range(0, 2))
    tally.expect(1, 2, range(2, 4))
    tally.delivered(1, 2, [(1, "d3", 200), (2, "d4", 200), (-1, "d5", 200)])
    tally.delivered(1, 1, [])
    tally.delivered(1, 1, [(0, "d0", 200)])  # a second answer
    assert [(one.i, one.status) for one in tally.outcomes()] == [(0, 404), (1, 404), (2, 404), (3, 200)]


def test_a_worker_too_busy_to_be_asked_is_unknown() -> None:
    tally = Tally([entry()])
    tally.refused(range(1))
    assert tally.outcomes() == [Outcome(0, "m1", None, 503)]
