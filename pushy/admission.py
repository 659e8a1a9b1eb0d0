"""Whose tokens are good: keys, revocations, and a bounded memory of what has been checked."""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from stagecast.records import Revocation
from stagecast.tokens import Claims, KeysFile, TokenError

DIGEST_BYTES = 16
"""Of SHA-256: to find a second token for one of 20,000 digests takes 2^113 tries."""
REMEMBERED_MAX = 20_000
"""Tokens whose check is remembered: a worker's connections, which all may come back at once. The oldest goes first."""

TIMES_MAX = 10_000


@dataclass
class Admission:
    """Checks tokens. A check is remembered under the token's digest until the token expires or the keys change; revocations are
    looked at every time."""

    keys: KeysFile
    remembered: dict[int, Claims] = field(default_factory=dict)
    """By digest, as an int: 16 bytes less than the bytes themselves take."""
    revocations: dict[tuple[str, str], int] = field(default_factory=dict)
    _events: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    """One list for tokens of equal rights."""
    _times: dict[float, float] = field(default_factory=dict)
    """One object for equal times: whole seconds, and tokens that live for an hour were issued within one."""
    checks: int = 0
    """Signatures verified."""

    def admit(self, token: str, wall: int) -> Claims:
        """What the token says. `wall` in ms. Raises TokenError: no good, expired, revoked."""
        digest = int.from_bytes(hashlib.sha256(token.encode()).digest()[:DIGEST_BYTES])
        claims = self.remembered.get(digest)
        if claims is not None and claims.exp <= wall / 1000:
            del self.remembered[digest]
            claims = None
        if claims is None:
            claims = self._verify(token, wall)
            if len(self.remembered) >= REMEMBERED_MAX:
                del self.remembered[next(iter(self.remembered))]
            self.remembered[digest] = claims
        if self.revoked(claims):
            raise TokenError("the token has been revoked")
        return claims

    def _verify(self, token: str, wall: int) -> Claims:
        self.checks += 1
        claims = self.keys.keys.verify(token, wall / 1000)
        if len(self._events) >= REMEMBERED_MAX:
            self._events.clear()
        events = self._events.setdefault(tuple(claims.evt), claims.evt)
        kid = self.keys.keys.by_kid[claims.kid].kid
        return Claims(claims.sub, claims.dev, events, self._time(claims.exp), self._time(claims.iat), kid)

    def _time(self, time: float) -> float:
        if len(self._times) >= TIMES_MAX:
            self._times.clear()
        return self._times.setdefault(time, time)

    def revoke(self, revocations: Iterable[Revocation]) -> None:
        for one in revocations:
            subject = one.kind, one.id
            self.revocations[subject] = max(one.ts, self.revocations.get(subject, 0))

    def revoked(self, claims: Claims) -> bool:
        """Whether the token was issued at or before a revocation of its device or member."""
        issued = claims.iat * 1000
        return issued <= self.revocations.get(("device", claims.dev), -1) or issued <= self.revocations.get(
            ("member", claims.sub), -1
        )

    def look(self, monotonic: float) -> bool:
        """Reads the keys file again if it is time and it changed; true if it did: then `holds` may be false for open sessions."""
        before = self.keys.keys
        if self.keys.look(monotonic) is before:
            return False
        self.remembered.clear()
        return True

    def holds(self, claims: Claims) -> bool:
        """Whether the key that signed the token is still there."""
        return claims.kid in self.keys.keys.by_kid


def boot_id(rng: random.Random) -> str:
    """New for every start of a worker."""
    return f"{rng.getrandbits(48):012x}"
