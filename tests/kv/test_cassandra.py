"""The store on Cassandra beyond what every store promises: logins, a server that vanishes, outcomes that are not known."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from cassandra import ConsistencyLevel, InvalidRequest, OperationTimedOut, Unavailable, WriteTimeout, WriteType
from cassandra.cluster import NoHostAvailable, Session
from cassandra.connection import ConnectionShutdown

from kv import KeyValue, OutcomeUnknown, Put, StoreError, StoreUnavailable, Version, open_store
from kv.cassandra import (
    BATCH_BYTES,
    BATCH_ITEMS,
    LANES,
    UNDER_WAY,
    CassandraStore,
    Statements,
    _batches,
    _compare_and_set_error,
)
from kv.cassandra_schema import TABLES, checked_keyspace, keyspace_statement, table_statement
from stagecast.clock import ManualClock
from tests.servers import SecuredCassandra, Server

WITHIN = 30.0
"""Seconds that anything may take: only a hang takes them."""


@asynccontextmanager
async def opened(url: str, password: str | None = None) -> AsyncIterator[KeyValue]:
    store = await open_store(url, password)
    try:
        yield store
    finally:
        await store.close()


async def read_again(store: KeyValue, record: str, key: str) -> Version | None:
    """Reads until the store answers."""
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            return await store.read(record, key)
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


# What needs no server


@pytest.mark.parametrize(
    "url",
    [
        "cassandra://one:1",
        "cassandra://one:1/",
        "cassandra://one:1/a/b",
        "cassandra://one:1/Quoted",
        "cassandra://one:1/9lives",
        "cassandra://one:1/x;drop",
        "cassandra://one/keyspace",
        "cassandra://one:1/keyspace?rf=3",
    ],
)
async def test_a_bad_url_is_refused(url: str) -> None:
    """Before anything is tried; a keyspace's name goes into statements, so it is a plain one."""
    with pytest.raises(ValueError, match=r"keyspace|cassandra://"):
        await open_store(url)


async def test_nobody_there_is_unavailable() -> None:
    """Port 1 refuses."""
    with pytest.raises(StoreUnavailable, match=r"cassandra://127\.0\.0\.1:1/keyspace"):
        await open_store("cassandra://127.0.0.1:1/keyspace")


@pytest.mark.parametrize("name", ["stagecast", "a", "a_1", "x" * 48])
def test_names_of_keyspaces(name: str) -> None:
    """What CQL reads as it is written."""
    assert checked_keyspace(name) == name


def test_copies_are_by_the_number_of_nodes() -> None:
    """Three in every data centre that has three nodes."""
    statement = keyspace_statement("k", {"east": 5, "west": 3, "lab": 1})
    assert "{'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 3, 'lab': 1}" in statement


def test_a_table_has_one_identity() -> None:
    """Whoever creates it: nodes that create it at the same moment agree. Another keyspace's table is another."""
    first = table_statement("k", "items", TABLES["items"])
    assert first == table_statement("k", "items", TABLES["items"])
    assert first != table_statement("other", "items", TABLES["items"]).replace("other.", "k.")


def test_batches_are_bounded() -> None:
    """By count and by bytes; a large item goes alone; nothing is left out, and the order stays."""
    small, large = [Put("r", f"{n}", b"x") for n in range(250)], [Put("r", f"l{n}", b"x" * 40_000) for n in range(3)]
    batches = list(_batches([*small, *large]))
    assert [item for batch in batches for item in batch] == [*small, *large]
    assert [len(batch) for batch in batches] == [BATCH_ITEMS, BATCH_ITEMS, 50, 1, 1, 1]
    middle = list(_batches([Put("r", f"{n}", b"x" * 1000) for n in range(99)]))
    assert all(sum(len(item.value) for item in batch) <= BATCH_BYTES for batch in middle)
    assert list(_batches([])) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoHostAvailable("none", {}), StoreUnavailable),  # nobody to send it to
        (Unavailable("x", consistency=ConsistencyLevel.LOCAL_SERIAL), StoreUnavailable),  # no quorum to begin with
        (
            Unavailable("x", consistency=ConsistencyLevel.LOCAL_QUORUM),
            OutcomeUnknown,
        ),  # accepted, then no quorum to commit
        (WriteTimeout("x", write_type=WriteType.CAS), OutcomeUnknown),
        (WriteTimeout("x", write_type=WriteType.SIMPLE), OutcomeUnknown),
        (OperationTimedOut(), OutcomeUnknown),
        (ConnectionShutdown("lost"), OutcomeUnknown),  # sent, and the connection broke
        (RuntimeError("anything else"), OutcomeUnknown),
    ],
)
def test_only_what_surely_did_not_happen_is_unavailable(error: Exception, kind: type[StoreError]) -> None:
    """A compare-and-set that may have happened is never said not to have."""
    assert type(_compare_and_set_error(error)) is kind


def test_a_bad_statement_is_neither() -> None:
    """It can't be cured by reading or by waiting."""
    assert type(_compare_and_set_error(InvalidRequest("x"))) is StoreError


class Request:
    """A driver's request that is never answered."""

    def add_callbacks(self, callback: Any, errback: Any) -> None:
        """Keeps nothing."""


class Bound(NamedTuple):
    values: tuple[Any, ...]


class Prepared:
    def bind(self, values: tuple[Any, ...]) -> Bound:
        return Bound(values)


class SilentSession:
    """A session whose server never answers; counts what was sent."""

    def __init__(self) -> None:
        self.sent = 0

    def execute_async(self, statement: Bound, execution_profile: object) -> Request:
        self.sent += 1
        return Request()


