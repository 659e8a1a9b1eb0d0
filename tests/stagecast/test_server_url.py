"""What a server's URL may say."""

from pathlib import Path

import pytest

from stagecast.server_url import ServerUrl, read_server_url


def test_all_parts(tmp_path: Path) -> None:
    """Several hosts, a path, a login over TLS; names may be encoded, and IPv6 addresses stand in brackets."""
    ca = tmp_path / "c a.pem"
    ca.touch()
    url = f"kafka://one:9092,[::1]:9093/path?user=a%2Fb&tls={str(ca).replace(' ', '%20')}"
    assert read_server_url(url, "secret", "kafka") == ServerUrl(
        (("one", 9092), ("::1", 9093)), "path", "a/b", "secret", ca
    )


def test_a_host_is_all_it_needs() -> None:
    """No path, no login, a plain connection."""
    assert read_server_url("kafka://one:1", None, "kafka") == ServerUrl((("one", 1),), "", None, None, None)


@pytest.mark.parametrize(
    ("url", "password", "named"),
    [
        ("redis://one:1", None, "kafka://"),
        ("kafka://one", None, "'one' is not host:port"),
        ("kafka://", None, "is not host:port"),
        ("kafka://one:1,", None, "is not host:port"),
        ("kafka://one:1,two:x", None, "'two:x' is not host:port"),
        ("kafka://me:secret@one:1", None, "the password into its own setting"),
        ("kafka://one:1?acks=1", None, "unknown option 'acks'; known are user, tls"),
        ("kafka://one:1?user=", None, "user is empty"),
        ("kafka://one:1?user=a&user=b", None, "user is given twice"),
        ("kafka://one:1?user=a", None, "a user needs a password"),
        ("kafka://one:1", "secret", "a password needs a user"),
        ("kafka://one:1?user=a", "secret", "a user needs tls=FILE"),
        ("kafka://one:1?tls=/nowhere.pem", None, "tls: no such file"),
        ("kafka://one:1#x", None, "nothing may follow a #"),
    ],
)
def test_mistakes_are_named(url: str, password: str | None, named: str) -> None:
    """And no message tells the password."""
    with pytest.raises(ValueError, match=named.replace("?", r"\?")) as refused:
        read_server_url(url, password, "kafka")
    assert not password or password not in str(refused.value)
