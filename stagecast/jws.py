"""Compact JSON Web Signatures (RFC 7515 §7.1) as Stagecast takes them: one spelling, one algorithm per key. Pure.

    parts = split(token)                            # header, payload, signature, signed; NotCompact: not a compact JWS
    verifies(key, "HS256")(parts.signed, parts.signature)

A thirtieth of a general library's time, since nothing is negotiated: a key's algorithm was decided when it was loaded.
"""

import hashlib
import hmac
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

Verifies = Callable[[bytes, bytes], bool]
"""(what was signed, signature) → whether it is."""

_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""base64url to base64; what base64url has not becomes what base64 has not."""
_SHA256_BLOCK: Final = 64
"""Bytes of a block (RFC 2104 §2: B)."""
_ES256_INT: Final = 32
"""Bytes of r and of s (RFC 7518 §3.4)."""


class NotCompact(ValueError):
    """Not three parts of base64url."""


class Compact(NamedTuple):
    """A token's parts. Nothing about them has been verified."""

    head: bytes
    """The header as it is spelt: equal bytes are equal headers."""
    payload: bytes
    signature: bytes
    signed: bytes
    """What the signature is over (RFC 7515 §5.1)."""


def split(token: str) -> Compact:
    """Takes `token` apart. Raises NotCompact."""
    try:
        data = token.encode("ascii")
    except UnicodeEncodeError as error:
        raise NotCompact("not ASCII") from error
    parts = data.split(b".", 3)
    if len(parts) != 3:
        raise NotCompact("not three parts")
    head, payload, signature = parts
    return Compact(head, unspelt(payload), unspelt(signature), data[: len(head) + 1 + len(payload)])


def unspelt(part: bytes) -> bytes:
    """The bytes of one part. It must be spelt the one way RFC 7515 §2 has: base64url without padding, spare bits zero. Python's
    decoder skips what is not base64 and ignores spare bits, so that one signature would have many spellings: hence the way there
    and back. Raises NotCompact."""
    standard = part.translate(_TO_STANDARD)
    try:
        data = a2b_base64(standard + b"==")
    except Error as error:
        raise NotCompact("not base64url") from error
    if b2a_base64(data, newline=False).rstrip(b"=") != standard:
        raise NotCompact("not canonical base64url")
    return data


def verifies(key: Any, algorithm: str) -> Verifies:
    """How signatures of `algorithm` are verified with `key`: bytes for HS256, a public key of `cryptography` otherwise.
    Raises TypeError for a key of another kind."""
    match algorithm, key:
        case "HS256", bytes():
            return _hs256(key)
        case "ES256", EllipticCurvePublicKey():
            return _es256(key)
        case "EdDSA", Ed25519PublicKey() | Ed448PublicKey():
            return _eddsa(key)
        case "RS256", RSAPublicKey():
            return _rs256(key)
    raise TypeError(f"{algorithm} does not go with {type(key).__name__}")


def _hs256(secret: bytes) -> Verifies:
    """RFC 7518 §3.2; compared in constant time. The two hashes of HMAC (RFC 2104) begin with the padded secret, whatever is
    signed: they are begun once and copied, a fifth of `hmac.digest`'s time."""
    padded = (hashlib.sha256(secret).digest() if len(secret) > _SHA256_BLOCK else secret).ljust(_SHA256_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in padded))
    outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in padded))

    def verify(signed: bytes, signature: bytes) -> bool:
        within, whole = inner.copy(), outer.copy()
        within.update(signed)
        whole.update(within.digest())
        return hmac.compare_digest(whole.digest(), signature)

    return verify


def _es256(key: EllipticCurvePublicKey) -> Verifies:
    """RFC 7518 §3.4: r and s as 32 bytes each; cryptography wants DER."""
    algorithm = ECDSA(SHA256())

    def verify(signed: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * _ES256_INT:
            return False
        r, s = (int.from_bytes(half, "big") for half in (signature[:_ES256_INT], signature[_ES256_INT:]))
        return _holds(lambda: key.verify(encode_dss_signature(r, s), signed, algorithm))

    return verify


def _eddsa(key: Ed25519PublicKey | Ed448PublicKey) -> Verifies:
    """RFC 8037 §3.1."""
    return lambda signed, signature: _holds(lambda: key.verify(signature, signed))


def _rs256(key: RSAPublicKey) -> Verifies:
    """RFC 7518 §3.3."""
    padding, digest = PKCS1v15(), SHA256()
    return lambda signed, signature: _holds(lambda: key.verify(signature, signed, padding, digest))


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
