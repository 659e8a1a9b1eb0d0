"""The real servers that tests run against, and what happens where they can't be had."""

import os
import select
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # imported there, not exported

from tests.servers import KafkaServer, SecuredCassandra, SecuredKafka, Server, Unavailable
from tests.servers.cassandra import PROBE as CASSANDRA_PROBE
from tests.servers.container import ContainerProcess, launched
from tests.servers.jars import fetch_jars, find_java
from tests.servers.kafka import PROBE as KAFKA_PROBE
from tests.servers.process import JvmProcess
from tests.servers.server import free_ports

ROOT = Path(__file__).parents[2]
SLEEP = ["/bin/sleep", "60"]
Config = dict[str, str | int | float | bool]


# What a server needs


def test_a_java_of_no_wanted_version_is_unavailable() -> None:
    """The text tells what to install."""
    with pytest.raises(Unavailable, match="no Java 5: apt-get install"):
        find_java((5,))


def test_jars_without_maven_are_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is left in the cache that the next call could take for jars."""
    monkeypatch.setenv("STAGECAST_JARS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        with pytest.raises(Unavailable, match="no mvn"):
            fetch_jars("kafka")


def test_runs_at_the_same_time_fetch_the_jars_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The later ones wait and get the first one's folder; a fetch that fails is not kept."""
    calls, maven = tmp_path / "calls", tmp_path / "mvn"
    monkeypatch.setenv("STAGECAST_JARS", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    maven.write_text("#!/bin/sh\necho out of reach\nexit 1\n")
    maven.chmod(0o755)
    with pytest.raises(Unavailable, match="out of reach"):
        fetch_jars("kafka")
    maven.write_text(
        f'#!/bin/sh\necho call >> {calls}\nfor a; do case $a in -DoutputDirectory=*) mkdir "${{a#*=}}";; esac; done\n'
    )
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(fetch_jars, ["kafka"] * 4))
    assert [folder.is_dir() for folder in folders] == [True]
    assert calls.read_text() == "call\n"


def test_ports_are_different_and_never_a_clients() -> None:
    """They lie below the range of outgoing connections, so that no client can hold the port of a server that restarts."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < lowest


# What carries a server


def ended(pid: int, within: float) -> bool:
    """Whether the process ends within so many seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(handle, closefd=True):
        return bool(select.select([handle], [], [], within)[0])


def kill(process: JvmProcess) -> None:
    """Ends it and waits for its end, as a server does."""
    pid = process.pid
    assert pid is not None
    process.signal(signal.SIGKILL)
    assert ended(pid, within=10)
    assert process.pid is None


