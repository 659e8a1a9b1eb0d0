"""Compact signatures: one spelling, one algorithm per key; PyJWT as the oracle."""

import base64
import hashlib
import hmac
import json
import random
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from stagecast import jws
from stagecast.tokens import TOKEN_BYTES_MAX, Claims, Keys, TokenError, create_keys, load_keys

NOW = 1_764_000_000.0
SECRET = bytes(range(32))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def spelt(header: object, payload: object, secret: bytes) -> str:
    signing = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(payload).encode())}"
    return f"{signing}.{b64(hmac.digest(secret, signing.encode(), hashlib.sha256))}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_text(json.dumps({"keys": [{"kty": "oct", "kid": "hs", "alg": "HS256", "k": b64(SECRET)}]}))
    return load_keys(file)


@given(st.binary(max_size=100))
def test_what_is_spelt_is_read(data: bytes) -> None:
    """Every string of bytes has a spelling, and it is base64url without padding."""
    assert jws.unspelt(b64(data).encode()) == data


@given(st.binary(max_size=12) | st.text("AQgwZz-_+/=\n ", max_size=12).map(str.encode))
def test_only_one_spelling_is_read(part: bytes) -> None:
    """What is read is what its bytes are spelt as: no padding, no blanks, no other alphabet, no spare bits."""
    try:
        data = jws.unspelt(part)
    except jws.NotCompact:
        return
    assert b64(data).encode() == part


def test_a_token_comes_apart() -> None:
    """Three parts; the signature is over the first two as they were spelt."""
    parts = jws.split(f"{b64(b'head')}.{b64(b'payload')}.{b64(b'signature')}")
    assert parts == (b64(b"head").encode(), b"payload", b"signature", f"{b64(b'head')}.{b64(b'payload')}".encode())


@pytest.mark.parametrize(
    "token", ["", "a", "YQ.YQ", "YQ.YQ.YQ.YQ", "YQ.YQ=.YQ", "YQ.YR.YQ", "YQ.YQ.Y", "YQ.ÿ.YQ", "YQ.\ud800.YQ"]
)
def test_what_is_not_compact_is_refused(token: str) -> None:
    """Too few or too many parts, padding, spare bits, a lone character, what is not ASCII."""
    with pytest.raises(jws.NotCompact):
        jws.split(token)


def test_a_key_goes_with_its_own_kind_of_algorithm() -> None:
    """An RSA key verifies no HS256, whatever a keys file says: the confusion attack ends here."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    for key, algorithm in ((public, "HS256"), (public, "ES256"), (SECRET, "RS256"), (SECRET, "none"), (public, "none")):
        with pytest.raises(TypeError):
            jws.verifies(key, algorithm)


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "EdDSA", "RS256"])
@given(st.binary(max_size=100), st.data())
def test_signatures_of_pyjwt_verify_and_changed_ones_do_not(algorithm: str, data: bytes, draw: st.DataObject) -> None:
    """For each algorithm; a changed byte, one more or one less voids them."""
    private = PRIVATE[algorithm]
    signature = jwt.get_algorithm_by_name(algorithm).sign(data, private)
    verify = jws.verifies(private if algorithm == "HS256" else private.public_key(), algorithm)
    assert verify(data, signature)
    place = draw.draw(st.integers(0, len(signature) - 1))
    changed = bytes([signature[place] ^ draw.draw(st.integers(1, 255))])
    assert not verify(data, signature[:place] + changed + signature[place + 1 :])
    assert not verify(data, signature + b"\0")
    assert not verify(data, signature[:-1])
    assert not verify(data + b"x", signature)


PRIVATE: dict[str, Any] = {
    "HS256": SECRET,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}

ANY: st.SearchStrategy[object] = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(0, 1e300)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)
TIMES = st.sampled_from(
    [NOW - 1, NOW, NOW + 1, NOW + 60, NOW + 61, NOW + 3600.5, 0, 1e300, 10**400, float("nan"), float("inf")]
)
HEADERS = st.fixed_dictionaries(
    {
        "alg": st.sampled_from(["HS256"] * 6 + ["none", "HS512", "ES256"]) | ANY,
        "kid": st.sampled_from(["hs"] * 6 + ["x"]) | ANY,
    },
    optional={"typ": ANY, "crit": ANY | st.just(["b64"]), "b64": st.booleans(), "jwk": ANY, "x": ANY},
)
PAYLOADS = st.fixed_dictionaries(
    {
        "sub": st.just("ann") | ANY,
        "dev": st.just("tv") | ANY,
        "evt": st.just(["final"]) | ANY,
        "exp": st.just(NOW + 60) | TIMES | ANY,
    },
    optional={"iat": TIMES | ANY, "nbf": TIMES | ANY, "jti": ANY, "aud": ANY, "iss": ANY, "kid": ANY, "x": ANY},
)


class Said(Claims, frozen=True):
    """With the claim that counts only while a token is checked."""

    nbf: float = 0.0


def by_pyjwt(token: str) -> Said | None:
    """The claims by PyJWT's verdict, before the times are looked at; None if it refuses."""
    if len(token) > TOKEN_BYTES_MAX:
        return None
    unchecked = {f"verify_{name}": False for name in ("exp", "iat", "nbf", "aud")}
    try:
        if jwt.get_unverified_header(token).get("kid") != "hs":
            return None
        payload = jwt.decode(token, SECRET, algorithms=["HS256"], options=unchecked)  # type: ignore[arg-type]
        return msgspec.convert({**payload, "kid": "hs"}, Said)
    except (jwt.PyJWTError, TypeError, ValueError, OverflowError):
        return None


