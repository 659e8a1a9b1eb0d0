"""Whose word about a client's address counts: TLS proxies in front, by PROXY protocol v2 or `X-Forwarded-For`. Pure.

Only a peer inside `trusted_proxies` is believed. Anybody else is the client, whatever it claims: its header is not read, and a
preamble is no request.
"""

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""Of version 2 (the PROXY protocol, §2.2)."""
PREAMBLE_MAX = 2048
"""Bytes after the fixed part: addresses and what a proxy tells of the TLS session."""
_FIXED = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadPreamble(Exception):
    """A trusted proxy sent something else than a PROXY preamble."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The trusted networks, and by which way they speak: `preamble` True is PROXY v2, False is `X-Forwarded-For`."""

    networks: tuple[Network, ...] = ()
    preamble: bool = False

    @classmethod
    def of(cls, networks: Iterable[str], preamble: bool) -> "Proxies":
        """From settings. Raises ValueError for what is no network."""
        return cls(tuple(ipaddress.ip_network(one) for one in networks), preamble)

    def trusts(self, peer: str) -> bool:
        address = read_address(peer)
        return address is not None and any(address in network for network in self.networks)

    def client(self, forwarded: str) -> str | None:
        """The client, by the `X-Forwarded-For` of a trusted peer: the last entry that is no trusted proxy, for what stands before
        it came from outside. None when it says nothing that can be read."""
        client = None
        for entry in reversed(forwarded.split(",")):
            address = read_address(entry)
            if address is None:
                return client
            client = str(address)
            if not any(address in network for network in self.networks):
                return client
        return client


def read_address(text: str) -> Address | None:
    """An IP address, with or without a port or a zone; an IPv4 address inside an IPv6 one is IPv4. None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def read_preamble(data: bytes) -> tuple[str | None, int] | None:
    """The client's address and the length of the preamble at the start of `data`; None while it is not complete. The address is
    None where the proxy speaks for itself (a health check). Raises BadPreamble."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise BadPreamble("no PROXY v2 signature")
    if len(data) < _FIXED.size:
        return None
    _, command, family, size = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY) or size > PREAMBLE_MAX:
        raise BadPreamble("a version, command or length that is not understood")
    end = _FIXED.size + size
    if len(data) < end:
        return None
    return (_source(family, data[_FIXED.size : end]) if command == _PROXY else None), end


def _source(family: int, addresses: bytes) -> str | None:
    sizes = {_TCP4: (4, 12), _TCP6: (16, 36)}
    if family not in sizes:  # a Unix socket or something new: nothing to count by
        return None
    length, least = sizes[family]
    if len(addresses) < least:
        raise BadPreamble("the addresses are cut short")
    return str(read_address(str(ipaddress.ip_address(addresses[:length]))))
