"""The alphabet of names and the bounds of numbers."""

from typing import Any

import msgspec
import pytest

from stagecast.names import WIRE_INT_MAX, Count, DeviceId, EventId, MapVersion, MemberId, Millis, StageName


@pytest.mark.parametrize(
    ("kind", "legal"),
    [
        (EventId, ["a", "final-2026", "x.y_z", "0" * 64]),
        (StageName, ["live", "round-3"]),
        (DeviceId, ["tv-9:living.room", "A" * 64]),
        (MemberId, ["m", "Ünï ☃", "m" * 128, "cohorts", "cohort"]),
        (MapVersion, ["1764000000000-a", "0000000000000-A.b_c-" + "9" * 40]),
        (Count, [0, WIRE_INT_MAX]),
        (Millis, [0, WIRE_INT_MAX]),
    ],
)
def test_legal(kind: Any, legal: list[object]) -> None:
    """Names up to their bounds pass."""
    for value in legal:
        assert msgspec.convert(value, kind) == value


@pytest.mark.parametrize(
    ("kind", "illegal"),
    [
        (EventId, ["", "A", "a" * 65, "a/b", "a\n", "é", "a b", 5, None]),
        (StageName, ["", "Live", "a" * 65, "a\n"]),
        (DeviceId, ["", "d" * 65, "a/b", "d\n", "ü"]),
        (MemberId, ["", "m" * 129, "cohort:", "cohort:kids", None]),
        (MapVersion, ["", "176400000000-a", "1764000000000-", "1764000000000-" + "a" * 49, "1764000000000-a\n", "x"]),
        (Count, [-1, WIRE_INT_MAX + 1, 1.0, True, "1"]),
        (Millis, [-1, WIRE_INT_MAX + 1]),
    ],
)
def test_illegal(kind: Any, illegal: list[object]) -> None:
    """A trailing newline, a path separator, a cohort's key as a member and an inexact integer are refused."""
    for value in illegal:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)


def test_map_versions_compare_as_byte_strings() -> None:
    """The order of versions is the order of their times."""
    assert "0999999999999-z" < "1764000000000-a" < "1764000000000-b" < "1764000000001-a"
