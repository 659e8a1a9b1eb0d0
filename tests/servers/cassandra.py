"""A Cassandra of one node, in which an acknowledged write is on the disk."""

import secrets
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session

from tests.servers.certificates import KEYSTORE_PASSWORD, Certificates, make_certificates
from tests.servers.container import ContainerProcess, launched
from tests.servers.jars import fetch_jars, find_java
from tests.servers.process import JvmProcess
from tests.servers.server import HOST, Probe, Process, Server, free_ports

IMAGE = "cassandra:5.0"
JAVA = (17,)  # later ones refuse the security policy that 5.0 sets at its start

USER = "stagecast"
KEYSPACE = "stagecast"

# OPTIONS in protocol v4, answered before any login by SUPPORTED, opcode 6.
PROBE = Probe(bytes([4, 0, 0, 0, 5, 0, 0, 0, 0]), lambda got: got[4:5] == b"\x06")

# commitlog_sync: the default, periodic, lost 5 % of the acknowledged writes to a plain SIGKILL; batch lost none.
YAML = """\
cluster_name: stagecast
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
num_tokens: 1
initial_token: "0"
auto_bootstrap: false
listen_address: 127.0.0.1
storage_port: {storage}
rpc_address: {listen}
broadcast_rpc_address: 127.0.0.1
native_transport_port: {port}
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{storage}"}}]
commitlog_sync: batch
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
auto_snapshot: false
"""

SECURED = """\
authenticator: {{class_name: org.apache.cassandra.auth.PasswordAuthenticator}}
authorizer: {{class_name: org.apache.cassandra.auth.CassandraAuthorizer}}
role_manager: {{class_name: org.apache.cassandra.auth.CassandraRoleManager}}
client_encryption_options:
  enabled: true
  optional: false
  keystore: {certificates.server_p12}
  keystore_password: {password}
  store_type: PKCS12
"""

LOGBACK = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{20} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"""

# What Cassandra reaches into in a JVM with modules; its own start script opens the same.
EXPORTS = [
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
]
OPENS = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
]


@dataclass(frozen=True)
class SecuredCassandra:
    """A node that takes only logins with a password over TLS. `user` may make keyspaces and all that is in them; it is no
    super user."""

    server: Server
    tls: Path
    password: str
    user: str = USER

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        """With `user` and `tls`; the password goes beside it."""
        return self.server.url


def start_cassandra(folder: Path) -> Server:
    """A node that lets everybody do everything. `folder` is empty and is for it alone. Raises Unavailable, RuntimeError."""
    port, storage = free_ports(2)
    server = Server(_launched(folder, port, storage, ""), port, f"cassandra://{HOST}:{port}/{KEYSPACE}", PROBE)
    server.start()
    return server


def start_secured_cassandra(folder: Path) -> SecuredCassandra:
    """A node with TLS and logins. `folder` is empty and is for it alone. Raises Unavailable, RuntimeError."""
    port, storage = free_ports(2)
    certificates, password = make_certificates(folder), secrets.token_hex(8)
    process = _launched(folder, port, storage, SECURED.format(certificates=certificates, password=KEYSTORE_PASSWORD))
    url = f"cassandra://{HOST}:{port}/{KEYSPACE}?user={USER}&tls={quote(str(certificates.ca))}"
    server = Server(process, port, url, PROBE, certificates.ca)
    server.start()
    _create_role(port, certificates, password)
    return SecuredCassandra(server, certificates.ca, password)


def _launched(folder: Path, port: int, storage: int, security: str) -> Process:
    (folder / "logback.xml").write_text(LOGBACK)

    def options(listen: str, data: str) -> list[str]:
        text = YAML.format(listen=listen, port=port, storage=storage)
        (folder / "cassandra.yaml").write_text(text + security)
        return [
            f"-Dcassandra.config=file://{folder}/cassandra.yaml",
            f"-Dcassandra.storagedir={data}",
            f"-Dlogback.configurationFile=file://{folder}/logback.xml",
            "-Dcassandra.ring_delay_ms=500",  # nobody to wait for: this and the next two are seconds to tens of seconds
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.superuser_setup_delay_ms=0",
        ]

    def in_container() -> Process:
        script = f"exec cassandra -f -R {' '.join(options('0.0.0.0', '/tmp/cassandra-data'))}"
        return ContainerProcess(IMAGE, script, folder, port, {"MAX_HEAP_SIZE": "512m", "HEAP_NEWSIZE": "128m"})

    def on_jvm() -> Process:
        jars = fetch_jars("cassandra")
        java = [find_java(JAVA), "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        java += ["-Xss256k", "-XX:MaxDirectMemorySize=256m", f"-javaagent:{next(jars.glob('jamm-*.jar'))}"]
        java += [f"--add-exports={name}=ALL-UNNAMED" for name in EXPORTS]
        java += [f"--add-opens={name}=ALL-UNNAMED" for name in OPENS]
        java += ["-Djdk.attach.allowAttachSelf=true", "-Dio.netty.tryReflectionSetAccessible=true"]
        java += ["-Djava.net.preferIPv4Stack=true", "-Dcassandra-foreground=yes", *options(HOST, str(folder))]
        return JvmProcess([*java, "-cp", f"{jars}/*", "org.apache.cassandra.service.CassandraDaemon"], folder)

    return launched(in_container, on_jvm)


def _create_role(port: int, certificates: Certificates, password: str) -> None:
    """Makes USER by the super user a new node has, which it makes itself a moment after its start."""
    context = ssl.create_default_context(cafile=certificates.ca)
    login = PlainTextAuthProvider("cassandra", "cassandra")
    deadline = time.monotonic() + 60
    while True:
        cluster = Cluster([HOST], port=port, protocol_version=4, ssl_context=context, auth_provider=login)
        try:
            session: Session = cluster.connect()
            session.execute(f"CREATE ROLE {USER} WITH PASSWORD = '{password}' AND LOGIN = true")
            session.execute(f"GRANT ALL PERMISSIONS ON ALL KEYSPACES TO {USER}")
        except NoHostAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
        finally:
            cluster.shutdown()
