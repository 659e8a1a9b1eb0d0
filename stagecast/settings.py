"""Settings: read once, at the top, from flags, the environment and `stagecast.toml`, in this order; then frozen.

Every setting is `STAGECAST_<NAME>` in the environment and `<name>` in the TOML file; keys that are not known are refused, so a
typing error can't pass in silence.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

PREFIX = "STAGECAST_"
OTHERS = frozenset(
    {"REQUIRE", "URL", "KEY", "RATINGS", "JARS", "JAVA", "CONFIG", "TEST_ECHO", "TOKEN", "WS", "ADMIN_URL"}
)
"""Variables with our prefix that are not settings of a service: the CLI's and the tests'."""
SERVICE_KEY = "service.key"
"""In DATA, as `stagecast dev` makes it."""
LISTS = {"origins": "origin", "trusted_proxies": "trusted-proxy"}
"""Settings that are lists → the flag of one entry. In the environment a comma stands between two."""


class SettingsError(ValueError):
    """A setting is unknown or wrong; the text names it and where it came from."""


def _says(text: str) -> Meta:
    """What a setting means: `--help` and the docs print it."""
    return Meta(description=text)


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a Stagecast process may be told. Defaults are the embedded parts under `data`."""

    data: Annotated[str, _says("folder of the embedded parts, keys and the operator's API key")] = ".stagecast"
    log: Annotated[
        str, _says("sqlite:///path or kafka://host:port[,host:port][?user=…&tls=ca.pem]; empty: DATA/log.sqlite")
    ] = ""
    log_password_file: Annotated[str, _says("file with the password of the log's user")] = ""
    store: Annotated[
        str, _says("sqlite:///path or cassandra://host:port/keyspace[?user=…&tls=ca.pem]; empty: DATA/kv.sqlite")
    ] = ""
    store_password_file: Annotated[str, _says("file with the password of the store's user")] = ""
    keys: Annotated[str, _says("device token keys, a JSON Web Key Set; empty: DATA/keys.json")] = ""
    origins: Annotated[list[str], _says("further Origins of browsers, exact, such as https://tv.example")] = []
    maps: Annotated[str, _says("public base URL of the stage-map API, told to devices; empty: none")] = ""
    device_url: Annotated[
        str,
        _says("public WebSocket URL of devices, such as wss://tv.example/ws, for the console's preview; empty: none"),
    ] = ""
    service_key_file: Annotated[
        str,
        _says(
            "file with an API key of scope service, by which hosts are asked; empty: DATA/service.key, if it is there"
        ),
    ] = ""
    advertise: Annotated[str, _says("this host's admin URL as other services reach it; empty: where it listens")] = ""
    host: Annotated[str, _says("this host's name in receipts and the registry; empty: the machine's")] = ""
    ping: Annotated[float, Meta(gt=0), _says("seconds between a device's pings")] = 45.0
    lifetime: Annotated[float, Meta(gt=0), _says("seconds that a connection lives at most")] = 1800.0
    connections: Annotated[int, Meta(ge=1), _says("connections per worker at most; over it 503")] = 18_000
    connections_per_address: Annotated[
        int, Meta(ge=0), _says("connections per client address at most; 0: no limit (and none on loopback)")
    ] = 0
    accept_rate: Annotated[float, Meta(gt=0), _says("connections per second a host takes in a storm")] = 400.0
    accept_burst: Annotated[
        int,
        Meta(ge=0),
        _says("connections a worker takes at once before accept_rate is a limit (503); 0: `connections`"),
    ] = 0
    proxy_protocol: Annotated[
        bool,
        _says(
            "trusted proxies begin each connection with a PROXY protocol v2 preamble; false: they send X-Forwarded-For"
        ),
    ] = False
    trusted_proxies: Annotated[
        list[str],
        _says("networks of the proxies in front whose word about a client's address counts, such as 10.0.0.0/8"),
    ] = []
    fan_out: Annotated[
        Literal["auto", "batched", "native", "python"],
        _says(
            "the way to the sockets: native is C, built by `python -m pushy.native`, batched that with io_uring; auto: the best"
        ),
    ] = "auto"
    drain_rate: Annotated[float, Meta(gt=0), _says("connections per second a host closes when it drains")] = 400.0
    map_rate: Annotated[float, Meta(gt=0), _says("own stage maps per second a prefetch process serves")] = 1000.0

    @property
    def data_dir(self) -> Path:
        return Path(self.data)

    @property
    def log_url(self) -> str:
        return self.log or f"sqlite:///{self.data_dir.absolute() / 'log.sqlite'}"

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{self.data_dir.absolute() / 'kv.sqlite'}"

    @property
    def keys_file(self) -> Path:
        return Path(self.keys) if self.keys else self.data_dir / "keys.json"

    @property
    def service_key(self) -> Path:
        """Where the key is by which services ask hosts; it need not be there."""
        return Path(self.service_key_file) if self.service_key_file else self.data_dir / SERVICE_KEY

    @property
    def log_password(self) -> str | None:
        return _password(self.log_password_file, "log_password_file")

    @property
    def store_password(self) -> str | None:
        return _password(self.store_password_file, "store_password_file")


def load_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], config: Path | None = None, cwd: Path = Path()
) -> Settings:
    """The settings of this process. `flags` that are None were not given. `config` (default: $STAGECAST_CONFIG, else
    ./stagecast.toml if it is there) is TOML. Raises SettingsError."""
    chosen: dict[str, Any] = {}
    named = config or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    file = named or cwd / "stagecast.toml"
    if named or file.exists():
        chosen |= _checked(_toml(file), str(file))
    chosen |= _checked(_from_environment(environ), "the environment", PREFIX)
    chosen |= _checked({name: value for name, value in flags.items() if value is not None}, "the command line", "--")
    return _consistent(msgspec.convert(chosen, Settings))


def _consistent(settings: Settings) -> Settings:
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingsError(f"trusted_proxies: {error}") from error
    if settings.proxy_protocol and not settings.trusted_proxies:
        raise SettingsError("proxy_protocol: name the proxies in trusted_proxies, for nobody else is believed")
    return settings


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environ.items():
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in OTHERS:
            setting = name.removeprefix(PREFIX).lower()
            found[setting] = [part for part in value.split(",") if part] if setting in LISTS else value
    return found


def _checked(found: dict[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    known = Settings.__struct_fields__
    for name in found:
        if name not in known:
            spelt = prefix + (name.upper() if prefix == PREFIX else name)
            raise SettingsError(f"{source}: unknown setting {spelt}; known are {', '.join(known)}")
    try:
        settings = msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        field = re.search(r"`\$\.([a-z_]+)", str(error))
        raise SettingsError(f"{source}: {field[1] if field else 'settings'}: {error}") from error
    return {name: getattr(settings, name) for name in found}


def _password(file: str, setting: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text().rstrip("\n")
    except OSError as error:
        raise SettingsError(f"{setting}: {file}: {error.strerror}") from error
