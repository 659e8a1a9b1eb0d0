"""The key-value store: the ports, and `open_store`, which alone knows the adapters."""

from typing import Protocol
from urllib.parse import urlsplit

from kv.facts import StoreFacts
from kv.store import Conditional, Item, OutcomeUnknown, Page, Put, Removal, Store, StoreError, StoreUnavailable, Version

__all__ = [
    "Conditional",
    "Item",
    "KeyValue",
    "OutcomeUnknown",
    "Page",
    "Put",
    "Removal",
    "Store",
    "StoreError",
    "StoreFacts",
    "StoreUnavailable",
    "Version",
    "open_store",
    "store_facts",
]


class KeyValue(Store, Conditional, Protocol):
    """Both ports on one connection: what a composition root holds."""


async def open_store(url: str, password: str | None = None) -> KeyValue:
    """The store at `url`: `sqlite:///path` or `cassandra://host:port[,host:port]/keyspace[?user=…&tls=ca.pem]`.

    The path of a file is absolute. Creates what is missing (file, keyspace, tables) and checks what is there. `password` goes
    with `user`. Raises ValueError for a URL that names no known adapter or has an unknown option, StoreUnavailable when the
    store does not answer within 10 s.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from kv.embedded import SqliteStore

        return await SqliteStore.open(url)
    if scheme == "cassandra":
        from kv.cassandra import CassandraStore

        return await CassandraStore.open(url, password)
    raise ValueError(f"store: {url!r} is neither sqlite:///path nor cassandra://host:port/keyspace")


async def store_facts(url: str, password: str | None = None) -> StoreFacts:
    """How the store at `url` is set; nothing is created in a database that has servers. Raises as `open_store`."""
    if urlsplit(url).scheme == "cassandra":
        from kv.cassandra import cassandra_facts

        return await cassandra_facts(url, password)
    store = await open_store(url, password)
    await store.close()
    return StoreFacts()
