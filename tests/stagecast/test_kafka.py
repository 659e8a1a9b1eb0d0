"""The log on Kafka beyond what every log promises: logins and rights, brokers that vanish, topics that change."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its documented names, which it imports but doesn't export
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from stagecast.log import LogGap, LogUnavailable, MessageLog, Positions, Topic, open_log
from stagecast.log.kafka import topic_config
from tests.servers import KafkaServer, SecuredKafka

WITHIN = 60.0
"""Seconds that anything may take: only a hang takes them."""


@asynccontextmanager
async def opened(url: str, password: str | None = None) -> AsyncIterator[MessageLog]:
    log = await open_log(url, password)
    try:
        yield log
    finally:
        await log.close()


async def values(log: MessageLog, topic: Topic, positions: Positions, key: str, last: bytes) -> list[bytes]:
    """The values under `key` from `positions` on, up to the first that is `last`."""
    found: list[bytes] = []
    async with asyncio.timeout(WITHIN), aclosing(log.read(topic, positions)) as batches:
        async for batch in batches:
            found += [record.value for record in batch if record.key == key]
            if last in found:
                break
    return found[: found.index(last) + 1]


async def patiently(log: MessageLog, topic: Topic, key: str, value: bytes) -> None:
    """Appends until it is acknowledged, as producers do."""
    async with asyncio.timeout(WITHIN):
        while True:
            with suppress(LogUnavailable):
                return await log.append(topic, key, value)


# What needs no broker


@pytest.mark.parametrize(("brokers", "replicas", "in_sync"), [(1, 1, "1"), (2, 1, "1"), (3, 3, "2"), (9, 3, "2")])
def test_topics_are_replicated_where_there_are_brokers(brokers: int, replicas: int, in_sync: str) -> None:
    """Three copies of which two are written before an append is acknowledged, as soon as there are three brokers."""
    copies, config = topic_config(Topic.EVENTS, brokers)
    assert (copies, config["min.insync.replicas"]) == (replicas, in_sync)
    assert config["unclean.leader.election.enable"] == "false"


def test_topics_keep_records_by_time() -> None:
    """Each its own; segments close often enough for the time to count."""
    for topic in Topic:
        config = topic_config(topic, 3)[1]
        assert config["cleanup.policy"] == "delete"
        assert int(config["retention.ms"]) == topic.retention * 1000
        assert int(config["segment.ms"]) < topic.retention * 1000


@pytest.mark.parametrize("url", ["kafka://one", "kafka://one:1?groups=1", "kafka://one:1/topic"])
async def test_a_bad_url_is_refused(url: str) -> None:
    """Before anything is tried."""
    with pytest.raises(ValueError, match="kafka://"):
        await open_log(url)


# A login and its rights


async def test_a_login_over_tls(kafka_secured: SecuredKafka) -> None:
    """The producers' user appends and reads."""
    key = uuid4().hex
    async with opened(kafka_secured.url, kafka_secured.password) as log:
        start = await log.end(Topic.EVENTS)
        await log.append(Topic.EVENTS, key, b"1")
        assert await values(log, Topic.EVENTS, start, key, b"1") == [b"1"]


async def test_a_wrong_password_is_told(kafka_secured: SecuredKafka) -> None:
    """Within 10 s, with the broker's reason."""
    async with asyncio.timeout(11):
        with pytest.raises(LogUnavailable, match="invalid credentials"):
            await open_log(kafka_secured.url, "wrong")


async def test_a_host_reads_events_and_appends_receipts_only(kafka_secured: SecuredKafka) -> None:
    """Its rights suffice to open the log and do its work; the broker refuses the rest."""
    key = uuid4().hex
    async with (
        opened(kafka_secured.url, kafka_secured.password) as producer,
        opened(kafka_secured.host_url, kafka_secured.host_password) as host,
    ):
        start, receipts = await host.end(Topic.EVENTS), await producer.end(Topic.RECEIPTS)
        await producer.append(Topic.EVENTS, key, b"broadcast")
        assert await values(host, Topic.EVENTS, start, key, b"broadcast") == [b"broadcast"]
        await host.append(Topic.RECEIPTS, key, b"receipt")
        assert await values(producer, Topic.RECEIPTS, receipts, key, b"receipt") == [b"receipt"]

        with pytest.raises(LogUnavailable, match="authorization failed"):
            await host.append(Topic.EVENTS, key, b"forged")
        with pytest.raises(LogUnavailable, match="authorization failed"):
            await values(host, Topic.RECEIPTS, receipts, key, b"receipt")
        await producer.append(Topic.EVENTS, key, b"next")
        assert await values(producer, Topic.EVENTS, start, key, b"next") == [b"broadcast", b"next"]


