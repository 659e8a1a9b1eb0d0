"""The supervisor: its rules with a clock of their own, and real processes for what only processes can show."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pushy.supervisor import GRACE, PHASE_PATIENCE, Child, Restarts, Stopping, run_child

ROOT = Path(__file__).parents[2]
PARENT = """
import json, os, signal, sys, time
sys.path.insert(0, {root!r})
from pushy.supervisor import Child, Supervisor
from stagecast.cli.logs import log_to_stderr
log_to_stderr()

def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")

def child(name, *, deaf=False, exits=None):
    def run():
        def end(*_):
            say(child=name, told="SIGTERM", at=time.monotonic())
            if not deaf:
                sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        say(child=name, pid=os.getpid(), ignores=signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
        if exits is not None:
            sys.exit(exits)
        while True:
            time.sleep(60)
    return run

{body}
say(exit=supervisor.run())
"""


class Parent:
    """A supervisor in a process of its own; its children write JSON lines to one pipe."""

    def __init__(self, body: str) -> None:
        script = PARENT.format(root=str(ROOT), body=body)
        self.process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        self.lines: list[dict[str, object]] = []
        self._rest = b""

    def until(self, seen: Callable[[dict[str, object]], bool], timeout: float = 20.0) -> dict[str, object]:
        """The next line that `seen` is true of."""
        assert self.process.stdout is not None
        end = time.monotonic() + timeout
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                self.lines.append(json.loads(line))
                if seen(self.lines[-1]):
                    return self.lines[-1]
                continue
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"nothing more after {self.lines}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"the end after {self.lines}"
            self._rest += data

    def started(self, name: str) -> int:
        pid = self.until(lambda line: line.get("child") == name and "pid" in line)["pid"]
        assert isinstance(pid, int)
        return pid


@contextmanager
def parent(body: str) -> Iterator[Parent]:
    running = Parent(body)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(10)
        assert running.process.stdout is not None
        running.process.stdout.close()


def gone(pid: int) -> bool:
    """Whether the process is no more (or only a zombie that nobody reaped yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until_gone(pid: int, timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while not gone(pid):
        assert time.monotonic() < end, f"{pid} is still there"
        time.sleep(0.01)


def test_restarts_back_off_and_start_over() -> None:
    """The first restart is at once, then 0.2 s doubling to 5 s; ten seconds alive begin anew."""
    restarts = Restarts()
    assert [restarts.delay(0.1) for _ in range(8)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert restarts.delay(10.0) == 0.0
    assert restarts.delay(9.9) == 0.2


def test_phases_follow_one_another() -> None:
    """A phase is told when the one before is gone, or took too long; none is told twice."""
    stopping = Stopping([2, 0, 0, 1], 100.0)
    assert stopping.due([0, 0, 1, 2], 100.0) == [0]
    assert stopping.due([0, 1, 2], 100.3) == []
    assert stopping.due([1, 2], 100.4) == [1]
    assert stopping.due([1, 2], 100.4 + PHASE_PATIENCE) == [2]
    assert stopping.due([1, 2], 101.9) == []


def test_every_phase_is_told_before_the_grace_is_over() -> None:
    """Deaf workers do not eat the time of the rest: all are told well before SIGKILL."""
    stopping = Stopping([0, 1, 2], 0.0)
    told: list[int] = []
    for step in range(int(GRACE / 0.05)):
        told += stopping.due([0, 1, 2], step * 0.05)
        if told == [0, 1, 2]:
            assert step * 0.05 <= GRACE - 0.4
            break
    assert told == [0, 1, 2]
    assert not stopping.over(GRACE - 0.01)
    assert stopping.over(GRACE)


def test_what_a_child_raises_becomes_its_status() -> None:
    """An exception is status 1, an exit keeps its code, a normal end is 0."""

    def raises() -> None:
        raise ValueError("broken")

    def exits() -> None:
        sys.exit(7)

    assert run_child(Child("a", raises)) == 1
    assert run_child(Child("b", exits)) == 7
    assert run_child(Child("c", lambda: None)) == 0


def test_a_killed_child_comes_back_at_once() -> None:
    """SIGKILL of one child brings a new one under its name, and leaves the others alone."""
    with parent('supervisor = Supervisor([Child("a", child("a")), Child("b", child("b"))])') as running:
        first = {running.until(lambda line: "pid" in line)["child"]: running.lines[-1]["pid"] for _ in range(2)}
        killed, other = first["a"], first["b"]
        assert isinstance(killed, int)
        assert isinstance(other, int)
        os.kill(killed, signal.SIGKILL)
        assert running.started("a") != killed
        assert not gone(other)


def test_children_die_with_a_killed_parent() -> None:
    """SIGKILL of the supervisor leaves no child behind, not even one that ignores SIGTERM."""
    with parent('supervisor = Supervisor([Child("a", child("a", deaf=True))])') as running:
        pid = running.started("a")
        running.process.kill()
        until_gone(pid)


def test_sigterm_stops_in_order() -> None:
    """Workers are told first, then the feed, then the rest; the status of a planned stop is 0."""
    children = 'Child("rest", child("rest")), Child("feed", child("feed"), 1), Child("worker-0", child("worker-0"), 0)'
    with parent(f"supervisor = Supervisor([{children}])") as running:
        for _ in range(3):
            running.until(lambda line: "pid" in line)
        running.process.send_signal(signal.SIGTERM)
        assert running.until(lambda line: "exit" in line) == {"exit": 0}
        assert [line["child"] for line in running.lines if "told" in line] == ["worker-0", "feed", "rest"]
        assert running.process.wait(10) == 0


def test_a_deaf_child_is_killed_in_the_end() -> None:
    """What is left after the grace gets SIGKILL, and the status says so."""
    with parent('supervisor = Supervisor([Child("a", child("a", deaf=True)), Child("b", child("b"))])') as running:
        pids = [running.until(lambda line: "pid" in line)["pid"] for _ in range(2)]
        running.process.send_signal(signal.SIGINT)
        assert running.until(lambda line: "exit" in line) == {"exit": 1}
        assert all(isinstance(pid, int) and gone(pid) for pid in pids)


def test_the_first_sigterm_drains() -> None:
    """With `drain`, SIGTERM asks for it and stops nothing; a second one stops."""
    body = 'supervisor = Supervisor([Child("a", child("a"))], drain=lambda: say(drained=True))'
    with parent(body) as running:
        pid = running.started("a")
        running.process.send_signal(signal.SIGTERM)
        running.until(lambda line: "drained" in line)
        assert not gone(pid)
        running.process.send_signal(signal.SIGTERM)
        assert running.until(lambda line: "exit" in line) == {"exit": 0}


def test_a_drained_host_ends_by_itself() -> None:
    """While draining, a child that ends with status 0 says that nothing is left: the others stop too."""
    body = """
import pathlib
def feed():
    say(child="feed", pid=os.getpid())
    while not os.get_blocking(flag) or not select.select([flag], [], [], 0.02)[0]:
        pass
import select
flag = os.eventfd(0)
drain = lambda: os.eventfd_write(flag, 1)
supervisor = Supervisor([Child("feed", feed, 1), Child("worker-0", child("worker-0"), 0)], drain=drain)
"""
    with parent(body) as running:
        running.started("worker-0")
        running.process.send_signal(signal.SIGTERM)
        assert running.until(lambda line: "exit" in line) == {"exit": 0}


def test_tick_is_called_until_it_is_done() -> None:
    """`tick` runs beside the children with their pids at hand, and no more once it said True."""
    body = """
count = 0
def tick():
    global count
    count += 1
    say(tick=count, pids=sorted(supervisor.pids))
    if count == 5:
        supervisor.stop()
    return count == 5
supervisor = Supervisor([Child("a", child("a"))], tick=tick)
"""
    with parent(body) as running:
        assert running.until(lambda line: "exit" in line) == {"exit": 0}
        ticks = [line for line in running.lines if "tick" in line]
        assert len(ticks) == 5
        assert ticks[-1]["pids"] == ["a"]


def test_with_a_restart_counted_the_new_pid_is_there() -> None:
    """Whoever writes pids down by the count has the new one, after a pause as well."""
    body = """
seen = []
def tick():
    seen.append((supervisor.restarts, supervisor.pids.get("a")))
    if supervisor.restarts >= 3:
        changes = [pid for (before, _), (after, pid) in zip(seen, seen[1:]) if after != before]
        say(changes=changes)
        supervisor.stop()
    return False
supervisor = Supervisor([Child("a", child("a", exits=3))], tick=tick)
"""
    with parent(body) as running:
        changes = running.until(lambda line: "changes" in line)["changes"]
        assert isinstance(changes, list)
        assert None not in changes
        assert len(set(changes)) == len(changes) >= 2


def test_a_child_that_keeps_failing_does_not_spin() -> None:
    """A child that exits at once is started again after growing pauses: a handful of starts a second, not thousands."""
    body = """
started = time.monotonic()
def tick():
    if time.monotonic() - started > 1.0:
        say(restarts=supervisor.restarts)
        supervisor.stop()
    return False
supervisor = Supervisor([Child("a", child("a", exits=3))], tick=tick)
"""
    with parent(body) as running:
        restarts = running.until(lambda line: "restarts" in line)["restarts"]
        assert isinstance(restarts, int)
        assert 2 <= restarts <= 4
