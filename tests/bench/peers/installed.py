"""Peers from their registries, in a folder of the benchmark's own, by their ordinary clients: npm, go, apt-get.

What can't be had is missing from the result, and the reason is printed: no client, no way to a registry, another machine.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench.measured import on_cores

PEERS = Path(__file__).parent
CENTRIFUGE = "v0.40.1"
PATIENCE = 240
"""Seconds for one installation."""


class Absent(Exception):
    """This peer can't be had here; the text says why."""


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    """With its version."""
    command: list[str]
    """Talks in lines as the floor does; nchan's is nginx, which does not."""
    folder: Path


def install(folder: Path, cores: Collection[int]) -> list[Peer]:
    """All that can be had, with all these cores to build it. For a thread of its own."""
    found = []
    with on_cores(cores):
        for name, fetch in FETCHES.items():
            own = folder / name
            own.mkdir()
            try:
                found.append(fetch(name, own))
            except Absent as why:
                print(f"  without {name}: {why}", flush=True)
    return found


def _run(*command: str, cwd: Path) -> str:
    """Its output. Raises Absent."""
    if shutil.which(command[0]) is None:
        raise Absent(f"no {command[0]}")
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Absent(f"{command[0]} took more than {PATIENCE} s") from None
    if done.returncode:
        raise Absent(
            (done.stderr or done.stdout).strip().splitlines()[-1:][0] if done.stderr or done.stdout else "failed"
        )
    return done.stdout.strip()


def _npm(name: str, folder: Path) -> None:
    for file in ("package.json", "lines.js", f"{name}.js"):
        shutil.copy(PEERS / file, folder)
    _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", cwd=folder)


def _bun(name: str, folder: Path) -> Peer:
    _npm(name, folder)
    program = folder / "node_modules" / ".bin" / "bun"
    if not program.exists():
        raise Absent("npm installed no bun")
    return Peer(
        name, f"uWebSockets (Bun {_run(str(program), '--version', cwd=folder)})", [str(program), "bun.js"], folder
    )


def _ws(name: str, folder: Path) -> Peer:
    _npm(name, folder)
    node = _run("node", "--version", cwd=folder)
    found = _run("node", "-p", "require('ws/package.json').version", cwd=folder)
    return Peer(name, f"ws {found} (Node {node.removeprefix('v')})", ["node", "ws.js"], folder)


def _websockets(name: str, folder: Path) -> Peer:
    title = f"websockets {version('websockets')} (uvloop {version('uvloop')})"
    return Peer(name, title, [sys.executable, str(PEERS / "python_websockets.py")], folder)


def _nchan(name: str, folder: Path) -> Peer:
    _run("apt-get", "download", "nginx", "libnginx-mod-nchan", cwd=folder)
    for package in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(folder), cwd=folder)
    modules = list(folder.glob("usr/lib/nginx/modules/ngx_nchan_module.so"))
    if not modules:
        raise Absent("the package has no module")
    (made,) = folder.glob("libnginx-mod-nchan_*.deb")
    found = _run("dpkg-deb", "-f", str(made), "Version", cwd=folder)
    text = (PEERS / "nchan.conf").read_text().replace("MODULE", str(modules[0])).replace("FOLDER", str(folder))
    (folder / "nginx.conf").write_text(text)
    command = [str(folder / "usr" / "sbin" / "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Peer(name, f"nchan {found.partition(':')[2].partition('+')[0]} (nginx)", command, folder)


def _centrifuge(name: str, folder: Path) -> Peer:
    shutil.copy(PEERS / "centrifuge.go", folder / "main.go")
    _run("go", "mod", "init", "bench", cwd=folder)
    _run("go", "get", f"github.com/centrifugal/centrifuge@{CENTRIFUGE}", cwd=folder)
    _run("go", "build", "-o", "server", ".", cwd=folder)
    go = _run("go", "version", cwd=folder).split()[2].removeprefix("go")
    return Peer(name, f"centrifuge {CENTRIFUGE.removeprefix('v')} (Go {go})", [str(folder / "server")], folder)


FETCHES: dict[str, Callable[[str, Path], Peer]] = {
    "bun": _bun,
    "ws": _ws,
    "websockets": _websockets,
    "nchan": _nchan,
    "centrifuge": _centrifuge,
}
