"""Hostile JSON and hostile amounts of it, from clients that speak WebSocket well; tokens that end while they are connected.

The defences stand in `stagecast.wire`, `pushy.hub` and `pushy.admission`: take one out, and the test of its name fails.
"""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pushy.hub import EVENTS_FOLLOWED_MAX
from pushy.link import Follow, Revoked
from pushy.worker import Options, Worker
from stagecast.clock import SystemClock
from stagecast.records import Revocation
from stagecast.settings import Settings
from stagecast.wire.frames import EVENTS_MAX
from tests.abuse.probe import ending, figure, holding, lively, pour, reported, resident
from tests.pushy.rig import Closed, Raw, Rig, masked, update, worker

MALFORMED = "closed 4400"
BAD = "err bad_frame"
UNKNOWN = "err unknown_type"
PONG = "pong"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with worker(tmp_path) as one:
        yield one


BOMBS: list[tuple[str, bytes, str]] = [
    ("nothing", b"", MALFORMED),
    ("blank", b"  ", MALFORMED),
    ("deep lists", b"[" * 8000, MALFORMED),
    ("deep lists, closed", b"[" * 4000 + b"]" * 4000, MALFORMED),
    ("deep objects", b'{"a":' * 1300, MALFORMED),
    ("deep objects, closed", b'{"t":"ping","c":' + b'{"a":' * 1100 + b"1" + b"}" * 1101, MALFORMED),
    ("deep in what is ignored", b'{"t":"ping","c":1,"x":' + b"[" * 3900 + b"]" * 3900 + b"}", MALFORMED),
    ("a list", b"[]", MALFORMED),
    ("null", b"null", MALFORMED),
    ("a number", b"1e308", MALFORMED),
    ("a text", b'"hello"', MALFORMED),
    ("two objects", b'{"t":"ping","c":1}{"t":"ping","c":1}', MALFORMED),
    ("something behind", b'{"t":"ping","c":1}x', MALFORMED),
    ("a BOM", b'\xef\xbb\xbf{"t":"ping","c":1}', MALFORMED),
    ("a comma too many", b'{"t":"ping","c":1,}', MALFORMED),
    ("single quotes", b"{'t':'ping'}", MALFORMED),
    ("NaN", b'{"t":"ping","c":NaN}', MALFORMED),
    ("Infinity", b'{"t":"ping","c":-Infinity}', MALFORMED),
    ("hex", b'{"t":"ping","c":0x10}', MALFORMED),
    ("a leading zero", b'{"t":"ping","c":010}', MALFORMED),
    ("a control character", b'{"t":"ping","c":1,"x":"\x01"}', MALFORMED),
    ("half a surrogate", b'{"t":"\\ud800"}', MALFORMED),
    ("half a surrogate in a key", b'{"t":"ping","c":1,"\\udc00":1}', MALFORMED),
    ("an empty object", b"{}", BAD),
    ("t is no text", b'{"t":7}', BAD),
    ("t twice, other first", b'{"t":"auth","t":"ping","c":1}', BAD),
    ("an unknown t", b'{"t":"nope"}', UNKNOWN),
    ("a node's t", b'{"t":"state","e":"final"}', UNKNOWN),
    ("a long t", b'{"t":"' + b"x" * 8000 + b'"}', UNKNOWN),
    ("c missing", b'{"t":"ping"}', BAD),
    ("c of 1e308", b'{"t":"ping","c":1e308}', PONG),
    ("c of 1e999", b'{"t":"ping","c":1e999}', BAD),
    ("c beyond 2^53", b'{"t":"ping","c":9007199254740993}', BAD),
    ("c of 4,000 digits", b'{"t":"ping","c":' + b"9" * 4000 + b"}", BAD),
    ("c twice", b'{"t":"ping","c":1,"c":2}', PONG),
    ("seq beyond 2^53", b'{"t":"ping","c":1,"at":[{"e":"final","gen":1,"seq":9007199254740993}]}', BAD),
    ("seq below 0", b'{"t":"ping","c":1,"at":[{"e":"final","gen":1,"seq":-1}]}', BAD),
    ("seq as text", b'{"t":"ping","c":1,"at":[{"e":"final","gen":1,"seq":"1"}]}', BAD),
    ("seq of true", b'{"t":"ping","c":1,"at":[{"e":"final","gen":1,"seq":true}]}', BAD),
    ("an event of odd letters", b'{"t":"sub","at":[{"e":"../x"}]}', BAD),
    ("an event of 65 letters", b'{"t":"sub","at":[{"e":"' + b"a" * 65 + b'"}]}', BAD),
    ("an event with a line feed behind", b'{"t":"sub","at":[{"e":"final\\n"}]}', BAD),
    ("an ack of -1 ms", b'{"t":"ack","e":"final","gen":1,"seq":1,"r":"switched","ms":-1}', BAD),
]


