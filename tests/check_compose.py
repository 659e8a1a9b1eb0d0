"""docker-compose.yml, read by the real docker-compose without an engine: `python -m tests.check_compose`. Exit status 1 if it
is not valid, or if what it starts is no command of ours.

The wrapper that the package puts on the PATH exits 0 whatever happens, so the binary inside it is run.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose
from click.testing import CliRunner

from stagecast.cli import main

ROOT = Path(__file__).parent.parent
COMPOSE = Path(compose.__file__).with_name("docker-compose")


def checked(file: Path = ROOT / "docker-compose.yml") -> list[str]:
    """What is wrong with the file: docker-compose's own words, or ours about the commands and health checks in it."""
    said = subprocess.run(
        [str(COMPOSE), "--file", str(file), "--profile", "*", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        return [said.stderr.strip()]
    services: dict[str, Any] = json.loads(said.stdout)["services"]
    return [problem for name, service in services.items() for problem in _problems(name, service)]


def _problems(name: str, service: dict[str, Any]) -> list[str]:
    problems = []
    if "healthcheck" not in service and service.get("restart") != "no":
        problems.append(f"{name}: no health check")
    if service["image"] == "stagecast" and not service.get("entrypoint"):
        command = service["command"]
        parsed = CliRunner().invoke(main, [*command, "--help"])
        if parsed.exit_code:
            problems.append(f"{name}: {' '.join(command)}: {parsed.output.strip()}")
    return problems


if __name__ == "__main__":
    found = checked()
    print("\n".join(found) or "docker-compose.yml: fine")
    sys.exit(bool(found))
