"""Whose doing a close was: stagecast.transport. The rest of it is tested with the device, in test_client."""

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close as CloseFrame

from stagecast.transport import Close, check_url, close_of


def test_the_nodes_close_code_counts() -> None:
    """The node closed first, and we answered."""
    error = ConnectionClosedError(CloseFrame(4001, "lifetime"), CloseFrame(4001, "lifetime"), True)
    assert close_of(error) == Close(4001, "lifetime")
    assert close_of(ConnectionClosedError(CloseFrame(4002, ""), None, None)) == Close(4002, "closed with 4002")


def test_a_close_that_we_began_is_a_break() -> None:
    """The node only echoes our 1009: its frame was too big, which is no fault of ours to stay away for."""
    error = ConnectionClosedError(CloseFrame(1009, ""), CloseFrame(1009, ""), False)
    assert close_of(error) == Close(1006, "the connection broke")


def test_no_close_frame_is_a_break() -> None:
    """An abort, a kill, a lost network."""
    assert close_of(ConnectionClosedError(None, None, None)).code == 1006


@pytest.mark.parametrize("url", ["http://h/ws", "ws://", "h", ""])
def test_urls_that_are_none(url: str) -> None:
    """Said at once, with the URL."""
    with pytest.raises(ValueError, match="no ws:// or wss:// URL"):
        check_url(url)
