"""A fitting JVM, and the jars of a server, fetched once by Maven and kept."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")


class Unavailable(Exception):
    """This machine lacks what a server needs (a JVM, Maven, the way to a registry). The text says what would mend it."""


def find_java(majors: tuple[int, ...]) -> str:
    """The first JVM of one of these major versions. Raises Unavailable."""
    for java in _javas():
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', said)
        if version and int(version[1]) in majors:
            return java
    raise Unavailable(f"no Java {' or '.join(map(str, majors))}: apt-get install openjdk-17-jre-headless")


def _javas() -> Iterator[str]:
    if home := os.environ.get("JAVA_HOME"):
        yield str(Path(home, "bin", "java"))
    if on_path := shutil.which("java"):
        yield on_path
    yield from map(str, sorted(Path("/usr/lib/jvm").glob("*/bin/java")))


def fetch_jars(kind: str) -> Path:
    """The folder with the jars of `kind`, a profile of pom.xml.

    Fetched once per text of the pom, to $STAGECAST_JARS or the user's cache; a file lock lets several test runs ask at once.
    Raises Unavailable.
    """
    cache = Path(os.environ.get("STAGECAST_JARS") or Path.home() / ".cache" / "stagecast-jars")
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / f"{kind}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    with (cache / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _copy_dependencies(kind, jars)
    return jars


def _copy_dependencies(kind: str, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("no mvn: apt-get install maven")
    partial = jars.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    command = [maven, "--batch-mode", "--quiet", "--file", str(POM), "--activate-profiles", kind, *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Unavailable(f"mvn could not fetch the jars:\n{(done.stdout + done.stderr)[-2000:]}")
    partial.rename(jars)