async def answered(raw: Raw) -> str:
    """What became of what was sent, in words."""
    try:
        frame = await raw.frame()
    except Closed as closed:
        return f"closed {closed.code}"
    return f"err {frame['code']}" if frame["t"] == "err" else str(frame["t"])


async def test_json_bombs(rig: Rig) -> None:
    """Depth, odd numbers, repeated keys, half surrogates, other types: each gets the answer that the protocol names, and the
    worker goes on."""
    for name, bomb, expected in BOMBS:
        async with await rig.device() as raw:
            await raw.send(masked(bomb))
            assert await answered(raw) == expected, name
    await lively(rig)
    assert len(rig.feed.all(Follow)) == 1, "no bomb made the worker ask for an event"


async def test_json_bombs_before_hello(rig: Rig) -> None:
    """Before its hello a client that sends anything else is gone: 4400, whatever it is."""
    for name, bomb, _ in BOMBS:
        async with await Raw.connect(rig.address) as raw:
            await raw.send(masked(bomb))
            assert await answered(raw) == MALFORMED, name


async def test_a_large_text_never_reaches_the_parser(rig: Rig) -> None:
    """10 MB in one message: 1009 by its length."""
    async with await rig.device() as raw:
        await pour(raw, b"\x81\xff" + (10 << 20).to_bytes(8, "big") + bytes(4) + b"a" * (10 << 20), 1)
        assert await ending(raw) in (1009, None)


async def test_a_flood_of_messages_is_cut(rig: Rig) -> None:
    """10,000 messages: 4029 after the 20 that the rate allows, good frames or bad ones; an honest device is served meanwhile."""
    async with await rig.device("other", member="other") as other:
        for frame in (b'{"t":"ping","c":1}', b'{"t":"nope"}', b'{"t":"sub","at":[]}'):
            async with await rig.device() as raw:
                raw.put(masked(frame) * 25)
                assert await raw.closed() == 4029
            async with await rig.device() as raw:
                assert await pour(raw, masked(frame) * 50, 200) < 10_000 * 40
                assert await ending(raw) in (1008, 4029, None)
        figures = await reported(rig.feed)
        assert sum(figures[f'stagecast_closes_total{{code="{code}"}}'] for code in ("1008", "4029")) == 6
        other.json(t="ping", c=1)
        assert (await other.frame())["t"] == "pong"


async def test_acks_that_nobody_asked_for_count(rig: Rig) -> None:
    """The one kind of message that is free is so only when it was asked for: a flood of others ends with 4029."""
    async with await rig.device() as raw:
        raw.put(masked(b'{"t":"ack","e":"final","gen":1,"seq":1,"r":"switched","ms":1}') * 25)
        assert await ending(raw) == 4029


async def test_a_connection_follows_eight_events(rig: Rig) -> None:
    """A hello with 150 events, and subs with more: eight are followed, each other one gets `too_many_events`, and nothing of
    them is kept or asked for."""
    names = [f"event-{i}" for i in range(150)]
    for name in names:
        rig.feed.heads[name] = update(name, 1)
    async with await Raw.connect(rig.address) as raw:
        raw.hello(rig.token(), "d1", [{"e": name} for name in names])
        assert len((await raw.frame())["state"]) == EVENTS_MAX
        codes = [(await raw.frame())["code"] for _ in names[EVENTS_MAX:]]
        assert set(codes) == {"too_many_events"}
        raw.json(t="sub", at=[{"e": name} for name in names])
        kinds = [(await raw.frame())["t"] for _ in names]
        assert kinds.count("err") == len(names) - EVENTS_MAX
    assert {e for follow in rig.feed.all(Follow) for e in follow.events} == set(names[:EVENTS_MAX])


async def test_made_up_event_names_are_bounded(tmp_path: Path) -> None:
    """Tokens for every event, and 10,400 names that nobody has: the worker remembers 10,000 at most, asks for no more, says
    `unavailable` to the rest, and neither its memory nor its metrics grow by what clients make up."""
    async with worker(tmp_path, Options(head_wait=300)) as rig:
        await lively(rig)
        before, series = resident(rig.pid), set(await reported(rig.feed))
        rig.feed.mute = True
        with holding() as held:
            for i in range(1300):
                held.append(await Raw.connect(rig.address))
                made_up = [{"e": f"made-up-{i}-{k}"} for k in range(EVENTS_MAX)]
                held[-1].hello(rig.token(f"d{i}", f"m{i}"), f"d{i}", made_up)
            await figure(rig.feed, "stagecast_token_checks_total", 1301)
            figures = await reported(rig.feed)
            assert figures["stagecast_events_followed"] == EVENTS_FOLLOWED_MAX
            asked = {e for follow in rig.feed.all(Follow) for e in follow.events}
            assert len(asked) == EVENTS_FOLLOWED_MAX
            assert set(figures) == series
            assert not any("made-up" in one for one in figures)
            assert resident(rig.pid) - before < EVENTS_FOLLOWED_MAX * 2500 + len(held) * 4000