def in_time(claims: Said) -> bool:
    life = claims.exp - (min(NOW, claims.iat) if claims.iat else NOW)
    return claims.exp > NOW and claims.nbf <= NOW + 60 and claims.iat <= NOW + 60 and life <= 400 * 24 * 3600 + 60


@given(HEADERS, PAYLOADS, st.sampled_from([SECRET, SECRET, SECRET, b"x" * 32]))
def test_the_verdict_is_that_of_pyjwt(
    keys: Keys, header: dict[str, object], payload: dict[str, object], secret: bytes
) -> None:
    """Whatever header and claims say, signed or not: PyJWT's verdict and claims, apart from extensions, which are not for us."""
    token = spelt(header, payload, secret)
    said = by_pyjwt(token)
    expected: Claims | None = None
    if said is not None and in_time(said) and "crit" not in header and header.get("b64") is not False:
        expected = Claims(said.sub, said.dev, said.evt, said.exp, said.iat, said.kid)
    try:
        found: Claims | None = keys.verify(token, NOW)
    except TokenError:
        found = None
    assert found == expected


def test_a_remembered_header_proves_nothing(tmp_path: Path) -> None:
    """The header of a good token is known from then on; a token under it still needs a signature of its own."""
    create_keys(tmp_path / "keys.json")
    keys = load_keys(tmp_path / "keys.json")
    good = keys.mint("ann", "tv", ["*"], 60, NOW, random.Random(1))
    keys.verify(good, NOW)
    head, _, signature = good.split(".")
    body = b64(json.dumps({"sub": "eve", "dev": "tv", "evt": ["*"], "exp": NOW + 60}).encode())
    with pytest.raises(TokenError, match="signature"):
        keys.verify(f"{head}.{body}.{signature}", NOW)


def test_headers_are_remembered_of_verified_tokens_alone_and_bounded(keys: Keys) -> None:
    """Nobody fills the memory with tokens of their own; an issuer that never repeats itself does not grow it."""
    fresh = Keys(keys.by_kid)
    payload = {"sub": "ann", "dev": "tv", "evt": [], "exp": NOW + 60}
    for i in range(200):
        with pytest.raises(TokenError):
            fresh.verify(spelt({"alg": "HS256", "kid": "hs", "x": i}, payload, b"x" * 32), NOW)
    assert fresh.headers == 0
    for i in range(200):
        fresh.verify(spelt({"alg": "HS256", "kid": "hs", "x": i}, payload, SECRET), NOW)
    assert 0 < fresh.headers <= 64
