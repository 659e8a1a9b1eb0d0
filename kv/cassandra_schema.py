"""Keyspace and tables of the store on Cassandra, created where they are missing, checked where they are there.

Every process does this at its start, many of them at once. Cassandra spreads its schema by gossip, so two nodes that create a
table at the same moment would give it two identities and never agree; hence a table's identity is computed from its name.

Compaction is Cassandra's default, by size. By time windows (TWCS) would drop whole files of expired items, but only of data that
is written once and expires in the order it came; `items` mixes what never expires with what lives for half an hour and is
written again all the time (the registry), which pins windows open for ever. A tombstone is purged by itself instead.
"""

import logging
import random
import re
import time
import uuid
from typing import NamedTuple

from cassandra import DriverException
from cassandra.cluster import NoHostAvailable, Session
from cassandra.metadata import KeyspaceMetadata, TableMetadata

from kv.store import StoreError

REPLICAS = 3
"""Copies of an item in each data centre that has so many nodes; one copy where it has fewer."""
PATIENCE = 20.0
"""Seconds in which creating is tried again while nodes do not agree."""
DDL_TIMEOUT = 10.0

_logger = logging.getLogger(__name__)


class Table(NamedTuple):
    columns: dict[str, str]
    partition: tuple[str, ...]
    clustering: tuple[str, ...]
    options: str


# `key` is text: Cassandra compares text by its UTF-8 bytes, unsigned, which is the order that `page` promises.
# `expires`: wall ms, 0 for never. The server's own TTL counts whole seconds from the start of the running one, so alone it
# would take an item up to a second early; it is set a second longer and only clears away.
# `conditional` has one item a partition: Paxos runs per partition, and events must not wait for one another.
TABLES = {
    "items": Table(
        {"record": "text", "key": "text", "value": "blob", "expires": "bigint"},
        ("record",),
        ("key",),
        "compaction = {'class': 'SizeTieredCompactionStrategy', 'unchecked_tombstone_compaction': 'true'}",
    ),
    "conditional": Table(
        {"record": "text", "key": "text", "value": "blob", "version": "bigint"}, ("record", "key"), (), ""
    ),
}


def checked_keyspace(name: str) -> str:
    """`name`, which is a keyspace's as CQL reads it without quotes. Raises ValueError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        raise ValueError(f"{name!r} is no keyspace: a-z, 0-9 and _, beginning with a letter, 48 at most")
    return name


def ensure_schema(session: Session, keyspace: str) -> None:
    """Blocks until keyspace and tables are there. Raises StoreError when a table is not ours, or what the driver raised last
    when creating did not succeed within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _create_missing(session, keyspace)
            break
        except (DriverException, NoHostAvailable):
            if time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.1, 0.5))
        session.cluster.refresh_schema_metadata()
    _check(session.cluster.metadata.keyspaces[keyspace])


def _create_missing(session: Session, keyspace: str) -> None:
    found: KeyspaceMetadata | None = session.cluster.metadata.keyspaces.get(keyspace)
    if found is None:
        session.execute(keyspace_statement(keyspace, _nodes(session)), timeout=DDL_TIMEOUT)
    for name, table in TABLES.items():
        if found is None or name not in found.tables:
            session.execute(table_statement(keyspace, name, table), timeout=DDL_TIMEOUT)
    session.cluster.refresh_keyspace_metadata(keyspace)
    made = session.cluster.metadata.keyspaces.get(keyspace)
    if made is None or not TABLES.keys() <= made.tables.keys():
        raise DriverException(f"keyspace {keyspace} was created, and is not seen yet")


def _nodes(session: Session) -> dict[str, int]:
    """Data centre → how many nodes it has."""
    centres = [host.datacenter for host in session.cluster.metadata.all_hosts()]
    return {centre: centres.count(centre) for centre in sorted(set(centres))}


def keyspace_statement(keyspace: str, nodes: dict[str, int]) -> str:
    """CQL for a keyspace on `nodes` (data centre → count). One that an operator made before is left as it is."""
    copies = "".join(f", '{centre}': {REPLICAS if count >= REPLICAS else 1}" for centre, count in nodes.items())
    return f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy'{copies}}}"


def replication(keyspace: KeyspaceMetadata) -> tuple[str, dict[str, int]]:
    """Strategy, and data centre → copies; one entry of an empty name where the strategy knows no data centres."""
    strategy = keyspace.replication_strategy
    by_centre: dict[str, int] = getattr(strategy, "dc_replication_factors", {})
    return strategy.name, by_centre or {"": int(getattr(strategy, "replication_factor", 0))}


def table_statement(keyspace: str, name: str, table: Table) -> str:
    columns = ", ".join(f"{column} {kind}" for column, kind in table.columns.items())
    primary = ", ".join((f"({', '.join(table.partition)})", *table.clustering))
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"stagecast:{keyspace}.{name}")
    options = " AND ".join(part for part in (f"id = {identity}", table.options) if part)
    return f"CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns}, PRIMARY KEY ({primary})) WITH {options}"


def _check(keyspace: KeyspaceMetadata) -> None:
    for name, table in TABLES.items():
        there: TableMetadata = keyspace.tables[name]
        columns = {column: str(meta.cql_type) for column, meta in there.columns.items()}
        partition = tuple(column.name for column in there.partition_key)
        clustering = tuple(column.name for column in there.clustering_key)
        wanted = (table.partition, table.clustering, table.columns)
        if (partition, clustering, {**columns, **table.columns}) != (*wanted[:2], columns):
            raise StoreError(f"table {keyspace.name}.{name} is not a store's: {partition} {clustering} {columns}")
