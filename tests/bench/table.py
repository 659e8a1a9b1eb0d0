"""Figures, how they are printed and kept."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

KEYS = (
    "cpu_per_delivery", "publish_to_last", "memory_idle", "connect_cpu", "connect_cpu_jwt", "storm", "gc_pause", "workers_even",
    "slow_readers_time", "slow_readers_memory", "log_to_socket_p50", "log_to_socket_p99", "idle_cpu",
)  # fmt: skip
"""What a file of figures has after `make bench`, whatever else."""


@dataclass(frozen=True)
class Figure:
    """One measure, of several rounds."""

    name: str
    values: list[float]
    unit: str
    goal: str = ""
    ratios: list[float] | None = None
    """To the floor of the same round."""
    key: str = ""
    """What it is called in the JSON file; empty: not there."""


def spread(values: list[float]) -> str:
    """Median [least–greatest]."""
    digits = 2 if max(map(abs, values), default=0) < 20 else 0
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):,.{digits}f}–{max(values):,.{digits}f}]"


def show(title: str, figures: list[Figure]) -> None:
    print(f"\n{title}\n{'':<66} {'median [least–greatest]':>26} {'× floor':>20}   goal", flush=True)
    for one in figures:
        ratio = spread(one.ratios) if one.ratios else "-"
        print(f"{f'{one.name}, {one.unit}':<66} {spread(one.values):>26} {ratio:>20}   {one.goal}", flush=True)


def kept(figures: list[Figure]) -> dict[str, dict[str, object]]:
    """For other programs: by key, the median and the range."""
    return {
        one.key: {
            "value": statistics.median(one.values),
            "unit": one.unit,
            "low": min(one.values),
            "high": max(one.values),
            "goal": one.goal,
            "ratio_to_floor": statistics.median(one.ratios) if one.ratios else None,
        }
        for one in figures
        if one.key
    }


def write(figures: list[Figure], file: Path, *, add: bool) -> None:
    """`add`: to what the file has, if it is there; of equal keys the new one counts."""
    before = json.loads(file.read_text()) if add and file.exists() else {}
    file.write_text(json.dumps(before | kept(figures), indent=1, ensure_ascii=False) + "\n")
