"""What Stagecast needs of its machine and its servers: values in, findings out. Pure.

Every finding that is not fine says what to change, ready to be pasted where that is possible.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from kv import StoreFacts
from pushy.doorway import BACKLOG
from stagecast.log import LogFacts, Topic, TopicFacts

Level = Literal["ok", "advice", "wrong"]

DESCRIPTORS_SPARE = 500
"""Of a worker, beyond its connections: handshakes under way, the link, files."""
USER_BYTES, KERNEL_BYTES = 2600, 5000
"""Of an idle connection."""
TCP_PAGES = 1
"""Of buffer memory for a connection in the middle of a fan-out."""
DRIFT_MAX = 0.05
"""Seconds by which wall and monotonic clock may part within a check."""
CLOCK_MAX_MS = 1000
CLOCK_LEAST = 1_764_000_000_000
"""Wall ms of when this was written: an earlier clock is not set."""
SHARED_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs"})
"""Where a WAL is not safe: it needs shared memory between the processes."""
COPIES = 3


class Finding(Struct, frozen=True):
    """`level` wrong: devices will be refused, or promises do not hold. Advice: better otherwise."""

    name: str
    level: Level
    found: str
    change: str = ""


class Machine(Struct, frozen=True):
    """What was read of this machine. None: it could not be read, or is not there."""

    descriptors: int
    """The hard limit of this process, which workers raise theirs to."""
    file_max: int | None
    somaxconn: int | None
    syn_backlog: int | None
    syncookies: bool | None
    ports: tuple[int, int] | None
    tcp_mem: tuple[int, int, int] | None
    """Pages: low, pressure, high."""
    page: int
    memory: int | None
    """Bytes available."""
    conntrack: tuple[int, int] | None
    """(entries, entries at most); None when connections are not tracked."""
    sqlite: str | None
    """What is wrong with the SQLite library; None if nothing is."""
    sqlite_version: str
    filesystem: str
    """Of the data folder."""
    data_mode: int | None
    """None: the folder is not there yet."""
    keys_mode: int | None
    keys: dict[str, tuple[str, bool]] | None
    """kid → (algorithm, whether it can sign)."""
    keys_problem: str
    wall: int
    drift: float
    """Seconds by which the wall clock went ahead of the monotonic one while it was looked at."""
    synchronised: bool | None
    """By the kernel's word (adjtimex)."""
    fan_out: str = "batched"
    """The way to the sockets that workers take here: batched, native or python."""


class Wanted(Struct, frozen=True):
    """What is to run here."""

    workers: int
    connections: int
    """Of one worker."""
    files: bool
    """Whether log or store is a SQLite file."""

    @property
    def total(self) -> int:
        return self.workers * self.connections


def check_machine(m: Machine, wanted: Wanted) -> Iterator[Finding]:
    yield _descriptors(m, wanted)
    yield _at_least("open files in all", m.file_max, wanted.total + 10_000, "sysctl -w fs.file-max={}")
    yield _at_least("accept queue", m.somaxconn, BACKLOG, "sysctl -w net.core.somaxconn={}")
    yield _syn_backlog(m)
    yield _ports(m, wanted)
    yield _tcp_memory(m, wanted)
    yield _memory(m, wanted)
    yield _conntrack(m, wanted)
    yield _fan_out(m)
    if wanted.files:
        yield _sqlite(m)
        yield _filesystem(m)
    yield _data_folder(m)
    yield from _keys(m)
    yield from _clock(m)


def _descriptors(m: Machine, wanted: Wanted) -> Finding:
    need = wanted.connections + DESCRIPTORS_SPARE
    found = f"{m.descriptors:,} for a process, {need:,} needed (setting connections = {wanted.connections:,})"
    if m.descriptors >= need:
        return Finding("descriptors", "ok", found)
    fewer = max(1, m.descriptors - DESCRIPTORS_SPARE)
    return Finding(
        "descriptors", "wrong", found,
        f"ulimit -n {need} before the start (systemd: LimitNOFILE={need}; docker: --ulimit nofile={need}), "
        f"or connections = {fewer} and more workers",
    )  # fmt: skip


def _at_least(name: str, value: int | None, need: int, change: str) -> Finding:
    if value is None:
        return Finding(name, "ok", "can't be read here")
    found = f"{value:,}, {need:,} needed"
    return Finding(name, "ok", found) if value >= need else Finding(name, "wrong", found, change.format(need))


def _syn_backlog(m: Machine) -> Finding:
    if m.syncookies:
        return Finding("half-open connections", "ok", "SYN cookies are on")
    return _at_least("half-open connections", m.syn_backlog, BACKLOG, "sysctl -w net.ipv4.tcp_max_syn_backlog={}")


def _ports(m: Machine, wanted: Wanted) -> Finding:
    if m.ports is None:
        return Finding("local ports", "ok", "can't be read here")
    span = m.ports[1] - m.ports[0] + 1
    found = f"{m.ports[0]} to {m.ports[1]}: {span:,} connections from one address to one address and port"
    if span >= wanted.total:
        return Finding("local ports", "ok", found)
    change = "only where a TLS proxy or a load test runs here: sysctl -w net.ipv4.ip_local_port_range='10240 65535'"
    return Finding("local ports", "advice", found, f"{change}, or more source addresses")


