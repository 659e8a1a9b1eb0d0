"""API keys: who may call the HTTP APIs. A key is 256 random bits, so its SHA-256 is all that is kept of it."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from msgspec import Struct

Scope = Literal["operator", "viewer", "service"]
SCOPES: tuple[Scope, ...] = ("operator", "viewer", "service")
CACHED = 30.0
"""Seconds that a key's standing is remembered: how long a deleted key may still work, and how long known keys work without kv."""


class ApiKey(Struct, frozen=True):
    """What is kept of a key."""

    id: str
    scope: Scope
    created: int


def new_key(scope: Scope, now: int) -> tuple[str, str, ApiKey]:
    """A new key: its text (shown once), the digest it is kept under, what is kept."""
    text = f"sc_{scope}_{secrets.token_urlsafe(32)}"
    return text, key_digest(text), ApiKey(secrets.token_hex(4), scope, now)


def key_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Gate:
    """Tells who holds a key, by the digests in the store. `read` gets what is kept under a digest and may raise.

    The look-up is by digest, so nothing is compared in secret-dependent time. At most 1,000 digests are remembered.
    """

    def __init__(self, read: Callable[[str], Awaitable[bytes | None]], monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, ApiKey | None]] = {}

    async def holder(self, authorization: str | None) -> ApiKey | None:
        """The holder of `Authorization: Bearer KEY`, or None. Raises what `read` raises for a key not remembered."""
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            return None
        return await self.standing(key_digest(text.strip()))

    async def standing(self, digest: str) -> ApiKey | None:
        """The holder of the key of this digest, or None when it is no key, or no more. Raises as `holder`."""
        known = self._known.get(digest)
        if known is None or known[0] < self._monotonic():
            kept = await self._read(digest)
            known = (self._monotonic() + CACHED, msgspec.json.decode(kept, type=ApiKey) if kept else None)
            if len(self._known) >= 1000:
                self._known.clear()
            if kept:
                self._known[digest] = known
            else:
                self._known.pop(digest, None)
        return known[1]
