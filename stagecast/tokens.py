"""Device tokens: JWTs that say which member holds which device and may follow which events.

Keys are a JSON Web Key Set (RFC 7517) in a file; every key names its one algorithm (`alg`), and a token is checked against the
algorithm of its `kid`'s key alone, so a token can't choose. Leaving the file is a key's revocation.
"""

import base64
import contextlib
import json
import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import msgspec
from msgspec import Struct

from stagecast import jws
from stagecast.names import DeviceId, EventId, MemberId

ALGORITHMS = frozenset({"HS256", "ES256", "EdDSA", "RS256"})
GRACE = 120.0
"""Seconds after `exp` in which an open connection may still send `auth`."""
LIFE_MAX = 400 * 24 * 3600.0
"""Seconds from now (and from `iat`, where the token says it) to `exp` at most, so that a revocation need not be kept for ever."""
SKEW = 60.0
"""Seconds that the minter's clock may be ahead. A token from further ahead could not be revoked: revocations go by `iat`."""
TOKEN_BYTES_MAX = 4096
HEADERS_MAX = 64
"""Headers remembered per set of keys."""
RSA_BITS_MIN = 2048
CURVES = {"ES256": ("P-256",), "EdDSA": ("Ed25519", "Ed448")}
"""RFC 7518 §3.4, RFC 8037 §3.1."""
JITTER = 0.1
REREAD = 5.0
"""Seconds between looks at the keys file."""


class TokenError(ValueError):
    """The token is no good: 4401. The text is for logs and never holds the token."""


class KeysError(ValueError):
    """The keys file can't be used."""


class Claims(Struct, frozen=True, gc=False):
    """What a token says, of what counts once it has been checked: a node keeps it for each connection."""

    sub: MemberId
    dev: DeviceId
    evt: list[str]
    exp: float
    iat: float = 0.0
    kid: str = ""

    def allows(self, event: EventId) -> bool:
        """Whether the token's holder may follow `event`: named, or by a prefix ending in `*`."""
        return event in self.evt or any(one.endswith("*") and event.startswith(one[:-1]) for one in self.evt)


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class _Header(Struct):
    """What counts of a token's header (RFC 7515 §4.1). `jwk`, `jku` and their kind are not looked at: a token brings no key."""

    alg: str
    kid: str
    crit: msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET
    b64: bool = True


class _Payload(Struct):
    """What counts of a token's claims (RFC 7519 §4.1)."""

    sub: MemberId
    dev: DeviceId
    evt: list[str]
    exp: float
    iat: float = 0.0
    nbf: float = 0.0
    jti: str = ""


_header = msgspec.json.Decoder(_Header)
_payload = msgspec.json.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class Key:
    kid: str
    algorithm: str
    verifies: jws.Verifies = field(repr=False)
    signing: Any = field(repr=False)
    """None for a key that only verifies."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a moment, by `kid`."""

    by_kid: Mapping[str, Key]
    _headers: dict[bytes, Key] = field(default_factory=dict, repr=False, compare=False)
    """Headers of tokens that verified, as spelt: an issuer's are all the same, and need to be read once."""

    def verify(self, token: str, now: float) -> Claims:
        """The token's claims. `now` in seconds since 1970. Raises TokenError: unknown kid, wrong algorithm or signature,
        expired, not yet valid, a claim missing or wrong, or more than LIFE_MAX to live."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenError("not a valid token: too long")
        try:
            parts = jws.split(token)
            key = self._headers.get(parts.head) or self._key(parts.head)
            if not key.verifies(parts.signed, parts.signature):
                raise TokenError("not a valid token: the signature is wrong")
            # From text, since msgspec does not look at the bytes of what it skips.
            payload = _payload.decode(parts.payload.decode())
            payload.sub.encode()  # JSON can spell half a surrogate pair, which no frame or record can carry on
        except TokenError:
            raise
        except (KeyError, ValueError, RecursionError) as error:
            raise TokenError(f"not a valid token: {type(error).__name__}") from error
        if parts.head not in self._headers:
            self._remember(parts.head, key)
        _check_times(payload, now)
        return Claims(payload.sub, payload.dev, payload.evt, payload.exp, payload.iat, key.kid)

    @property
    def headers(self) -> int:
        """How many headers are remembered."""
        return len(self._headers)

    def _key(self, head: bytes) -> Key:
        """The key that a header names, if its algorithm is the key's own."""
        header = _header.decode(jws.unspelt(head).decode())
        key = self.by_kid[header.kid]
        if header.alg != key.algorithm:
            raise TokenError("not a valid token: the algorithm is not the key's")
        if header.crit is not msgspec.UNSET or not header.b64:
            raise TokenError("not a valid token: it needs an extension")  # RFC 7515 §4.1.11, RFC 7797
        return key

    def _remember(self, head: bytes, key: Key) -> None:
        if len(self._headers) >= HEADERS_MAX:
            self._headers.clear()
        self._headers[head] = key

    def mint(self, member: str, device: str, events: list[str], ttl: float, now: float, rng: random.Random) -> str:
        """A token signed by the first key that can. `ttl` in seconds, jittered by ± 10 % so that tokens minted together do not
        expire together. Raises KeysError without such a key."""
        key = next((key for key in self.by_kid.values() if key.signing is not None), None)
        if key is None:
            raise KeysError("no key of this file can sign")
        life = min(ttl * rng.uniform(1 - JITTER, 1 + JITTER), LIFE_MAX)
        claims = {"sub": member, "dev": device, "evt": events, "iat": int(now), "exp": int(now + life)}
        return jwt.encode(claims, key.signing, algorithm=key.algorithm, headers={"kid": key.kid})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _check_times(claims: _Payload, now: float) -> None:
    """Written so that a NaN, should a JSON reader let one through, fails every check."""
    if not claims.exp > now:
        raise TokenError("the token has expired")
    if not (claims.nbf <= now + SKEW and claims.iat <= now + SKEW):
        raise TokenError("the token is not valid yet")
    life = claims.exp - (min(now, claims.iat) if claims.iat else now)
    if not life <= LIFE_MAX + SKEW:
        raise TokenError("the token is valid for too long")


