"""Asks all workers of a host what they know of a device, and waits a moment for their answers."""

import asyncio
from collections.abc import Sequence

from pushy.link import Explain, Explained, Happening
from pushy.link_server import WorkerLink

DEADLINE = 1.0
"""Seconds; who has not answered by then is left out, and that is said."""


class Explaining:
    """Questions under way."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, tuple[set[int], list[Happening], asyncio.Event]] = {}

    async def ask(self, device: str, links: Sequence[WorkerLink], now: int) -> list[Happening]:
        """What the workers at the end of these links know, oldest first."""
        self._last += 1
        number = self._last
        missing, found, done = {link.id for link in links}, list[Happening](), asyncio.Event()
        self._open[number] = missing, found, done
        try:
            for link in links:
                link.send(Explain(number, device))
            async with asyncio.timeout(DEADLINE):
                while missing:
                    await done.wait()
                    done.clear()
        except TimeoutError:
            found.append(Happening(now, "unknown", f"{len(missing)} workers of this host did not answer"))
        finally:
            del self._open[number]
        return sorted(found, key=lambda one: one.ts)

    def explained(self, link: int, answer: Explained) -> None:
        """A worker's answer; one that comes too late is passed over."""
        under_way = self._open.get(answer.id)
        if under_way is not None:
            missing, found, done = under_way
            missing.discard(link)
            found += answer.happenings
            done.set()

    def lost(self, link: int) -> None:
        """A worker is gone: nobody waits for it."""
        for missing, _, done in self._open.values():
            missing.discard(link)
            done.set()
