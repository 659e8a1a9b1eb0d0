"""What must hold of whatever a client sends, as functions of raw bytes: a fuzzer calls them with what it makes up, a test with
the corpus. Each raises AssertionError when it does not hold."""

import random
import sys
from ipaddress import ip_address

import msgspec

from pushy import handshake, rfc6455
from pushy.handshake import Door, Upgrade
from pushy.proxies import BadPreamble, Proxies, read_preamble
from pushy.rfc6455 import Close, Event, FrameReader, Limits, Violation
from stagecast.tokens import Claims, TokenError
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import DEVICE_TYPES, NODE_TYPES, Invalid, Malformed, decode_device_frame, encode
from stagecast.wire.frames import (
    DEVICE_FRAME_BYTES_MAX,
    EVENTS_MAX,
    MESSAGES_MAX,
    NODE_FRAME_BYTES_MAX,
    DeviceFrame,
    Err,
)
from stagecast.wire.server_session import End, Follow, Phase, Rules, Send, ServerSession, Step, Want

LIMITS = Limits(message=600, fragments=6, burst=40)
VIOLATIONS = {1002, 1007, 1008, 1009}
"""The codes with which the frame layer may fail a connection."""
STATUSES = {400, 403, 404, 426}
KEPT_MAX = 2 * LIMITS.message + 4096
"""Bytes a reader may hold: a message, the frame under way, and objects' own size."""
TRUSTED = Proxies.of(["10.0.0.0/8"], True)
DOOR = Door(frozenset({"https://tv.example"}))


def _pieces(data: bytes, cuts: bytes) -> list[bytes]:
    """`data` in pieces of the sizes that `cuts` names, over and over; without any, in one."""
    sizes = [1 + size for size in cuts] or [len(data) or 1]
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


def held(reader: FrameReader) -> int:
    """Bytes that the reader holds in buffers."""
    size = 0
    seen: list[object] = [reader]
    while seen:
        one = seen.pop()
        size += sys.getsizeof(one) if isinstance(one, bytes | bytearray) else 0
        if type(one).__module__ == rfc6455.__name__ and not isinstance(one, Limits):
            seen += [getattr(one, slot) for slot in type(one).__slots__]  # type: ignore[attr-defined]
    return size


def _events(pieces: list[bytes]) -> list[Event]:
    reader, events = FrameReader(LIMITS), []
    for piece in pieces:
        events += reader.receive(piece)
        assert held(reader) <= KEPT_MAX + len(piece), "a reader must not keep what it has been given"
    if any(isinstance(event, Close | Violation) for event in events):
        assert reader.receive(b"\x81\x80\0\0\0\0") == [], "nothing is read after the end"
    return events


def frames(data: bytes) -> None:
    """However bytes are cut: the same events; a violation has a documented code and is the last event; no message is over the
    limit; what is kept is bounded. The first byte says how many of the next are sizes of pieces."""
    count = data[0] & 7 if data else 0
    cuts, stream = data[1 : 1 + count], data[1 + count :]
    whole, cut = _events([stream]), _events(_pieces(stream, cuts))
    for events in (whole, cut):
        ends = [at for at, event in enumerate(events) if isinstance(event, Close | Violation)]
        assert ends in ([], [len(events) - 1]), "nothing comes after the end"
        for event in events:
            match event:
                case Violation(code, reason):
                    assert code in VIOLATIONS
                    assert reason.isascii()
                    assert len(reason) <= 123
                case Close(code, _):
                    assert code == rfc6455.NO_STATUS or rfc6455.may_be_received(code)
                case rfc6455.Message(message, text):
                    assert len(message) <= LIMITS.message
                    assert not text or message.decode() is not None
                case rfc6455.Ping(payload) | rfc6455.Pong(payload):
                    assert len(payload) <= rfc6455.CONTROL_BYTES_MAX
    # In pieces a violation may be seen sooner, by another rule; the burst counts frames of one read.
    if not any(isinstance(events[-1], Violation) for events in (whole, cut) if events):
        assert whole == cut
    elif not any(isinstance(event, Violation) and event.code == rfc6455.POLICY for event in (*whole, *cut)):
        assert whole[:-1] == cut[:-1] or whole[: len(cut) - 1] == cut[:-1]
        assert isinstance(whole[-1], Violation)
        assert isinstance(cut[-1], Violation)


