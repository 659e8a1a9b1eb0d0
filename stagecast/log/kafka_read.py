"""How records come from Kafka: one consumer and one thread per reader, which hands batches over to the event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stagecast.log.message_log import LogError, LogGap, LogUnavailable, Positions, Record

BATCH_RECORDS = 500
BATCHES = 4
"""Batches that may wait for the loop. Then the thread waits, librdkafka's own queue fills, and it stops fetching."""
POLL = 0.1
"""Seconds that the thread sleeps at most: how soon it sees that it shall end, or read one more partition."""

Config = dict[str, Any]

CONSUMER: Config = {
    "group.id": "stagecast",  # librdkafka wants one; nothing joins or commits
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # never jump in silence
    "max.poll.interval.ms": 86_400_000,  # a reader may be slow: it is in no group that it could hold up
    "isolation.level": "read_uncommitted",  # nobody here uses transactions; a stranger's open one must not hold readers up
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 500,  # a broker answers as soon as a record comes
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 4096,
}

GAPS = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._LOG_TRUNCATION,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._UNKNOWN_PARTITION,
}
"""The asked position is not in the log (any more)."""
REFUSED = {KafkaError.TOPIC_AUTHORIZATION_FAILED}
"""Everything else that librdkafka reports here it also mends by itself."""


class Reader:
    """Reads `positions` of `topic` on. Made in a coroutine; `close` it."""

    def __init__(self, config: Config, topic: str, positions: Positions) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config | CONSUMER | {"error_cb": lambda _: None}  # heard so that librdkafka does not print it
        self._topic = topic
        self._known = set(positions)
        self._assign: SimpleQueue[list[TopicPartition]] = SimpleQueue()
        self._batches: deque[list[Record]] = deque()
        self._room = threading.Semaphore(BATCHES)
        self._error: LogError | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = threading.Event()
        self.heard = self._loop.time()
        """When records last came, by the loop's clock."""
        self._assign.put([TopicPartition(topic, partition, offset) for partition, offset in positions.items()])
        threading.Thread(target=self._run, name="kafka-read", daemon=True).start()

    async def batch(self) -> list[Record]:
        """The next records. Raises what ended the reading, once all that came before it were given out."""
        while not self._batches:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        self._room.release()
        return self._batches.popleft()

    def also(self, partitions: Iterable[int]) -> None:
        """Reads those of `partitions` that are not read yet, from their start."""
        new = [partition for partition in partitions if partition not in self._known]
        if new:
            self._known.update(new)
            self._assign.put([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in new])

    def fail(self, error: LogError) -> None:
        """Ends the reading."""
        self._error = self._error or error
        self._stopping.set()
        self._changed.set()

    async def close(self) -> None:
        """Ends the thread; waits for it a second at most, since a consumer may wait for its brokers."""
        self._stopping.set()
        try:
            async with asyncio.timeout(1.0):
                await self._ended.wait()
        except TimeoutError:
            pass

    def _run(self) -> None:
        error: LogError | None = None
        try:
            consumer = Consumer(self._config)
            try:
                self._poll(consumer)
            finally:
                consumer.close()
        except LogError as found:
            error = found
        except (KafkaException, RuntimeError) as found:
            error = LogUnavailable(str(found))
            error.__cause__ = found
        self._call(self._finish, error)

    def _poll(self, consumer: Consumer) -> None:
        while not self._stopping.is_set():
            while not self._assign.empty():
                consumer.incremental_assign(self._assign.get())
            message = consumer.poll(POLL)
            if message is not None:
                self._drain(consumer, message)

    def _drain(self, consumer: Consumer, message: Message | None) -> None:
        """Hands over `message` and what is there after it. By `poll`, as `consume` waits until it has all it was asked for."""
        records: list[Record] = []
        try:
            while message is not None:
                if (error := message.error()) is None:
                    records.append(_record(message))
                else:
                    self._judge(message, error)
                message = consumer.poll(0) if len(records) < BATCH_RECORDS else None
        finally:
            if records:
                self._hand_over(records)

    def _judge(self, message: Message, error: KafkaError) -> None:
        where = f"{self._topic}[{message.partition()}]"
        if error.code() in GAPS:
            raise LogGap(f"{where}: {error.str()}") from KafkaException(error)
        if error.code() in REFUSED:
            raise LogUnavailable(f"{where}: {error.str()}") from KafkaException(error)

    def _hand_over(self, records: list[Record]) -> None:
        while not self._room.acquire(timeout=POLL):
            if self._stopping.is_set():
                return
        self._call(self._take, records)

    def _call(self, function: Any, argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._stopping.set()

    def _take(self, records: list[Record]) -> None:
        self.heard = self._loop.time()
        self._batches.append(records)
        self._changed.set()

    def _finish(self, error: LogError | None) -> None:
        self._ended.set()
        if error is not None:
            self.fail(error)


def _record(message: Message) -> Record:
    key = message.key() or b""
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        key.decode(errors="replace"),
        message.value() or b"",
    )
