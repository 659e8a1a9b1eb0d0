"""The message log on Kafka: `KafkaLog`, its topics and positions. How records go out is `kafka_append.py`, how they come in
`kafka_read.py`; both hand librdkafka's threads over to the event loop.

Order: librdkafka's idempotent producer keeps the order of a key's records over its own retries. Durability: `acks=all`, which on
topics made here means two of three brokers; on one broker it means that one's page cache, so a power cut may lose the last
moments there (Kafka does not fsync before it acknowledges), a killed broker loses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its documented names, which it imports but doesn't export
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from stagecast.log.facts import LogFacts, TopicFacts
from stagecast.log.kafka_append import Appender
from stagecast.log.kafka_read import Reader
from stagecast.log.message_log import LogUnavailable, Positions, Record, Topic
from stagecast.server_url import ServerUrl, read_server_url

PARTITIONS = 12
"""Of a topic made here: room for a dozen consumers of receipts; events are few and every host reads all."""
OPEN_WITHIN = 8.0
"""Seconds, and 2 more at most until the producer is ready."""
ASK_WITHIN = 5.0
"""Seconds for a question to the brokers, tries included."""
RENEWED_AFTER = 1.0
"""Seconds that a producer lives at least, broken or not."""
LOOK = 3.0
"""Seconds between looks for new partitions, which are also how a reader knows that the brokers are there."""
SILENCE = 6.0
"""Seconds without any answer after which a reader says LogUnavailable."""

_logger = logging.getLogger(__name__)
_logger.addHandler(
    logging.NullHandler()
)  # librdkafka's words are for who asks: it says 20 lines a second while a broker is away

T = TypeVar("T")
Config = dict[str, Any]

LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
SILENT: Config = {"log_level": 0}
"""For clients that nobody polls: what they would log or complain of would pile up in them."""

REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
}
"""What another try does not mend."""


def client_config(url: ServerUrl) -> Config:
    """What every client of these brokers is told."""
    config: Config = {
        "bootstrap.servers": ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in url.hosts
        ),
        "client.id": "stagecast",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.connection.setup.timeout.ms": 3000,
        "api.version.request.timeout.ms": 3000,  # a stopped broker takes a connection and never speaks
        "socket.timeout.ms": 5000,
        "socket.nagle.disable": True,
        "socket.keepalive.enable": True,
        "topic.metadata.refresh.interval.ms": 30_000,  # new partitions reach producers by this
        "topic.metadata.refresh.fast.interval.ms": 100,
        "log.connection.close": False,
    }
    if url.tls:
        config |= {"security.protocol": "SSL", "ssl.ca.location": str(url.tls)}
    if url.user:
        config |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": url.user,
            "sasl.password": url.password,
        }
    return config


def topic_config(topic: Topic, brokers: int) -> tuple[int, dict[str, str]]:
    """Replicas and settings of a topic made on a cluster of so many brokers."""
    replicas, in_sync = (3, 2) if brokers >= 3 else (1, 1)
    retention = topic.retention * 1000
    return replicas, {
        "cleanup.policy": "delete",
        "retention.ms": str(retention),
        "segment.ms": str(retention // 4),  # only closed ones are deleted, and by default one stays open for 7 days
        "message.timestamp.type": "LogAppendTime",  # what `since` looks for is when the log took a record
        "min.insync.replicas": str(in_sync),
        "unclean.leader.election.enable": "false",
    }


class KafkaLog:
    """`MessageLog` on the Kafka brokers of a URL. Made by `open`."""

    def __init__(self, config: Config, admin: AdminClient, appender: Appender) -> None:
        self._config = config
        self._admin = admin
        self._appender = appender
        self._renewing = asyncio.Lock()
        self._readers: set[Reader] = set()
        self._closed = False

    @classmethod
    async def open(cls, url: str, password: str | None = None) -> Self:
        """See `open_log`. Creates the topics that are missing, if the user may; a host's user need not, and sees only its own."""
        server = read_server_url(url, password, "kafka")
        if server.path:
            raise ValueError(f"log: {url!r}: nothing may follow the brokers but options")
        config = client_config(server)
        admin = await asyncio.to_thread(AdminClient, config | SILENT)
        config["logger"] = _logger
        appender = await asyncio.to_thread(Appender, config, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                for topic in Topic:
                    await _prepared(admin, topic)
        except BaseException as error:
            await appender.close(0.0)
            if not isinstance(error, (TimeoutError, LogUnavailable)):
                raise
            why = "; ".join(part for part in (str(error), appender.complaint) if part)
            raise LogUnavailable(f"the log at {url!r}: {why or 'no answer'}") from error
        await appender.ready()
        return cls(config, admin, appender)

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        if self._appender.broken:
            await self._renew()
        await self._appender.append(topic, key.encode(), value)

    async def _renew(self) -> None:
        """A producer that met a fatal error (its sequence numbers are lost) never recovers: takes another."""
        async with self._renewing:
            broken, loop = self._appender, asyncio.get_running_loop()
            if broken.broken and not self._closed:
                if loop.time() - broken.since < RENEWED_AFTER:
                    raise LogUnavailable(broken.complaint)
                self._appender = await asyncio.to_thread(Appender, self._config, loop)
                await broken.close(0.0)

    async def end(self, topic: Topic) -> Positions:
        return await self._offsets(topic, LATEST)

    async def since(self, topic: Topic, ts: int) -> Positions:
        end = await self.end(topic)  # before the look-up: a record taken in between must not be passed over
        found = await self._offsets(topic, OffsetSpec.for_timestamp(ts))
        return {partition: offset if offset >= 0 else end.get(partition, 0) for partition, offset in found.items()}

    async def read(self, topic: Topic, positions: Positions) -> AsyncGenerator[Sequence[Record], None]:
        """As the port says. A partition that `positions` does not name is read from its start: it is newer than they are."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        reader = Reader(self._config, topic, positions)
        self._readers.add(reader)
        watch = asyncio.create_task(self._watch(topic, reader))
        try:
            while True:
                yield await reader.batch()
        finally:
            watch.cancel()
            self._readers.discard(reader)
            await reader.close()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for reader in tuple(self._readers):
            reader.fail(LogUnavailable("the log is closed"))
        await self._appender.close(5.0)
        admin = [self._admin]
        del self._admin
        await asyncio.to_thread(admin.clear)  # its destructor waits for its threads

    async def _watch(self, topic: Topic, reader: Reader) -> None:
        """Asks for the topic's partitions again and again: new ones are read too, and silence is told."""
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while not self._closed:
            try:
                reader.also(await _partitions(self._admin, topic, LOOK / 2))
            except LogUnavailable as error:
                if loop.time() - max(answered, reader.heard) > SILENCE:
                    reader.fail(error)
                    return
                await asyncio.sleep(0.5)
            else:
                answered = loop.time()
                await asyncio.sleep(LOOK)

    async def _offsets(self, topic: Topic, spec: OffsetSpec) -> dict[int, int]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        admin = self._admin
        partitions = await _partitions(admin, topic, ASK_WITHIN)
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}
        found = await _answers(lambda timeout: admin.list_offsets(wanted, request_timeout=timeout), ASK_WITHIN)
        return {asked.partition: answer.offset for asked, answer in found.items()}


