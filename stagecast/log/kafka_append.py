"""How records go to Kafka: one producer, one thread that hears what became of them."""

import asyncio
import contextlib
import json
import threading
import time
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stagecast.log.message_log import LogUnavailable

EXPIRES = 3.0
"""Seconds until librdkafka gives a record up. It looks for such records once a second, so the word comes within 4 s."""
GIVES_UP = 4.5
"""Seconds until `append` does not wait for the word any longer."""
QUEUED_RECORDS = 10_000
"""Records under way at most; one more is LogUnavailable at once."""
POLL = 0.2
"""Seconds that the thread sleeps at most: how soon it sees that it shall end."""

Config = dict[str, Any]
Pending = asyncio.Future[KafkaError | None]

PRODUCER: Config = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 0,
    "compression.type": "none",  # records are a few hundred bytes, mostly one a batch
    "partitioner": "murmur2_random",  # the Java clients' way: who else appends picks the same partition
    "message.timeout.ms": int(EXPIRES * 1000),
    "retry.backoff.ms": 50,
    "statistics.interval.ms": 200,  # see Appender.ready; 0.1 % of a core
    "queue.buffering.max.messages": QUEUED_RECORDS,
    "queue.buffering.max.kbytes": 16_384,
}


class Appender:
    """A producer for coroutines of `loop`. Making one takes some ms: do it in a thread."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.broken = False
        """Whether librdkafka has said that it will never append again."""
        self.complaint = ""
        """What librdkafka complained of last, for error messages."""
        self._loop = loop
        self.since = self._loop.time()
        """When it was made, by the loop's clock."""
        self._ready = asyncio.Event()
        self._identified = False
        self._ended = asyncio.Event()
        self._delivered: list[tuple[Pending, KafkaError | None]] = []
        self._closing: float | None = None
        self._producer = Producer(config | PRODUCER | {"error_cb": self._complained, "stats_cb": self._look})
        self._thread = threading.Thread(target=self._run, name="kafka-append", daemon=True)
        self._thread.start()

    async def ready(self, timeout: float = 2.0) -> None:
        """Returns once the producer has its identity, which idempotence needs, or after `timeout` seconds.

        Without this the first append may wait 500 ms: the identity is asked for again only so often if the first try met no
        connection yet, or a broker that was just started ("Coordinator load in progress").
        """
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            pass

    async def append(self, topic: str, key: bytes, value: bytes) -> None:
        """Returns once the brokers have acknowledged. Raises LogUnavailable."""
        pending: Pending = self._loop.create_future()
        try:
            self._producer.produce(topic, value, key, on_delivery=partial(self._heard, pending))
            async with asyncio.timeout(GIVES_UP):
                error = await pending
        except KafkaException as refused:
            self._complained(refused.args[0])
            raise LogUnavailable(refused.args[0].str()) from refused
        except BufferError as full:
            raise LogUnavailable(f"{QUEUED_RECORDS} records wait for the brokers already") from full
        except TimeoutError as late:
            raise LogUnavailable(f"no acknowledgement within {GIVES_UP} s") from late
        if error is not None:
            raise LogUnavailable(error.str()) from KafkaException(error)

    async def close(self, timeout: float) -> None:
        """Waits for records under way, `timeout` seconds at most, and ends the thread. Idempotent."""
        if self._closing is None:
            self._closing = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout + 1):
                await self._ended.wait()
        except TimeoutError:
            pass

    def _look(self, statistics: str) -> None:
        if not self._identified and json.loads(statistics).get("eos", {}).get("idemp_state") == "Assigned":
            self._identified = True
            self._call(self._ready.set)

    def _complained(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self.complaint:  # it follows every other, and says less
            self.complaint = error.str()
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.broken = True

    def _heard(self, pending: Pending, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._complained(error)
        self._delivered.append((pending, error))

    def _run(self) -> None:
        with contextlib.suppress(KafkaException):
            self._producer.list_topics(timeout=2.0)  # connects and learns the leaders now, not at the first append
        while self._closing is None:
            self._serve(POLL)
            self._tell()
        self._serve(max(0.0, self._closing - time.monotonic()), flush=True)
        self._producer.purge()  # what is left is told to have failed
        self._serve(0.1, flush=True)
        self._tell()
        del self._producer
        self._call(self._ended.set)

    def _serve(self, timeout: float, flush: bool = False) -> None:
        """Has librdkafka call back, for what has happened or will within `timeout` seconds; or until nothing is under way."""
        try:
            (self._producer.flush if flush else self._producer.poll)(timeout)
        except KafkaException as raised:  # a fatal error comes this way too
            self._complained(raised.args[0])

    def _tell(self) -> None:
        if self._delivered:
            delivered, self._delivered = self._delivered, []
            self._call(_settle, delivered)

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closing = 0.0


def _settle(delivered: list[tuple[Pending, KafkaError | None]]) -> None:
    for pending, error in delivered:
        if not pending.done():
            pending.set_result(error)