def test_a_server_dies_with_the_test_run(tmp_path: Path) -> None:
    """Even when SIGKILL ends the run."""
    code = f"""
import pathlib, time
from tests.servers.process import JvmProcess
process = JvmProcess({SLEEP!r}, pathlib.Path({str(tmp_path)!r}))
process.launch()
print(process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        server = int(run.stdout.readline())
        assert not ended(server, within=0.3)  # time enough for the launched program to tie itself to its parent
        run.kill()
    assert ended(server, within=10)


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """An async test may start it by `asyncio.to_thread`."""
    process = JvmProcess(SLEEP, tmp_path)
    thread = threading.Thread(target=process.launch)
    thread.start()
    thread.join()
    assert process.pid is not None
    assert not ended(process.pid, within=0.3)
    kill(process)


def test_without_a_docker_engine_the_jvm_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The attempt fails quietly: no exception, no warning about what the docker client left open."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    jvm = JvmProcess(SLEEP, tmp_path)
    process = launched(lambda: ContainerProcess("none", "true", tmp_path, 1, {}), lambda: jvm)
    assert process is jvm
    assert jvm.pid is not None
    kill(jvm)


# What a run says


def pytest_run(test: str, required: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{Path(__file__).relative_to(ROOT)}::{test}"]
    settings = os.environ | {"STAGECAST_REQUIRE": required} | environment
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


def test_what_nobody_asked_for_is_skipped_and_named() -> None:
    """No server is started; the last section tells how to run it, with a count."""
    run = pytest_run("test_kafka_keeps_what_it_acknowledged", required="")
    assert run.returncode == 0
    assert "skipped, and why" in run.stdout
    assert "    1 × kafka: not asked for; STAGECAST_REQUIRE=kafka runs this" in run.stdout


def test_what_is_required_and_absent_fails(tmp_path: Path) -> None:
    """A skip would pass for a success."""
    nothing = {"PATH": str(tmp_path), "STAGECAST_JARS": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    run = pytest_run("test_kafka_keeps_what_it_acknowledged", required="kafka", **nothing)
    assert run.returncode == 1
    assert "kafka: no " in run.stdout


def test_an_unknown_requirement_is_refused() -> None:
    """A typing error must not turn into a run that skips everything."""
    run = pytest_run("test_ports_are_different_and_never_a_clients", required="kafak")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "STAGECAST_REQUIRE: kafak is none of browser, cassandra, kafka" in run.stderr


# Kafka


def kafka_login(secured: SecuredKafka, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> Config:
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.tls),
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }


def make_topics(bootstrap: str, login: Config, *names: str) -> None:
    """One partition each; those there are stay."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **login})
    for made in admin.create_topics([NewTopic(name, 1) for name in names], request_timeout=30).values():
        try:
            made.result()
        except KafkaException as refused:
            if refused.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def append(bootstrap: str, login: Config, topic: str, value: bytes) -> KafkaError | None:
    """The broker's word on one record for partition 0: None is an acknowledgement."""
    said: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 20_000, "log_level": 0, **login})
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _: said.append(error))
    producer.flush(30)
    return said[0]


def first(bootstrap: str, login: Config, topic: str) -> Message | None:
    """What a read of the topic's partition 0 from its start gives first: a record, or an error.

    librdkafka wants a group's name and asks for its coordinator, though explicit positions need none: that refusal is no answer.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "log_level": 0, **login})
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            answer = consumer.poll(30)
            error = answer.error() if answer is not None else None
            if error is None or error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                return answer


def refusal(bootstrap: str, login: Config) -> KafkaError:
    """What a client is told that can't log in."""
    said: list[KafkaError] = []
    config = {"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": said.append, **login}
    client, deadline = Producer(config), time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        client.poll(0.1)
    return said[0]


def is_up(server: KafkaServer) -> bool:
    return server.pid is not None


def test_kafka_keeps_what_it_acknowledged(kafka_server: KafkaServer) -> None:
    """Over SIGKILL and over SIGTERM, at the same address; its process id is another one."""
    topic, pid = f"kept-{uuid.uuid4().hex}", kafka_server.pid
    make_topics(kafka_server.bootstrap, {}, topic)
    assert append(kafka_server.bootstrap, {}, topic, b"kept") is None
    for end in (kafka_server.kill, kafka_server.term):
        end()
        assert not is_up(kafka_server)
        kafka_server.start()
        assert kafka_server.pid not in (None, pid)
        record = first(kafka_server.bootstrap, {}, topic)
        assert record is not None
        assert record.value() == b"kept"


def test_a_stopped_kafka_is_silent_until_continued(kafka_server: KafkaServer) -> None:
    """Its process stays; `start` waits until it answers."""
    kafka_server.stop()
    try:
        assert not KAFKA_PROBE.answers(kafka_server.port, None)
        assert kafka_server.pid is not None
    finally:
        kafka_server.cont()
        kafka_server.start()
    assert KAFKA_PROBE.answers(kafka_server.port, None, timeout=10)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_the_secured_kafka_takes_a_login_over_tls(kafka_secured: SecuredKafka, mechanism: str) -> None:
    """With the password only."""
    topic = f"secured-{uuid.uuid4().hex}"
    good = kafka_login(kafka_secured, kafka_secured.user, kafka_secured.password, mechanism)
    make_topics(kafka_secured.bootstrap, good, topic)
    assert append(kafka_secured.bootstrap, good, topic, b"in") is None
    wrong = kafka_login(kafka_secured, kafka_secured.user, "wrong", mechanism)
    assert refusal(kafka_secured.bootstrap, wrong).code() == KafkaError._AUTHENTICATION