def _tcp_memory(m: Machine, wanted: Wanted) -> Finding:
    if m.tcp_mem is None:
        return Finding("TCP memory", "ok", "can't be read here")
    need = wanted.total * TCP_PAGES
    found = f"pressure at {m.tcp_mem[1]:,} pages, {need:,} in a fan-out to {wanted.total:,} devices"
    if m.tcp_mem[1] >= need:
        return Finding("TCP memory", "ok", found)
    change = f"sysctl -w net.ipv4.tcp_mem='{need} {need * 3 // 2} {need * 2}'"
    return Finding("TCP memory", "wrong", found, change)


def _memory(m: Machine, wanted: Wanted) -> Finding:
    if m.memory is None:
        return Finding("memory", "ok", "can't be read here")
    need = wanted.total * (USER_BYTES + KERNEL_BYTES)
    found = f"{m.memory >> 20:,} MB available, {need >> 20:,} MB for {wanted.total:,} idle connections"
    if m.memory >= need:
        return Finding("memory", "ok", found)
    return Finding("memory", "wrong", found, "fewer workers, or fewer connections per worker, or a larger machine")


def _conntrack(m: Machine, wanted: Wanted) -> Finding:
    if m.conntrack is None:
        return Finding("connection tracking", "ok", "off")
    entries, most = m.conntrack
    found = f"{entries:,} of {most:,} entries, {wanted.total:,} connections to come"
    need = entries + 2 * wanted.total
    if most >= need:
        return Finding("connection tracking", "ok", found)
    return Finding(
        "connection tracking", "wrong", found,
        f"a full table drops packets in silence: sysctl -w net.netfilter.nf_conntrack_max={need}, "
        "or do not track the devices' port (nftables: notrack)",
    )  # fmt: skip


def _fan_out(m: Machine) -> Finding:
    match m.fan_out:
        case "python":
            change = "apt-get install gcc python3-dev; python -m pushy.native"
            return Finding(
                "fan-out", "advice", "python: half as much CPU again for a delivery, twice for a connect", change
            )
        case "native":
            change = "allow io_uring: sysctl -w kernel.io_uring_disabled=0, and in a container its seccomp profile"
            return Finding("fan-out", "advice", "native: a system call for each device", change)
        case way:
            return Finding("fan-out", "ok", way)


def _sqlite(m: Machine) -> Finding:
    if m.sqlite is None:
        return Finding("SQLite", "ok", m.sqlite_version)
    return Finding("SQLite", "wrong", m.sqlite, "pip install --upgrade apsw")


def _filesystem(m: Machine) -> Finding:
    if m.filesystem not in SHARED_FILESYSTEMS:
        return Finding("file system", "ok", m.filesystem or "can't be read here")
    change = "put --data on a local disk: a WAL over the network can be corrupted"
    return Finding("file system", "wrong", f"{m.filesystem} under the data folder", change)


def _data_folder(m: Machine) -> Finding:
    if m.data_mode is None:
        return Finding("data folder", "ok", "not there yet: it is made at the start, 0700")
    found = f"mode {m.data_mode:04o}"
    if m.data_mode & 0o022:
        return Finding("data folder", "wrong", f"{found}: others can write to it", "chmod 700 DATA")
    if m.data_mode & 0o044:
        return Finding("data folder", "advice", f"{found}: others can list it", "chmod 700 DATA")
    return Finding("data folder", "ok", found)


def _keys(m: Machine) -> Iterator[Finding]:
    if m.keys is None:
        yield Finding("device keys", "wrong", m.keys_problem, "stagecast key device, or name the file with --keys")
        return
    algorithms = ", ".join(f"{kid}: {algorithm}" for kid, (algorithm, _) in m.keys.items())
    secret = any(signs for _, signs in m.keys.values())
    mode = m.keys_mode or 0
    if secret and mode & 0o077:
        who = "group" if not mode & 0o007 else "everybody"
        yield Finding(
            "device keys", "wrong", f"mode {mode:04o}: {who} can read keys that sign tokens", "chmod 600 KEYS"
        )
    elif any(algorithm == "HS256" for algorithm, _ in m.keys.values()):
        yield Finding(
            "device keys", "advice", algorithms,
            "who verifies by HS256 can sign as well: on hosts keep public keys only (ES256 or EdDSA)",
        )  # fmt: skip
    else:
        yield Finding("device keys", "ok", algorithms)


def _clock(m: Machine) -> Iterator[Finding]:
    if m.wall < CLOCK_LEAST:
        yield Finding("clock", "wrong", "set in the past", "set it, and keep it by NTP (chrony, systemd-timesyncd)")
    elif abs(m.drift) > DRIFT_MAX:
        found = f"the wall clock went {m.drift * 1000:+.0f} ms against the monotonic one while it was looked at"
        yield Finding("clock", "wrong", found, "something steps it: let NTP slew it")
    elif m.synchronised is False:
        found = "the kernel says that nothing keeps it (adjtimex)"
        yield Finding("clock", "advice", found, "keep it by NTP: plans fire by it, tokens expire by it")
    else:
        yield Finding("clock", "ok", "kept by NTP" if m.synchronised else "plausible; who keeps it can't be read here")


