"""Refusals as RFC 9457 problem details: one table from exception class to HTTP status.

Every error goes through here, including the framework's own, so that each has a code of the catalogue, its
remedy and a correlation id. An unexpected exception is a 500 that reveals nothing internal.
"""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app.api.contract.models import Problem, ProblemError
from app.db.engine import OUTAGES, is_passing
from app.db.removal import refuses_removed
from app.domain.catalogue import CATALOGUE, lookup
from app.domain.errors import (
    Busy,
    Conflict,
    FieldError,
    Forbidden,
    NotFound,
    RateLimited,
    Refusal,
    TooLarge,
    Unauthenticated,
    Unprocessable,
)
from app.domain.masking import NOT_SHOWN, holds_secret
from app.domain.upstream import ConnectionTrouble, HeldBack, NotSent, OutcomeUnknown, Refused, UpstreamFailure
from app.kernel.telemetry import logger

log = logger("api")

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[Refusal], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Unprocessable: 422,
    RateLimited: 429,
    Busy: 503,
}

CODE_STATUS = {
    "not_json": 400,
    "authorization_repeated": 400,
    "validation_failed": 422,
    "unsupported_media_type": 415,
}
"""Codes with another status than their class."""

_UNREAD = ("body_too_complex", "large_bodies_waiting")
"""Codes of refusals before the whole body has been read, besides those of TooLarge."""

UPSTREAM_STATUS: dict[type[UpstreamFailure], int] = {
    NotSent: 503,
    OutcomeUnknown: 503,
    Refused: 502,
    ConnectionTrouble: 502,
}
"""Routes that call Microsoft while the caller waits: `:check`, `:recheck`, the consent link."""

HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}

RETRY_AFTER_OUTAGE = "5"
"""Seconds to wait when the database cannot be reached."""

MAX_POINTER = 200
"""The most characters of a pointer that are shown, because the caller chooses the names of unknown fields."""

MAX_DETAIL = 2_000
"""The most characters of a detail, which may quote what the caller sent."""

_OUR_WORDS = {("/devices", "too_long"): "too_many_devices"}
"""Validation errors that have a code of the catalogue, by pointer and pydantic's type."""

_PARAMETER = re.compile(r"\{[^}]*\}")
_ITEM = re.compile(r"^/devices/(\d+)(?:/(.+))?$", re.DOTALL)


def problem(
    request: Request,
    code: str,
    detail: str,
    status: int,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> Response:
    entry = lookup(code)
    body = Problem(
        type=_page_of(request, code),
        title=entry.title,
        status=status,
        detail=_short(detail, MAX_DETAIL) or entry.title,
        code=code,
        remedy=entry.remedy,
        correlation_id=str(getattr(request.state, "correlation_id", "")),
        errors=[_error(error) for error in errors],
        links=dict(links or {}),
    )
    return Response(
        orjson.dumps(body.model_dump(mode="json")), status, dict(headers or {}), media_type=MEDIA_TYPE
    )


def _page_of(request: Request, code: str) -> str:
    """The URL of the code's entry, which opens without a key. Never made from the Host header."""
    base = request.app.state.public_url or request.scope.get("root_path", "")
    return f"{base}{request.app.url_path_for('get_error_code', code=code)}"


def _error(error: FieldError) -> ProblemError:
    match = _ITEM.match(error.pointer)
    # Other validation errors have pydantic's codes and share one remedy.
    known = CATALOGUE.get(error.code, CATALOGUE["validation_failed"])
    return ProblemError(
        pointer=_short(error.pointer, MAX_POINTER),
        code=error.code,
        detail=_short(error.detail, MAX_DETAIL),
        row=error.row or (int(match.group(1)) + 1 if match else None),
        field=_short(match.group(2) if match else error.pointer.rpartition("/")[2], MAX_POINTER) or None,
        remedy=known.remedy,
    )


def _short(text: str | None, most: int) -> str:
    return text[:most] if text else ""


def status_of(refusal: Refusal) -> int:
    return CODE_STATUS.get(refusal.code) or STATUS[type(refusal)]


def install(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, refusal: Refusal) -> Response:
        headers = {}
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(refusal.retry_after)
        if isinstance(refusal, Unauthenticated):
            headers["WWW-Authenticate"] = 'Bearer realm="registrar"'
        if isinstance(refusal, TooLarge) or refusal.code in _UNREAD:
            headers["Connection"] = "close"  # the rest of the body will not be read
        return problem(
            request,
            refusal.code,
            refusal.detail,
            status_of(refusal),
            errors=refusal.errors,
            headers=headers,
            links=refusal.links,
        )

    @app.exception_handler(UpstreamFailure)
    async def on_upstream(request: Request, failure: UpstreamFailure) -> Response:
        status = next(s for kind, s in UPSTREAM_STATUS.items() if isinstance(failure, kind))
        detail = str(failure.said) or lookup(failure.code).title
        if isinstance(failure, HeldBack):
            wait = {"Retry-After": str(ceil(failure.retry_after.total_seconds()))}
            return problem(request, failure.code, f"Registrar: {detail}", status, headers=wait)
        headers = {"Retry-After": "30"} if status == 503 else {}
        return problem(request, failure.code, f"Microsoft: {detail}", status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        in_body = any(part["loc"][0] == "body" for part in error.errors())
        code = "validation_failed" if in_body else "invalid_parameter"
        return problem(request, code, "", 422, errors=[pydantic_error(part) for part in error.errors()[:100]])

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        code = HTTP_CODES.get(error.status_code, "internal")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods_of(request)))
        return problem(request, code, "", error.status_code, headers=headers)

    async def on_possible_outage(request: Request, error: Exception) -> Response:
        if refuses_removed(error):
            # A defect of ours could also look like this, so the line names the constraint.
            cause = getattr(getattr(error, "orig", None), "__cause__", None)
            constraint = getattr(cause, "constraint_name", None)
            log.warning("refused_as_removed", path=request.scope["path"], constraint=constraint)
            return problem(request, "being_removed", "", 409)
        if not is_passing(error):
            raise error
        log.error("database_unavailable", path=request.scope["path"], error=type(error).__name__)
        detail = "The database cannot be reached. Whether the call has taken effect is not known."
        return problem(request, "not_ready", detail, 503, headers={"Retry-After": RETRY_AFTER_OUTAGE})

    for kind in OUTAGES:
        app.add_exception_handler(kind, on_possible_outage)