def test_the_secured_kafka_is_not_reached_without_tls(kafka_secured: SecuredKafka) -> None:
    """Its certificate is checked, too: one trusts the run's own authority or nobody."""
    assert not KAFKA_PROBE.answers(kafka_secured.server.port, None)
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.get_server_certificate(("127.0.0.1", kafka_secured.server.port), ca_certs=_other_authority())
    assert KAFKA_PROBE.answers(kafka_secured.server.port, kafka_secured.tls, timeout=10)


def _other_authority() -> str:
    return str(ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile)


def test_a_host_reads_events_and_writes_receipts_only(kafka_secured: SecuredKafka) -> None:
    """The broker itself refuses a host that speaks on `stagecast.events`."""
    bootstrap = kafka_secured.bootstrap
    producer = kafka_login(kafka_secured, kafka_secured.user, kafka_secured.password)
    host = kafka_login(kafka_secured, kafka_secured.host_user, kafka_secured.host_password)
    make_topics(bootstrap, producer, "stagecast.events", "stagecast.receipts")
    assert append(bootstrap, producer, "stagecast.events", b"a broadcast") is None
    read = first(bootstrap, host, "stagecast.events")
    assert read is not None
    assert read.error() is None
    assert append(bootstrap, host, "stagecast.receipts", b"a receipt") is None
    refused = append(bootstrap, host, "stagecast.events", b"a forgery")
    assert refused is not None
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    hidden = first(bootstrap, host, "stagecast.receipts")
    assert hidden is not None
    error = hidden.error()
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


# Cassandra


@contextmanager
def cassandra_session(port: int, tls: Path | None = None, login: tuple[str, str] | None = None) -> Iterator[Session]:
    cluster = Cluster(
        ["127.0.0.1"],
        port=port,
        protocol_version=5,
        connect_timeout=20,
        ssl_context=ssl.create_default_context(cafile=tls) if tls else None,
        auth_provider=PlainTextAuthProvider(*login) if login else None,
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


def make_table(session: Session) -> str:
    session.execute(
        "CREATE KEYSPACE IF NOT EXISTS servers WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    session.execute("CREATE TABLE IF NOT EXISTS servers.kept (id text PRIMARY KEY)")
    row = uuid.uuid4().hex
    session.execute("INSERT INTO servers.kept (id) VALUES (%s)", [row])
    return row


def test_cassandra_keeps_what_it_acknowledged(cassandra_server: Server) -> None:
    """A row written just before a SIGKILL is there after the restart."""
    with cassandra_session(cassandra_server.port) as session:
        row = make_table(session)
        cassandra_server.kill()
    cassandra_server.start()
    with cassandra_session(cassandra_server.port) as session:
        assert session.execute("SELECT id FROM servers.kept WHERE id = %s", [row]).one() is not None


def test_a_stopped_cassandra_is_silent_until_continued(cassandra_server: Server) -> None:
    """Its process stays; `start` waits until it answers."""
    cassandra_server.stop()
    try:
        assert not CASSANDRA_PROBE.answers(cassandra_server.port, None)
        assert cassandra_server.pid is not None
    finally:
        cassandra_server.cont()
        cassandra_server.start()
    assert CASSANDRA_PROBE.answers(cassandra_server.port, None, timeout=10)


def test_the_secured_cassandra_takes_a_login_over_tls(cassandra_secured: SecuredCassandra) -> None:
    """With the password only; the user makes its own keyspace and tables."""
    good = (cassandra_secured.user, cassandra_secured.password)
    with cassandra_session(cassandra_secured.port, cassandra_secured.tls, good) as session:
        make_table(session)
    with (
        pytest.raises(NoHostAvailable, match="credentials"),
        cassandra_session(cassandra_secured.port, cassandra_secured.tls, (cassandra_secured.user, "wrong")),
    ):
        pass


def test_the_secured_cassandra_is_not_reached_without_tls(cassandra_secured: SecuredCassandra) -> None:
    """Not even the question for its versions is answered."""
    assert not CASSANDRA_PROBE.answers(cassandra_secured.port, None)
    assert CASSANDRA_PROBE.answers(cassandra_secured.port, cassandra_secured.tls, timeout=10)
