"""Store and Conditional on Cassandra (cassandra-driver): `CassandraStore`. Its tables are in `cassandra_schema.py`.

A request goes out on the event loop's thread; its answer comes on the driver's own and crosses by `call_soon_threadsafe`: no
thread per query. A request without an answer fails after REQUEST seconds; lost connections are tried again twice a second.

A compare-and-set is sent once, never again by a retry or by speculation: a second attempt that met the first one's value would be
told "not applied" of a value that stands.
"""

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from cassandra import ConsistencyLevel, DriverException, InvalidRequest, Unavailable
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import (
    ConstantReconnectionPolicy,
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, PreparedStatement, Statement, tuple_factory

from kv.cassandra_schema import checked_keyspace, ensure_schema, replication
from kv.facts import StoreFacts
from kv.store import Item, OutcomeUnknown, Page, Put, Removal, StoreError, StoreUnavailable, Version
from stagecast.clock import Clock, SystemClock
from stagecast.server_url import ServerUrl, read_server_url

PUTS_MAX = 10_000
"""Items in one call of `put`."""
REQUEST = 2.0
"""Seconds until a request without an answer fails; also how long one waits for its turn."""
CONNECT_WITHIN = 10.0
SCHEMA_WITHIN = 30.0
HURRY = 0.25
"""Seconds after which a read is asked of a second node too; the first answer counts."""
UNDER_WAY = 128
"""Requests at most that are sent and not answered. From Python some 2,000 a second go out, so it is 60 ms of work."""
LANES = 32
"""Of these, for one call of `put` or `delete`."""
BATCH_BYTES = 32 * 1024
BATCH_ITEMS = 100
"""Written in one request. It is one record's, so one partition's: an unlogged batch that is one write to its replicas."""
PAGE_ROWS = 500
TTL_MAX = 20 * 365 * 24 * 3600
"""Seconds; Cassandra refuses more."""
CAS = "compare-and-set"
"""The driver's profile for what must not be sent twice."""

# For who asks for it: a stack trace for every lost connection is no service's log.
logging.getLogger("cassandra").addHandler(logging.NullHandler())

T = TypeVar("T")
Rows = Sequence[tuple[Any, ...]]


class Statements(NamedTuple):
    get: PreparedStatement
    first: PreparedStatement
    following: PreparedStatement
    put: PreparedStatement
    delete: PreparedStatement
    read: PreparedStatement
    insert: PreparedStatement
    update: PreparedStatement


class CassandraStore:
    """`KeyValue` on the nodes of a URL. Made by `open`."""

    def __init__(self, session: Session, statements: Statements, clock: Clock) -> None:
        self.turned_away = 0
        """Requests that found no turn within REQUEST seconds."""
        self._session = session
        self._do = statements
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Semaphore(UNDER_WAY)
        self._closed = False

    @classmethod
    async def open(cls, url: str, password: str | None = None, clock: Clock | None = None) -> Self:
        """See `open_store`. Creates the keyspace and its tables if they are missing, which the user must then be allowed."""
        server = read_server_url(url, password, "cassandra")
        keyspace = checked_keyspace(server.path)
        cluster = _cluster(server)
        try:
            session = await _blocking(CONNECT_WITHIN, cluster.connect)
            await _blocking(SCHEMA_WITHIN, ensure_schema, session, keyspace)
            statements = await _blocking(CONNECT_WITHIN, _prepare, session, keyspace)
        except BaseException as error:
            await asyncio.to_thread(cluster.shutdown)
            if isinstance(error, (DriverException, NoHostAvailable, TimeoutError)):
                raise StoreUnavailable(f"the store at {url!r}: {error or 'no answer'}") from error
            raise
        return cls(session, statements, clock or SystemClock())

    async def get(self, record: str, key: str) -> bytes | None:
        rows = await self._rows(self._do.get.bind((record, key)))
        return rows[0][0] if rows and not self._expired(rows[0][1]) else None

    async def put(self, items: Sequence[Put]) -> None:
        if len(items) > PUTS_MAX:
            raise ValueError(f"{len(items):,} items in one put, at most {PUTS_MAX:,} allowed")
        records: dict[str, dict[str, Put]] = {}
        for item in items:  # of an item named twice the later counts: in one batch both would have one timestamp
            records.setdefault(item.record, {})[item.key] = item
        await self._all(self._written, [batch for record in records.values() for batch in _batches(record.values())])

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        some = [list(keys[i : i + BATCH_ITEMS]) for i in range(0, len(keys), BATCH_ITEMS)]
        await self._all(lambda keys: self._do.delete.bind((record, keys)), some)

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        removed: set[tuple[str, str]] = set()
        for start in range(0, len(items), LANES):
            some = items[start : start + LANES]
            kept = await asyncio.gather(*(self.get(one.record, one.key) for one in some))
            meant = [one for one, value in zip(some, kept, strict=True) if one.means(value)]
            await asyncio.gather(*(self.delete(one.record, [one.key]) for one in meant))
            removed.update((one.record, one.key) for one in meant)
        return removed

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        wanted = min(PAGE_ROWS, max_bytes // 512 + 2)
        items: list[Item] = []
        size = 0
        while True:
            do = self._do
            query = do.first.bind((record, wanted)) if after is None else do.following.bind((record, after, wanted))
            rows = await self._rows(query)
            for key, value, expires in rows:
                after = key
                if self._expired(expires):
                    continue
                size += len(key.encode()) + len(value)
                if items and size > max_bytes:
                    return Page(items, items[-1].key)
                items.append(Item(key, value))
            if len(rows) < wanted:
                return Page(items, None)

    async def read(self, record: str, key: str) -> Version | None:
        rows = await self._rows(self._do.read.bind((record, key)))
        return Version(*rows[0]) if rows else None

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        version = 1 if expected is None else expected + 1
        if expected is None:
            statement = self._do.insert.bind((record, key, value, version))
        else:
            statement = self._do.update.bind((value, version, record, key, expected))
        rows, error = await self._sent(statement, CAS)
        if error is not None:
            raise _compare_and_set_error(error) from error
        return Version(value, version) if rows[0][0] else None

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._session.cluster.shutdown)

    def _expired(self, expires: int | None) -> bool:
        return expires is not None and 0 < expires <= self._clock.now()

    def _written(self, batch: Sequence[Put]) -> Statement:
        bound = [self._do.put.bind(self._row(item)) for item in batch]
        if len(bound) == 1:
            return bound[0]
        statement = BatchStatement(BatchType.UNLOGGED)
        statement.is_idempotent = True
        for one in bound:
            statement.add(one)
        return statement

    def _row(self, item: Put) -> tuple[str, str, bytes, int, int]:
        if item.ttl is None:
            return item.record, item.key, item.value, 0, 0
        expires = self._clock.now() + int(item.ttl * 1000)
        return item.record, item.key, item.value, expires, min(max(math.ceil(item.ttl), 0) + 1, TTL_MAX)

    async def _all(self, build: Callable[[T], Statement], batches: Sequence[T]) -> None:
        """Sends a statement for every batch, LANES at a time; the first failure ends it."""
        left = iter(batches)

        async def lane() -> None:
            for batch in left:
                await self._rows(build(batch))

        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in batches[:LANES]:
                    lanes.create_task(lane())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _rows(self, statement: Statement) -> Rows:
        rows, error = await self._sent(statement, EXEC_PROFILE_DEFAULT)
        match error:
            case None:
                return rows
            case InvalidRequest():
                raise StoreError(str(error)) from error
            case _:
                raise StoreUnavailable(_said(error)) from error

    async def _sent(self, statement: Statement, profile: object) -> tuple[Rows, Exception | None]:
        """Sends it in its turn, and returns the driver's answer. Raises StoreUnavailable when it was not sent."""
        await self._take_turn()
        try:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            answer: asyncio.Future[tuple[Rows, Exception | None]] = self._loop.create_future()
            request = self._session.execute_async(statement, execution_profile=profile)
            request.add_callbacks(partial(self._answered, answer), partial(self._failed, answer))
            async with asyncio.timeout(2 * REQUEST):  # the driver's own word comes first, if it comes at all
                return await answer
        except TimeoutError as silent:
            return (), silent
        finally:
            self._turn.release()

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(REQUEST):
                await self._turn.acquire()
        except TimeoutError as late:
            self.turned_away += 1
            raise StoreUnavailable(f"{UNDER_WAY} requests wait for an answer") from late

    def _answered(self, answer: asyncio.Future[Any], rows: Rows | None) -> None:
        self._cross(answer, (rows or (), None))

    def _failed(self, answer: asyncio.Future[Any], error: Exception) -> None:
        self._cross(answer, ((), error))

    def _cross(self, answer: asyncio.Future[Any], said: tuple[Rows, Exception | None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, answer, said)


def _settle(answer: asyncio.Future[Any], said: tuple[Rows, Exception | None]) -> None:
    if not answer.done():
        answer.set_result(said)


def _compare_and_set_error(error: Exception) -> StoreError:
    """What is known after the driver's `error`: only what was surely not sent or not begun is StoreUnavailable."""
    match error:
        case InvalidRequest():
            return StoreError(str(error))
        case NoHostAvailable():
            return StoreUnavailable(_said(error))
        case Unavailable(consistency=ConsistencyLevel.SERIAL | ConsistencyLevel.LOCAL_SERIAL):
            return StoreUnavailable(
                _said(error)
            )  # by Paxos' first phase; by the last, the commit, it names that one's level
        case _:
            return OutcomeUnknown(_said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _batches(items: Collection[Put]) -> Iterator[list[Put]]:
    """Items of one record, in pieces of one request each."""
    batch: list[Put] = []
    size = 0
    for item in items:
        weight = len(item.key) + len(item.value) + 64
        if batch and (len(batch) == BATCH_ITEMS or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += weight
    if batch:
        yield batch


def _cluster(server: ServerUrl) -> Cluster:
    def profile(**more: Any) -> ExecutionProfile:
        return ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=REQUEST,
            row_factory=tuple_factory,
            **more,
        )

    return Cluster(
        list(server.hosts),
        port=server.hosts[0][1],
        protocol_version=5,
        execution_profiles={
            EXEC_PROFILE_DEFAULT: profile(speculative_execution_policy=ConstantSpeculativeExecutionPolicy(HURRY, 1)),
            CAS: profile(retry_policy=FallthroughRetryPolicy()),
        },
        auth_provider=PlainTextAuthProvider(server.user, server.password) if server.user else None,
        ssl_context=ssl.create_default_context(cafile=server.tls) if server.tls else None,
        reconnection_policy=ConstantReconnectionPolicy(0.5, max_attempts=None),
        connect_timeout=5,
        control_connection_timeout=5,
        idle_heartbeat_interval=5,
        idle_heartbeat_timeout=5,
        # without it a request over 4 KB waits 45 ms for the answer to its first part
        sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


async def cassandra_facts(url: str, password: str | None = None) -> StoreFacts:
    """See `store_facts`."""
    server = read_server_url(url, password, "cassandra")
    cluster, clock = _cluster(server), SystemClock()
    try:
        session = await _blocking(CONNECT_WITHIN, cluster.connect)
        before = clock.now()
        ((version, home, there),) = await _blocking(
            CONNECT_WITHIN,
            session.execute,
            "SELECT release_version, data_center, toUnixTimestamp(now()) FROM system.local",
        )
        after = clock.now()
    except (DriverException, NoHostAvailable, TimeoutError) as error:
        raise StoreUnavailable(f"the store at {url!r}: {error or 'no answer'}") from error
    finally:
        await asyncio.to_thread(cluster.shutdown)
    keyspace = cluster.metadata.keyspaces.get(checked_keyspace(server.path))
    strategy, copies = replication(keyspace) if keyspace else ("", {})
    hosts = list(cluster.metadata.all_hosts())
    return StoreFacts(
        nodes={name: sum(host.datacenter == name for host in hosts) for name in {host.datacenter for host in hosts}},
        down=sum(not host.is_up for host in hosts),
        home=home,
        strategy=strategy,
        copies=copies,
        version=version,
        clock=there,
        asked=(before + after) // 2,
    )


def _prepare(session: Session, keyspace: str) -> Statements:
    items, conditional = f"{keyspace}.items", f"{keyspace}.conditional"
    made = Statements(
        get=session.prepare(f"SELECT value, expires FROM {items} WHERE record = ? AND key = ?"),
        first=session.prepare(f"SELECT key, value, expires FROM {items} WHERE record = ? LIMIT ?"),
        following=session.prepare(f"SELECT key, value, expires FROM {items} WHERE record = ? AND key > ? LIMIT ?"),
        put=session.prepare(f"INSERT INTO {items} (record, key, value, expires) VALUES (?, ?, ?, ?) USING TTL ?"),
        delete=session.prepare(f"DELETE FROM {items} WHERE record = ? AND key IN ?"),
        read=session.prepare(f"SELECT value, version FROM {conditional} WHERE record = ? AND key = ?"),
        insert=session.prepare(
            f"INSERT INTO {conditional} (record, key, value, version) VALUES (?, ?, ?, ?) IF NOT EXISTS"
        ),
        update=session.prepare(
            f"UPDATE {conditional} SET value = ?, version = ? WHERE record = ? AND key = ? IF version = ?"
        ),
    )
    for repeatable in (made.get, made.first, made.following, made.put, made.delete):
        repeatable.is_idempotent = True  # with the client's timestamps a write sent twice is one write
    # Sees every acknowledged compare-and-set, and finishes one that is half accepted. Not asked of two nodes at once: serial
    # reads hinder one another.
    made.read.consistency_level = ConsistencyLevel.LOCAL_SERIAL
    return made


async def _blocking(within: float, function: Any, *arguments: Any) -> Any:
    """Calls the driver in a thread. Raises TimeoutError after `within` seconds; the thread then ends by the driver's own ones."""
    calling = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    calling.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, also if nobody waits any more
    async with asyncio.timeout(within):
        return await asyncio.shield(calling)
