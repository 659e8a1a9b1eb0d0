"""The native path's Python side (pushy/native): what it is told of our classes, and of what one worker shares.

A device's way from its TCP connection to its welcome is one piece of C for the usual case, on the same objects; everything else,
and every decision about a limit, a token or an earlier session, is Python's. Without it `Streams` does all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pushy import native
from pushy.connection import Connection, Floor
from pushy.followed import NOWHERE, Followed, Lane, Place
from pushy.hub import Hub
from pushy.streams import Listening, Stream, Streams, Turn
from pushy.wheel import TICK, Slot, Wheel
from stagecast.tokens import GRACE, TokenError
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import device_frames
from stagecast.wire.frames import MESSAGES_MAX, MESSAGES_WINDOW, Hello
from stagecast.wire.server_session import LIFETIME_JITTER, REFRESH_AHEAD, Phase, Rules, ServerSession, shared

_sha1 = partial(hashlib.sha1, usedforsecurity=False)
CLASSES = {one.__name__: one for one in (Stream, Connection, ServerSession, Place, Followed, Lane, Slot)}


def prepared(folder: Path = native.FOLDER) -> native.Hot | None:
    """The native path, ready for use, if it has been built."""
    hot = native.load(folder)
    if hot is not None:
        hot.prepare(CLASSES)
    return hot


@dataclass(frozen=True, slots=True)
class Parts:
    """What a turn works on: turn.h names them all. Of the rules only `back` is read anew for every welcome."""

    streams: Streams
    floor: Floor
    hub: Hub
    rules: Rules
    wheel: Wheel[Connection]
    epoll: int
    all: list[Any]
    slots: dict[int, Slot]
    events: dict[str, Followed]
    apps: dict[str, str]
    monotonic: Callable[[], float]
    wall: Callable[[], int]
    arrived: Callable[[Connection], bool]
    busy: Callable[[Connection], Any]
    greeted: Callable[[Connection], None]
    admit: Callable[[str, int], Any]
    random: Callable[[], float]
    opening: bytes
    """A welcome's text up to the session's number."""
    pings: bytes
    maps: bytes
    """Both as JSON."""
    handshake_deadline: float
    hello_deadline: float
    lifetime: float
    silence: float
    message_bytes: int
    sha1: Callable[[bytes], Any] = _sha1
    decode: Callable[[bytes], Any] = device_frames.decode
    share: Callable[[tuple[str, ...]], tuple[str, ...]] = shared
    listening: type = Listening
    hello: type = Hello
    token_error: type = TokenError
    unauthorized: CloseCode = CloseCode.UNAUTHORIZED
    forbidden: CloseCode = CloseCode.FORBIDDEN
    opened: Phase = Phase.OPEN
    welcomed: Phase = Phase.READY
    nowhere: tuple[int, int] = NOWHERE
    tick: float = TICK
    grace: float = GRACE
    lifetime_jitter: float = LIFETIME_JITTER
    refresh_ahead: float = REFRESH_AHEAD
    message_cost: float = MESSAGES_WINDOW / MESSAGES_MAX
    messages_window: float = MESSAGES_WINDOW


def turning(hot: native.Hot, floor: Floor) -> Callable[[Streams], Turn]:
    """Makes what looks at an epoll set whose protocols are connections of this floor."""

    def made(streams: Streams) -> Turn:
        turn = hot.Turn(_parts(streams, floor))
        floor.learn = turn.learn
        return turn.ready

    return made


def _parts(streams: Streams, floor: Floor) -> Parts:
    rules, hub, wheel = floor.rules, floor.hub, floor.wheel
    opening = b'{"t":"welcome","sid":' + msgspec.json.encode(rules.node + "-").removesuffix(b'"')
    return Parts(
        streams, floor, hub, rules, wheel, streams.epoll, streams.all, wheel.slots, hub.followed, hub.apps,
        floor.clock.monotonic, floor.clock.now, floor.arrived, floor.busy, floor.greeted, rules.admit, rules.rng.random,
        opening, msgspec.json.encode(rules.ping), msgspec.json.encode(rules.maps), floor.handshake_deadline,
        rules.hello_deadline, rules.lifetime, rules.silence, floor.limits.message,
    )  # fmt: skip
