"""RFC 6455 frames: every rule, cut anywhere, and against the `websockets` library as oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close as TheirClose
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from pushy.rfc6455 import (
    BINARY,
    CLOSE,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Close,
    Event,
    FrameReader,
    Limits,
    Message,
    Ping,
    Pong,
    Violation,
    close_frame,
    may_be_received,
    server_frame,
    unmask,
)
from tests.pushy.rig import masked

LIMITS = Limits(message=1000, fragments=4, burst=50)


def read(data: bytes, cuts: list[int] | None = None, limits: Limits = LIMITS) -> list[Event]:
    """What a reader makes of `data`, cut at `cuts`."""
    reader, events, before = FrameReader(limits), [], 0
    for cut in [*sorted(cuts or []), len(data)]:
        events += reader.receive(data[before:cut])
        before = cut
    return events


def violation(data: bytes, limits: Limits = LIMITS) -> int:
    """The code that `data` fails with, whole and octet by octet."""
    whole, drop = read(data, limits=limits)[-1], read(data, list(range(len(data))), limits)[-1]
    assert isinstance(whole, Violation), whole
    assert isinstance(drop, Violation), drop
    assert whole.code == drop.code
    return whole.code


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_server_frames_are_unmasked_final_and_shortest(size: int) -> None:
    """§5.2: FIN, no reserved bits, no mask, the length in its shortest form; the oracle reads back what was framed."""
    client = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    client.receive_data(server_frame(b"a" * size))
    (frame,) = client.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, b"a" * size)
    assert len(server_frame(b"a" * size)) == size + (2 if size < 126 else 4 if size < 65536 else 10)


def test_close_frames_hold_a_code_and_a_short_reason() -> None:
    """§5.5.1: 2 octets of code, then UTF-8, 125 octets at most even where that cuts a character; nothing at all for 1005."""
    assert close_frame(4401, "x") == b"\x88\x03\x11\x31x"
    assert close_frame() == b"\x88\x00"
    long = close_frame(1000, "ü" * 100)
    assert len(long) <= 2 + 125
    assert long[4:].decode() == "ü" * 61


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80\0\0\0\0", 1002),  # §5.2: RSV1 without an extension
        (b"\xa1\x80\0\0\0\0", 1002),
        (b"\x91\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),  # reserved opcodes
        (b"\x8b\x80\0\0\0\0", 1002),
        (b"\x81\x01a", 1002),  # §5.1: not masked
        (b"\x81\xfe\x00\x05\0\0\0\0", 1002),  # not the shortest form
        (b"\x81\xff" + (200).to_bytes(8, "big"), 1002),
        (b"\x81\xff\xff" + bytes(7), 1002),  # the highest bit
        (b"\x09\x80\0\0\0\0", 1002),  # §5.5: fragmented control frame
        (b"\x89\xfe\x00\x80", 1002),  # control frame over 125
        (masked(b"a", 0), 1002),  # §5.4: nothing to continue
        (masked(b"a", fin=False) + masked(b"b"), 1002),  # §5.4: message inside a message
        (masked(b"a", fin=False) + masked(b"b", BINARY), 1002),
        (masked(b"\x03", CLOSE), 1002),  # §5.5.1: half a code
        (masked((1005).to_bytes(2, "big"), CLOSE), 1002),  # §7.4.1
        (masked((999).to_bytes(2, "big"), CLOSE), 1002),
        (masked(b"\x03\xe8\xff", CLOSE), 1007),
        (masked(b"\xce\xba\xe1\xff"), 1007),  # §8.1
        (masked(b"\xed\xa0\x80"), 1007),  # a surrogate
        (masked(b"\xce"), 1007),  # ends within a character
        (masked(b"\xce", fin=False) + masked(b"", 0), 1007),
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),  # §10.4: by declared length alone
        (masked(b"a" * 600, fin=False) + masked(b"b" * 600, 0)[:8], 1009),
        (masked(b"", fin=False) + masked(b"", 0, fin=False) * 4, 1009),  # fragments, empty ones too
    ],
)
def test_violations_have_their_codes(data: bytes, code: int) -> None:
    """Each rule of §5, §7.4, §8.1 and §10.4, whole and octet by octet."""
    assert violation(data) == code


def test_a_declared_length_is_refused_before_its_payload() -> None:
    """The header is enough for 1009: nothing of the payload is waited for or kept."""
    header = b"\x81\xfe\x04\x00"
    assert read(header) == [Violation(1009, "a message holds 1000 bytes at most")]


def test_many_frames_in_one_read_are_refused() -> None:
    """A read full of tiny frames does not hold the loop: beyond the burst it ends with 1008."""
    events = read(masked(b"", PONG) * 60)
    assert len(events) == 51
    assert isinstance(events[-1], Violation)
    assert events[-1].code == 1008


def test_bad_text_fails_at_its_first_bad_octet() -> None:
    """§8.1: UTF-8 is checked as it arrives, within a frame as well."""
    data = masked(b"ok \xff and much more to come" + b"." * 100)
    assert isinstance(read(data[:12])[-1], Violation)


def test_control_frames_come_in_between() -> None:
    """§5.4, §5.5: pings between fragments are seen at once, and the message is whole afterwards."""
    data = masked(b"gr", fin=False) + masked(b"p", PING) + masked("üß".encode()[:1], 0, fin=False)
    data += masked(b"", PONG) + masked("üß".encode()[1:], 0)
    expected = [Ping(b"p"), Pong(b""), Message("grüß".encode(), True)]
    assert read(data) == expected
    assert read(data, list(range(len(data)))) == expected


def test_nothing_is_read_after_a_close() -> None:
    """§5.5.1: what follows a Close frame is ignored, and so is what follows a violation."""
    assert read(masked(b"\x03\xe8bye", CLOSE) + masked(b"more")) == [Close(1000, "bye")]
    assert read(masked(b"", CLOSE) + masked(b"more")) == [Close(NO_STATUS, "")]
    assert len(read(b"\x83\x80\0\0\0\0" + masked(b"more"))) == 1


def test_close_codes_that_may_be_received() -> None:
    """§7.4.1, §7.4.2 and the registry: the oracle agrees on every number."""
    for code in [*range(0, 1020), *range(1999, 2003), *range(2998, 3003), *range(4998, 5003)]:
        try:
            TheirClose(code, "").check()
            theirs = True
        except ProtocolError:
            theirs = False
        assert may_be_received(code) == theirs, code


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 10))
def test_unmasking_is_its_own_inverse(data: bytes, mask: bytes, offset: int) -> None:
    """§5.3: octet i XOR mask[i mod 4], from any offset; twice is nothing."""
    assert unmask(data, mask, offset) == bytes(byte ^ mask[(i + offset) % 4] for i, byte in enumerate(data))
    assert unmask(unmask(data, mask, offset), mask, offset) == data


frames = st.one_of(
    st.tuples(st.sampled_from([TEXT, BINARY, 0, PING, PONG, CLOSE]), st.booleans(), st.binary(max_size=130)),
    st.tuples(st.sampled_from([TEXT, 0]), st.booleans(), st.text(max_size=60).map(str.encode)),
    st.tuples(st.integers(0, 15), st.booleans(), st.binary(max_size=4)),
)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    data = b"".join(
        masked(payload, opcode, fin, draw(st.binary(min_size=4, max_size=4)))
        for opcode, fin, payload in draw(st.lists(frames, max_size=8))
    )
    data += draw(st.binary(max_size=6))
    return data, draw(st.lists(st.integers(0, len(data)), max_size=6))


@given(cut_streams())
@settings(max_examples=300)
def test_any_cut_gives_the_same_events(stream: tuple[bytes, list[int]]) -> None:
    """Whole, octet by octet, or cut anywhere: equal events, or nothing yet."""
    data, cuts = stream
    whole = read(data)
    drops = read(data, list(range(len(data))))
    if whole and isinstance(whole[-1], Violation):  # octet by octet it may fail sooner, and with another reason
        for other in (drops, read(data, cuts)):
            assert isinstance(other[-1], Violation)
            assert other[:-1] == whole[: len(other) - 1]
    else:
        assert drops == read(data, cuts) == whole


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_are_taken(data: bytes, cuts: list[int]) -> None:
    """No input raises; a reader never keeps more than it was given."""
    assert all(isinstance(event, Event) for event in read(data, [min(cut, len(data)) for cut in cuts]))


@given(st.lists(frames, max_size=6))
@settings(max_examples=200)
def test_the_oracle_agrees(stream: list[tuple[int, bool, bytes]]) -> None:
    """`websockets` and this reader find the same first violation, or the same frames."""
    data = b"".join(masked(payload, opcode, fin) for opcode, fin, payload in stream)
    theirs = Protocol(Side.SERVER, state=OPEN, max_size=1000)
    theirs.receive_data(data)
    ours = read(data, limits=Limits(1000, 1000, 1000))
    failed = next((event.code for event in ours if isinstance(event, Violation)), None)
    if theirs.parser_exc is not None and theirs.close_sent is not None and theirs.close_rcvd is None:
        assert failed is not None
    got = [event for event in ours if isinstance(event, Ping | Pong)]
    their_frames = [f for f in theirs.events_received() if isinstance(f, Frame)]
    controls = [f for f in their_frames if f.opcode in (Opcode.PING, Opcode.PONG)]
    if failed != 1007:  # text is checked by their layer above
        assert [(type(e) is Ping, e.data) for e in got] == [(f.opcode is Opcode.PING, bytes(f.data)) for f in controls]


def test_a_clean_reader_may_be_shared() -> None:
    """A reader is clean between whole frames, and not while anything is under way or after the end."""
    reader = FrameReader(LIMITS)
    reader.receive(masked(b"a") + masked(b"b"))
    assert reader.clean
    for begun in (
        masked(b"abc")[:1],
        masked(b"abc")[:8],
        masked(b"a", fin=False),
        masked(b"", CLOSE),
        b"\x83\x80\0\0\0\0",
    ):
        reader = FrameReader(LIMITS)
        reader.receive(begun)
        assert not reader.clean