def request(data: bytes) -> None:
    """Any bytes: waited for, refused with a documented status, or an upgrade whose parts stand in the request; cut or whole, the
    answer is the same; no more than REQUEST_BYTES_MAX is waited for; an answer is one head and says nothing of what was sent."""
    found = handshake.read_request(data)
    for size in range(0, len(data), 7):
        early = handshake.read_request(data[:size])
        if early is not None and isinstance(early[0], Upgrade):
            assert early == found
    if found is None:
        assert len(data) <= handshake.REQUEST_BYTES_MAX
        return
    result, length = found
    assert 0 < length <= len(data)
    if isinstance(result, Upgrade):
        assert data[:length].count(b"\n") == data[:length].count(b"\r\n") == data[:length].count(b"\r")
        assert result.origin is None or result.origin.encode("latin-1") in data
        assert handshake.accept(result).count(b"\r\n\r\n") == 1
        refusal = DOOR.check(result)
    else:
        refusal = result
    if refusal is not None:
        assert refusal.status in STATUSES
        answer = handshake.refuse(refusal)
        assert answer.isascii()
        assert answer.count(b"\r\n\r\n") == 1


def device_frame(data: bytes) -> None:
    """Any bytes: a frame that survives a round trip, or Malformed, or Invalid with a documented code and a short text."""
    frame: DeviceFrame | Malformed | Invalid
    try:
        frame = decode_device_frame(data[:DEVICE_FRAME_BYTES_MAX])
    except (Malformed, Invalid) as error:
        frame = error
    match frame:
        case Malformed():
            assert len(str(frame)) <= rfc6455.CONTROL_BYTES_MAX - 2
        case Invalid(code=code):
            assert code in {"bad_frame", "unknown_type"}
            assert len(encode(Err(code, None, str(frame)))) <= 2000, "an answer can be made of it"
        case _:
            assert frame.__struct_config__.tag in DEVICE_TYPES
            assert decode_device_frame(encode(frame)) == frame


def proxies(data: bytes) -> None:
    """Any bytes, as a PROXY preamble: waited for, refused, or an address and no more bytes than there are, and never from a part
    of it. As an X-Forwarded-For: no address that is a trusted proxy's, and nothing raised."""
    found = _preamble(data)
    if isinstance(found, tuple):
        address, length = found
        assert 0 < length <= len(data)
        assert address is None or str(ip_address(address)) == address
        assert all(_preamble(data[:size]) is None for size in range(length))
    client = TRUSTED.client(data.decode("latin-1"))
    assert client is None or str(ip_address(client.partition("%")[0])) == client.partition("%")[0]


def _preamble(data: bytes) -> tuple[str | None, int] | BadPreamble | None:
    try:
        return read_preamble(data)
    except BadPreamble as error:
        return error


def _admit(token: str, wall: int) -> Claims:
    """`ok:DEVICE` is good for every event, `ok:DEVICE:EVENT` for one."""
    word, _, rest = token.partition(":")
    device, _, event = rest.partition(":")
    if word != "ok":
        raise TokenError("no token")
    return Claims("member", device, [event or "*"], wall / 1000 + 600, 0, "kid")


def _head(event: str) -> bytes | None:
    """Known for events whose name is of odd length."""
    return b'{"t":"state","e":"%s"}' % event.encode() if len(event) % 2 else None


def session(data: bytes) -> None:
    """Any messages, one a line: documented closes, nothing after the end, what is sent can be read, no more than EVENTS_MAX
    events are followed, each of them allowed, and MESSAGES_MAX messages that are no acks are the most at once."""
    device, charged = ServerSession(Rules(_admit, _head, random.Random(0)), 1, 0.0), 0
    waiting: set[str] = set()
    for i, message in enumerate(data.split(b"\n")[:60]):
        ended = device.phase is Phase.ENDED
        steps = device.receive(message, i / 1000, 1_764_000_000_000)
        assert not (ended and steps), "nothing comes after the end"
        charged += b'"ack"' not in message and not any(isinstance(step, End) for step in steps) and not ended
        for step in steps:
            waiting |= _checked(step, device)
        for event in sorted(waiting)[::2]:
            for step in device.settle(event, "unknown_event" if len(event) > 4 else None, i / 1000, 1_764_000_000_000):
                _checked(step, device)
            waiting.discard(event)
        held = device.events if device.phase is not Phase.ENDED else ()
        assert len(held) <= EVENTS_MAX
        assert device.claims is None or all(device.claims.allows(event) for event in held)
    assert charged <= MESSAGES_MAX + 1


def _checked(step: Step, device: ServerSession) -> set[str]:
    """The events that a step wants, once it has been found well."""
    match step:
        case Send(sent):
            assert msgspec.json.decode(sent)["t"] in NODE_TYPES
            assert len(sent) <= NODE_FRAME_BYTES_MAX
        case End(code, reason):
            assert code in CloseCode
            assert len(rfc6455.close_frame(code, reason)) <= 2 + rfc6455.CONTROL_BYTES_MAX
            assert device.phase is Phase.ENDED
        case Want(events):
            assert len(set(events)) == len(events) <= EVENTS_MAX
            return set(events)
        case Follow(at):
            assert {position.e for position in at} <= set(device.events)
    return set()


TARGETS = {"frames": frames, "handshake": request, "device": device_frame, "proxies": proxies, "session": session}