def check_log(facts: LogFacts) -> Iterator[Finding]:
    if not facts.brokers:
        yield Finding("log", "ok", "a file of this machine")
        return
    small = facts.brokers < COPIES
    yield Finding(
        "Kafka", "advice" if small else "ok", f"answers, {facts.brokers} brokers",
        "three brokers, to lose one without losing the log" if small else "",
    )  # fmt: skip
    names = {topic.name for topic in facts.topics}
    for missing in sorted(str(topic) for topic in Topic if str(topic) not in names):
        yield Finding(missing, "ok", "missing, or not for this user; made at the first start of one that may")
    for topic in facts.topics:
        yield from _topic(topic, small)


Rule = tuple[str, Callable[[str], bool], str, str]


def _topic(topic: TopicFacts, small: bool) -> Iterator[Finding]:
    if topic.replicas < COPIES:
        found = f"{topic.replicas} replicas"
        change = "kafka-reassign-partitions.sh to three brokers"
        yield Finding(topic.name, "advice" if small else "wrong", found, change)
    if topic.settings is None:
        yield Finding(topic.name, "ok", f"{topic.partitions} partitions; this user may not read the settings")
        return
    fine = True
    for name, good, wanted, why in _topic_rules(topic, small):
        value = topic.settings.get(name, "")
        if not good(value):
            fine = False
            change = f"kafka-configs.sh --alter --topic {topic.name} --add-config {name}={wanted}"
            yield Finding(topic.name, "wrong", f"{name} = {value}: {why}", change)
    if fine:
        yield Finding(
            topic.name, "ok", f"{topic.partitions} partitions, {topic.replicas} replicas, settings as they should be"
        )


def _topic_rules(topic: TopicFacts, small: bool) -> Iterator[Rule]:
    retention = Topic(topic.name).retention * 1000
    yield (
        "cleanup.policy", lambda value: value == "delete", "delete",
        "a compacted log can keep an older broadcast after a newer one",
    )  # fmt: skip
    yield (
        "retention.ms", lambda value: value == "-1" or int(value or 0) >= retention, str(retention),
        "records must outlast whoever reads late",
    )  # fmt: skip
    yield (
        "message.timestamp.type", lambda value: value == "LogAppendTime", "LogAppendTime",
        "readers go by when the log took a record",
    )  # fmt: skip
    yield (
        "unclean.leader.election.enable", lambda value: value == "false", "false",
        "a broker that was behind must not lead: acknowledged broadcasts would be gone",
    )  # fmt: skip
    if not small:
        yield (
            "min.insync.replicas", lambda value: int(value or 0) >= 2, "2",
            "an acknowledged broadcast must survive a broker",
        )  # fmt: skip


def check_store(facts: StoreFacts) -> Iterator[Finding]:
    if not facts.nodes:
        yield Finding("store", "ok", "a file of this machine")
        return
    total = sum(facts.nodes.values())
    found = f"answers, version {facts.version}, {total - facts.down} of {total} nodes up"
    if facts.down:
        yield Finding("Cassandra", "advice", found, "bring the others back: `nodetool status` names them")
    else:
        yield Finding("Cassandra", "ok", found)
    yield _replication(facts)
    if facts.clock is not None:
        ahead = facts.asked - facts.clock
        found = f"{abs(ahead)} ms {'ahead of' if ahead >= 0 else 'behind'} the store's"
        wrong = abs(ahead) > CLOCK_MAX_MS
        change = "keep both by NTP: writes are ordered by time" if wrong else ""
        yield Finding("clock against the store", "wrong" if wrong else "ok", found, change)


def _replication(facts: StoreFacts) -> Finding:
    if not facts.strategy:
        return Finding("keyspace", "ok", "missing: made at the first start, with what the number of nodes allows")
    copies = facts.copies.get(facts.home, facts.copies.get("", 0))
    found = f"{facts.strategy}, {copies} copies in {facts.home}"
    if facts.strategy != "NetworkTopologyStrategy" and len(facts.nodes) > 1:
        return Finding("keyspace", "wrong", f"{found}, over {len(facts.nodes)} data centres", _alter(facts))
    if copies >= COPIES:
        return Finding("keyspace", "ok", found)
    small = facts.nodes.get(facts.home, 0) < COPIES
    more = "three nodes, then " if small else ""
    return Finding("keyspace", "advice" if small else "wrong", found, more + _alter(facts))


def _alter(facts: StoreFacts) -> str:
    replication = f"{{'class': 'NetworkTopologyStrategy', '{facts.home}': {COPIES}}}"
    return f"ALTER KEYSPACE … WITH replication = {replication}; then nodetool repair"
