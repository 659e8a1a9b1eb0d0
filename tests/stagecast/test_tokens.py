"""Device tokens: what verifies, the attacks that do not, and the keys file."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from stagecast.tokens import (
    JITTER,
    LIFE_MAX,
    REREAD,
    SKEW,
    TOKEN_BYTES_MAX,
    Claims,
    Keys,
    KeysError,
    KeysFile,
    TokenError,
    create_keys,
    load_keys,
)

NOW = 1_764_000_000.0
SECRET = bytes(range(32))
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}
TO_JWK: dict[str, Callable[[Any], str]] = {
    "RS256": RSAAlgorithm.to_jwk,
    "ES256": ECAlgorithm.to_jwk,
    "EdDSA": OKPAlgorithm.to_jwk,
}
ALGORITHMS = ["HS256", *PRIVATE]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(kid: str = "hs", secret: bytes = SECRET) -> dict[str, Any]:
    return {"kty": "oct", "kid": kid, "alg": "HS256", "k": b64(secret)}


def jwk(algorithm: str, *, public: bool = False) -> dict[str, Any]:
    if algorithm == "HS256":
        return hs256()
    key = PRIVATE[algorithm]
    found = json.loads(TO_JWK[algorithm](key.public_key() if public else key))
    return {**found, "kid": algorithm.lower(), "alg": algorithm}


def keys_of(folder: Path, *found: object) -> Keys:
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": found}))
    return load_keys(file)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A host's keys: one shared secret, and the public halves of three others."""
    return keys_of(tmp_path_factory.mktemp("keys"), hs256(), *(jwk(alg, public=True) for alg in PRIVATE))


def claims(**more: object) -> dict[str, object]:
    return {"sub": "ann", "dev": "tv", "evt": ["final"], "iat": int(NOW), "exp": int(NOW) + 3600} | more


def signed(body: dict[str, object] | None = None, algorithm: str = "HS256", **header: object) -> str:
    key = SECRET if algorithm == "HS256" else PRIVATE[algorithm]
    kid = "hs" if algorithm == "HS256" else algorithm.lower()
    return jwt.encode(claims() if body is None else body, key, algorithm=algorithm, headers={"kid": kid} | header)


def spelt(header: object, body: object, secret: bytes | None = SECRET) -> str:
    """A token put together by hand, as an attacker does; no secret: no signature."""
    signing = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}"
    mac = b"" if secret is None else hmac.digest(secret, signing.encode(), hashlib.sha256)
    return f"{signing}.{b64(mac)}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_algorithm_verifies(keys: Keys, algorithm: str) -> None:
    """Claims come back whole, with the kid of the key that was used; public halves suffice for that."""
    found = keys.verify(signed(algorithm=algorithm), NOW)
    assert (found.sub, found.dev, found.evt, found.exp) == ("ann", "tv", ["final"], NOW + 3600)
    assert found.kid == ("hs" if algorithm == "HS256" else algorithm.lower())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_minted_verifies(tmp_path: Path, algorithm: str) -> None:
    """A private key mints and verifies; `exp` is jittered within ± 10 %, so a login wave does not expire in one."""
    keys = keys_of(tmp_path, jwk(algorithm))
    rng = random.Random(7)
    lives = [keys.verify(keys.mint("ann", "tv", ["final"], 3600, NOW, rng), NOW).exp - NOW for _ in range(50)]
    assert 3600 * (1 - JITTER) - 1 <= min(lives) < 3400
    assert 3800 < max(lives) <= 3600 * (1 + JITTER)


def test_public_keys_mint_nothing(tmp_path: Path) -> None:
    """A host that only has public halves can't make tokens."""
    keys = keys_of(tmp_path, *(jwk(alg, public=True) for alg in PRIVATE))
    with pytest.raises(KeysError, match="sign"):
        keys.mint("ann", "tv", ["final"], 60, NOW, random.Random(1))


