"""The OpenAPI document: bodies that we read ourselves, and the problems every route can answer.

It is made for generators of clients. What a caller may leave out is optional and has no default, because some
generators treat a property with a default as required. Properties of answers are always required.
"""

from collections.abc import Iterator, Set
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.contract.examples import BODIES
from app.api.contract.models import Problem
from app.api.contract.naming import KEYED, camel_case
from app.api.contract.problems import MEDIA_TYPE

_BODIES: list[type[BaseModel]] = []
_EVENTS: list[type[BaseModel]] = []

DESCRIPTION = """\
Registers Windows Autopilot devices on customers' behalf through Microsoft Partner Center.

* Every call needs `Authorization: Bearer <API key>`, except health and the error codes.
* Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details with a `code` of
  `GET /v1/error-codes` and what to do about it.
* Every POST that creates honours `Idempotency-Key`.
* Each API key has a number of calls a minute: `RateLimit` says how many are left. Beyond it comes 429.
* Lists are paged by `page_size` and `page_token`. A token belongs to its list and its filters.
* JSON answers to GET have an `ETag`; with `If-None-Match`, 304 says that nothing has changed.
* Answers over 1 kB are compressed with gzip, Brotli or Zstandard if the caller accepts it.
* Webhooks follow [Standard Webhooks](https://www.standardwebhooks.com).
"""

_PROBLEMS = {
    "400": "The body is not JSON.",
    "401": "No valid API key.",
    "403": "The API key may not do this.",
    "404": "Unknown, or another partner's.",
    "409": "The present state does not allow it.",
    "413": "Over a limit.",
    "415": "Not JSON by its content type, or in a content coding that is not read.",
    "422": "Understood, but it cannot be done.",
    "429": "Too many calls with this API key; see `Retry-After`. Nothing was done.",
    "500": "Something went wrong inside Registrar.",
    "503": "Not now; see `Retry-After`.",
}
_HEADERS = {
    "RateLimit-Policy": (
        "The limit of calls with one API key: `q` calls in `w` seconds "
        "(draft-ietf-httpapi-ratelimit-headers). Left out while there is none.",
        {"type": "string", "examples": ['"default";q=3000;w=60']},
    ),
    "RateLimit": (
        "This API key has `r` calls left for the next `t` seconds. Then it has all of them again.",
        {"type": "string", "examples": ['"default";r=2950;t=42']},
    ),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0}),
    "ETag": (
        "A tag of the answer's content. Send it as `If-None-Match` to learn whether it has changed.",
        {"type": "string", "examples": ['W/"2c26b46b68ffc68ff99b453c1d304134"']},
    ),
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "`ETag` of the answer you have: 304 if it is still the present one.",
    "schema": {"type": "string"},
}
_WITHOUT_KEY = "401"
"""A route without a key, whose calls are not counted."""
_WITH_RETRY_AFTER = frozenset({"429", "503"})
_WITH_BODY = frozenset({"400", "413", "415"})
_WITH_CONFLICT = frozenset({"post", "patch", "delete"})

ASKS_MICROSOFT: dict[int | str, dict[str, Any]] = {
    502: {"description": "Microsoft refused.", "content": {MEDIA_TYPE: {}}},
}
"""For routes that call Microsoft while the caller waits."""

CONFLICTS: dict[int | str, dict[str, Any]] = {
    409: {"description": _PROBLEMS["409"], "content": {MEDIA_TYPE: {}}},
}
"""For routes that read, and may find nothing to read in the present state."""

