"""Plans as JSON and TOML files: read with errors that name line and field, written so that reading gives the same."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from stagecast.plan import PlanError, PlannedStage, plan_of

_FIELD = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_UNKNOWN = re.compile(r"unknown field `(\w+)`")
_JSON = json.JSONDecoder()

Part = str | int


def read_plan_file(file: Path) -> dict[str, Any]:
    """`{"plan": […], …}` of a JSON or TOML file, its stages checked; a JSON file may also be the list of stages alone. A file
    that can't be read or whose plan can't be ends the command, with the line and the field."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file}: not UTF-8") from error
    toml = file.suffix == ".toml"
    body = _parse(file, text, toml)
    bare = isinstance(body, list)
    if bare:
        body = {"plan": body}
    if not isinstance(body, dict):
        raise click.ClickException(f"{file}: a plan is a list of stages, or a table with `plan`")
    if "plan" in body:
        try:
            plan_of(msgspec.convert(body["plan"], list[PlannedStage]))
        except PlanError as error:
            _refuse(file, text, toml, bare, error.field, error.text)
        except msgspec.ValidationError as error:
            said, _, where = str(error).partition(" - at `")
            field = "$.plan" + where.rpartition("$")[2].rstrip("`")
            unknown = _UNKNOWN.search(said)
            _refuse(file, text, toml, bare, f"{field}.{unknown[1]}" if unknown else field, said)
    return body


def _parse(file: Path, text: str, toml: bool) -> Any:
    """Plain JSON values: TOML has times of its own."""
    try:
        return msgspec.to_builtins(tomllib.loads(text)) if toml else json.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{file}: {error}") from error
    except json.JSONDecodeError as error:
        raise click.ClickException(f"{file}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise click.ClickException(f"{file}: nested too deep") from error


def _refuse(file: Path, text: str, toml: bool, bare: bool, field: str, why: str) -> NoReturn:
    line = line_of(text, "$" + field.removeprefix("$.plan") if bare else field, toml=toml)
    raise click.ClickException(f"{file}, line {line}: {field}: {why}")


def line_of(text: str, field: str, *, toml: bool) -> int:
    """The line (from 1) where `field`, such as `$.plan[2].of`, stands in this document, or the nearest that it is in."""
    path: list[Part] = [name or int(number) for name, number in _FIELD.findall(field)]
    return _toml_line(text, path) if toml else text.count("\n", 0, _json_at(text, 0, path)) + 1


def _json_at(text: str, at: int, path: list[Part]) -> int:
    """Where the value at `path` begins, or the nearest one that holds it. The text is JSON."""
    at = _skip(text, at)
    if not path or text[at] not in "{[":
        return at
    start, wanted, place = at, path[0], 0
    inside = _skip(text, at + 1)
    while text[inside] not in "}]":
        name: Part = place
        value = inside
        if text[start] == "{":
            name, after = _JSON.raw_decode(text, inside)
            value = _skip(text, _skip(text, after) + 1)
        if name == wanted:
            return _json_at(text, value, path[1:])
        _, after = _JSON.raw_decode(text, value)
        after = _skip(text, after)
        inside = _skip(text, after + 1) if text[after] == "," else after
        place += 1
    return start


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _toml_line(text: str, path: list[Part]) -> int:
    """Finds `[[plan]]` headers and the keys below them; a plan written in one inline array is found as a whole."""
    found, place, inside = 1, -1, False
    names = [part for part in path if isinstance(part, str)]
    wanted = next((part for part in path if isinstance(part, int)), None)
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[", line):
            header = re.match(r"\s*\[\[\s*(\w+)\s*\]\]", line)
            place += bool(header and names and header[1] == names[0])
            inside = header is not None and place == wanted
            found = number if inside else found
        elif (key := re.match(r"""\s*["']?(\w+)["']?\s*=""", line)) and (
            (inside and key[1] == names[-1]) or (place < 0 and names[:1] == [key[1]])
        ):
            return number
    return found


def as_json(title: str, plan: list[dict[str, Any]]) -> str:
    """A plan file in JSON, a stage a line."""
    stages = ",\n".join(f"  {json.dumps(stage, ensure_ascii=False)}" for stage in plan)
    return f'{{"title": {json.dumps(title, ensure_ascii=False)}, "plan": [\n{stages}\n]}}\n'


def as_toml(title: str, plan: list[dict[str, Any]]) -> str:
    """The same in TOML, a table a stage; times are TOML's own."""
    parts = [f"title = {_toml_value('title', title)}\n"]
    for stage in plan:
        lines = [f"{name} = {_toml_value(name, value)}" for name, value in stage.items()]
        parts.append("\n".join(["[[plan]]", *lines]) + "\n")
    return "\n".join(parts)


def _toml_value(name: str, value: Any) -> str:
    """JSON's strings and booleans are TOML's, but for U+007F, which TOML wants escaped."""
    return str(value) if name == "at" else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