def unexpected(request: Request, error: Exception) -> Response:
    """Answers an unexpected exception: logged in full for the operator, without detail for the caller."""
    log.error("unexpected_error", path=request.scope["path"], exc_info=error)
    return problem(request, "internal", "", 500)


def methods_of_verb(scope: Scope) -> set[str]:
    """The methods of the route with a verb (`:cancel`) that this path belongs to; none if there is none."""
    methods: set[str] = set()
    for found in iter_route_contexts(scope["app"].routes):
        if ":" in _PARAMETER.sub("", str(found.path)) and found.route.matches(scope)[0] is not Match.NONE:
            methods |= found.methods or set()
    return methods


def _methods_of(request: Request) -> set[str]:
    """All methods of this path. The framework names only those of the first route."""
    methods: set[str] = set()
    for found in iter_route_contexts(request.app.routes):
        if found.route.matches(request.scope)[0] is not Match.NONE:
            methods |= found.methods or set()
    return methods | {"HEAD"} if "GET" in methods else methods


_PLAIN_WORDS = {
    "string_pattern_mismatch": "It has characters that are not allowed here.",
    "string_too_short": "It is empty.",
    "string_type": "It must be a text.",
    "missing": "It is missing.",
    "extra_forbidden": "There is no such field.",
    "uuid_parsing": "It is not an id (UUID).",
}
"""Our messages for errors whose pydantic message is for programmers."""


def pydantic_error(error: Mapping[str, Any]) -> FieldError:
    """pydantic's error for a field as ours, without its `input`, which may be a secret or a hash."""
    # The caller chooses the name of an unknown field, so it is shortened.
    parts = (part for part in error["loc"] if part not in ("body", "query", "path", "header"))
    location = [str(part)[: 5 * MAX_POINTER] for part in parts]
    location = [NOT_SHOWN if holds_secret(part) else part for part in location]
    in_body = error["loc"][:1] in (("body",), ()) or error["loc"][0] not in ("query", "path", "header")
    if in_body:
        # RFC 6901; the empty pointer is the whole body.
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in location)
    else:
        pointer = "/".join(location)
    code = _OUR_WORDS.get((pointer, error["type"]), str(error["type"]))
    words = _PLAIN_WORDS.get(str(error["type"]), str(error["msg"]))
    return FieldError(pointer[:MAX_POINTER], code, words)
