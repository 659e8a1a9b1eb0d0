"""Revocations are known whatever the log does: told, silent, or out of reach."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from kv import Put
from prefetch.revoked import Revocations
from stagecast.clock import SystemClock
from stagecast.log import LogUnavailable, MessageLog, Positions, Record, Topic
from stagecast.records import REVOKED, Revocation, encode_record
from stagecast.tokens import Claims, load_keys
from tests.prefetch.conftest import Site

HOUR = 3600.0


class DownLog:
    """A log that nobody reaches."""

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        raise LogUnavailable("down")

    async def end(self, topic: Topic) -> Positions:
        raise LogUnavailable("down")

    async def since(self, topic: Topic, ts: int) -> Positions:
        raise LogUnavailable("down")

    def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        raise LogUnavailable("down")

    async def close(self) -> None:
        pass


def claims(site: Site, member: str) -> Claims:
    return load_keys(site.settings.keys_file).verify(site.token(member), SystemClock().now() / 1000)


async def revoke(site: Site, member: str) -> Revocation:
    """Into the store's list, and nowhere else."""
    said = Revocation("member", member, SystemClock().now() + 1000)
    await site.store.put([Put(REVOKED, said.subject, msgspec.json.encode(said))])
    return said


@contextlib.asynccontextmanager
async def following(site: Site, log: MessageLog, silent: float) -> AsyncIterator[Revocations]:
    revoked = Revocations(site.store, log, silent)
    task = asyncio.create_task(revoked.follow())
    try:
        yield revoked
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], act: Callable[[], Awaitable[object]] | None = None) -> None:
    """Returns once it holds; fails after 10 s. Does `act` on the way, over and over."""
    async with asyncio.timeout(10):
        while not condition():
            if act is not None:
                await act()
            await asyncio.sleep(0.01)


async def test_the_list_needs_no_log(site: Site) -> None:
    """With the log out of reach the store's list is read all the same: at the start, and again while the outage lasts."""
    await revoke(site, "ann")
    ann, ben = claims(site, "ann"), claims(site, "ben")
    revoked = Revocations(site.store, DownLog())
    await revoked.load()
    assert revoked.voids(ann)
    async with following(site, DownLog(), 0.05) as revoked:
        await until(lambda: revoked.voids(ann))
        assert not revoked.voids(ben)
        await revoke(site, "ben")
        await until(lambda: revoked.voids(ben))


async def test_a_silent_log_is_not_believed(site: Site) -> None:
    """While no record of any kind comes, what stands in the store alone counts too."""
    await revoke(site, "ben")
    ann, ben = claims(site, "ann"), claims(site, "ben")
    async with following(site, site.log, 0.05) as revoked:
        await until(lambda: revoked.voids(ben))  # the list as it was at the start
        await revoke(site, "ann")
        await until(lambda: revoked.voids(ann))


async def test_a_living_log_tells(site: Site) -> None:
    """What the log says counts without the list; and while it speaks, the list is let alone."""
    ann, ben = claims(site, "ann"), claims(site, "ben")
    async with following(site, site.log, HOUR) as revoked:
        said = Revocation("member", "ann", SystemClock().now() + 1000)
        await until(lambda: revoked.voids(ann), lambda: site.log.append(Topic.EVENTS, "_", encode_record(said)))
        await revoke(site, "ben")
        assert not revoked.voids(ben)