def pem(algorithm: str) -> bytes:
    data: bytes = PRIVATE[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


HS = {"alg": "HS256", "typ": "JWT", "kid": "hs"}
ATTACKS: dict[str, str] = {
    "empty": "",
    "no parts": "abc",
    "alg none": spelt({"alg": "none", "kid": "hs"}, claims(), None),
    "alg None": spelt({"alg": "None", "kid": "hs"}, claims(), None),
    "alg nOnE, signed": spelt({"alg": "nOnE", "kid": "hs"}, claims()),
    "no alg": spelt({"kid": "hs"}, claims()),
    "alg a list": spelt({"alg": ["HS256"], "kid": "hs"}, claims()),
    "alg HS512 of the same secret": jwt.encode(claims(), SECRET * 2, algorithm="HS512", headers={"kid": "hs"}),
    **{f"HS256 by the public PEM of {alg}": spelt({**HS, "kid": alg.lower()}, claims(), pem(alg)) for alg in PRIVATE},
    "RS256 under the kid of ES256": signed(algorithm="RS256", kid="es256"),
    "ES256 under the kid of HS256": signed(algorithm="ES256", kid="hs"),
    "no kid": spelt({"alg": "HS256"}, claims()),
    "kid unknown": signed(kid="other"),
    "kid a path": signed(kid="../../dev/null"),
    "kid SQL": signed(kid="' OR 1=1 --"),
    "kid a list": spelt({**HS, "kid": ["hs"]}, claims()),
    "kid null": spelt({**HS, "kid": None}, claims()),
    "own key in jwk": spelt({**HS, "kid": "evil", "jwk": hs256("evil", b"e" * 32)}, claims(), b"e" * 32),
    "own key by jku": spelt({**HS, "kid": "evil", "jku": "http://127.0.0.1:9/keys"}, claims(), b"e" * 32),
    "empty secret": spelt(HS, claims(), b""),
    "unknown critical header": signed(crit=["x"], x=1),
    "payload no object": spelt(HS, ["sub"]),
    "payload deep": f"{b64(json.dumps(HS).encode())}.{b64(b'[' * 2500)}.{b64(b'x' * 32)}",
    "header deep": f"{b64(b'[' * 2500)}.e30.e30",
    "no signature": signed().rpartition(".")[0] + ".",
    "two signatures": signed() + "." + b64(b"x" * 32),
    "padded": signed() + "=",
    "a space in front": " " + signed(),
    "half a surrogate": "\ud800" + signed(),
    **{
        f"no {name}": signed({key: value for key, value in claims().items() if key != name})
        for name in ("sub", "dev", "evt", "exp")
    },
    "exp past": signed(claims(exp=NOW - 1)),
    "exp now": signed(claims(exp=NOW)),
    "exp text": spelt(HS, claims(exp="never")),
    "exp null": spelt(HS, claims(exp=None)),
    "exp NaN": spelt(HS, claims(exp=float("nan"))),
    "exp Infinity": spelt(HS, claims(exp=float("inf"))),
    "exp too far": signed(claims(exp=NOW + LIFE_MAX + SKEW + 1)),
    "a life too long, now near its end": signed(claims(iat=NOW - LIFE_MAX, exp=NOW + SKEW + 1)),
    "nbf ahead": signed(claims(nbf=NOW + SKEW + 1)),
    "nbf NaN": spelt(HS, claims(nbf=float("nan"))),
    "iat ahead, so never revoked": signed(claims(iat=NOW + SKEW + 1)),
    "iat NaN": spelt(HS, claims(iat=float("nan"))),
    "sub empty": spelt(HS, claims(sub="")),
    "sub a number": spelt(HS, claims(sub=5)),
    "sub a cohort's key": spelt(HS, claims(sub="cohort:kids")),
    "sub half a surrogate": spelt(HS, claims(sub="\ud800")),
    "dev no device id": spelt(HS, claims(dev="a b")),
    "evt text": spelt(HS, claims(evt="*")),
    "evt of numbers": spelt(HS, claims(evt=[1])),
    "too long": signed(claims(pad="x" * TOKEN_BYTES_MAX)),
    "a megabyte": signed(claims(pad="x" * 2**20)),
    "kid of a megabyte": signed(kid="k" * 2**20),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_a_token_error(keys: Keys, attack: str) -> None:
    """Whatever is wrong there is one error, and its text never holds the token."""
    with pytest.raises(TokenError) as caught:
        keys.verify(ATTACKS[attack], NOW)
    assert not ATTACKS[attack] or ATTACKS[attack] not in str(caught.value)


@pytest.mark.parametrize(
    "more", [{"nbf": NOW + SKEW}, {"iat": NOW + SKEW}, {"exp": NOW + LIFE_MAX, "iat": NOW}, {"x": 1}]
)
def test_what_is_at_the_bounds_verifies(keys: Keys, more: dict[str, object]) -> None:
    """A minter's clock may be a minute ahead; unknown claims mean nothing."""
    assert keys.verify(signed(claims(**more)), NOW).sub == "ann"


VALID = {algorithm: signed(algorithm=algorithm) for algorithm in ALGORITHMS}


@given(st.sampled_from(ALGORITHMS), st.data())
def test_any_changed_byte_voids_a_token(keys: Keys, algorithm: str, data: st.DataObject) -> None:
    """Another byte anywhere, one more or one less: no longer a token."""
    token = VALID[algorithm]
    place = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.characters(max_codepoint=127).filter(lambda one: one != token[place]))
    for changed in (token[:place] + byte + token[place + 1 :], token[:place] + token[place + 1 :]):
        with pytest.raises(TokenError):
            keys.verify(changed, NOW)
    with pytest.raises(TokenError):
        keys.verify(token[:place] + byte + token[place:], NOW)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_has_one_spelling(keys: Keys, algorithm: str) -> None:
    """Its last character has bits to spare, which Python's decoder ignores: each of the 127 other characters is refused."""
    token = VALID[algorithm]
    for last in map(chr, range(128)):
        if last != token[-1]:
            with pytest.raises(TokenError):
                keys.verify(token[:-1] + last, NOW)


@given(st.text(max_size=200))
def test_any_text_is_a_token_error(keys: Keys, text: str) -> None:
    """Nothing but TokenError comes out of what a device sends."""
    with pytest.raises(TokenError):
        keys.verify(text, NOW)


@pytest.mark.parametrize(
    ("evt", "event", "allowed"),
    [
        (["final"], "final", True),
        (["final"], "final-2", False),
        (["final*"], "final-2", True),
        (["gala", "fin*"], "final", True),
        (["*"], "final", True),
        (["*nal"], "final", False),
        (["f*l"], "final", False),
        ([], "final", False),
        ([""], "final", False),
    ],
)
def test_events_are_named_or_prefixed(evt: list[str], event: str, allowed: bool) -> None:
    """A `*` counts at the end alone."""
    assert Claims("ann", "tv", evt, NOW).allows(event) is allowed


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    """Keys may end in a log line; what they hold does not."""
    keys = keys_of(tmp_path, hs256())
    shown = f"{keys!r} {keys.by_kid['hs']!r} {keys!s}"
    assert "HS256" in shown
    for form in (repr(SECRET), repr(SECRET)[2:20], b64(SECRET), SECRET.hex()):
        assert form not in shown


BAD_KEYS: dict[str, tuple[object, str]] = {
    "no kid": ({**hs256(), "kid": None}, "kid"),
    "empty kid": (hs256(""), "kid"),
    "kid a number": ({**hs256(), "kid": 5}, "kid"),
    "no alg": ({**hs256(), "alg": None}, "alg"),
    "alg none": ({**hs256(), "alg": "none"}, "alg"),
    "alg HS512": ({**hs256(), "alg": "HS512"}, "alg"),
    "alg a list": ({**hs256(), "alg": ["HS256"]}, "alg"),
    "short secret": (hs256(secret=b"x" * 31), "32 bytes"),
    "no secret": ({**hs256(), "k": None}, "32 bytes"),
    "secret a number": ({**hs256(), "k": 5}, "32 bytes"),
    "an RSA key as HS256": ({**jwk("RS256", public=True), "alg": "HS256"}, "32 bytes"),
    "a secret as RS256": ({**hs256(), "alg": "RS256"}, "keys"),
    "an RSA key as ES256": ({**jwk("RS256"), "alg": "ES256"}, "crv"),
    "an Ed25519 key as ES256": ({**jwk("EdDSA"), "alg": "ES256"}, "crv"),
    "P-384 as ES256": (
        {**json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()))), "kid": "x", "alg": "ES256"},
        "P-256",
    ),
    "RSA of 1024 bits": (
        {**json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024))), "kid": "x", "alg": "RS256"},
        "2048",
    ),
    "a broken number": ({**jwk("RS256", public=True), "n": 5}, "keys"),
    "a point off the curve": ({**jwk("ES256", public=True), "x": b64(b"\x01" * 32)}, "keys"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_bad_key_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """The error says which key of the file and what is wrong with it, and holds no secret."""
    bad, says = BAD_KEYS[case]
    with pytest.raises(KeysError, match=says) as caught:
        keys_of(tmp_path, hs256("good"), bad)
    assert "keys[1]" in str(caught.value)
    assert b64(SECRET) not in str(caught.value)


def test_a_kid_given_twice_is_refused(tmp_path: Path) -> None:
    """Which key would it be?"""
    with pytest.raises(KeysError, match="one kid"):
        keys_of(tmp_path, hs256(), hs256(secret=b"y" * 32))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": {}}', '{"keys": [5]}', '{"keys": null}', "\xff"])
def test_what_is_no_key_set_is_refused(tmp_path: Path, text: str) -> None:
    """One error for all of it, naming the file; so is a missing file."""
    file = tmp_path / "keys.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(KeysError, match=r"keys\.json"):
        load_keys(file)
    with pytest.raises(KeysError, match="No such file"):
        load_keys(tmp_path / "none.json")


def test_created_keys_are_private_and_kept(tmp_path: Path) -> None:
    """A new file is for its owner alone and can sign; an existing one stays, and no draft is left behind."""
    file = tmp_path / "data" / "keys.json"
    create_keys(file)
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_bytes()
    create_keys(file)
    assert file.read_bytes() == first
    assert list(file.parent.iterdir()) == [file]
    keys = load_keys(file)
    assert keys.verify(keys.mint("ann", "tv", ["*"], 60, NOW, random.Random(1)), NOW).sub == "ann"


def test_the_keys_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    """Looked at every 5 s: a key that left is revoked, a new one counts; both may overlap in a rotation."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [hs256("old")]}))
    kept = KeysFile(file)
    assert set(kept.look(100).by_kid) == {"old"}
    file.write_text(json.dumps({"keys": [hs256("old"), hs256("new", b"n" * 32)]}))
    assert set(kept.look(100 + REREAD - 0.1).by_kid) == {"old"}
    assert set(kept.look(100 + REREAD).by_kid) == {"old", "new"}
    file.write_text(json.dumps({"keys": [hs256("new", b"n" * 32)]}))
    with pytest.raises(TokenError):
        kept.look(100 + 2 * REREAD).verify(signed(kid="old"), NOW)


def test_a_file_that_turns_bad_keeps_its_keys(tmp_path: Path) -> None:
    """A slip of an editor closes nobody's connection; `error` says so until the file is good again, or as it was."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [hs256()]}))
    aside = tmp_path / "aside"
    kept = KeysFile(file)
    file.rename(aside)
    assert set(kept.look(10).by_kid) == {"hs"}
    assert kept.error
    file.write_text("{")
    assert set(kept.look(20).by_kid) == {"hs"}
    assert kept.error
    aside.rename(file)
    assert set(kept.look(30).by_kid) == {"hs"}
    assert kept.error is None
