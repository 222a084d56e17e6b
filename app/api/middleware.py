"""Around every request: a correlation id, headers every answer has, a bound on the body, a log line.

Plain ASGI, so that a large body or answer passes through without being gathered here.
"""

import time
from collections.abc import Callable, Mapping, Set
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api import call_rates
from app.api.problems import problem, unexpected
from app.domain.errors import TooLarge
from app.telemetry import logger

log = logger("api")

CORRELATION_HEADER = "x-correlation-id"

HEADERS_OF_EVERY_ANSWER = (
    # Answers are a partner's own data, and some show a secret.
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class RequestContext:
    """Gives each request a correlation id (the caller's, if it is a sane one) and logs its end.

    An exception that nobody has turned into an answer becomes one here, where the id is known.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(CORRELATION_HEADER.encode(), b"").decode("latin-1")
        correlation_id = given if _is_sane(given) else str(uuid4())
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        started, status = time.perf_counter(), 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (CORRELATION_HEADER.encode(), correlation_id.encode()),
                    *HEADERS_OF_EVERY_ANSWER,
                    *call_rates.headers_of(scope),
                ]
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        except Exception as error:
            response = unexpected(Request(scope), error)
            if not status:
                await response(scope, receive, with_id)
            raise
        finally:
            took = time.perf_counter() - started
            metrics.request_answered(scope["method"], getattr(scope.get("route"), "path", None), status, took)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(took * 1000, 1),
            )
            structlog.contextvars.unbind_contextvars("correlation_id")


def _is_sane(text: str) -> bool:
    return 8 <= len(text) <= 100 and text.isascii() and all(c.isalnum() or c in "-_." for c in text)


class HeadLikeGet:
    """Answers HEAD as GET without the body (RFC 9110): health checks of load balancers ask so."""

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
    """Sees to paths that end in a verb, as `/v1/orders/{id}:cancel`, whose id has no verb for other methods.

    A router would read the verb as part of the id, and say of GET that the id is no UUID.
    """

    def __init__(self, app: ASGIApp, known: Callable[[Scope], set[str]]) -> None:
        """`known`: the methods of the verb that a path ends in; none if there is no such verb."""
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

    `decoding` has the paths whose routes see to it themselves.
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
    """The path without what a proxy has put in front of it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class BodyLimit:
    """Refuses a body over the limit: by its announced length at once, otherwise while it arrives.

    `larger` has the paths whose bodies may be larger, because they are not gathered in memory.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int]) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.larger.get(path_within(scope), self.max_bytes)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        # A number of more than 18 digits is over any limit, and need not be read to know it.
        if announced.isdigit() and (len(announced) > 18 or int(announced) > max_bytes):
            response = problem(
                Request(scope), "body_too_large", self._words(max_bytes), 413, headers={"Connection": "close"}
            )
            await response(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise TooLarge("body_too_large", self._words(max_bytes))
            return message

        await self.app(scope, bounded, send)

    def _words(self, max_bytes: int) -> str:
        return f"A body has at most {max_bytes:,} bytes."