ASKS_FOR_A_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""`openapi_extra` for a route whose body is a file. It takes `text/csv` too, which generators do not know."""


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` for a route that reads its body itself."""
    if model not in _BODIES:
        _BODIES.append(model)
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if model.__name__ in BODIES:
        content["example"] = BODIES[model.__name__]
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def event_of(model: type[BaseModel], type_name: str) -> dict[str, Any]:
    """`openapi_extra` for a webhook: the model, with the one type of event that arrives there."""
    if model not in _EVENTS:
        _EVENTS.append(model)
    only = {"type": "object", "properties": {"type": {"const": type_name}}, "required": ["type"]}
    schema = {"allOf": [{"$ref": f"#/components/schemas/{model.__name__}"}, only]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def upload_of(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route whose body is a file, bare or in a form whose fields are the model's."""
    fields = _fields(model.model_json_schema(ref_template="#/components/schemas/{model}"))
    file = {"type": "string", "format": "binary", "description": "The file; it needs a file name."}
    form = {"type": "object", "properties": {"file": file, **fields}, "required": ["file"]}
    content = {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        description=DESCRIPTION,
        routes=app.routes,
        webhooks=app.webhooks.routes,
        tags=app.openapi_tags,
        servers=[{"url": app.state.public_url or "/", "description": "This installation."}],
    )
    components = document.setdefault("components", {})
    components["schemas"] = _schemas(components.get("schemas", {}))
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of the partner."}
    }
    components["headers"] = {
        name: {"description": words, "schema": shape} for name, (words, shape) in _HEADERS.items()
    }
    keyed = set(_keyed(app))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe(method, operation, is_open=(method, path) not in keyed, path=path)
    for name, webhook in document.get("webhooks", {}).items():
        # Webhooks are calls by Registrar: receivers choose their answers, and API keys do not apply.
        webhook["post"] |= {
            "responses": {"2XX": {"description": "Received."}},
            "security": [],
            "operationId": camel_case(f"on.{name}"),
        }
    return document


def _schemas(found: dict[str, Any]) -> dict[str, Any]:
    """All schemas by name: FastAPI's and ours, without those that are never sent."""
    schemas = {name: _answer(schema) for name, schema in found.items() if name not in _NEVER_SENT}
    written: list[type[BaseModel]] = [*_EVENTS, Problem]
    for models, shaped in ((_BODIES, _request), (written, _answer)):
        _, ours = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        for name, schema in ours["$defs"].items():
            if schemas.setdefault(name, shaped(schema)) != shaped(schema):
                raise ValueError(f"Two schemas are called {name}: rename one of the classes.")
    return dict(sorted(schemas.items()))


_NEVER_SENT = frozenset({"HTTPValidationError", "ValidationError"})
"""FastAPI's own schemas of validation errors. Ours is a problem."""


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that Registrar writes: every field is required."""
    fields = _fields(schema)
    return {**schema, "properties": fields, "required": list(fields)} if fields else schema


def _request(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that a caller writes: defaults move into descriptions."""
    fields = _fields(schema)
    return {**schema, "properties": fields} if fields else schema


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: _field(field) for name, field in schema.get("properties", {}).items()}


def _field(field: dict[str, Any]) -> dict[str, Any]:
    """Removes the title, which generators take for a name, and puts the default into the description."""
    shown = {key: value for key, value in field.items() if key not in ("title", "default")}
    default = field.get("default")
    if default not in (None, [], {}) and "const" not in field:
        words = f"Default: `{default if isinstance(default, str) else orjson.dumps(default).decode()}`."
        shown["description"] = f"{shown.get('description', '')} {words}".strip()
    return shown


def _keyed(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path) of every operation that asks for an API key."""
    for found in iter_route_contexts(app.routes):
        if isinstance(found.route, APIRoute) and _asks_for_key(found.route.dependant):
            for method in found.methods or ():
                yield method.lower(), str(found.path)


def _asks_for_key(dependant: Dependant) -> bool:
    return dependant.call in KEYED or any(map(_asks_for_key, dependant.dependencies))


def _describe(method: str, operation: dict[str, Any], *, is_open: bool, path: str) -> None:
    """Adds security and the problems this operation can answer."""
    responses = operation["responses"]
    # FastAPI's own validation error is never sent; ours is.
    has_parameters = responses.pop("422", None) is not None
    if method == "get" and "application/json" in responses.get("200", {}).get("content", {}):
        responses["304"] = {"description": "Nothing has changed since the answer with this tag."}
        operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
        for status in ("200", "304"):
            _add_headers(responses[status], {"ETag"})
    if is_open:
        operation["security"] = []
        for status in ("404", "422") if has_parameters else ():
            responses[status] = _problem(_PROBLEMS[status])
        return
    operation["security"] = [{"apiKey": []}]
    for status, words in _PROBLEMS.items():
        if status in _WITH_BODY and "requestBody" not in operation:
            continue
        if status == "409" and method not in _WITH_CONFLICT and status not in responses:
            continue
        if status == "404" and "{" not in path and method == "get":
            continue
        responses[status] = _problem(words)
    for status in {"409", "502"} & responses.keys():
        responses[status] = _problem(responses[status]["description"])
    for status, response in responses.items():
        names = {"RateLimit-Policy", "RateLimit"} if status != _WITHOUT_KEY else set()
        if status in _WITH_RETRY_AFTER:
            names.add("Retry-After")
        _add_headers(response, names)


def _add_headers(response: dict[str, Any], names: Set[str]) -> None:
    if names:
        shown = {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)}
        response.setdefault("headers", {}).update(shown)


def _problem(words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": words, "content": {MEDIA_TYPE: {"schema": schema}}}
