"""A Kafka broker that is its own controller (KRaft)."""

import secrets
import struct
import subprocess
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its documented names, which it imports but doesn't export
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.servers.certificates import Certificates, make_certificates
from tests.servers.container import ContainerProcess, launched
from tests.servers.jars import fetch_jars, find_java
from tests.servers.process import JvmProcess
from tests.servers.server import HOST, Probe, Process, Server, free_ports

IMAGE = "apache/kafka:4.3.1"
JAVA = (17, 21, 25)

USER = "stagecast"
"""The producers' principal, and the broker's own: a super user."""
HOST_USER = "pushy"
"""A pushy host's principal: reads events, writes receipts, nothing else."""
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")

# ApiVersions, version 0, correlation id 7; the answer repeats the id and then says error 0. It is given before any login.
PROBE = Probe(struct.pack(">ihhih", 10, 18, 0, 7, -1), lambda got: got[4:10] == struct.pack(">ih", 7, 0))

# The replication settings: groups and transactions hang on one node without them. The session timeout (default 9 s): a broker
# back after SIGKILL waits for its own old session to end, 12 s instead of 3.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CLIENTS://{listen}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://127.0.0.1:{port}
inter.broker.listener.name=CLIENTS
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""

PLAIN = "listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT\n"

# The broker logs in to itself, on both listeners, as the super user: nobody is anonymous.
SECURED = """\
listener.security.protocol.map=CLIENTS:SASL_SSL,CONTROLLER:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.clients.plain.sasl.jaas.config={plain}
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config={plain}
listener.name.clients.scram-sha-256.sasl.jaas.config={scram}
listener.name.clients.scram-sha-512.sasl.jaas.config={scram}
ssl.keystore.type=PEM
ssl.keystore.location={certificates.server_pem}
ssl.truststore.type=PEM
ssl.truststore.location={certificates.ca}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{user}
"""


class KafkaServer(Server):
    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class SecuredKafka:
    """A broker that takes only logins (PLAIN or SCRAM) over TLS, and obeys ACLs. `user` may do everything, `host_user` only
    what a pushy host may."""

    server: KafkaServer
    tls: Path
    password: str
    host_password: str
    user: str = USER
    host_user: str = HOST_USER

    @property
    def bootstrap(self) -> str:
        return self.server.bootstrap

    @property
    def url(self) -> str:
        """With `user` and `tls`; the password goes beside it."""
        return self.server.url

    @property
    def host_url(self) -> str:
        return _url(self.server.port, self.host_user, self.tls)


def start_kafka(folder: Path) -> KafkaServer:
    """A broker that lets everybody do everything. `folder` is empty and is for it alone. Raises Unavailable, RuntimeError."""
    port, controller = free_ports(2)
    server = KafkaServer(_launched(folder, port, controller, PLAIN, []), port, f"kafka://{HOST}:{port}", PROBE)
    server.start()
    return server


def start_secured_kafka(folder: Path) -> SecuredKafka:
    """A broker with TLS, logins and ACLs. `folder` is empty and is for it alone. Raises Unavailable, RuntimeError."""
    port, controller = free_ports(2)
    certificates, passwords = make_certificates(folder), {USER: secrets.token_hex(8), HOST_USER: secrets.token_hex(8)}
    scram = [f"{kind}=[name={user},password={word}]" for kind in SCRAM for user, word in passwords.items()]
    process = _launched(folder, port, controller, _secured(certificates, passwords), scram)
    server = KafkaServer(process, port, _url(port, USER, certificates.ca), PROBE, certificates.ca)
    server.start()
    secured = SecuredKafka(server, certificates.ca, passwords[USER], passwords[HOST_USER])
    _allow_host(secured)
    return secured


def _url(port: int, user: str, tls: Path) -> str:
    return f"kafka://{HOST}:{port}?user={user}&tls={quote(str(tls))}"


def _secured(certificates: Certificates, passwords: dict[str, str]) -> str:
    modules = "org.apache.kafka.common.security"
    known = " ".join(f'user_{user}="{word}"' for user, word in passwords.items())
    plain = f'{modules}.plain.PlainLoginModule required username="{USER}" password="{passwords[USER]}" {known};'
    scram = f"{modules}.scram.ScramLoginModule required;"
    return SECURED.format(plain=plain, scram=scram, certificates=certificates, user=USER)


def _launched(folder: Path, port: int, controller: int, security: str, scram: list[str]) -> Process:
    config = folder / "server.properties"
    cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    format_ = ["format", "--cluster-id", cluster, "--config", str(config), "--ignore-formatted"]
    format_ += [word for credential in scram for word in ("--add-scram", credential)]

    def configure(listen: str, data: str) -> None:
        text = PROPERTIES.format(listen=listen, port=port, controller=controller, data=data)
        config.write_text(text + security)

    def in_container() -> Process:
        configure("0.0.0.0", "/tmp/kafka-data")
        quoted = " ".join(f"'{word}'" for word in format_)
        script = f"cd /opt/kafka/bin && ./kafka-storage.sh {quoted} && exec ./kafka-server-start.sh {config}"
        return ContainerProcess(IMAGE, script, folder, port, {"KAFKA_HEAP_OPTS": "-Xmx256m"})

    def on_jvm() -> Process:
        configure(HOST, f"{folder}/data")
        java = [find_java(JAVA), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        java += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", f"{fetch_jars('kafka')}/*"]
        done = subprocess.run([*java, "kafka.tools.StorageTool", *format_], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")
        return JvmProcess([*java, "kafka.Kafka", str(config)], folder)

    return launched(in_container, on_jvm)


def _allow_host(secured: SecuredKafka) -> None:
    admin = AdminClient(
        {
            "bootstrap.servers": secured.bootstrap,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(secured.tls),
            "sasl.mechanism": "PLAIN",
            "sasl.username": secured.user,
            "sasl.password": secured.password,
        }
    )
    literal, who, allow = ResourcePatternType.LITERAL, f"User:{secured.host_user}", AclPermissionType.ALLOW
    rules = [
        AclBinding(ResourceType.TOPIC, topic, literal, who, "*", operation, allow)
        for topic, operation in (("stagecast.events", AclOperation.READ), ("stagecast.receipts", AclOperation.WRITE))
    ]
    for made in admin.create_acls(rules, request_timeout=30).values():
        made.result()
