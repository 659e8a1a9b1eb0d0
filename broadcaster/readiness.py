"""Go or no-go, before a person arms: one line per check, each with its reason. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from broadcaster.publisher import Standing
from broadcaster.receipts import HostLife
from stagecast.receipts import SILENT_AFTER, Progress

COVERAGE_MIN = 0.95
"""Of the connected devices hold the required map."""
LEFT_MIN = 0.1
"""Of all connections that hosts take are left: room for those who come when it begins, and for a lost host's devices."""
FEED_AGE_MAX = 10.0
"""Seconds since a feed read a record: two beats missed."""
CLOCK_MAX_MS = 2000
"""Between a host's clock and the log's."""
NAMED_MAX = 3
"""Hosts named in a reason."""

Name = Literal["coverage", "hosts", "feed", "capacity", "clock", "log", "store"]


class Check(Struct, frozen=True):
    name: Name
    ok: bool
    text: str
    """What was found, as a person reads it."""


class GoNoGo(Struct, frozen=True):
    """`go` if every check is ok."""

    go: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is judged. `now` is wall ms."""

    progress: Progress
    required: str | None
    """Map version that devices should hold; None: no campaign has finished."""
    hosts: dict[str, HostLife]
    log: Standing
    log_age: float | None
    """Seconds since this process's last acknowledged append."""
    store: bool
    here: int
    """By how many ms this process's clock is ahead of the log's."""
    now: int


def judge(found: Findings) -> GoNoGo:
    """All checks, in the order that people read them."""
    checks = (
        _coverage(found),
        _hosts(found),
        _feed(found),
        _capacity(found),
        _clock(found),
        _log(found),
        _store(found),
    )
    return GoNoGo(all(check.ok for check in checks), checks)


def failed(verdict: GoNoGo) -> list[Check]:
    return [check for check in verdict.checks if not check.ok]


def holding(progress: Progress, required: str) -> int:
    """Devices that hold this map version or a newer one. Versions compare as byte strings."""
    return sum(count for version, count in progress.maps.items() if version >= required)


def _coverage(found: Findings) -> Check:
    subscribed = found.progress.subscribed
    if found.required is None:
        return Check("coverage", True, "no stage map is required: no campaign has finished")
    if not subscribed:
        return Check("coverage", False, "no device is connected, so nobody is known to hold the stage map")
    held = holding(found.progress, found.required)
    return Check(
        "coverage", held / subscribed >= COVERAGE_MIN,
        f"{held:,} of {subscribed:,} connected devices hold the stage map ({_percent(held / subscribed)}, "
        f"{COVERAGE_MIN:.0%} wanted)",
    )  # fmt: skip


def _hosts(found: Findings) -> Check:
    silent = [name for name, life in found.hosts.items() if _age(life, found.now) > SILENT_AFTER]
    if not found.hosts:
        return Check("hosts", False, "no host has reported in the last 2 min")
    if silent:
        return Check("hosts", False, f"{len(silent)} of {len(found.hosts)} hosts silent: {_named(silent)}")
    shut = [name for name, life in found.hosts.items() if not life.beat.accepting]
    if shut:
        return Check("hosts", False, f"{len(shut)} of {len(found.hosts)} hosts take no devices: {_named(shut)}")
    return Check("hosts", True, f"all {_count(len(found.hosts), 'host')} reporting")


def _feed(found: Findings) -> Check:
    speaking = _speaking(found)
    if not speaking:
        return Check("feed", False, "no host speaks")
    worst = max(life.beat.log_age for life in speaking.values())
    late = [name for name, life in speaking.items() if life.beat.log_age > FEED_AGE_MAX]
    if late:
        return Check("feed", False, f"{_named(late)} read nothing from the log for {worst:.0f} s")
    return Check("feed", True, f"every host has read the log within {worst:.1f} s")


def _capacity(found: Findings) -> Check:
    speaking = _speaking(found)
    limit = sum(life.beat.limit for life in speaking.values())
    open_now = sum(life.beat.connections for life in speaking.values())
    if not limit:
        return Check("capacity", False, "no host speaks")
    left = max(limit - open_now, 0)
    text = f"{open_now:,} of {limit:,} connections used, {left:,} left ({_percent(left / limit)})"
    return Check("capacity", left >= LEFT_MIN * limit, text)


def _clock(found: Findings) -> Check:
    off = {name: life.ahead for name, life in _speaking(found).items()} | {"this producer": found.here}
    name, worst = max(off.items(), key=lambda one: abs(one[1]))
    if abs(worst) > CLOCK_MAX_MS:
        return Check("clock", False, f"{name}'s clock is {_seconds(worst)} the log's")
    return Check("clock", True, f"all clocks within {max(abs(worst), 1) / 1000:.3f} s of the log's")


def _log(found: Findings) -> Check:
    if found.log_age is None:
        return Check("log", False, "the log has acknowledged nothing yet")
    return Check("log", found.log == "ok", f"the last append was acknowledged {found.log_age:.1f} s ago")


def _store(found: Findings) -> Check:
    return Check("store", found.store, "the store answers" if found.store else "the store does not answer")


def _speaking(found: Findings) -> dict[str, HostLife]:
    return {name: life for name, life in found.hosts.items() if _age(life, found.now) <= SILENT_AFTER}


def _age(life: HostLife, now: int) -> float:
    return max(now - life.ts, 0) / 1000


def _named(hosts: Iterable[str]) -> str:
    names = sorted(hosts)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def _percent(share: float) -> str:
    """Rounded down: never 95.0 % while it is not."""
    return f"{int(share * 1000) / 10:.1f} %"


def _seconds(ms: int) -> str:
    return f"{abs(ms) / 1000:.1f} s {'ahead of' if ms > 0 else 'behind'}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
