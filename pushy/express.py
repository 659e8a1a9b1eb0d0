"""The native path's Python side (pushy/native): what it is told of our classes, and of what one worker shares.

A device's way from its TCP connection to its welcome is one piece of C for the usual case, on the same objects; everything else,
such as a limit that is reached, a token not seen before or an earlier session, is Python's. Without it `Streams` does all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from pushy import native
from pushy.admission import Admission
from pushy.connection import Connection, Floor
from pushy.followed import NOWHERE, Followed, Lane, Place
from pushy.hub import Hub
from pushy.limits import PENDING_MAX, Crowd
from pushy.link import Began
from pushy.news import HELD_MAX
from pushy.reception import Reception
from pushy.streams import Listening, Stream, Streams, Turn
from pushy.turnstile import Turnstile
from pushy.wheel import TICK, Slot, Wheel
from stagecast.tokens import GRACE, Claims, TokenError
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import device_frames
from stagecast.wire.frames import MESSAGES_MAX, MESSAGES_WINDOW, Hello, Ping
from stagecast.wire.server_session import LIFETIME_JITTER, REFRESH_AHEAD, Phase, Rules, ServerSession, shared

_log = structlog.get_logger()
_sha1 = partial(hashlib.sha1, usedforsecurity=False)
CLASSES = {one.__name__: one for one in (Stream, Connection, ServerSession, Place, Followed, Lane, Slot, Turnstile)}


def prepared(folder: Path = native.FOLDER) -> native.Hot | None:
    """The native path, ready for use, if it has been built for these very classes."""
    hot = native.load(folder)
    try:
        if hot is not None:
            hot.prepare(CLASSES)
    except (TypeError, KeyError) as error:
        _log.warning("the native path does not fit these sources", why=str(error))
        return None
    return hot


@dataclass(frozen=True, slots=True)
class Parts:
    """What a turn works on: turn.h names them all. Of the rules only `back` is read anew for every welcome."""

    streams: Streams
    floor: Floor
    reception: Reception
    hub: Hub
    rules: Rules
    wheel: Wheel[Connection]
    crowd: Crowd
    turnstile: Turnstile
    epoll: int
    batched: bool
    by_address: bool
    all: list[Any]
    by_member: dict[str, Any]
    by_device: dict[str, Any]
    changes: list[Any]
    note: Callable[[Any], None]
    remembered: dict[int, Claims]
    revocations: dict[tuple[str, str], int]
    slots: dict[int, Slot]
    events: dict[str, Followed]
    apps: dict[str, str]
    monotonic: Callable[[], float]
    wall: Callable[[], int]
    admit: Callable[[str, int], Any]
    random: Callable[[], float]
    node: str
    opening: bytes
    """A welcome's text up to the session's number."""
    pings: bytes
    maps: bytes
    """Both as JSON."""
    sessions_max: int
    handshake_deadline: float
    hello_deadline: float
    lifetime: float
    silence: float
    message_bytes: int
    pending_max: int = PENDING_MAX
    held_max: int = HELD_MAX
    sha1: Callable[[bytes], Any] = _sha1
    sha256: Callable[[bytes], Any] = hashlib.sha256
    decode: Callable[[bytes], Any] = device_frames.decode
    share: Callable[[tuple[str, ...]], tuple[str, ...]] = shared
    listening: type = Listening
    hello: type = Hello
    ping: type = Ping
    began: type = Began
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


def turning(hot: native.Hot, reception: Reception, admission: Admission, batched: bool) -> Callable[[Streams], Turn]:
    """Makes what looks at an epoll set all of whose protocols are connections of this reception's floor. `batched`: writes
    many answers with one system call, where the kernel allows it."""

    def made(streams: Streams) -> Turn:
        turn = hot.Turn(_parts(streams, reception, admission, batched))
        reception.floor.learn = turn.learn
        return turn.ready

    return made


def _parts(streams: Streams, reception: Reception, admission: Admission, batched: bool) -> Parts:
    floor, directory = reception.floor, reception.directory
    rules, hub, wheel, happenings = floor.rules, floor.hub, floor.wheel, floor.happenings
    opening = b'{"t":"welcome","sid":' + msgspec.json.encode(rules.node + "-").removesuffix(b'"')
    return Parts(
        streams, floor, reception, hub, rules, wheel, reception.crowd, reception.turnstile, streams.epoll, batched,
        reception.by_address, streams.all, directory.by_member, directory.by_device, reception.news.changes,
        happenings.note_session, admission.remembered, admission.revocations, wheel.slots, hub.followed, hub.apps,
        floor.clock.monotonic, floor.clock.now, rules.admit, rules.rng.random, rules.node, opening,
        msgspec.json.encode(rules.ping), msgspec.json.encode(rules.maps), reception.crowd.total, floor.handshake_deadline,
        rules.hello_deadline, rules.lifetime, rules.silence, floor.limits.message,
    )  # fmt: skip
