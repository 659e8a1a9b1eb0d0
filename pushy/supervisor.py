"""A supervisor: starts child processes from one warm parent, brings dead ones back, stops them in order.

The parent has no threads and no event loop, so a fork is safe at any time, and what it imported is shared with its children
(`gc.freeze()` keeps the collector from touching, and so copying, those pages). A child dies with its parent.
"""

import ctypes
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import structlog

TICK = 0.05
"""Seconds between two calls of `tick`, at most."""
BACKOFF_FIRST, BACKOFF_MAX = 0.2, 5.0
HEALTHY_AFTER = 10.0
"""Seconds alive after which a child's next death counts as its first."""
GRACE = 1.7
"""Seconds from the stop until what is left is killed: everything, this process included, is gone within 2 s."""
PHASE_PATIENCE = 1.2
"""Seconds that a phase may take before the next one is told as well."""
LATE_GRACE = 0.5
"""Seconds of the grace that the last phase gets at least."""
_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep alive. `run` blocks until SIGTERM, in a fresh process with default signal handlers; its exception is
    logged and ends the process with status 1."""

    name: str
    run: Callable[[], None]
    phase: int = 2
    """When it gets SIGTERM at a stop: the workers first (0), then the feed (1), then the rest (2)."""


class Restarts:
    """When a child that died comes back: at once the first time, then after 0.2 s, doubling up to 5 s; from the start again
    once it lived 10 s. Pure."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay(self, lived: float) -> float:
        """Seconds to wait, after the child lived `lived` seconds."""
        if lived >= HEALTHY_AFTER:
            self._deaths = 0
        self._deaths += 1
        return 0.0 if self._deaths == 1 else min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(self._deaths - 2, 16))


class Stopping:
    """Who is told to stop when, from the phases of those still alive. Pure."""

    def __init__(self, phases: Sequence[int], now: float) -> None:
        self._phases = sorted(set(phases))
        self._told: list[int] = []
        self._due = self._began = now

    def due(self, alive: Sequence[int], now: float) -> list[int]:
        """The phases to send SIGTERM to now: the next one once those told are gone, or took too long."""
        told: list[int] = []
        while self._phases and (now >= self._due or not set(alive) & set(self._told)):
            self._told.append(self._phases.pop(0))
            told.append(self._told[-1])
            self._due = min(now + PHASE_PATIENCE, max(now, self._began + GRACE - LATE_GRACE))
        return told

    def over(self, now: float) -> bool:
        """Whether the grace is over: SIGKILL."""
        return now - self._began >= GRACE


