"""`stagecast doctor`: each fault, planted alone, is found and says what to change."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from kv import StoreFacts, store_facts
from stagecast.cli import main
from stagecast.cli.doctor_checks import Finding, Machine, Wanted, check_log, check_machine, check_store
from stagecast.cli.doctor_machine import available, filesystem, read_machine
from stagecast.log import LogFacts, Topic, TopicFacts, log_facts
from stagecast.log.kafka import topic_config
from stagecast.settings import Settings
from stagecast.tokens import create_keys
from tests.servers import KafkaServer, Server

GOOD = Machine(
    descriptors=20_000, file_max=1_000_000, somaxconn=4096, syn_backlog=4096, syncookies=True, ports=(10240, 65535),
    tcp_mem=(100_000, 200_000, 400_000), page=4096, memory=4 << 30, conntrack=(10, 262_144), sqlite=None,
    sqlite_version="3.53.0", filesystem="ext4", data_mode=0o700, keys_mode=0o600, keys={"k1": ("ES256", True)},
    keys_problem="", wall=1_800_000_000_000, drift=0.001, synchronised=True,
)  # fmt: skip
WANTED = Wanted(workers=2, connections=18_000, files=True)


def faults(findings: Any) -> list[Finding]:
    return [one for one in findings if one.level != "ok"]


def test_a_good_machine_has_nothing_wrong() -> None:
    assert faults(check_machine(GOOD, WANTED)) == []


PLANTED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"descriptors": 1024}, "descriptors", "wrong", "ulimit -n 18500"),
    ({"file_max": 20_000}, "open files in all", "wrong", "fs.file-max=46000"),
    ({"somaxconn": 128}, "accept queue", "wrong", "net.core.somaxconn=4096"),
    ({"syncookies": False, "syn_backlog": 512}, "half-open connections", "wrong", "tcp_max_syn_backlog=4096"),
    ({"ports": (32768, 60999)}, "local ports", "advice", "ip_local_port_range"),
    ({"tcp_mem": (1000, 2000, 3000)}, "TCP memory", "wrong", "tcp_mem='36000 54000 72000'"),
    ({"memory": 100 << 20}, "memory", "wrong", "fewer workers"),
    ({"conntrack": (60_000, 65_536)}, "connection tracking", "wrong", "nf_conntrack_max=132000"),
    ({"sqlite": "SQLite 3.40.0 can corrupt"}, "SQLite", "wrong", "apsw"),
    ({"fan_out": "python"}, "fan-out", "advice", "pushy.native"),
    ({"fan_out": "native"}, "fan-out", "advice", "io_uring"),
    ({"filesystem": "nfs4"}, "file system", "wrong", "local disk"),
    ({"data_mode": 0o777}, "data folder", "wrong", "chmod 700"),
    ({"data_mode": 0o755}, "data folder", "advice", "chmod 700"),
    ({"keys": None, "keys_problem": "k.json: No such file"}, "device keys", "wrong", "stagecast key device"),
    ({"keys_mode": 0o644}, "device keys", "wrong", "chmod 600"),
    ({"keys": {"k1": ("HS256", True)}}, "device keys", "advice", "public keys only"),
    ({"wall": 0}, "clock", "wrong", "NTP"),
    ({"drift": -3600.0}, "clock", "wrong", "slew"),
    ({"synchronised": False}, "clock", "advice", "NTP"),
]


@pytest.mark.parametrize(("values", "name", "level", "change"), PLANTED)
def test_a_planted_fault_is_found(values: dict[str, Any], name: str, level: str, change: str) -> None:
    """Alone, under its name, with what to change."""
    (found,) = faults(check_machine(msgspec.structs.replace(GOOD, **values), WANTED))
    assert (found.name, found.level) == (name, level)
    assert change in found.change


def test_what_can_t_be_read_is_no_fault() -> None:
    """A container without /proc/sys is not wrong for that."""
    unread = dict.fromkeys(
        ("file_max", "somaxconn", "syn_backlog", "syncookies", "ports", "tcp_mem", "memory", "conntrack")
    )
    assert faults(check_machine(msgspec.structs.replace(GOOD, **unread, synchronised=None), WANTED)) == []


def test_public_keys_may_be_read_by_all() -> None:
    """A host needs no more, and nobody can sign by them."""
    public = msgspec.structs.replace(GOOD, keys={"k1": ("ES256", False)}, keys_mode=0o644)
    assert faults(check_machine(public, WANTED)) == []


def test_servers_of_ones_own_need_no_sqlite() -> None:
    """With Kafka and Cassandra the library and the file system do not matter."""
    old = msgspec.structs.replace(GOOD, sqlite="too old", filesystem="nfs")
    assert faults(check_machine(old, Wanted(1, 100, files=False))) == []


def topic(name: Topic = Topic.EVENTS, brokers: int = 3, other: dict[str, str] | None = None) -> TopicFacts:
    """As a log's own start makes it on so many brokers, but for `other` settings."""
    replicas, settings = topic_config(name, brokers)
    return TopicFacts(str(name), 12, replicas, settings | (other or {}))


