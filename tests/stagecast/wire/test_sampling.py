"""Which devices acknowledge: stagecast.wire.sampling."""

import pytest

from stagecast.wire.sampling import ack_hash


@pytest.mark.parametrize(
    ("device", "gen", "seq", "expected"),
    [
        ("d1", 1764000000000, 2, 3890218178),
        ("tv-9:living.room", 1764000000000, 17, 1545455623),
        ("ü", 1, 1, 3955626308),
    ],
)
def test_the_protocols_vectors(device: str, gen: int, seq: int, expected: int) -> None:
    """The figures that every implementation must give."""
    assert ack_hash(device, gen, seq) == expected


def test_a_share_of_devices_acks() -> None:
    """Of 20,000 devices with names alike, p / 2^32 of them ack, within four standard deviations, and others the next time."""
    n, p = 20_000, 2**32 // 10
    for seq in (1, 2):
        asked = sum(ack_hash(f"device-{i}", 1764000000000, seq) < p for i in range(n))
        assert abs(asked - n / 10) < 4 * (n * 0.1 * 0.9) ** 0.5
    both = sum(ack_hash(f"device-{i}", 1, 1) < p and ack_hash(f"device-{i}", 1, 2) < p for i in range(n))
    assert abs(both - n / 100) < 4 * (n * 0.01 * 0.99) ** 0.5
