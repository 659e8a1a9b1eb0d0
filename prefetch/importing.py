"""Imports: lines of NDJSON to stage maps, titles or members. A bad line is reported with its number and reason, the others go in.

Lines, by kind (unknown fields are ignored):

    maps     {"member": id, "stages": {stage: payload}, "default"?: payload}        or {"cohort": name, …} for a cohort's map
    titles   {"id": id, "vector"?: [numbers], "genres"?: [names], "popularity"?: number, "stages"?: {stage: boost}}
             or {"stage": name, "genres": {genre: boost}}: what that stage likes
    members  {"id": id, "vector"?: [numbers], "cohort"?: name, "seen"?: [title ids not to recommend]}

All vectors of an event have one length. Every line is one item under its id, so importing again changes nothing, and a later line
of the same id wins.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from prefetch.stage_maps import DEFAULT_COHORT, Keyed, MapTooLarge, cohort_key, encode_map
from prefetch.tastes import Cohort, Member, StageWeights, Title, TitleId, pack
from stagecast.names import GONE, MapVersion, MemberId, StageName
from stagecast.wire.frames import Payload, StageMap

Kind = Literal["maps", "titles", "members"]
KINDS: tuple[Kind, ...] = ("maps", "titles", "members")
LINE_BYTES_MAX = 256 << 10
BAD_KEPT = 100
"""Bad lines reported one by one; the rest are counted."""
REASON_MAX = 300
SEEN_MAX = 2000
"""Titles that one member may have seen."""

Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Imported = Keyed | Title | StageWeights | Member


class BadLine(Struct, frozen=True):
    line: int
    reason: str


class ImportState(Struct, frozen=True):
    """How far the import of one file is, as kept and answered."""

    kind: Kind
    digest: str
    version: MapVersion
    """Of the maps it imports."""
    lines: int = 0
    bytes: int = 0
    """Where to go on from: always the start of a line."""
    imported: int = 0
    bad_lines: int = 0
    bad: tuple[BadLine, ...] = ()
    dims: int = 0
    """Length of the vectors; 0: none seen yet."""
    complete: bool = False


class LineError(ValueError):
    """This line can't be imported; the text says why."""


class _MapLine(Struct, frozen=True):
    stages: dict[StageName, Payload]
    member: MemberId | None = None
    cohort: Cohort | None = None
    default: Payload = None


class _TitleLine(Struct, frozen=True):
    id: TitleId
    vector: list[Number] = []
    genres: list[str] = []
    popularity: Number = 0.0
    stages: dict[StageName, Number] = {}


class _WeightsLine(Struct, frozen=True):
    stage: StageName
    genres: dict[str, Number]


class _MemberLine(Struct, frozen=True):
    id: MemberId
    vector: list[Number] = []
    cohort: Cohort = DEFAULT_COHORT
    seen: Annotated[list[TitleId], Meta(max_length=SEEN_MAX)] = []


class _Probe(Struct, frozen=True):
    stage: Any = None
    id: Any = None


_map_line = msgspec.json.Decoder(_MapLine)
_title_line = msgspec.json.Decoder(_TitleLine)
_weights_line = msgspec.json.Decoder(_WeightsLine)
_member_line = msgspec.json.Decoder(_MemberLine)
_probe = msgspec.json.Decoder(_Probe)


class Lines:
    """Splits chunks into lines. A line over LINE_BYTES_MAX comes as None in place of its bytes, and is never held."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._dropped = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes | None, int]]:
        """Whole lines, each with its length in the stream (newline included)."""
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            self._add(piece)
            yield self._taken(1)
        self._add(pieces[-1])

    def end(self) -> Iterator[tuple[bytes | None, int]]:
        """The last line, if it has no newline."""
        if self._rest or self._dropped:
            yield self._taken(0)

    def _add(self, piece: bytes) -> None:
        if self._dropped or len(self._rest) + len(piece) > LINE_BYTES_MAX:
            self._dropped += len(self._rest) + len(piece)
            self._rest.clear()
        else:
            self._rest += piece

    def _taken(self, newline: int) -> tuple[bytes | None, int]:
        if self._dropped:
            taken: tuple[bytes | None, int] = (None, self._dropped + newline)
        else:
            taken = (bytes(self._rest), len(self._rest) + newline)
        self._dropped = 0
        self._rest.clear()
        return taken


class Reader:
    """Reads an event's lines into items, and keeps the books."""

    def __init__(self, event: str, gen: int, state: ImportState, map_ttl: float) -> None:
        self._event = event
        self._gen = gen
        self._map_ttl = map_ttl
        self.state = state

    def read(self, line: bytes | None, length: int) -> Imported | None:
        """The line's item, or None for an empty or bad one: it is in the books either way."""
        state = replace(self.state, lines=self.state.lines + 1, bytes=self.state.bytes + length)
        item: Imported | None = None
        try:
            if line is None:
                raise LineError(f"over {LINE_BYTES_MAX:,} bytes")
            item = self._item(line) if line.strip() else None
            imported = state.imported + (item is not None)
            state = replace(state, imported=imported, dims=self.state.dims)
        except (LineError, ValueError, RecursionError) as error:
            bad = BadLine(state.lines, _reason(error, line)[:REASON_MAX])
            kept = (*state.bad, bad) if len(state.bad) < BAD_KEPT else state.bad
            state = replace(state, bad_lines=state.bad_lines + 1, bad=kept)
        self.state = state
        return item

    def _item(self, line: bytes) -> Imported:
        match self.state.kind:
            case "maps":
                return self._map(_map_line.decode(line))
            case "members":
                return self._member(_member_line.decode(line))
            case "titles":
                probe = _probe.decode(line)
                if probe.stage is not None and probe.id is None:
                    weights = _weights_line.decode(line)
                    return StageWeights(weights.stage, weights.genres)
                return self._title(_title_line.decode(line))

    def _map(self, line: _MapLine) -> Keyed:
        if (line.member is None) == (line.cohort is None):
            raise LineError("a map is of a `member` or of a `cohort`: name one")
        if GONE in line.stages:
            raise LineError(f"{GONE!r} is reserved for deleted events")
        key = line.member if line.member is not None else cohort_key(line.cohort or DEFAULT_COHORT)
        stage_map = StageMap(
            self._event, self._gen, self.state.version, line.stages, line.default, self._map_ttl,
            cohort=line.cohort is not None,
        )  # fmt: skip
        encode_map(key, stage_map)
        return Keyed(key, stage_map)

    def _title(self, line: _TitleLine) -> Title:
        return Title(line.id, self._packed(line.vector), line.popularity, tuple(line.genres), line.stages)

    def _member(self, line: _MemberLine) -> Member:
        return Member(line.id, self._packed(line.vector), line.cohort, tuple(line.seen))

    def _packed(self, vector: list[float]) -> bytes:
        if not vector:
            return b""
        packed = pack(vector)
        if self.state.dims and len(vector) != self.state.dims:
            raise LineError(f"a vector of {len(vector)} numbers; this event's have {self.state.dims}")
        self.state = replace(self.state, dims=len(vector))
        return packed


def _reason(error: Exception, line: bytes | None) -> str:
    """What is wrong, and where: the decoder names the byte, but not of a line that is cut off."""
    if isinstance(error, msgspec.ValidationError) or not isinstance(error, msgspec.DecodeError) or "byte" in str(error):
        return str(error)
    return f"{error} (byte {len(line or b'')})"


__all__ = ["KINDS", "BadLine", "ImportState", "Imported", "Kind", "LineError", "Lines", "MapTooLarge", "Reader"]
