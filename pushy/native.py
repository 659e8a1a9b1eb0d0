"""The optional C loop of the fan-out: `python -m pushy.native` compiles it, where there is a C compiler; without it all works
the same, with a little more CPU per delivery (docs/decisions/0007).

It is a plain C function in a shared library, called by ctypes: no build back-end, no Python headers, one build for all versions.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name("fanout.c")
FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
BUILD_DEADLINE = 60.0
"""Seconds."""

FanOut = Callable[..., int]
"""fan_out of fanout.c."""


class NotBuilt(Exception):
    """There is no compiler, or it failed: the text says which."""


def library(folder: Path = SOURCE.parent) -> Path:
    """Where the library of this very source is, once built: an older one is never loaded."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return folder / f"_fanout-{os.uname().machine}-{digest}.so"


def build(into: Path = SOURCE.parent) -> Path:
    """Compiles the library and puts it there, whole or not at all. Raises NotBuilt."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotBuilt("no C compiler: apt-get install gcc libc6-dev")
    target = library(into)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        command = [compiler, *FLAGS, "-o", str(draft), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False)
        if done.returncode:
            raise NotBuilt(f"{compiler} failed: {done.stderr.strip()[:500]}")
        beside = target.with_suffix(f".{os.getpid()}")
        try:
            shutil.copy(draft, beside)
            beside.replace(target)
        except OSError as error:
            raise NotBuilt(f"{target}: {error.strerror}") from error
    return target


def load(folder: Path = SOURCE.parent) -> FanOut | None:
    """The function, if it has been built and can be loaded here."""
    try:
        found = ctypes.CDLL(str(library(folder))).fan_out
    except OSError:
        return None
    integers = ctypes.c_void_p
    found.argtypes = [integers, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, integers, integers]
    found.restype = ctypes.c_int
    function: FanOut = found
    return function


def main() -> int:
    try:
        print(build())
    except (NotBuilt, subprocess.TimeoutExpired) as why:
        print(f"not built: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