def load_keys(file: Path) -> Keys:
    """Reads a JSON Web Key Set. Raises KeysError naming the key and what is wrong with it."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_KeySet).keys
    except OSError as error:
        raise KeysError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise KeysError(f"{file}: not a JSON Web Key Set") from error
    keys = [_key(jwk, f"{file}: keys[{i}]") for i, jwk in enumerate(found)]
    if len({key.kid for key in keys}) != len(keys):
        raise KeysError(f"{file}: two keys have one kid")
    return Keys({key.kid: key for key in keys})


def _key(jwk: dict[str, Any], where: str) -> Key:
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not kid:
        raise KeysError(f"{where}.kid: every key needs one")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise KeysError(f"{where}.alg: {algorithm!r} is none of {', '.join(sorted(ALGORITHMS))}")
    if algorithm == "HS256" and len(_unpadded(jwk.get("k"))) < 32:
        raise KeysError(f"{where}.k: an HS256 secret has at least 32 bytes")
    if algorithm in CURVES and jwk.get("crv") not in CURVES[algorithm]:
        raise KeysError(f"{where}.crv: {algorithm} goes with {' or '.join(CURVES[algorithm])}")
    try:
        loaded = jwt.PyJWK(jwk, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise KeysError(f"{where}: {error}") from error
    if algorithm == "RS256" and loaded.key_size < RSA_BITS_MIN:
        raise KeysError(f"{where}.n: an RSA key has at least {RSA_BITS_MIN} bits")
    private = algorithm == "HS256" or "d" in jwk
    verifying = loaded.public_key() if private and algorithm != "HS256" else loaded
    return Key(kid, algorithm, jws.verifies(verifying, algorithm), loaded if private else None)


def _unpadded(text: object) -> bytes:
    if not isinstance(text, str):
        return b""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


def create_keys(file: Path) -> None:
    """Writes a key set with one new HS256 key, mode 0600. An existing file is left alone, and nobody ever sees half of it."""
    secret = _base64url(secrets.token_bytes(32))
    kid = secrets.token_hex(4)
    text = json.dumps({"keys": [{"kty": "oct", "kid": kid, "alg": "HS256", "k": secret}]}, indent=1) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        out.write(text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()


class KeysFile:
    """The keys file, read again when it changed; looked at every 5 s at most. A file that turns bad keeps the keys it had
    (and `error` says why), so a slip of an editor does not close a fleet's connections."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._looked = 0.0
        self._stamp = self._stamped()
        self.keys = load_keys(file)
        self.error: str | None = None

    def look(self, monotonic: float) -> Keys:
        """The keys now. `monotonic` in seconds."""
        if monotonic - self._looked >= REREAD:
            self._looked = monotonic
            stamp = self._stamped()
            if stamp != self._stamp:
                self._reload(stamp)
            else:
                self.error = None  # also a bad file that was put back as it was
        return self.keys

    def _reload(self, stamp: tuple[int, ...] | None) -> None:
        try:
            self.keys = load_keys(self._file)
        except KeysError as error:
            self.error = str(error)
        else:
            self._stamp, self.error = stamp, None

    def _stamped(self) -> tuple[int, ...] | None:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
