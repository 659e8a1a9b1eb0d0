"""Whose word about a client's address counts: the preamble by the PROXY protocol's own layout, and X-Forwarded-For."""

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushy.proxies import PREAMBLE_MAX, SIGNATURE, BadPreamble, Proxies, read_address, read_preamble


def preamble(source: str, command: int = 0x21, more: bytes = b"") -> bytes:
    """As §2.2 lays it out: signature, version and command, family, length, addresses, ports, TLVs."""
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed + bytes(len(address.packed)) + struct.pack("!HH", 40000, 443) + more
    return b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a" + struct.pack("!BBH", command, family, len(body)) + body


@pytest.mark.parametrize("source", ["203.0.113.7", "2001:db8::7"])
@pytest.mark.parametrize("more", [b"", b"\x20\x00\x03abc"])
def test_the_source_is_the_client(source: str, more: bytes) -> None:
    """IPv4 and IPv6, with and without what follows the addresses; what comes after the preamble is not touched."""
    data = preamble(source, more=more)
    assert read_preamble(data + b"GET / HTTP/1.1") == (source, len(data))


def test_a_preamble_in_pieces() -> None:
    """None until the last byte is there, however it is cut."""
    data = preamble("203.0.113.7")
    assert [read_preamble(data[:i]) for i in range(len(data))] == [None] * len(data)


def test_a_proxy_that_speaks_for_itself_names_nobody() -> None:
    """LOCAL is a health check; an unknown family has no address we could count by."""
    assert read_preamble(preamble("10.0.0.1", command=0x20)) == (None, 28)
    assert read_preamble(SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 4) + b"path") == (None, 20)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /ws HTTP/1.1\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n",
        SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, PREAMBLE_MAX + 1),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 4) + bytes(4),
    ],
    ids=["a request", "version 1", "another version", "too long", "cut short"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """A proxy that forgot its preamble must not pass for one client."""
    with pytest.raises(BadPreamble):
        read_preamble(data)


@given(st.binary(max_size=64))
def test_no_bytes_break_it(data: bytes) -> None:
    """Whatever comes is an address, a wait, or BadPreamble."""
    for start in (b"", SIGNATURE):
        with contextlib.suppress(BadPreamble):
            read_preamble(start + data)


def test_only_named_networks_are_trusted() -> None:
    """IPv4 in IPv6 is IPv4; a name is nobody."""
    proxies = Proxies.of(["10.0.0.0/8", "fd00::/8"], False)
    trusted = ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1%eth0"]
    assert [proxies.trusts(peer) for peer in trusted] == [True] * 3
    assert [proxies.trusts(peer) for peer in ["11.0.0.1", "2001:db8::1", "proxy.example", ""]] == [False] * 4


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2, 10.0.0.1", "203.0.113.7"),
        ("1.1.1.1, nonsense, 10.0.0.1", "10.0.0.1"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_last_entry_that_is_no_proxy_is_the_client(forwarded: str, client: str | None) -> None:
    """What a client wrote itself stands before it, and says nothing."""
    assert Proxies.of(["10.0.0.0/8"], False).client(forwarded) == client


@pytest.mark.parametrize("text", ["", "a", "1.2.3", "1.2.3.4.5", "[", "]", ":", "::1::", "1.2.3.4, 5.6.7.8"])
def test_what_is_no_address(text: str) -> None:
    """None, never an error: it comes from outside."""
    assert read_address(text) is None
