"""Keeps docs/performance.md: a benchmark that ran replaces its section, between `<!-- measured: NAME -->` and `<!-- end -->`.

So a page may come from several runs; each section says when and by which command.
"""

import os
import platform
import re
import shlex
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench.measured import Unmeasurable
from tests.bench.table import Figure, spread

MACHINE = "machine"


def verdict(figure: Figure) -> str:
    """Whether the median meets a goal of the form `≤ N` or `≤ N × floor`; empty for others."""
    goal = re.match(r"≤ ([\d.,]+)( × floor)?", figure.goal)
    if goal is None:
        return ""
    values = figure.ratios if goal[2] else figure.values
    return "" if not values else "met" if _median(values) <= float(goal[1].replace(",", "")) else "**not met**"


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def section(figures: list[Figure], command: str, day: str) -> str:
    rows = ["| measure | median [least–greatest] | × floor | goal | |", "|---|---|---|---|---|"]
    for one in figures:
        ratio = spread(one.ratios) if one.ratios else ""
        cells = (one.name, f"{spread(one.values)} {one.unit}".strip(), ratio, one.goal, verdict(one))
        rows.append("| " + " | ".join(cells) + " |")
    return f"`{command}`, {day}.\n\n" + "\n".join(rows) + "\n"


def machine() -> str:
    """What a reader needs to know of where it was measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {int(memory[1]) / 2**20 if memory else 0:.0f} GB, "
        f"Linux {'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}, uvloop {version('uvloop')}, "
        f"{platform.libc_ver()[0]} {platform.libc_ver()[1]}.\n"
    )


def put(page: str, name: str, text: str) -> str:
    """The page with this section's text replaced. Raises Unmeasurable without such a section."""
    begin = f"<!-- measured: {name} -->\n"
    found = re.compile(re.escape(begin) + r".*?(?=<!-- end -->)", re.DOTALL)
    if not found.search(page):
        raise Unmeasurable(f"the page has no section {begin.strip()}")
    return found.sub(lambda _: begin + text, page, count=1)


def renew(file: Path, name: str, figures: list[Figure], arguments: list[str], now: datetime) -> None:
    command = shlex.join(["python", "-m", "tests.bench", *arguments])
    page = put(file.read_text(), MACHINE, machine())
    file.write_text(put(page, name, section(figures, command, f"{now.day} {now:%B %Y}")))