async def test_a_producer_that_was_broken_is_replaced(kafka_secured: SecuredKafka) -> None:
    """Without any right to write librdkafka's producer breaks for good; once the right is given, appends work again."""
    user, password = f"u{uuid4().hex}", "of-this-test"
    admin = AdminClient({"bootstrap.servers": kafka_secured.bootstrap, "log_level": 0, **plain_login(kafka_secured)})
    await asyncio.to_thread(create_user, admin, user, password)
    async with opened(kafka_secured.url, kafka_secured.password):
        pass  # so that the topics are there
    async with opened(kafka_secured.url.replace("user=stagecast", f"user={user}"), password) as log:
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await log.append(Topic.RECEIPTS, user, b"refused")
        await asyncio.to_thread(allow, admin, user, Topic.RECEIPTS, AclOperation.WRITE)
        await patiently(log, Topic.RECEIPTS, user, b"allowed")


def create_user(admin: AdminClient, user: str, password: str) -> None:
    """Makes a login that may do nothing."""
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(user, credential, password.encode())
    for made in admin.alter_user_scram_credentials([change]).values():
        made.result(20)


def allow(admin: AdminClient, user: str, topic: Topic, operation: AclOperation) -> None:
    literal, permission = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    rule = AclBinding(ResourceType.TOPIC, str(topic), literal, f"User:{user}", "*", operation, permission)
    for made in admin.create_acls([rule]).values():
        made.result(20)


def plain_login(secured: SecuredKafka) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.tls),
        "sasl.mechanism": "PLAIN",
        "sasl.username": secured.user,
        "sasl.password": secured.password,
    }


# Topics that come and change


async def deleted(bootstrap: str, config: dict[str, str]) -> None:
    """Deletes both topics, and returns once the broker has forgotten them."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **config})
    for gone in admin.delete_topics(list(map(str, Topic)), request_timeout=20).values():
        with suppress(KafkaException):  # it was not there
            await asyncio.wrap_future(gone)
    deadline = time.monotonic() + WITHIN
    while set(map(str, Topic)) & set((await asyncio.to_thread(admin.list_topics, timeout=10)).topics):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_host_does_not_create_topics(kafka_secured: SecuredKafka) -> None:
    """It may not, and says what is missing. Producers do, several at once as well, and then the host can open the log."""
    await deleted(kafka_secured.bootstrap, plain_login(kafka_secured))
    with pytest.raises(LogUnavailable, match=r"stagecast\.events is missing and this user may not create it"):
        await open_log(kafka_secured.host_url, kafka_secured.host_password)

    logs = await asyncio.gather(*(open_log(kafka_secured.url, kafka_secured.password) for _ in range(4)))
    try:
        async with opened(kafka_secured.host_url, kafka_secured.host_password) as host:
            assert await host.end(Topic.EVENTS) == await logs[0].end(Topic.EVENTS)
    finally:
        await asyncio.gather(*(log.close() for log in logs))


async def test_a_topic_made_anew(kafka_server: KafkaServer) -> None:
    """Under an open log: a reader of the old one's positions meets a gap, and appends go on."""
    key = uuid4().hex
    async with opened(kafka_server.url) as log:
        for n in range(30):
            await log.append(Topic.RECEIPTS, f"{key}-{n}", b"")
        old = await log.end(Topic.RECEIPTS)
        await deleted(kafka_server.bootstrap, {})
        async with opened(kafka_server.url):
            pass
        with pytest.raises(LogGap):
            await values(log, Topic.RECEIPTS, old, key, b"")
        start = await log.end(Topic.RECEIPTS)
        await patiently(log, Topic.RECEIPTS, key, b"anew")
        assert await values(log, Topic.RECEIPTS, start, key, b"anew")


