"""The OpenAPI document: bodies that we read ourselves, and the problems every route can answer."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.models import Problem
from app.api.problems import MEDIA_TYPE

_BODIES: list[type[BaseModel]] = []

DESCRIPTION = """\
Registers Windows Autopilot devices on customers' behalf through Microsoft Partner Center.

* Every call but health needs `Authorization: Bearer <API key>`.
* Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details with a `code` of
  `GET /v1/error-codes` and what to do about it.
* Every POST that creates honours `Idempotency-Key`.
* Each API key has so many calls a minute: `RateLimit` says how many are left, 429 that none is.
* Lists are paged by `page_size` and `page_token`.
* Webhooks follow [Standard Webhooks](https://www.standardwebhooks.com).
"""

_PROBLEMS = {
    "400": "The body is not JSON.",
    "401": "No valid API key.",
    "403": "The API key may not do this.",
    "404": "Unknown, or another partner's.",
    "409": "The present state does not allow it.",
    "413": "Over a limit.",
    "415": "Not JSON by its content type.",
    "422": "Understood, and can not be done.",
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
        "`r` calls are left to this API key for the next `t` seconds; then it has all of them again.",
        {"type": "string", "examples": ['"default";r=2950;t=42']},
    ),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0}),
}
_WITHOUT_KEY = "401"
"""No call of a key, so none of its calls is counted."""
_WITH_RETRY_AFTER = frozenset({"429", "503"})
_WITH_BODY = frozenset({"400", "413", "415"})
_WITH_CONFLICT = frozenset({"post", "patch", "delete"})

ASKS_MICROSOFT: dict[int | str, dict[str, Any]] = {
    502: {"description": "Microsoft refused.", "content": {MEDIA_TYPE: {}}},
}
"""For routes that ask Microsoft while the caller waits."""

CONFLICTS: dict[int | str, dict[str, Any]] = {
    409: {"description": _PROBLEMS["409"], "content": {MEDIA_TYPE: {}}},
}
"""For routes that read, and can meet a state in which there is nothing to read."""

ASKS_FOR_A_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""`openapi_extra` for a route whose body is a file."""


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` for a route that reads its body itself."""
    if model not in _BODIES:
        _BODIES.append(model)
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}


def upload_of(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route whose body is a file, bare or in a form whose fields are the model's."""
    fields = model.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
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
    )
    models: list[type[BaseModel]] = [*_BODIES, Problem]
    _, ours = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({name: schema for name, schema in ours["$defs"].items() if name not in schemas})
    document["components"]["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of the partner."}
    }
    document["components"]["headers"] = {
        name: {"description": words, "schema": shape} for name, (words, shape) in _HEADERS.items()
    }
    for path, operations in document["paths"].items():
        is_open = path in {"/healthz", "/readyz"}
        for method, operation in operations.items():
            _describe(method, operation, is_open=is_open, path=path)
    return document


def _describe(method: str, operation: dict[str, Any], *, is_open: bool, path: str) -> None:
    """Adds security and the problems this operation can answer."""
    responses = operation["responses"]
    # FastAPI's own shape of a validation error is never sent: ours is.
    responses.pop("422", None)
    if is_open:
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
        if names:
            shown = {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)}
            response.setdefault("headers", {}).update(shown)


def _problem(words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": words, "content": {MEDIA_TYPE: {"schema": schema}}}
