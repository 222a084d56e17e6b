"""Middleware of every request: correlation id, headers of every answer, bound on the body, log line.

Plain ASGI, so that a large body or answer passes through without being gathered here.
"""

import time
from collections.abc import Callable, Set
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.contract.problems import problem, unexpected
from app.api.http import call_rates
from app.api.http.answer_headers import AnswerHeaders
from app.api.http.peers import Networks, client_of
from app.domain.errors import TooLarge
from app.kernel import metrics
from app.kernel.telemetry import logger

log = logger("api")

CORRELATION_HEADER = "x-correlation-id"


class RequestContext:
    """Gives each request a correlation id (the caller's, if it is sane) and its client's address, adds the
    headers of every answer, and logs the request's end.

    An unexpected exception becomes an answer here, where the id is known.
    """

    def __init__(self, app: ASGIApp, trusted: Networks, headers: AnswerHeaders) -> None:
        """`trusted`: the proxies that are believed about the client's address."""
        self.app = app
        self.trusted = trusted
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        correlation_id, client = _correlation_id(scope), client_of(scope, self.trusted)
        scope.setdefault("state", {}).update(correlation_id=correlation_id, client=client)
        started, status = time.perf_counter(), 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", []), (CORRELATION_HEADER.encode(), correlation_id.encode())]
                message["headers"] = [*given, *self.headers.beside(given), *call_rates.headers_of(scope)]
            await send(message)

        with structlog.contextvars.bound_contextvars(
            correlation_id=correlation_id, client=str(client) if client else None
        ):
            try:
                await self.app(scope, receive, with_headers)
            except Exception as error:
                response = unexpected(Request(scope), error)
                if not status:
                    await response(scope, receive, with_headers)
                raise
            finally:
                _record(scope, status, time.perf_counter() - started)


def _correlation_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(CORRELATION_HEADER.encode(), b"").decode("latin-1")
    return given if _is_sane(given) else str(uuid4())


def _record(scope: Scope, status: int, took: float) -> None:
    """Counts the request, and logs it with its caller if known."""
    metrics.request_answered(scope["method"], getattr(scope.get("route"), "path", None), status, took)
    state = scope["state"]
    caller = {name: str(state[name]) for name in ("partner_id", "key_prefix") if name in state}
    log.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(took * 1000, 1),
        **caller,
    )


def _is_sane(text: str) -> bool:
    return 8 <= len(text) <= 100 and text.isascii() and all(c.isalnum() or c in "-_." for c in text)


class HeadLikeGet:
    """Answers HEAD like GET without the body (RFC 9110), for health checks of load balancers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET"}
        await self.app(inner, receive, without_body)
        if "route" in inner:
            scope["route"] = inner["route"]  # the metrics count by it


class VerbPaths:
    """Answers wrong methods and unknown verbs on paths such as `/v1/orders/{id}:cancel`.

    The router would read the verb as part of the id, and say of a GET that the id is not a UUID.
    """

    def __init__(self, app: ASGIApp, known: Callable[[Scope], set[str]]) -> None:
        """`known`: returns the methods of the verb that a path ends in; none if there is no such verb."""
        self.app = app
        self.known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or ":" not in scope["path"].rpartition("/")[2]:
            await self.app(scope, receive, send)
            return
        methods = self.known(scope)
        if scope["method"] in methods:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if methods:
            allow = {"Allow": ", ".join(sorted(methods))}
            response = problem(request, "method_not_allowed", "", 405, headers=allow)
        else:
            response = problem(request, "not_found", "There is no such verb.", 404)
        await response(scope, receive, send)


class BodyCoding:
    """Refuses a body in a `Content-Encoding` that nothing here decodes (RFC 9110, 15.5.16).

    `decoding`: the paths whose routes decode it themselves.
    """

    def __init__(self, app: ASGIApp, decoding: Set[str]) -> None:
        self.app = app
        self.decoding = decoding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coding = self._strange(scope) if scope["type"] == "http" else ""
        if not coding:
            await self.app(scope, receive, send)
            return
        words = f"Content-Encoding {coding[:40]!r} is not read here; send the body as it is."
        accepted = {"Accept-Encoding": "identity", "Connection": "close"}
        response = problem(Request(scope), "unsupported_media_type", words, 415, headers=accepted)
        await response(scope, receive, send)

    def _strange(self, scope: Scope) -> str:
        if scope["method"] in ("GET", "HEAD", "OPTIONS", "TRACE") or path_within(scope) in self.decoding:
            return ""
        given = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
        codings = {part.strip().casefold() for part in given.decode("latin-1").split(",")}
        return ", ".join(sorted(codings - {"", "identity"}))


def path_within(scope: Scope) -> str:
    """The path without a proxy's prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class BodyLimit:
    """Refuses a body over its route's limit: by its stated length at once, otherwise while it arrives."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[Scope], int]) -> None:
        """`limit_of`: returns the most bytes that the request's body may have."""
        self.app = app
        self.limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced == b"0" and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        max_bytes = self.limit_of(scope)
        # A number of more than 18 digits is over any limit.
        if announced.isdigit() and (len(announced) > 18 or int(announced) > max_bytes):
            response = problem(
                Request(scope), "body_too_large", _words(max_bytes), 413, headers={"Connection": "close"}
            )
            await response(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise TooLarge("body_too_large", _words(max_bytes))
            return message

        await self.app(scope, bounded, send)


def _words(max_bytes: int) -> str:
    return f"The body of this call has at most {max_bytes:,} bytes."
