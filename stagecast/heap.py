"""The C library's heap: what bursts leave in it."""

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl, macOS
        return None
    return trim


_malloc_trim = _trim()


def give_back() -> None:
    """Gives free pages of all threads' heaps back to the kernel, where the C library can (glibc): between things in use it keeps
    them for ever. About a millisecond, in which other threads may run."""
    if _malloc_trim is not None:
        _malloc_trim(0)
