"""Programs of the machine that configurations are for: a Debian package each. A test that needs one that is absent is skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """Its path. Skips the test by name when it is not installed."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin")
    if found is None:
        pytest.skip(f"{name}: not installed; Debian package {package}")
    return found


def said(*command: str, cwd: Path) -> tuple[int, str]:
    """Exit status and output of a program that ends by itself."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr
