"""Reads what `stagecast doctor` judges: limits, `/proc/sys`, files, clocks. No decisions here."""

import ctypes
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pushy.fanout import way
from stagecast.cli.doctor_checks import Machine
from stagecast.settings import Settings
from stagecast.sqlite import DatabaseError, check_version, library_version
from stagecast.tokens import KeysError, load_keys

PROC = Path("/proc")
LOOKED_AT = 0.2
"""Seconds between the two looks at both clocks."""
_TIME_ERROR = 5
T = TypeVar("T")


def read_machine(settings: Settings, proc: Path = PROC) -> Machine:
    """This machine as it is now. Takes 0.2 s."""
    sys = proc / "sys"
    keys, problem = _keys(settings.keys_file)
    conntrack = _read(sys / "net/netfilter/nf_conntrack_count", int), _read(sys / "net/netfilter/nf_conntrack_max", int)
    cookies = _read(sys / "net/ipv4/tcp_syncookies", int)
    data = settings.data_dir
    return Machine(
        descriptors=_descriptors(),
        file_max=_read(sys / "fs/file-max", int),
        somaxconn=_read(sys / "net/core/somaxconn", int),
        syn_backlog=_read(sys / "net/ipv4/tcp_max_syn_backlog", int),
        syncookies=None if cookies is None else cookies > 0,
        ports=_read(sys / "net/ipv4/ip_local_port_range", _pair),
        tcp_mem=_read(sys / "net/ipv4/tcp_mem", _triple),
        page=os.sysconf("SC_PAGE_SIZE"),
        memory=_read(proc / "meminfo", available),
        conntrack=None if conntrack[0] is None or conntrack[1] is None else (conntrack[0], conntrack[1]),
        sqlite=_sqlite(),
        sqlite_version=library_version(),
        filesystem=_read(proc / "self/mounts", lambda text: filesystem(text, data.absolute())) or "",
        data_mode=_mode(data),
        keys_mode=_mode(settings.keys_file),
        keys=keys,
        keys_problem=problem,
        wall=int(time.time() * 1000),
        drift=_drift(),
        synchronised=_synchronised(),
        fan_out=way(settings.fan_out),
    )


def available(meminfo: str) -> int:
    """Bytes that may be used without swapping, by `/proc/meminfo`. Raises ValueError."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no MemAvailable")


def filesystem(mounts: str, folder: Path) -> str:
    """The type of the file system under `folder`, by `/proc/self/mounts`: of the deepest mount above it, the last one."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        where = Path(parts[1].encode().decode("unicode_escape"))
        depth = len(where.parts)
        if folder.is_relative_to(where) and depth >= best:
            best, kind = depth, parts[2]
    return kind


def _read(file: Path, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(file.read_text())
    except (OSError, ValueError):
        return None


def _pair(text: str) -> tuple[int, int]:
    low, high = map(int, text.split())
    return low, high


def _triple(text: str) -> tuple[int, int, int]:
    low, pressure, high = map(int, text.split())
    return low, pressure, high


def _descriptors() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def _mode(file: Path) -> int | None:
    try:
        return file.stat().st_mode & 0o7777
    except OSError:
        return None


def _keys(file: Path) -> tuple[dict[str, tuple[str, bool]] | None, str]:
    try:
        found = load_keys(file)
    except KeysError as error:
        return None, str(error)
    return {kid: (key.algorithm, key.signing is not None) for kid, key in found.by_kid.items()}, ""


def _sqlite() -> str | None:
    try:
        check_version(library_version())
    except DatabaseError as error:
        return str(error)
    return None


def _drift() -> float:
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(LOOKED_AT)
    return (time.time() - wall) - (time.monotonic() - monotonic)


def _synchronised() -> bool | None:
    """The kernel's own word on whether something keeps its clock; None where it may not be asked."""
    state: int = ctypes.CDLL(None).adjtimex(
        ctypes.create_string_buffer(512)
    )  # modes = 0: only looks; timex has 208 bytes
    return None if state < 0 else state != _TIME_ERROR
