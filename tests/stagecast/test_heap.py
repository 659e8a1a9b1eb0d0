"""What bursts leave in the C library's heap."""

import platform
from pathlib import Path

import pytest

from stagecast.heap import give_back


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives back on demand")
def test_what_lies_between_things_in_use_is_given_back() -> None:
    """Of 40 MB in blocks of 4 KB, one in a hundred stays: by itself the heap would keep all."""
    blocks = [bytearray(b"x" * 4000) for _ in range(10_000)]
    kept = blocks[::100]
    blocks.clear()
    before = resident()
    give_back()
    assert before - resident() > 30_000_000
    assert kept[-1] == b"x" * 4000