async def kafka_facts(url: str, password: str | None = None) -> LogFacts:
    """See `log_facts`. Settings that this user may not read are left out."""
    admin = await asyncio.to_thread(AdminClient, client_config(read_server_url(url, password, "kafka")) | SILENT)
    asked = await _answers(lambda timeout: {"": admin.describe_cluster(request_timeout=timeout)}, OPEN_WITHIN)
    topics = []
    for topic in Topic:
        with contextlib.suppress(LogUnavailable):  # missing, or not for this user
            topics.append(await _topic_facts(admin, topic))
    return LogFacts(len(asked[""].nodes), tuple(topics))


async def _topic_facts(admin: AdminClient, topic: Topic) -> TopicFacts:
    described = await _answers(
        lambda timeout: admin.describe_topics(TopicCollection([str(topic)]), request_timeout=timeout), ASK_WITHIN, False
    )
    partitions = described[topic].partitions
    resource = ConfigResource(ConfigResource.Type.TOPIC, str(topic))
    settings: dict[str, str] | None = None
    with contextlib.suppress(LogUnavailable):
        found = await _answers(lambda timeout: admin.describe_configs([resource], request_timeout=timeout), ASK_WITHIN)
        settings = {name: entry.value for name, entry in found[resource].items()}
    return TopicFacts(str(topic), len(partitions), min(len(one.replicas) for one in partitions), settings)


async def _prepared(admin: AdminClient, topic: Topic) -> None:
    """Makes sure that the topic is there and has leaders. Raises LogUnavailable."""
    try:
        await _partitions(admin, topic, OPEN_WITHIN, missing=False)
    except LogUnavailable as error:
        code = _code(error)
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return  # not for this user, who then does not use it either
        if code != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
        await _create(admin, topic)
        await _partitions(admin, topic, OPEN_WITHIN)


async def _create(admin: AdminClient, topic: Topic) -> None:
    asked = await _answers(lambda timeout: {"": admin.describe_cluster(request_timeout=timeout)}, ASK_WITHIN)
    replicas, config = topic_config(topic, len(asked[""].nodes))
    new = NewTopic(topic, PARTITIONS, replicas, config=config)
    try:
        await _answers(lambda timeout: admin.create_topics([new], request_timeout=timeout), ASK_WITHIN)
    except LogUnavailable as error:
        if _code(error) in REFUSED:
            raise LogUnavailable(f"topic {topic} is missing and this user may not create it") from error
        if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
            raise


async def _partitions(admin: AdminClient, topic: Topic, within: float, missing: bool = True) -> list[int]:
    """The topic's partitions, all of them led. With `missing` a topic that is not there is waited for. Raises LogUnavailable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        described = await _answers(
            lambda timeout: admin.describe_topics(TopicCollection([str(topic)]), request_timeout=timeout),
            max(0.5, until - loop.time()),
            missing,
        )
        partitions = described[topic].partitions
        if all(partition.leader is not None and partition.leader.id >= 0 for partition in partitions):
            return sorted(partition.id for partition in partitions)
        if loop.time() > until:
            raise LogUnavailable(f"{topic} has partitions without a leader")
        await asyncio.sleep(0.1)


async def _answers(
    ask: Callable[[float], Mapping[Any, Future[T]]], within: float, missing: bool = True
) -> dict[Any, T]:
    """What the brokers say to `ask(request_timeout)`, asked again for `within` seconds while they are not ready. Raises
    LogUnavailable with librdkafka's own error as its cause."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        asked = ask(max(0.1, until - loop.time()))
        said = await asyncio.gather(*map(asyncio.wrap_future, asked.values()), return_exceptions=True)
        failed = next((answer for answer in said if isinstance(answer, BaseException)), None)
        if failed is None:
            return dict(zip(asked, said, strict=True))
        if not isinstance(failed, KafkaException):
            raise failed
        code = failed.args[0].code()
        hopeless = code in REFUSED or code == KafkaError.TOPIC_ALREADY_EXISTS
        hopeless |= code == KafkaError.UNKNOWN_TOPIC_OR_PART and not missing
        if hopeless or loop.time() + 0.1 > until:
            raise LogUnavailable(failed.args[0].str()) from failed
        await asyncio.sleep(0.1)


def _code(error: LogUnavailable) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None
