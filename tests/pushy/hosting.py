"""What the feed's tests share: the embedded log and store, heads in them, and a worker that speaks the link and nothing else."""

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from kv import KeyValue, Page, Put, Removal, StoreUnavailable, Version, open_store
from pushy.draining import FILE as DRAIN_FILE
from pushy.feed import Feed
from pushy.link import FromWorker, Joined, ToWorker, pack, to_worker
from pushy.link_server import listening_for_workers
from stagecast.broadcast import AckPolicy, Broadcast, encode_broadcast
from stagecast.clock import Clock, SystemClock
from stagecast.event import Head
from stagecast.log import LogGap, LogUnavailable, MessageLog, Positions, Record, Topic, open_log
from stagecast.records import EVERYWHERE, HEADS, Beat, encode_record
from stagecast.settings import Settings

GEN = 1_764_000_000_000
M = TypeVar("M")
PATIENCE = 10.0


def head(event: str = "final", seq: int = 1, stage: str = "live", gen: int = GEN) -> Head:
    return Head(event, "A final", gen, seq, stage, GEN + seq, None, 30_000, AckPolicy(2**32, 2000), 1, (), {stage: GEN})


def broadcast(event: str = "final", seq: int = 1, stage: str = "live", gen: int = GEN) -> Broadcast:
    return head(event, seq, stage, gen).broadcast()


async def put_head(store: KeyValue, kept: Head) -> None:
    """Sets the event's head, whatever it was."""
    before = await store.read(HEADS, kept.event)
    assert await store.compare_and_set(HEADS, kept.event, msgspec.json.encode(kept), before and before.version)


async def say(log: MessageLog, said: Broadcast) -> None:
    await log.append(Topic.EVENTS, said.e, encode_broadcast(said))


async def beat(log: MessageLog) -> None:
    await log.append(Topic.EVENTS, EVERYWHERE, encode_record(Beat(GEN)))


class Worker:
    """One end of a link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._unpacker = to_worker()
        self._unread: list[ToWorker] = []
        self.seen: list[ToWorker] = []

    @classmethod
    async def join(cls, link: Path, index: int = 0, boot: str = "b1", pid: int | None = None) -> "Worker":
        worker = cls(*await asyncio.open_unix_connection(str(link)))
        worker.send(Joined(index, boot, os.getpid() if pid is None else pid))
        return worker

    def send(self, *messages: FromWorker) -> None:
        for message in messages:
            self._writer.write(pack(message))

    async def until(self, kind: type[M], seen: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of this kind that `seen` is true of."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._unread:
                    message = self._unread.pop(0)
                    self.seen.append(message)
                    if isinstance(message, kind) and seen(message):
                        return message
                data = await self._reader.read(1 << 16)
                assert data, f"the link ended after {self.seen}"
                self._unread += self._unpacker.feed(data)

    async def ended(self) -> None:
        """The feed has closed the link."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self._reader.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def until(true: Callable[[], object]) -> None:
    """Waits for a condition; it may be async."""
    async with asyncio.timeout(PATIENCE):
        while not (await answer if inspect.isawaitable(answer := true()) else answer):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Host:
    """A feed on the embedded log and store, with its workers."""

    def __init__(self, feed: Feed, log: MessageLog, store: KeyValue, link: Path) -> None:
        self.feed, self.log, self.store, self.link = feed, log, store, link
        self.workers: list[Worker] = []

    async def join(self, index: int = 0, boot: str = "b1", pid: int | None = None) -> Worker:
        worker = await Worker.join(self.link, index, boot, pid)
        self.workers.append(worker)
        return worker


def settings(folder: Path) -> Settings:
    return Settings(data=str(folder), host="h1")


@asynccontextmanager
async def roads(folder: Path) -> AsyncIterator[tuple[MessageLog, KeyValue]]:
    chosen = settings(folder)
    log, store = await open_log(chosen.log_url), await open_store(chosen.store_url)
    try:
        yield log, store
    finally:
        await log.close()
        await store.close()


class FaultyStore:
    """A store in front of which faults can be put."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self.down = False
        self.heads_read: list[str] = []
        self.answers = asyncio.Event()
        """While it is clear, the answers of `read` are held back, after the store gave them."""
        self.answers.set()

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")

    async def get(self, record: str, key: str) -> bytes | None:
        self._check()
        return await self._store.get(record, key)

    async def put(self, items: Sequence[Put]) -> None:
        self._check()
        await self._store.put(items)

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        self._check()
        await self._store.delete(record, keys)

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        self._check()
        return await self._store.remove(items)

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        self._check()
        return await self._store.page(record, after, max_bytes)

    async def read(self, record: str, key: str) -> Version | None:
        self._check()
        kept = await self._store.read(record, key)
        self.heads_read.append(key)
        await self.answers.wait()
        return kept

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        self._check()
        return await self._store.compare_and_set(record, key, value, expected)

    async def close(self) -> None:
        await self._store.close()


class FaultyLog:
    """A log in front of which faults can be put."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log
        self.down = False
        self.appended: list[Topic] = []
        self.ends = 0
        """Calls of `end` so far."""
        self.end_allowed = asyncio.Event()
        """While it is clear, `end` waits before it resolves."""
        self.end_allowed.set()
        self._gap = asyncio.Event()

    def gap(self) -> None:
        """The reader under way meets a gap."""
        self._gap.set()

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        if self.down:
            raise LogUnavailable("down")
        self.appended.append(topic)
        await self._log.append(topic, key, value)

    async def end(self, topic: Topic) -> Positions:
        self.ends += 1
        await self.end_allowed.wait()
        return await self._log.end(topic)

    async def since(self, topic: Topic, ts: int) -> Positions:
        return await self._log.since(topic, ts)

    async def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        self._gap.clear()
        batches = self._log.read(topic, positions)
        gap = asyncio.ensure_future(self._gap.wait())
        try:
            while True:
                batch = asyncio.ensure_future(anext(batches))
                try:
                    await asyncio.wait({batch, gap}, return_when=asyncio.FIRST_COMPLETED)
                    if gap.done():
                        raise LogGap("records are gone")
                    yield batch.result()
                finally:
                    batch.cancel()
                    await asyncio.gather(batch, return_exceptions=True)
        finally:
            gap.cancel()
            await batches.aclose()

    async def close(self) -> None:
        await self._log.close()


@asynccontextmanager
async def running(
    folder: Path,
    log: MessageLog,
    store: KeyValue,
    workers: int = 2,
    clock: Clock | None = None,
) -> AsyncIterator[Host]:
    """A feed that runs in this process on these roads."""
    link = folder / "link.sock"
    feed = Feed(
        settings(folder), log, store, workers, "http://127.0.0.1:1", clock or SystemClock(), link.with_name(DRAIN_FILE)
    )
    host = Host(feed, log, store, link)
    task = asyncio.create_task(feed.run())
    try:
        async with listening_for_workers(link, feed):
            yield host
            assert not task.done(), task.exception()
    finally:
        for worker in host.workers:
            await worker.close()
        feed.hang_up()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await feed.flush()
        await asyncio.sleep(0)