def test_what_we_make_on_three_brokers_is_right() -> None:
    assert faults(check_log(LogFacts(3, (topic(), topic(Topic.RECEIPTS))))) == []
    assert faults(check_log(LogFacts(0))) == []


@pytest.mark.parametrize(
    ("setting", "value", "change"),
    [
        ("cleanup.policy", "compact", "cleanup.policy=delete"),
        ("cleanup.policy", "compact,delete", "cleanup.policy=delete"),
        ("retention.ms", "3600000", "retention.ms=86400000"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("unclean.leader.election.enable", "true", "enable=false"),
        ("min.insync.replicas", "1", "min.insync.replicas=2"),
    ],
)
def test_a_topic_that_breaks_a_promise(setting: str, value: str, change: str) -> None:
    """Each setting, with the command that puts it right."""
    (found,) = faults(check_log(LogFacts(3, (topic(other={setting: value}),))))
    assert (found.name, found.level) == ("stagecast.events", "wrong")
    assert change in found.change


def test_few_copies_are_wrong_only_where_there_could_be_more() -> None:
    """One broker, one node: advice. Three of them and one copy: wrong."""
    assert {one.level for one in faults(check_log(LogFacts(1, (topic(brokers=1),))))} == {"advice"}
    alone = topic(brokers=1, other={"min.insync.replicas": "2"})
    assert [one.level for one in faults(check_log(LogFacts(3, (alone,))))] == ["wrong"]
    few = StoreFacts({"dc1": 1}, 0, "dc1", "NetworkTopologyStrategy", {"dc1": 1}, "5.0")
    assert [one.level for one in faults(check_store(few))] == ["advice"]
    many = StoreFacts({"dc1": 3}, 0, "dc1", "NetworkTopologyStrategy", {"dc1": 1}, "5.0")
    (found,) = faults(check_store(many))
    assert found.level == "wrong"
    assert "'dc1': 3" in found.change


def test_settings_that_may_not_be_read_are_no_fault() -> None:
    """A host's user has the right to read and write, not to describe."""
    assert faults(check_log(LogFacts(3, (TopicFacts("stagecast.events", 12, 3, None),)))) == []


def test_a_store_s_faults() -> None:
    """A node that is down, a strategy that knows no data centres, clocks that part."""
    good = StoreFacts(
        {"dc1": 3, "dc2": 3}, 0, "dc1", "NetworkTopologyStrategy", {"dc1": 3, "dc2": 3}, "5.0", 1000, 1000
    )
    assert faults(check_store(good)) == []
    down = StoreFacts({"dc1": 3}, 1, "dc1", "NetworkTopologyStrategy", {"dc1": 3})
    assert [one.level for one in faults(check_store(down))] == ["advice"]
    simple = StoreFacts({"dc1": 3, "dc2": 3}, 0, "dc1", "SimpleStrategy", {"": 3})
    assert [one.level for one in faults(check_store(simple))] == ["wrong"]
    late = StoreFacts({"dc1": 3}, 0, "dc1", "NetworkTopologyStrategy", {"dc1": 3}, "5.0", 10_000, 5_000)
    (found,) = faults(check_store(late))
    assert (found.name, found.found) == ("clock against the store", "5000 ms behind the store's")


def test_the_deepest_mount_is_the_folders() -> None:
    """The last one of several at the same place; a space in a name is written \\040."""
    mounts = (
        "/dev/a / ext4 rw 0 0\nnas:/x /data nfs4 rw 0 0\n/dev/b /data\\040two xfs rw 0 0\ntmpfs /data tmpfs rw 0 0\n"
    )
    assert filesystem(mounts, Path("/home")) == "ext4"
    assert filesystem(mounts, Path("/data/stagecast")) == "tmpfs"
    assert filesystem(mounts, Path("/data two")) == "xfs"
    assert filesystem("", Path("/home")) == ""


def test_available_memory() -> None:
    assert available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n") == 1 << 20
    with pytest.raises(ValueError, match="no MemAvailable"):
        available("MemTotal: 9 kB\n")


def test_the_machine_is_read(tmp_path: Path) -> None:
    """From a planted /proc, and from the real one; a file that is no number counts as not there."""
    for name, text in {
        "sys/net/core/somaxconn": "128\n", "sys/net/ipv4/tcp_mem": "1\t2\t3\n", "sys/net/ipv4/tcp_syncookies": "0\n",
        "sys/net/ipv4/ip_local_port_range": "1024\t2048\n", "sys/net/netfilter/nf_conntrack_max": "7\n",
        "sys/net/netfilter/nf_conntrack_count": "5\n", "sys/fs/file-max": "many\n",
    }.items():  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    data = tmp_path / "data"
    data.mkdir(mode=0o750)
    settings = Settings(data=str(data))
    create_keys(settings.keys_file)
    read = read_machine(settings, tmp_path)
    assert (read.somaxconn, read.tcp_mem, read.syncookies, read.ports) == (128, (1, 2, 3), False, (1024, 2048))
    assert (read.conntrack, read.file_max, read.memory) == ((5, 7), None, None)
    assert (read.data_mode, read.keys_mode) == (0o750, 0o600)
    assert [algorithm for algorithm, _ in (read.keys or {}).values()] == ["HS256"]
    real = read_machine(settings)
    assert real.memory
    assert real.filesystem
    assert abs(real.drift) < 60


def doctor(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        main, ["doctor", *options], env={name: None for name in os.environ if "STAGECAST" in name}
    )
    return done.exit_code, done.output


def test_the_command_says_it_all(tmp_path: Path) -> None:
    """Status 1 while something is wrong; nothing is made on the way."""
    data = tmp_path / "data"
    code, text = doctor("--data", str(data), "--connections", "100")
    assert code == 1
    assert "WRONG   device keys" in text
    assert "stagecast key device" in text
    assert not data.exists()
    create_keys(data / "keys.json")
    code, text = doctor("--data", str(data), "--connections", "100", "--json")
    said = json.loads(text)
    assert (code, said["ok"]) == (0, True), text
    assert {"descriptors", "accept queue", "clock", "device keys"} <= {one["name"] for one in said["findings"]}


@pytest.mark.parametrize(
    ("option", "url"), [("--log", "kafka://no-port"), ("--store", "cassandra://127.0.0.1:1/stagecast")]
)
def test_a_server_that_can_t_be_asked(tmp_path: Path, option: str, url: str) -> None:
    """Because it does not answer, or its address is none: named with it, in one line."""
    create_keys(tmp_path / "keys.json")
    code, text = doctor("--data", str(tmp_path), option, url)
    assert code == 1
    (line,) = [line for line in text.splitlines() if line.startswith("WRONG")]
    assert url in line


async def test_a_real_broker_is_read(kafka_server: KafkaServer) -> None:
    """One broker: advice, and the settings of the topics that a start made."""
    from stagecast.log import open_log

    await (await open_log(kafka_server.url)).close()
    facts = await log_facts(kafka_server.url)
    assert facts.brokers == 1
    assert {one.name for one in facts.topics} == {"stagecast.events", "stagecast.receipts"}
    assert {one.level for one in faults(check_log(facts))} == {"advice"}


async def test_a_real_node_is_read(cassandra_server: Server) -> None:
    """One node: advice; its clock is this machine's."""
    from kv import open_store

    await (await open_store(cassandra_server.url)).close()
    facts = await store_facts(cassandra_server.url)
    assert list(facts.nodes.values()) == [1]
    assert facts.copies == {facts.home: 1}
    assert facts.clock is not None
    assert {one.level for one in faults(check_store(facts))} == {"advice"}
