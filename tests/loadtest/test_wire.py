"""The load generator's side of a WebSocket, against the `websockets` library as the peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from loadtest.wire import Wire, WireError, client_frame, upgrade_request


def upgraded() -> tuple[ServerProtocol, Wire]:
    server, wire = ServerProtocol(subprotocols=["stagecast.v1"]), Wire()  # type: ignore[list-item]
    server.receive_data(upgrade_request("127.0.0.1:8081"))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    for data in server.data_to_send():
        wire.receive(data)
    return server, wire


@given(st.lists(st.tuples(st.sampled_from([1, 9]), st.binary(max_size=300)), max_size=5), st.data())
def test_frames_arrive_however_they_are_cut(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Split anywhere."""
    _, wire = upgraded()
    frames = [(opcode, payload if opcode == 1 else payload[:125]) for opcode, payload in sent]
    stream = b"".join(Frame(Opcode(opcode), payload).serialize(mask=False) for opcode, payload in frames)
    got = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += wire.receive(stream[:size])
        stream = stream[size:]
    assert got == frames


@given(st.binary(max_size=70_000).filter(lambda payload: len(payload) < 65_536))
def test_the_peer_reads_what_is_sent(payload: bytes) -> None:
    """Masked, of every size up to 64 KiB."""
    server, _ = upgraded()
    server.receive_data(client_frame(payload, 2))
    (event,) = server.events_received()
    assert isinstance(event, Frame)
    assert event.data == payload


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n\x01\x00", b"HTTP/1.1 101 X\r\n\r\n\x81\x80"],
)
def test_what_a_node_never_sends_is_an_error(data: bytes) -> None:
    """A refusal, a fragment, a masked frame."""
    with pytest.raises(WireError):
        Wire().receive(data)
