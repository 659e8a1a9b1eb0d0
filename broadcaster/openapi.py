"""`/openapi.json` (OpenAPI 3.1) from the table of operations; schemas by msgspec."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from broadcaster.bodies import ProblemView
from stagecast.access import Scope

_PROBLEMS = {
    400: "the body is not JSON",
    401: "no valid API key",
    403: "the key's scope does not allow this",
    404: "no such event",
    409: "the event's state does not allow it; `head` says where it is",
    410: "the event is gone",
    413: "the body is too long",
    422: "the request is wrong; `field` names where",
    503: "the store is down, or not ready: come back after `Retry-After`",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query or a header."""

    name: str
    where: str
    schema: dict[str, Any]
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: what routes and document are made from."""

    method: str
    path: str
    name: str
    summary: str
    scopes: tuple[Scope, ...]
    answer: Any
    body: Any = None
    status: int = 200
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    media: str = "application/json"


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The whole API as an OpenAPI 3.1 document."""
    kinds = [kind for one in operations for kind in (one.body, one.answer) if kind is not None]
    _, schemas = msgspec.json.schema_components([*kinds, ProblemView], ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stagecast broadcaster",
            "version": version,
            "description": "Run live events: every accepted transition reaches every device.",
        },
        "paths": paths,
        "components": {
            "schemas": _ecma(schemas),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}},
        },
    }


def _ecma(schema: Any) -> Any:
    """The schema with its patterns as JSON Schema wants them: ECMA-262 has no `\\A` and `\\Z`."""
    if isinstance(schema, dict):
        return {
            name: value.replace(r"\A", "^").replace(r"\Z", "$") if name == "pattern" else _ecma(value)
            for name, value in schema.items()
        }
    return [_ecma(value) for value in schema] if isinstance(schema, list) else schema


def _operation(one: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "security": [{"key": []}] if one.scopes else [],
        "responses": {str(one.status): _answer(one)},
    }
    if one.scopes:
        made["description"] = f"Scopes: {', '.join(one.scopes)}."
    parameters = [_parameter(parameter) for parameter in one.parameters]
    if "{id}" in one.path:
        pattern = {"type": "string", "pattern": "^[a-z0-9._-]{1,64}$"}
        parameters.insert(0, {"name": "id", "in": "path", "required": True, "schema": pattern})
    if parameters:
        made["parameters"] = parameters
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema(one.body)}}}
    for status in sorted({*one.problems, *((401, 403) if one.scopes else ())}):
        content = {"application/problem+json": {"schema": _schema(ProblemView)}}
        made["responses"][str(status)] = {"description": _PROBLEMS[status], "content": content}
    return made


def _answer(one: Operation) -> dict[str, Any]:
    schema = {"type": "object"} if one.answer is None else _schema(one.answer)
    if one.media != "application/json":
        schema = {"type": "string"}
    return {"description": one.summary, "content": {one.media: {"schema": schema}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _schema(kind: Any) -> Any:
    return msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")[0][0]
