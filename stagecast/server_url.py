"""Where a server is, as settings spell it: `scheme://host:port[,host:port][/path][?user=…&tls=ca.pem]`.

One reading for every adapter that reaches a server, so that all refuse the same mistakes. The password never is in the URL:
URLs end up in process lists and logs.
"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

OPTIONS = ("user", "tls")


class ServerUrl(NamedTuple):
    """What a URL says. `tls` is the file with the authorities to trust, PEM; None for a plain connection."""

    hosts: tuple[tuple[str, int], ...]
    path: str
    """Without its leading slash; empty if there is none."""
    user: str | None
    password: str | None
    tls: Path | None


def read_server_url(url: str, password: str | None, scheme: str) -> ServerUrl:
    """Reads `url`. Raises ValueError naming what is wrong: another scheme, a host without port, an unknown option, a login
    without TLS (it would tell the password, or what it can be guessed from, to the network)."""
    parts = urlsplit(url)
    if parts.scheme != scheme:
        raise ValueError(f"{url!r} does not start with {scheme}://")
    if "@" in parts.netloc:
        raise ValueError(f"{scheme}://: the user goes into ?user=…, the password into its own setting")
    if parts.fragment:
        raise ValueError(f"{url!r}: nothing may follow a #")
    options = _options(parts.query, url)
    user = options.get("user")
    tls = Path(options["tls"]) if "tls" in options else None
    if (user is None) != (password is None):
        raise ValueError(f"{url!r}: {'a user needs a password' if user else 'a password needs a user (?user=…)'}")
    if user is not None and tls is None:
        raise ValueError(f"{url!r}: a user needs tls=FILE: passwords do not travel in the clear")
    if tls is not None and not tls.is_file():
        raise ValueError(f"{url!r}: tls: no such file")
    hosts = tuple(_host(one, url) for one in parts.netloc.split(","))
    return ServerUrl(hosts, parts.path.removeprefix("/"), user, password, tls)


def _options(query: str, url: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"{url!r}: unknown option {name!r}; known are {', '.join(OPTIONS)}")
        if name in found or not value:
            raise ValueError(f"{url!r}: {name} is {'given twice' if name in found else 'empty'}")
        found[name] = value
    return found


def _host(text: str, url: str) -> tuple[str, int]:
    try:
        one = urlsplit(f"//{text}")
        if one.hostname and one.port:
            return one.hostname, one.port
    except ValueError:
        pass
    raise ValueError(f"{url!r}: {text!r} is not host:port")
