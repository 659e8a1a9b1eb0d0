"""A real Kafka and a real Cassandra for tests, one node each, on loopback: in Docker where an engine answers, else from jars.

    server.py        what a test holds: address, pid, start, kill, term, stop, cont
    kafka.py         Kafka's configuration and protocol, plain and secured
    cassandra.py     Cassandra's
    certificates.py  one run's own authority, and the server's certificate
    process.py       what carries a server: a JVM of this machine
    jars.py          its jars, from Maven
    container.py     or a container

Raises `Unavailable` where this machine lacks what a server needs, RuntimeError where a server does not come up.
"""

from tests.servers.cassandra import SecuredCassandra, start_cassandra, start_secured_cassandra
from tests.servers.jars import Unavailable
from tests.servers.kafka import KafkaServer, SecuredKafka, start_kafka, start_secured_kafka
from tests.servers.server import Server

__all__ = [
    "KafkaServer",
    "SecuredCassandra",
    "SecuredKafka",
    "Server",
    "Unavailable",
    "start_cassandra",
    "start_kafka",
    "start_secured_cassandra",
    "start_secured_kafka",
]