async def test_requests_under_way_are_bounded() -> None:
    """More than UNDER_WAY wait for their turn, and are turned away, counted and unsent, when it does not come."""
    session: Any = SilentSession()
    statements: Any = Statements(*(Prepared() for _ in Statements._fields))
    store = CassandraStore(session, statements, ManualClock())
    waiting = [asyncio.create_task(store.get("r", f"{n}")) for n in range(UNDER_WAY)]
    late = asyncio.create_task(store.compare_and_set("r", "k", b"", None))
    with pytest.raises(StoreUnavailable):
        await late
    assert (session.sent, store.turned_away) == (UNDER_WAY, 1)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


# A login


async def test_a_login_over_tls(cassandra_secured: SecuredCassandra) -> None:
    """The user makes its keyspace and uses both ports; a wrong password is told within 10 s."""
    name = uuid4().hex
    async with opened(cassandra_secured.url, cassandra_secured.password) as store:
        await store.put([Put(name, "key", b"1")])
        assert await store.get(name, "key") == b"1"
        assert await store.compare_and_set(name, "key", b"2", None) == Version(b"2", 1)
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable, match="credentials"):
            await open_store(cassandra_secured.url, "wrong")


# A schema


def keyspace_url(server: Server, name: str) -> str:
    return f"cassandra://{server.host}:{server.port}/{name}"


async def test_many_create_the_schema_at_once(cassandra_server: Server) -> None:
    """Each succeeds, and all see one store. Opened again, it is there."""
    url, name = keyspace_url(cassandra_server, f"k{uuid4().hex[:12]}"), uuid4().hex
    stores = await asyncio.gather(*(open_store(url) for _ in range(4)))
    try:
        await stores[0].put([Put(name, "key", b"1")])
        assert [await store.get(name, "key") for store in stores] == [b"1"] * 4
    finally:
        await asyncio.gather(*(store.close() for store in stores))
    async with opened(url) as store:
        assert await store.get(name, "key") == b"1"


async def test_a_table_of_somebody_else_is_refused(cassandra_server: Server) -> None:
    """Its name is there and its columns are others: nothing is changed, and the text names it."""
    store = await CassandraStore.open(cassandra_server.url)
    keyspace = f"k{uuid4().hex[:12]}"
    try:
        session: Session = store._session
        for statement in (
            keyspace_statement(keyspace, {"datacenter1": 1}),
            f"CREATE TABLE {keyspace}.items (id int PRIMARY KEY)",
        ):
            await asyncio.to_thread(session.execute, statement, timeout=20)
        with pytest.raises(StoreError, match=rf"table {keyspace}\.items is not a store's"):
            await open_store(keyspace_url(cassandra_server, keyspace))
    finally:
        await store.close()


# A server that vanishes


async def test_a_stopped_server(cassandra_server: Server) -> None:
    """Silent with its sockets open: reads and plain writes fail within 5 s, and a compare-and-set's outcome is unknown; once the
    server is back it happened or it did not, or still happens; in no case twice, and never after an item it no longer fits."""
    name = uuid4().hex
    async with opened(cassandra_server.url) as store:
        assert await store.compare_and_set(name, "key", b"mine 1", None) == Version(b"mine 1", 1)
        cassandra_server.stop()
        try:
            began = time.monotonic()
            unknown = asyncio.create_task(store.compare_and_set(name, "key", b"mine 2", 1))
            with pytest.raises(StoreUnavailable):
                await store.get(name, "key")
            with pytest.raises(StoreUnavailable):
                await store.put([Put(f"{name}/{n}", "key", b"") for n in range(LANES * 8)])
            with pytest.raises(OutcomeUnknown):
                await unknown
            assert time.monotonic() - began < 6
        finally:
            cassandra_server.cont()
            await asyncio.to_thread(cassandra_server.start)
        found = await read_again(store, name, "key")
        assert found is not None
        assert found in (Version(b"mine 1", 1), Version(b"mine 2", 2))
        if await store.compare_and_set(name, "key", b"mine 3", found.version) is None:  # the late one came in between
            assert await store.read(name, "key") == Version(b"mine 2", 2)
            assert await store.compare_and_set(name, "key", b"mine 3", 2)
        assert await store.read(name, "key") in (Version(b"mine 3", 2), Version(b"mine 3", 3))


async def test_a_compare_and_set_cut_off_in_mid_air(cassandra_server: Server) -> None:
    """The server is killed under eight of them: each is acknowledged and kept, or unknown, or surely not set; none is both
    refused as "not expected" and set. Afterwards the store finds its server by itself."""
    name = uuid4().hex
    async with opened(cassandra_server.url) as store:
        started = threading.Event()

        async def lane(key: str) -> tuple[str, int, StoreError | None]:
            version = 0
            while True:
                try:
                    done = await store.compare_and_set(name, key, f"{version + 1}".encode(), version or None)
                except StoreError as error:
                    return key, version, error
                assert done is not None, "nobody else sets this item"
                version = done.version
                if version == 10:
                    started.set()

        lanes = [asyncio.create_task(lane(f"{n}")) for n in range(8)]
        await asyncio.to_thread(started.wait, WITHIN)
        await asyncio.to_thread(cassandra_server.kill)
        ended = await asyncio.gather(*lanes)
        await asyncio.to_thread(cassandra_server.start)

        assert any(isinstance(error, OutcomeUnknown) for _, _, error in ended)
        for key, acknowledged, error in ended:
            found = await read_again(store, name, key)
            version = found.version if found else 0
            possible = {acknowledged, acknowledged + 1} if isinstance(error, OutcomeUnknown) else {acknowledged}
            assert version in possible
            assert await store.compare_and_set(name, key, b"after", version or None)
