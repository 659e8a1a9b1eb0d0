"""The optional native path of a worker, in C: `python -m pushy.native` compiles it, where there are a C compiler and Python's
headers; without it all works the same, with more CPU per delivery and per connect (docs/decisions/0007).

One extension module for this very Python, kept beside its sources under a name that holds their digest, so an old one is never
loaded. What it does is said in its sources; what it is given, in pushy/fanout.py and pushy/express.py.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any, Protocol, cast

FOLDER = Path(__file__).parent
FLAGS = ["-O2", "-Wall", "-Wextra", "-fvisibility=hidden", "-shared", "-fPIC"]
BUILD_DEADLINE = 120.0
"""Seconds."""


class NotBuilt(Exception):
    """There is no compiler, or it failed: the text says which."""


class Turning(Protocol):
    """turn.c: looks at an epoll set."""

    def ready(self) -> None: ...

    def learn(self, request: bytes) -> None: ...


class Writing(Protocol):
    """fanout.c: `pushy.hub.Loops`."""

    def write_all(self, frame: bytes, places: list[Any]) -> list[Any]: ...

    def give(self, frame: bytes, places: list[Any], order: tuple[int, int], owed: int) -> tuple[int, list[Any]]: ...

    def asked(self, devices: list[str], gen: int, seq: int, p: int) -> int: ...


class Hot(Protocol):
    """The module."""

    Turn: Callable[[object], Turning]
    Loops: Callable[[bool], Writing]
    """Whether by io_uring: OSError where the kernel does not allow it, or is older than 6.1. For the thread that made it."""

    def prepare(self, classes: Mapping[str, type]) -> None: ...


def sources() -> list[Path]:
    return sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])


def library(folder: Path = FOLDER) -> Path:
    """Where the module of these very sources is, once built."""
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in sources())).hexdigest()[:12]
    return folder / f"_hot-{digest}{sysconfig.get_config_var('EXT_SUFFIX')}"


def build(into: Path = FOLDER, flags: Sequence[str] = ()) -> Path:
    """Compiles the module and puts it there, whole or not at all. Raises NotBuilt."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotBuilt("no C compiler: apt-get install gcc libc6-dev")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise NotBuilt("no headers of this Python: apt-get install python3-dev")
    target = library(into)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        files = [str(one) for one in sources() if one.suffix == ".c"]
        command = [*shlex.split(compiler), *FLAGS, *flags, f"-I{headers}", "-o", str(draft), *files]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuilt(f"{compiler}: {error}") from error
        if done.returncode:
            raise NotBuilt(f"{compiler} failed: {done.stderr.strip()[:500]}")
        beside = target.with_suffix(f".{os.getpid()}")
        try:
            shutil.copy(draft, beside)
            beside.replace(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise NotBuilt(f"{target}: {error.strerror}") from error
    return target


_loaded: dict[Path, Hot] = {}


def load(folder: Path = FOLDER) -> Hot | None:
    """The module, if it has been built and can be loaded here."""
    path = library(folder)
    if path not in _loaded:
        loader = ExtensionFileLoader("_hot", str(path))
        try:
            found = importlib.util.module_from_spec(importlib.util.spec_from_loader("_hot", loader))  # type: ignore[arg-type]
        except ImportError:
            return None
        loader.exec_module(found)
        _loaded[path] = cast("Hot", found)
    return _loaded[path]
