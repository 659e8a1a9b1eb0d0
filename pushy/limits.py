"""How many connections a worker takes, in all and from one address. Pure."""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field

from pushy.proxies import read_address

PENDING_MAX = 1024
"""TCP connections beyond the limit that are kept, to be refused with 503: more are cut at once."""
PENDING_PER_ADDRESS = 16


@dataclass
class Crowd:
    """Counts connections; devices' addresses only where there is a limit per address."""

    total: int
    """Sessions at most."""
    per_address: int
    """Connections of one address at most; 0: no limit."""
    on_loopback: bool = False
    """Whether the limit per address holds for loopback too."""
    tcp: int = 0
    _addresses: Counter[str] = field(default_factory=Counter)

    def key(self, peer: str) -> str | None:
        """What `peer` is counted under: an IPv4 address, or the /64 network that one IPv6 customer has to itself; None if it is
        not counted."""
        address = read_address(peer)
        if address is None or not self.per_address or (address.is_loopback and not self.on_loopback):
            return None
        if address.version == 6:
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
        return str(address)

    def arrived(self, key: str | None) -> str | None:
        """Counts a TCP connection in. Why it must be cut at once, if it must."""
        self.tcp += 1
        return self.known(key) or ("full" if self.tcp > self.total + PENDING_MAX else None)

    def known(self, key: str | None) -> str | None:
        """Counts an address in that a proxy told, for a connection that arrived without one. Why it must be cut, if it must."""
        if key is not None:
            self._addresses[key] += 1
            if self._addresses[key] > 2 * self.per_address + PENDING_PER_ADDRESS:
                return "address"
        return None

    def over(self, key: str | None, sessions: int) -> bool:
        """Whether one more session, beside `sessions`, is over a limit."""
        return sessions >= self.total or (key is not None and self._addresses[key] > self.per_address)

    def gone(self, key: str | None) -> None:
        self.tcp -= 1
        if key is not None:
            self._addresses[key] -= 1
            if not self._addresses[key]:
                del self._addresses[key]
