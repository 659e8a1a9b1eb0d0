"""What `KafkaLog` adds to Kafka: append → read beside plain produce → consume, taken in turns in one run.

    python -m tests.bench.kafka_latency [kafka://host:port] [count]

Without a URL it starts a broker. The plain side is the least a client can do: a producer whose caller polls, a thread that polls
a consumer. The other side crosses to an event loop, twice.
"""

import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # documented names, not exported

from stagecast.log import MessageLog, Positions, Topic, open_log
from tests.servers import start_kafka

PAUSE = 0.01
"""Seconds between records: latency, not throughput."""


def new_topic(bootstrap: str, name: str) -> tuple[str, Positions]:
    """A topic of one partition, which nothing else reads; and its beginning."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(name, 1, 1)]).values():
        made.result(30)
    return name, {0: 0}


class Plain:
    """A bare producer and consumer of one topic."""

    def __init__(self, bootstrap: str, topic: str, positions: Positions) -> None:
        common = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._producer = Producer({**common, "linger.ms": 0, "enable.idempotence": True})
        self._consumer = Consumer({**common, "group.id": "plain", "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topic, *position) for position in positions.items()])
        self._topic = topic
        self._came = threading.Event()
        self._at = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stop:
            message = self._consumer.poll(0.1)
            if message is not None and message.key() == b"plain":
                self._at = time.perf_counter()
                self._came.set()

    def once(self) -> float:
        """Seconds from `produce` to the consumer's poll."""
        self._came.clear()
        began = time.perf_counter()
        self._producer.produce(self._topic, b"x" * 200, b"plain")
        self._producer.flush(10)
        assert self._came.wait(10)
        return self._at - began

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self._consumer.close()


class Ours:
    """`KafkaLog`, an append and a reader on one event loop."""

    def __init__(self, log: MessageLog, positions: Positions) -> None:
        self._log = log
        self._came = asyncio.Event()
        self._at = 0.0
        self._reading = asyncio.create_task(self._read(positions))

    async def _read(self, positions: Positions) -> None:
        async for batch in self._log.read(Topic.EVENTS, positions):
            if any(record.key == "ours" for record in batch):
                self._at = time.perf_counter()
                self._came.set()

    async def once(self) -> float:
        """Seconds from `append` to the record in the reader's hands."""
        self._came.clear()
        began = time.perf_counter()
        await self._log.append(Topic.EVENTS, "ours", b"x" * 200)
        await asyncio.wait_for(self._came.wait(), 10)
        return self._at - began

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])


async def measure(url: str, count: int) -> None:
    log = await open_log(url)
    end = await log.end(Topic.EVENTS)
    plain, ours = Plain(url.removeprefix("kafka://"), Topic.EVENTS, end), Ours(log, end)
    took: dict[str, list[float]] = {"plain": [], "ours": []}
    sides: dict[str, Callable[[], Awaitable[float]]] = {
        "plain": lambda: asyncio.to_thread(plain.once),
        "ours": ours.once,
    }
    for n in range(count + 20):
        for name, once in sides.items():
            seconds = await once()
            if n >= 20:  # the first ones connect
                took[name].append(seconds)
            await asyncio.sleep(PAUSE)
    for name, seconds_ in took.items():
        ordered = sorted(seconds_)
        p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        print(f"{name:6} p50 {p50 * 1e3:6.2f} ms   p99 {p99 * 1e3:6.2f} ms   n {count}", flush=True)
    plain.close()
    await ours.close()
    await log.close()


@contextlib.contextmanager
def broker(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        server = start_kafka(Path(folder))
        try:
            yield server.url
        finally:
            server.close()


if __name__ == "__main__":
    with broker(sys.argv[1] if len(sys.argv) > 1 else None) as found:
        asyncio.run(measure(found, int(sys.argv[2]) if len(sys.argv) > 2 else 300))