async def test_forbidden_and_absent_look_alike(rig: Rig) -> None:
    """Who asks for events that the token does not allow learns nothing about which of them exist."""
    rig.feed.heads["secret"] = update("secret", 5)
    async with await Raw.connect(rig.address) as raw:
        raw.hello(rig.token(events=["final", "absent"]), "d1", [{"e": "final"}, {"e": "secret"}, {"e": "absent"}])
        assert [state["e"] for state in (await raw.frame())["state"]] == ["final"]
        errors = {error.pop("e"): error for error in [await raw.frame(), await raw.frame()]}
        assert errors["secret"] == errors["absent"]
    assert "secret" not in {e for follow in rig.feed.all(Follow) for e in follow.events}


class FastClock:
    """Time that runs 200 times as fast, so that a token's 120 s of grace take 0.6 s."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._start = self._clock.monotonic()
        self._wall = self._clock.now()

    def monotonic(self) -> float:
        return (self._clock.monotonic() - self._start) * 200

    def now(self) -> int:
        return self._wall + int(self.monotonic() * 1000)


def run_fast_worker(settings: Settings, index: int, ws: tuple[str, int], link: Path, *, options: Options) -> None:
    uvloop.run(Worker(settings, index, ws, link, options, FastClock(), random.Random()).run())


PATIENT = Options(handshake_deadline=2000, hello_deadline=2000, head_wait=2000, slow_after=2000, feed_absent=2000)


async def test_a_token_that_runs_out_ends_the_session(tmp_path: Path) -> None:
    """After `exp` and its grace: 4401, and nothing is delivered from then on. A fresh token by `auth` keeps the session."""
    settings: dict[str, Any] = {"ping": 100_000.0, "lifetime": 1_000_000.0}
    async with (
        worker(tmp_path, PATIENT, run_fast_worker, **settings) as rig,
        await Raw.connect(rig.address) as short,
        await Raw.connect(rig.address) as kept,
    ):
        for raw, name in ((short, "short"), (kept, "kept")):
            raw.hello(rig.token(name, name, ttl=700), name, [{"e": "final"}])
            assert (await raw.frame())["t"] == "welcome"
        kept.json(t="auth", token=rig.token("kept", "kept", ttl=80_000))
        assert await ending(short) == 4401
        rig.feed.send(update("final", 2))
        assert (await kept.frame())["seq"] == 2


async def test_a_revoked_device_is_gone_at_once(rig: Rig) -> None:
    """A revocation ends what is open with 4401, before anything else is delivered; the token is no good any more, here and in
    `auth`, though it has been checked before; others stay."""
    token = rig.token("stolen", "m1")
    async with await rig.device("stolen") as stolen, await rig.device("other", member="m2") as other:
        rig.feed.send(Revoked([Revocation("device", "stolen", SystemClock().now() + 1000)]), update("final", 2))
        with pytest.raises(Closed, match="4401"):
            await stolen.frame()
        assert (await other.frame())["seq"] == 2
    async with await Raw.connect(rig.address) as raw:
        raw.hello(token, "stolen", [{"e": "final"}])
        assert await ending(raw) == 4401


async def test_another_device_s_token_does_not_take_a_session_over(rig: Rig) -> None:
    """`auth` with a good token of another device, or of another member, ends the session; a token that is none ends it too."""
    for token, code in ((rig.token("d2"), 4403), (rig.token("d1", "m2"), 4401), ("a.b.c", 4401)):
        async with await rig.device("d1") as raw:
            raw.json(t="auth", token=token)
            assert await ending(raw) == code


async def test_a_narrower_token_takes_events_away(rig: Rig) -> None:
    """After `auth` with a token that no longer allows the event, nothing of it arrives."""
    async with await rig.device("d1") as raw:
        raw.json(t="auth", token=rig.token("d1", events=["other"]))
        assert (await raw.frame())["code"] == "unknown_event"
        rig.feed.send(update("final", 2))
        raw.json(t="ping", c=1)
        assert json.dumps(await raw.frame()).count("final") == 0