async def test_a_new_partition_is_read_from_its_start(kafka_server: KafkaServer) -> None:
    """While a reader is reading: it misses nothing that was put there before it noticed."""
    key = uuid4().hex
    async with opened(kafka_server.url) as log:
        end = await log.end(Topic.RECEIPTS)
        reading = asyncio.create_task(values(log, Topic.RECEIPTS, end, key, b"new partition"))
        await log.append(Topic.RECEIPTS, key, b"old partition")
        admin = AdminClient({"bootstrap.servers": kafka_server.bootstrap})
        [grown] = admin.create_partitions([NewPartitions(str(Topic.RECEIPTS), len(end) + 1)]).values()
        await asyncio.wrap_future(grown)
        producer = Producer({"bootstrap.servers": kafka_server.bootstrap})
        producer.produce(str(Topic.RECEIPTS), b"new partition", key, partition=len(end))
        assert await asyncio.to_thread(producer.flush, 20) == 0
        assert await reading == [b"old partition", b"new partition"]


# Brokers that vanish


class Appending:
    """Appends 0, 1, 2, … under `key`, each until it is acknowledged."""

    def __init__(self, log: MessageLog, key: str) -> None:
        self.acknowledged = -1
        self._task = asyncio.create_task(self._run(log, key))

    async def _run(self, log: MessageLog, key: str) -> None:
        while True:
            await patiently(log, Topic.EVENTS, key, str(self.acknowledged + 1).encode())
            self.acknowledged += 1

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class Reading:
    """Reads the values under `key` from `positions` on, as hosts do: again from where it was when the log was out of reach."""

    def __init__(self, log: MessageLog, key: str, positions: Positions) -> None:
        self.seen: list[int] = []
        self._task = asyncio.create_task(self._run(log, key, dict(positions)))

    async def _run(self, log: MessageLog, key: str, positions: dict[int, int]) -> None:
        while True:
            with suppress(LogUnavailable):
                async with aclosing(log.read(Topic.EVENTS, positions)) as batches:
                    async for batch in batches:
                        self.seen += [int(record.value) for record in batch if record.key == key]
                        positions |= {record.partition: record.offset + 1 for record in batch}

    async def end(self) -> None:
        """Raises what ended it, if anything did."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def test_a_broker_killed_and_restarted(kafka_server: KafkaServer, capfd: pytest.CaptureFixture[str]) -> None:
    """Under a reader and an appender: nothing acknowledged is lost, both go on by themselves, and librdkafka prints nothing."""
    key = uuid4().hex
    async with opened(kafka_server.url) as log:
        reading = Reading(log, key, await log.end(Topic.EVENTS))
        appending = Appending(log, key)
        try:
            await until(lambda: appending.acknowledged >= 50)
            await asyncio.to_thread(kafka_server.kill)
            before = appending.acknowledged
            await asyncio.to_thread(kafka_server.start)
            await until(lambda: appending.acknowledged >= before + 50)
            await appending.end()
            await until(lambda: reading.seen[-1:] >= [appending.acknowledged])
        finally:
            await appending.end()
            await reading.end()
    assert sorted(set(reading.seen)) == list(range(max(reading.seen) + 1))
    assert capfd.readouterr().err == ""


async def test_a_stopped_broker(kafka_server: KafkaServer) -> None:
    """Silent with its sockets open: an append raises within 5 s, a reader after a while, a close ends; afterwards all works."""
    key = uuid4().hex
    async with opened(kafka_server.url) as log:
        other = await open_log(kafka_server.url)
        start = await log.end(Topic.EVENTS)
        kafka_server.stop()
        try:
            reading = asyncio.create_task(values(log, Topic.EVENTS, start, key, b"after"))
            began = time.monotonic()
            appends = [log.append(Topic.EVENTS, key, b"lost?"), other.append(Topic.EVENTS, key, b"lost?")]
            done = asyncio.gather(*appends, return_exceptions=True)
            ending = asyncio.gather(log.end(Topic.EVENTS), return_exceptions=True)
            await other.close()
            assert [type(one) for one in await done] == [LogUnavailable] * 2
            assert time.monotonic() - began < 5
            with pytest.raises(LogUnavailable):
                await reading
            assert [type(one) for one in await ending] == [LogUnavailable]
        finally:
            kafka_server.cont()
            await asyncio.to_thread(kafka_server.start)
        await patiently(log, Topic.EVENTS, key, b"after")
        assert set(await values(log, Topic.EVENTS, start, key, b"after")) <= {b"lost?", b"after"}
