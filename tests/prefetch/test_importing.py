"""Lines into items: what is taken, what is refused and why."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.importing import BAD_KEPT, LINE_BYTES_MAX, ImportState, Kind, Lines, Reader
from prefetch.stage_maps import Keyed
from prefetch.tastes import Member, StageWeights, Title, pack
from stagecast.wire.frames import StageMap

VERSION = "1764000000000-import"


def reader(kind: Kind) -> Reader:
    return Reader("final", 3, ImportState(kind, "d", VERSION), 3600.0)


def reason(kind: Kind, line: object, *before: object) -> str:
    """Why the line is refused, after lines that are not."""
    books = reader(kind)
    for one in (*before, line):
        data = one if isinstance(one, bytes) else msgspec.json.encode(one)
        books.read(data, len(data) + 1)
    assert books.state.bad_lines == 1
    assert books.state.bad[0].line == len(before) + 1
    return books.state.bad[0].reason


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.binary(max_size=5), st.data())
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], last: bytes, data: st.DataObject) -> None:
    """Whole or in pieces: the lines, and lengths that add up to the stream's."""
    last = last.replace(b"\n", b"")
    stream = b"".join(line + b"\n" for line in lines) + last
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    splitter = Lines()
    got: list[tuple[bytes | None, int]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got.extend(splitter.feed(stream[start:end]))
    got.extend(splitter.end())
    assert [line for line, _ in got] == lines + ([last] if last else [])
    assert sum(length for _, length in got) == len(stream)


def test_a_line_without_end_is_not_held() -> None:
    """Its bytes are counted and dropped; the next line is a line again."""
    splitter = Lines()
    got = []
    for _ in range(64):
        got += list(splitter.feed(b"x" * 10_000))
    got += list(splitter.feed(b"\nok\n"))
    assert got == [(None, 640_001), (b"ok", 3)]
    assert LINE_BYTES_MAX < 640_000


def test_each_kind_reads_its_lines() -> None:
    """Maps of members and cohorts, titles and stages' weights, members."""
    maps, titles, members = reader("maps"), reader("titles"), reader("members")
    assert maps.read(b'{"member":"m1","stages":{"live":["a"]},"default":["b"]}', 56) == Keyed(
        "m1", StageMap("final", 3, VERSION, {"live": ["a"]}, ["b"], 3600.0)
    )
    shared = maps.read(b'{"cohort":"de","stages":{}}', 28)
    assert isinstance(shared, Keyed)
    assert (shared.key, shared.map.cohort) == ("cohort:de", True)
    assert titles.read(b'{"id":"t","vector":[1,2],"genres":["x"],"popularity":3,"stages":{"live":1}}', 1) == Title(
        "t", pack([1, 2]), 3.0, ("x",), {"live": 1.0}
    )
    assert titles.read(b'{"stage":"live","genres":{"x":0.5}}', 1) == StageWeights("live", {"x": 0.5})
    assert members.read(b'{"id":"m1","vector":[1,2],"cohort":"de","more":1}', 1) == Member("m1", pack([1, 2]), "de")
    assert members.read(b'{"id":"m2"}', 1) == Member("m2")
    assert members.state.dims == 2


def test_empty_lines_are_no_error_and_no_item() -> None:
    """They count as lines, so that numbers agree with an editor's."""
    books = reader("members")
    assert books.read(b"  ", 3) is None
    assert (books.state.lines, books.state.bytes, books.state.imported, books.state.bad_lines) == (1, 3, 0, 0)


@pytest.mark.parametrize(
    ("kind", "line", "why"),
    [
        ("maps", b"{", "malformed|truncated"),
        ("maps", b"\xff{}", "malformed|invalid"),
        ("maps", {"stages": {}}, "name one"),
        ("maps", {"member": "m", "cohort": "c", "stages": {}}, "name one"),
        ("maps", {"member": "m"}, "required field `stages`"),
        ("maps", {"member": "m", "stages": {"gone": 1}}, "reserved"),
        ("maps", {"member": "m", "stages": {"No Stage": 1}}, "matching regex"),
        ("maps", {"member": "", "stages": {}}, "length"),
        ("maps", {"member": "cohort:x", "stages": {}}, "cohort:"),
        ("maps", {"member": "m", "stages": {"live": "x" * 70_000}}, "at most 65,536"),
        ("titles", {"vector": [1]}, "required field `id`"),
        ("titles", {"id": "t", "vector": ["x"]}, r"vector\[0\]|vector\[\.\.\.\]"),
        ("titles", {"id": "t", "popularity": None}, "popularity"),
        ("titles", {"stage": "live"}, "genres"),
        ("members", {"id": "m", "cohort": "no spaces"}, "matching regex"),
        ("members", {"id": "cohort:x"}, "cohort:"),
        ("members", {"id": "m", "vector": [1] * 3000}, "1 to 2048 numbers"),
        ("members", b'{"id":"m","vector":[NaN]}', "malformed|invalid"),
        ("members", b'{"id":"m","vector":[1e400]}', "range|<="),
        ("members", b'{"id":"m"', r"truncated \(byte 9\)"),
        ("members", b'{"id" "m"}', r"\(byte 6\)"),
        ("members", b"[" * 100_000, "malformed|depth|object|recursion|array"),
    ],
)
def test_a_bad_line_says_what_is_wrong(kind: Kind, line: object, why: str) -> None:
    """With its number, and the field where there is one."""
    assert re.search(why, reason(kind, line), re.IGNORECASE), reason(kind, line)


def test_vectors_of_another_length_are_refused() -> None:
    """The first one of the file (or of the titles) says how long."""
    assert "of 3 numbers; this event's have 2" in reason(
        "members", {"id": "b", "vector": [1, 2, 3]}, {"id": "a", "vector": [1, 2]}
    )


def test_reports_are_bounded() -> None:
    """A file that is all wrong is counted, and its first hundred lines are told."""
    books = reader("members")
    for _ in range(BAD_KEPT + 50):
        books.read(b"nonsense " * 100, 901)
    books.read(None, 300_000)
    assert books.state.bad_lines == BAD_KEPT + 51
    assert len(books.state.bad) == BAD_KEPT
    assert len(msgspec.json.encode(books.state)) < 64_000
