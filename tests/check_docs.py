"""The documents against the code: `python -m tests.check_docs` fails when they differ, `--write` brings them up to date.

A page holds tables between `<!-- made: NAME -->` and `<!-- end -->`; they are made here from the code. Besides, every relative
link must lead to a file.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.inspect import Field, StructType, UnionType, type_info
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from broadcaster.service import compose
from prefetch.metrics import Metrics as PrefetchMetrics
from pushy.admission import REMEMBERED_MAX
from pushy.catalogue import FEED, WORKER
from pushy.handshake import FIELDS_MAX, REQUEST_BYTES_MAX
from pushy.hub import EVENTS_FOLLOWED_MAX
from pushy.limits import PENDING_MAX, PENDING_PER_ADDRESS
from pushy.metrics import SERIES_MAX
from pushy.rfc6455 import Limits
from pushy.worker import Options
from stagecast.bounded_http import HEAD_BYTES_MAX, HEAD_DEADLINE
from stagecast.broadcast import BROADCAST_BYTES_MAX
from stagecast.clock import SystemClock
from stagecast.http import BODY_MAX
from stagecast.settings import PREFIX, Settings
from stagecast.wire import frames
from stagecast.wire.closing import CloseCode, come_back

ROOT = Path(__file__).parent.parent
_MADE = re.compile(r"(<!-- made: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("CHANGELOG.md"))]


def table(head: str, rows: Iterator[tuple[str, ...]]) -> str:
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def device_frames() -> str:
    return table("`t`|fields", _frames(frames.DeviceFrame))


def node_frames() -> str:
    return table("`t`|fields", _frames(frames.NodeFrame))


def _frames(union: Any) -> Iterator[tuple[str, ...]]:
    info = type_info(union)
    assert isinstance(info, UnionType)
    for frame in info.types:
        assert isinstance(frame, StructType)
        yield f"`{frame.tag}`", ", ".join(_field(field) for field in frame.fields)


def _field(field: Field) -> str:
    optional = "" if field.required else "?"
    return f"`{field.encode_name}`{optional}: {_kind(field.type)}"


def _kind(kind: msgspec.inspect.Type) -> str:
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _kind(inner)
        case StructType(cls=cls):
            return {"Position": "position", "State": "`state`", "AckPolicy": "{p: integer, w: integer}"}[cls.__name__]
        case msgspec.inspect.ListType(item_type=item):
            return f"[{_kind(item)}]"
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return f"{{{_kind(key)}: {_kind(value)}}}"
        case msgspec.inspect.TupleType(item_types=items):
            return f"[{', '.join(_kind(item) for item in items)}]"
        case msgspec.inspect.LiteralType(values=values):
            return " \\| ".join(f"`{value}`" for value in values)
        case UnionType(types=types):
            return " or ".join(dict.fromkeys(_kind(one) for one in types))
    names = {
        "StrType": "text",
        "IntType": "integer",
        "FloatType": "number",
        "BoolType": "true/false",
        "AnyType": "any JSON",
    }
    return names.get(type(kind).__name__, "null" if type(kind).__name__ == "NoneType" else type(kind).__name__)


def close_codes() -> str:
    rows = ((str(code.value), code.name.lower().replace("_", " "), come_back(code).value) for code in CloseCode)
    return table("code|name|the device", rows)


def limits() -> str:
    rows = [
        ("frame from a device", f"{frames.DEVICE_FRAME_BYTES_MAX // 1024} KiB"),
        ("`state` frame to a device", f"{BROADCAST_BYTES_MAX} bytes"),
        ("other frame to a device", f"{frames.NODE_FRAME_BYTES_MAX // 1024} KiB"),
        ("messages from a device", f"{frames.MESSAGES_MAX} per {frames.MESSAGES_WINDOW:g} s; asked acks do not count"),
        ("events followed by a connection", str(frames.EVENTS_MAX)),
        ("open to `hello`", f"{frames.HELLO_DEADLINE:g} s"),
    ]
    return table("what|at most", iter(rows))


def defences() -> str:
    """What a client may cost a worker, each figure from where it is kept."""
    worker, frame, default = Options(), Limits(frames.DEVICE_FRAME_BYTES_MAX), Settings()
    rows = [
        ("handshake request", f"{REQUEST_BYTES_MAX // 1024} KiB, {FIELDS_MAX} fields", "400"),
        ("TCP connection to whole request", f"{worker.handshake_deadline:g} s, however it drips in", "cut"),
        ("upgrade to `hello`", f"{worker.hello_deadline:g} s", "4008"),
        ("message", f"{frame.message // 1024} KiB, by its declared length", "1009"),
        ("frames of one message", f"{frame.fragments}, empty ones too", "1009"),
        ("frames in one read", str(frame.burst), "1008"),
        (
            "messages, pings and pongs, acks not asked for",
            f"{frames.MESSAGES_MAX} per {frames.MESSAGES_WINDOW:g} s",
            "4029",
        ),
        ("events of one connection", str(frames.EVENTS_MAX), "`too_many_events`"),
        ("events of one worker", f"{EVENTS_FOLLOWED_MAX:,}", "`unavailable`"),
        ("sessions of one worker", f"`connections` ({default.connections:,})", "503 with `Retry-After`"),
        ("TCP connections of one worker", f"`connections` + {PENDING_MAX:,}", "cut"),
        ("sessions of one address", "`connections_per_address` (0: no limit)", "503 with `Retry-After`"),
        ("TCP connections of one address", f"2 × `connections_per_address` + {PENDING_PER_ADDRESS}", "cut"),
        ("unsent bytes without progress", f"{worker.slow_after:g} s; nothing is read meanwhile", "4002"),
        ("silence", f"{default.ping * frames.SILENCE_FACTOR:g} s at the default `ping`", "4008"),
        ("life of a connection", f"`lifetime` ({default.lifetime:g} s)", "4001"),
        ("tokens whose check is remembered, per worker", f"{REMEMBERED_MAX:,}, the oldest go", ""),
        ("head of an API request", f"{HEAD_BYTES_MAX // 1024} KiB", "431"),
        ("connection to whole head of an API request", f"{HEAD_DEADLINE:g} s", "cut"),
        ("body of an API request", f"{BODY_MAX >> 20} MiB", "413"),
        ("metric series of one worker", f"{SERIES_MAX:,}", "not shown"),
    ]
    return table("what|at most|over it", iter(rows))


def settings() -> str:
    info = type_info(Settings)
    assert isinstance(info, StructType)
    return table("setting|environment|default|meaning", _settings(info))


def _settings(info: StructType) -> Iterator[tuple[str, ...]]:
    defaults = Settings()
    for field in info.fields:
        assert isinstance(field.type, msgspec.inspect.Metadata)
        meaning = (field.type.extra_json_schema or {})["description"]
        default = getattr(defaults, field.name)
        yield f"`{field.name}`", f"`{PREFIX}{field.name.upper()}`", _shown(default), meaning.replace("|", "\\|")


def _shown(default: object) -> str:
    match default:
        case bool():
            return str(default).lower()
        case int() | float():
            return f"{default:g}" if isinstance(default, float) else str(default)
    return str(default or "")


def metrics() -> str:
    """Of a host by its catalogue; of the other services by what they show before anything has happened."""
    host = [(one.name, one.kind, ", ".join(one.labels), one.says) for one in (*FEED, *WORKER)]
    nothing: Any = None  # the parts are put together and never run
    parts, _, _ = compose(nothing, nothing, SystemClock())
    pages = parts.metrics.exposition() + PrefetchMetrics().render()
    families = [one for one in text_string_to_metric_families(pages.decode()) if not one.name.endswith("_created")]
    others = [(_full_name(one), one.type, "", one.documentation) for one in families]
    rows = ((f"`{name}`", kind, labels, says.replace("|", "\\|")) for name, kind, labels, says in (*host, *others))
    return table("metric|type|labels|what it says", rows)


def _full_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


MADE: dict[str, Callable[[], str]] = {
    "device-frames": device_frames,
    "node-frames": node_frames,
    "close-codes": close_codes,
    "limits": limits,
    "defences": defences,
    "settings": settings,
    "metrics": metrics,
}


def renewed(text: str) -> str:
    """The page with its tables made anew. Raises KeyError for a name that is no table."""
    return _MADE.sub(lambda found: found[1] + MADE[found[2]]() + found[4], text)


def problems(page: Path) -> Iterator[str]:
    text, where = page.read_text(), page.relative_to(ROOT)
    if renewed(text) != text:
        yield f"{where}: a table is not what the code says; `python -m tests.check_docs --write` renews it"
    for target in _LINK.findall(text):
        if not (page.parent / target).exists():
            yield f"{where}: the link {target} leads nowhere"


def main(write: bool) -> int:
    if write:
        for page in pages():
            page.write_text(renewed(page.read_text()))
    found = [problem for page in pages() for problem in problems(page)]
    print("\n".join(found) or f"{len(pages())} documents agree with the code")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
