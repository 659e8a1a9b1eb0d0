"""API keys: what is kept of them, and for how long their standing is remembered."""

import hashlib

import msgspec
import pytest

from stagecast.access import CACHED, SCOPES, ApiKey, Gate, Scope, key_digest, new_key
from stagecast.clock import ManualClock


class Keys:
    """The store's side: digests and what is kept under them, with a count of reads and a switch for being down."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.reads = 0
        self.down = False
        self.clock = ManualClock()
        self.gate = Gate(self.read, self.clock.monotonic)

    async def read(self, digest: str) -> bytes | None:
        self.reads += 1
        if self.down:
            raise ConnectionError("down")
        return self.kept.get(digest)

    def add(self, scope: Scope) -> str:
        text, digest, key = new_key(scope, 5)
        self.kept[digest] = msgspec.json.encode(key)
        return text


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.mark.parametrize("scope", SCOPES)
def test_only_a_digest_is_kept(scope: Scope) -> None:
    """The key's text holds 256 random bits and its scope; what is kept of it is neither text nor secret."""
    text, digest, kept = new_key(scope, 5)
    assert text.startswith(f"sc_{scope}_")
    assert len(text.removeprefix(f"sc_{scope}_")) >= 43
    assert digest == key_digest(text) == hashlib.sha256(text.encode()).hexdigest()
    assert text not in msgspec.json.encode(kept).decode()
    assert kept.id not in text
    assert new_key(scope, 5)[0] != text


async def test_a_known_key_is_let_in(keys: Keys) -> None:
    """`Bearer KEY`, the scheme in any case, gives the key's holder."""
    text = keys.add("viewer")
    for scheme in ("Bearer", "bearer", "BEARER"):
        holder = await keys.gate.holder(f"{scheme} {text}")
        assert isinstance(holder, ApiKey)
        assert holder.scope == "viewer"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic KEY", "KEY", "Bearer wrong", "Bearer é", "BearerKEY"]
)
async def test_anything_else_is_not(keys: Keys, header: str | None) -> None:
    """No header, another scheme, another key: nobody."""
    text = keys.add("operator")
    assert await keys.gate.holder(header and header.replace("KEY", text)) is None


async def test_a_digest_is_no_key(keys: Keys) -> None:
    """Who reads the store can't call the API with what is in it."""
    keys.add("operator")
    assert await keys.gate.holder(f"Bearer {next(iter(keys.kept))}") is None


async def test_standing_is_remembered_for_30_s(keys: Keys) -> None:
    """One read per key and 30 s; a deleted key works for no longer than that."""
    text = keys.add("operator")
    for _ in range(3):
        await keys.gate.holder(f"Bearer {text}")
    assert keys.reads == 1
    keys.kept.clear()
    keys.clock.advance(CACHED)
    assert await keys.gate.holder(f"Bearer {text}") is not None
    keys.clock.advance(0.001)
    assert await keys.gate.holder(f"Bearer {text}") is None


async def test_unknown_keys_are_not_remembered(keys: Keys) -> None:
    """A key that was just made works at once, and guesses don't push known keys out."""
    text, digest, kept = new_key("operator", 5)
    assert await keys.gate.holder(f"Bearer {text}") is None
    keys.kept[digest] = msgspec.json.encode(kept)
    assert await keys.gate.holder(f"Bearer {text}") is not None
    for i in range(1100):
        await keys.gate.holder(f"Bearer guess{i}")
    reads = keys.reads
    await keys.gate.holder(f"Bearer {text}")
    assert keys.reads == reads


async def test_known_keys_work_while_the_store_is_down(keys: Keys) -> None:
    """For 30 s, and no unknown key does: an error is not a yes."""
    text = keys.add("operator")
    await keys.gate.holder(f"Bearer {text}")
    keys.down = True
    assert await keys.gate.holder(f"Bearer {text}") is not None
    with pytest.raises(ConnectionError):
        await keys.gate.holder("Bearer other")
    keys.clock.advance(CACHED + 1)
    with pytest.raises(ConnectionError):
        await keys.gate.holder(f"Bearer {text}")


async def test_memory_is_bounded(keys: Keys) -> None:
    """More than 1,000 keys in use cost reads, not memory."""
    texts = [keys.add("viewer") for _ in range(1001)]
    for text in texts:
        assert await keys.gate.holder(f"Bearer {text}") is not None
    reads = keys.reads
    await keys.gate.holder(f"Bearer {texts[0]}")
    assert keys.reads == reads + 1
