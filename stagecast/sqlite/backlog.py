"""What waits for a writer, in order: filled by the event loop, emptied in groups by the writer's thread."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import apsw

GROUP_WEIGHT = 10_000
"""Rows in one transaction: bounds how long other processes wait."""
BACKLOG_WEIGHT = 100_000
"""Rows that may wait for the writer; more are refused and counted in `Database.refused`."""

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
"""What to do inside a transaction. It may run twice: the transaction of a group that failed is rolled back first."""


@dataclass(eq=False, slots=True)
class Job:
    work: Work[Any]
    weight: int
    future: asyncio.Future[Any]
    taken: bool = False
    """Under way, or done: it can't be withdrawn any more."""
    withdrawn: bool = False


@dataclass(eq=False)
class Backlog:
    """Bounded. Every method may be called from either thread."""

    jobs: deque[Job] = field(default_factory=deque)
    weight: int = 0
    closing: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, job: Job) -> bool:
        with self.changed:
            if self.closing or (self.jobs and self.weight + job.weight > BACKLOG_WEIGHT):
                return False
            self.jobs.append(job)
            self.weight += job.weight
            self.changed.notify()
            return True

    def withdraw(self, job: Job) -> bool:
        """Whether the job was still waiting: it will never run."""
        with self.changed:
            job.withdrawn = not job.taken
            return job.withdrawn

    def take(self, timeout: float | None) -> list[Job] | None:
        """The next group, empty after `timeout` seconds without one; None when closed and nothing waits."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closing, timeout)
            if not self.jobs:
                return None if self.closing else []
            group: list[Job] = []
            room = GROUP_WEIGHT
            while self.jobs and (not group or self.jobs[0].weight <= room):
                job = self.jobs.popleft()
                self.weight -= job.weight
                if not job.withdrawn:
                    job.taken = True
                    room -= job.weight
                    group.append(job)
            return group

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify()