class Supervisor:
    """Keeps `children` alive until SIGTERM or SIGINT. `tick` is called at least every 50 ms until it returns True.

    With `drain`, the first SIGTERM calls it instead of stopping: it asks a child to empty the host. The stop comes when a child
    ends with status 0 (it is drained), at a second SIGTERM, or at SIGINT.
    """

    def __init__(
        self,
        children: Sequence[Child],
        tick: Callable[[], bool] | None = None,
        drain: Callable[[], None] | None = None,
    ) -> None:
        self._children = {child.name: child for child in children}
        if len(self._children) != len(children):
            raise ValueError("two children have one name")
        self._tick = tick
        self._drain = drain
        self._restarts = {child.name: Restarts() for child in children}
        self._started: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._stopping: Stopping | None = None
        self._state: Literal["running", "draining", "killed"] = "running"
        self._wake = -1, -1
        self.pids: dict[str, int] = {}
        """Name → pid of the children alive now."""
        self.restarts = 0
        """Children brought back so far: with a change of it `pids` is whole again, as far as others are not dead."""

    def stop(self) -> None:
        """Begins the planned stop, as SIGINT does: for `tick`."""
        if self._stopping is None:
            self._stopping = Stopping([child.phase for child in self._children.values()], time.monotonic())
            self._due.clear()

    def run(self) -> int:
        """Starts the children and blocks until all are gone. The exit status: 0, or 1 when one had to be killed."""
        self._prepare()
        try:
            self._due = dict.fromkeys(self._children, 0.0)
            while self._stopping is None or self.pids:
                self._step(time.monotonic())
                self._wait()
        finally:
            self._clear()
        return 1 if self._state == "killed" else 0

    def _prepare(self) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            _log.warning("the parent has threads: a fork may copy locks that nobody opens", threads=threads)
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake = reading, writing
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # A handler that does nothing: the byte that the C handler writes to the pipe is the news.
        self._handlers = {
            number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        }
        gc.collect()
        gc.freeze()

    def _clear(self) -> None:
        """Leaves the process as it was, but frozen: a full collection at its exit would cost 0.4 s of the 2 s that a stop may
        take. Whatever ended the loop, no child outlives it."""
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids.clear()
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for descriptor in self._wake:
            os.close(descriptor)

    def _step(self, now: float) -> None:
        self._reap(now)
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            self._start(self._children[name])
        if self._stopping is not None:
            self._stop_step(self._stopping, now)
        elif self._tick is not None and self._tick():
            self._tick = None

    def _stop_step(self, stopping: Stopping, now: float) -> None:
        alive = [self._children[name].phase for name in self.pids]
        for phase in stopping.due(alive, now):
            self._tell([name for name in self.pids if self._children[name].phase == phase], signal.SIGTERM)
        if stopping.over(now) and self.pids and self._state != "killed":
            _log.error("children killed", children=sorted(self.pids), grace=GRACE)
            self._state = "killed"
            self._tell(list(self.pids), signal.SIGKILL)

    def _tell(self, names: Sequence[str], number: signal.Signals) -> None:
        for name in names:
            os.kill(self.pids[name], number)  # not reaped yet, so the pid is still the child's

    def _wait(self) -> None:
        """Until a signal came, a restart is due, or a tick has passed."""
        now = time.monotonic()
        timeout = TICK if self._tick or self._stopping else 1.0
        timeout = min([timeout, *(max(0.0, due - now) for due in self._due.values())])
        ready, _, _ = select.select([self._wake[0]], [], [], timeout)
        if ready:
            for number in os.read(self._wake[0], 512):
                self._on_signal(signal.Signals(number))

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGTERM and self._drain is not None and self._state == "running" and not self._stopping:
            _log.info("draining")
            self._state = "draining"
            self._drain()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self.stop()

    def _reap(self, now: float) -> None:
        for name, pid in list(self.pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.pids[name]
                self._on_death(name, pid, os.waitstatus_to_exitcode(status), now)

    def _on_death(self, name: str, pid: int, status: int, now: float) -> None:
        if self._stopping is not None:
            return
        if self._state == "draining" and status == 0:
            self.stop()
            return
        delay = self._restarts[name].delay(now - self._started[name])
        why = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        _log.warning("child died", child=name, pid=pid, why=why, back_in=delay)
        self._due[name] = now + delay

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # Blocked over the fork: a signal to the child before it has its own handlers would be told to the parent's pipe.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set(self._handlers))
        try:
            pid = os.fork()
            if pid == 0:
                self._become(child, parent, blocked)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self.pids[child.name] = pid
        self.restarts += child.name in self._started
        self._started[child.name] = time.monotonic()

    def _become(self, child: Child, parent: int, blocked: set[int | signal.Signals]) -> NoReturn:
        """In the new process. It never returns to the parent's stack, nor runs the parent's exit handlers."""
        status = 1
        try:
            _die_with(parent)
            os.setpgid(0, 0)  # Ctrl-C goes to the parent alone, which stops the children in order
            signal.set_wakeup_fd(-1)
            for number in self._handlers:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for descriptor in self._wake:
                os.close(descriptor)
            status = run_child(child)
        finally:
            os._exit(status)


def run_child(child: Child) -> int:
    """Runs it in this process; what it raises becomes one line of the log. The exit status."""
    try:
        child.run()
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            _log.error("child failed", child=child.name, error=end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        _log.error("child failed", child=child.name, error=f"{type(error).__name__}: {error}", exc_info=True)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def check(run: Callable[[], None], timeout: float) -> str | None:
    """Runs something in a process of its own, so that the threads it starts are not the parent's. What went wrong, in one line,
    or None. It gets `timeout` seconds."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _die_with(parent)
            os.close(reading)
            run()
            status = 0
        except BaseException as error:
            os.write(writing, (str(error) or type(error).__name__).encode()[:1000])
        finally:
            os._exit(status)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], timeout)
        said = os.read(reading, 1000).decode(errors="replace") if ready else f"no answer within {timeout:g} s"
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # has no effect on one that is done
        _, status = os.waitpid(pid, 0)
    return said.replace("\n", " ") or (None if status == 0 else f"ended with status {status}")


def _die_with(parent: int) -> None:
    """This process is killed when its parent dies, however that dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
