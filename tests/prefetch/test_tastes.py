"""The sweep over members, which a campaign's cursor walks; vectors as kept."""

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.campaign import Cursor
from prefetch.tastes import ImportedMembers, Member, Stretch, _sweep, member_put, pack, unpack
from tests.prefetch.conftest import Site


class Shards:
    """Members in memory, given out in pages of a few."""

    def __init__(self, members: Sequence[Sequence[str]], size: int) -> None:
        self._members = members
        self._size = size
        self.shards = len(members)

    async def page(self, shard: int, after: str | None) -> tuple[Sequence[Member], str | None]:
        left = [Member(one) for one in self._members[shard] if after is None or one > after]
        page = left[: self._size]
        return page, page[-1].id if len(page) < len(left) else None


def ids(stretches: Sequence[Stretch]) -> list[str]:
    return [member.id for stretch in stretches for member in stretch.members]


@given(
    shards=st.lists(st.sets(st.integers(0, 99), max_size=9), min_size=1, max_size=40),
    page=st.integers(1, 4),
    count=st.integers(1, 7),
)
async def test_a_sweep_gives_every_member_once_from_any_cursor_of_it(
    shards: list[set[int]], page: int, count: int
) -> None:
    """However shards and pages fall: whole, in stretches of `count` but for the last; and going on from any cursor gives just the
    rest, so a resumed campaign neither misses nor repeats."""
    members = [sorted(f"{i:02d}-{n:02d}" for n in shard) for i, shard in enumerate(shards)]
    roster = Shards(members, page)
    whole = [stretch async for stretch in _sweep(roster, Cursor(), count)]
    everyone = [one for shard in members for one in shard]
    assert ids(whole) == everyone
    assert all(len(stretch.members) == count for stretch in whole[:-1])
    for i, stretch in enumerate(whole):
        assert ids([rest async for rest in _sweep(roster, stretch.cursor, count)]) == ids(whole[i + 1 :])


async def test_imported_members_are_swept_and_found(site: Site) -> None:
    """As they were put: id, vector, cohort."""
    members = [Member(f"m{i}", pack([i, 1.0]), "de" if i % 2 else "default") for i in range(30)]
    await site.store.put([member_put("final", member, 60.0) for member in members])
    roster = ImportedMembers(site.store, "final")
    found: list[Member] = []
    async with contextlib.aclosing(roster.sweep(Cursor(), 7)) as stretches:
        async for stretch in stretches:
            found.extend(stretch.members)
    assert sorted(found, key=lambda one: one.id) == sorted(members, key=lambda one: one.id)
    assert await roster.find("m3") == members[3]
    assert await roster.find("nobody") is None


def test_a_vector_is_kept_as_float32() -> None:
    """Four bytes a number, read back equal to the nearest float32."""
    packed = pack([0.5, -2.0, 1e-3])
    assert len(packed) == 12
    assert unpack(packed).tolist() == pytest.approx([0.5, -2.0, 1e-3])


@pytest.mark.parametrize("vector", [[], [float("nan")], [float("inf")], [1e39], [0.0] * 3000])
def test_a_vector_that_arithmetic_can_not_use_is_refused(vector: list[float]) -> None:
    """None, not finite, or too many numbers."""
    with pytest.raises(ValueError, match="vector"):
        pack(vector)
