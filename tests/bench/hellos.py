"""What devices say first: hellos with tokens of a key set that the benchmark makes, so that every host of a run takes them."""

import base64
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

LIFE = 7200
"""Seconds that a token is good for."""
FRESH = 1800
"""Seconds after which hellos are written again rather than used: a host closes connections whose token ends."""


@dataclass
class Issuer:
    """A key set of one key, and what is signed with it."""

    algorithm: str
    folder: Path
    private: Any = field(init=False, repr=False)
    keys: Path = field(init=False)
    """The key set, for hosts."""
    _written: dict[tuple[str, int, int], tuple[float, Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.private, jwk = new_key(self.algorithm)
        self.keys = self.folder / f"keys-{self.algorithm}.json"
        self.keys.write_text(json.dumps({"keys": [{**jwk, "kid": "bench", "alg": self.algorithm}]}))

    def token(self, number: int, events: list[str], now: float) -> str:
        claims: dict[str, object] = {"sub": f"member-{number}", "dev": f"device-{number}", "evt": events}
        claims |= {"iat": int(now), "exp": int(now) + LIFE}
        return jwt.encode(claims, self.private, self.algorithm, {"kid": "bench"})

    def hellos(self, event: str, count: int, first: int = 0) -> Path:
        """A file with a hello per line, of the devices `first` to `first + count - 1`; the one written before if it is fresh."""
        now = time.time()
        written, file = self._written.get((event, count, first), (0.0, Path()))
        if now - written < FRESH:
            return file
        file = self.folder / f"hellos-{self.algorithm}-{event[:8]}-{count}-{first}"
        with file.open("w") as out:
            for number in range(first, first + count):
                out.write(json.dumps(hello(self.token(number, [event], now), number, event)) + "\n")
        self._written[event, count, first] = now, file
        return file


def hello(token: str, number: int, event: str) -> dict[str, object]:
    at = [{"e": event, "gen": 0, "seq": 0, "map": None}]
    return {"t": "hello", "token": token, "device": f"device-{number}", "app": "bench", "at": at}


def spoiled(hellos: Path) -> Path:
    """The same hellos with signatures of the right form that are not the key's."""
    file = hellos.with_name(f"{hellos.name}-spoiled")
    with hellos.open() as good, file.open("w") as out:
        for line in good:
            said = json.loads(line)
            signed, _, signature = said["token"].rpartition(".")
            said["token"] = f"{signed}.{'AAAA' if signature[:4] != 'AAAA' else 'BBBB'}{signature[4:]}"
            out.write(json.dumps(said) + "\n")
    return file


def payload(token: str) -> dict[str, Any]:
    """The token's claims, not verified."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def new_key(algorithm: str) -> tuple[Any, dict[str, Any]]:
    """A private key, and its JSON Web Key."""
    key: Any
    match algorithm:
        case "HS256":
            secret = bytes(range(32))
            return secret, {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
        case "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
            return key, json.loads(ECAlgorithm.to_jwk(key))
        case "EdDSA":
            key = ed25519.Ed25519PrivateKey.generate()
            return key, json.loads(OKPAlgorithm.to_jwk(key))
        case _:
            key = rsa.generate_private_key(65537, 2048)
            return key, json.loads(RSAAlgorithm.to_jwk(key))
