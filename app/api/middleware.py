"""Around every request: a correlation id, headers every answer has, a bound on the body, a log line.

Plain ASGI, so that a large body or answer passes through without being gathered here.
"""

import time
from collections.abc import Mapping
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api import quotas
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
                    *quotas.headers_of(scope),
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
        max_bytes = self.larger.get(scope["path"].removeprefix(scope.get("root_path", "")), self.max_bytes)
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
