"""Sessions of people at browsers. A session stands for one API key and ends with it.

They are kept in the store, so that a page outlives a restart of the broadcaster and any instance knows it: record
`sessions/<id of the key>`, under the SHA-256 of a secret of 256 random bits that the cookie alone holds. Bounded in time by
LIFE, in number by PER_KEY for each key.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

import msgspec
from msgspec import Struct

from kv import Put, Store, StoreUnavailable
from stagecast.access import ApiKey, Gate, key_digest
from stagecast.clock import Clock

LIFE = 12 * 3600.0
"""Seconds after which one signs in again: longer than an evening's event."""
PER_KEY = 16
"""Sessions of one key at once; one more ends the oldest."""
CACHED = 30.0
"""Seconds that a session is remembered without asking the store: how long one that was ended at another instance may still
work at this one. While the store is down a remembered session goes on."""
REMEMBERED_MAX = 1000
_COOKIE = re.compile(r"([0-9a-f]{8})\.([A-Za-z0-9_-]{43})")


class Session(Struct, frozen=True):
    """What is kept of a session."""

    key: str
    """Digest of the API key."""
    since: int
    """Wall ms."""


class _Remembered(NamedTuple):
    until: float
    session: Session


def sessions_record(key_id: str) -> str:
    """Key = SHA-256 of the session's secret, hexadecimal → Session. ttl = LIFE."""
    return f"sessions/{key_id}"


class Sessions:
    """Opens, recognises and ends sessions. Everything may raise StoreUnavailable."""

    def __init__(self, store: Store, gate: Gate, clock: Clock) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}

    async def open(self, key: str) -> tuple[str, ApiKey] | None:
        """A new session of the holder of this API key: the cookie's value, and who it is. None for a key nobody holds."""
        digest = key_digest(key)
        holder = await self._gate.standing(digest)
        if holder is None:
            return None
        await self._make_room(holder.id)
        secret = secrets.token_urlsafe(32)
        kept = msgspec.json.encode(Session(digest, self._clock.now()))
        await self._store.put([Put(sessions_record(holder.id), _digest(secret), kept, LIFE)])
        return f"{holder.id}.{secret}", holder

    async def holder(self, cookie: str) -> ApiKey | None:
        """Whose session this is; None when it is none, is over, or its key is gone (within the gate's CACHED seconds)."""
        session = await self._session(cookie)
        if session is None or self._clock.now() - session.since >= LIFE * 1000:
            return None
        return await self._gate.standing(session.key)

    async def close(self, cookie: str) -> None:
        """Ends a session, if it is one."""
        self._remembered.pop(cookie, None)
        if found := _COOKIE.fullmatch(cookie):
            await self._store.delete(sessions_record(found[1]), [_digest(found[2])])

    async def _session(self, cookie: str) -> Session | None:
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        remembered = self._remembered.get(cookie)
        now = self._clock.monotonic()
        if remembered is not None and remembered.until > now:
            return remembered.session
        try:
            kept = await self._store.get(sessions_record(found[1]), _digest(found[2]))
        except StoreUnavailable:
            if remembered is None:
                raise
            return remembered.session
        if kept is None:
            self._remembered.pop(cookie, None)
            return None
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        session = msgspec.json.decode(kept, type=Session)
        self._remembered[cookie] = _Remembered(now + CACHED, session)
        return session

    async def _make_room(self, key_id: str) -> None:
        """Leaves room for one more session of this key. Two sign-ins at once may leave one too many: the next one ends both."""
        record = sessions_record(key_id)
        items = (await self._store.page(record)).items
        excess = len(items) - PER_KEY + 1
        if excess > 0:
            oldest = sorted(items, key=lambda item: msgspec.json.decode(item.value, type=Session).since)[:excess]
            await self._store.delete(record, [item.key for item in oldest])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
