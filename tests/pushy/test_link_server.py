"""The feed's end of the link, on a real Unix socket."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from pushy import link_server
from pushy.link import Follow, FromWorker, Joined
from pushy.link_server import SocketBusy, WorkerLink, listening_for_workers
from tests.pushy.hosting import Worker, until


class Owner:
    """Takes down what happens on the links."""

    def __init__(self) -> None:
        self.links: list[WorkerLink] = []
        self.received_messages: list[FromWorker] = []
        self.ended = 0
        self.overflows = 0

    def opened(self, link: WorkerLink) -> None:
        self.links.append(link)

    def received(self, link: WorkerLink, message: FromWorker) -> None:
        self.received_messages.append(message)

    def closed(self, link: WorkerLink) -> None:
        self.ended += 1

    def overflowed(self, link: WorkerLink) -> None:
        self.overflows += 1


async def test_a_worker_must_join_first(tmp_path: Path) -> None:
    """Anything before Joined, or a second Joined, ends the link."""
    owner = Owner()
    async with listening_for_workers(tmp_path / "link", owner):
        for messages in ([Follow(["one"])], [Joined(0, "b", 1), Joined(0, "b", 1)]):
            worker = Worker(*await asyncio.open_unix_connection(str(tmp_path / "link")))
            worker.send(*messages)
            await worker.ended()
            await worker.close()
        await until(lambda: owner.ended == 2)
    assert owner.received_messages == [Joined(0, "b", 1)]


async def test_a_worker_that_does_not_read_loses_its_link(tmp_path: Path) -> None:
    """What it owes is bounded: beyond that the link is dropped, once, and counted; deliveries stop well before."""
    owner = Owner()
    async with listening_for_workers(tmp_path / "link", owner):
        worker = await Worker.join(tmp_path / "link")
        await until(lambda: owner.received_messages)
        link, chunk, most = owner.links[0], bytes(1 << 20), 0
        while link.owed <= link_server.BUSY_BYTES:
            link.write(chunk)
        assert link.busy
        assert owner.overflows == 0
        while not owner.overflows:
            link.write(chunk)
            most = max(most, link.owed)
        assert most <= link_server.LINK_BYTES_MAX
        await until(lambda: owner.ended)
        link.write(chunk)
        assert (link.owed, owner.overflows) == (0, 1)
        await worker.close()


async def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    """A path left by a killed feed is taken over, one in use is not; mode 0600; gone at the end."""
    path = tmp_path / "link"
    owner = Owner()
    async with listening_for_workers(path, owner):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(SocketBusy):
            async with listening_for_workers(path, owner):
                pass
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with listening_for_workers(path, owner):
        await (await Worker.join(path)).close()
