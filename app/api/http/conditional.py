"""`ETag` and `If-None-Match`: 304 for a caller that already has the current answer.

Every JSON answer to a GET gets a tag made from its bytes, which changes whenever anything that is shown
changes: counts, reasons to wait, a title. It saves bytes on the network, not work of the database.

It is weak, because the same answer goes out in several content codings (RFC 9110, 8.8.1).
"""

import hashlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT = frozenset({b"retry-after", b"vary", b"location"})
"""Headers of the answer that a 304 also has. Those of every answer are added further out."""


class ConditionalGet:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        known = Headers(scope=scope).getlist("if-none-match")
        held: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _may_have_a_tag(message):
                held = message
                return
            if held is None:
                await send(message)
                return
            start, held = held, None
            if message.get("more_body", False):  # streamed: passes without a tag
                await send(start)
                await send(message)
                return
            tag = tag_of(message.get("body", b""))
            if any(_names(given, tag) for given in known):
                kept = [(name, value) for name, value in start["headers"] if name.lower() in _KEPT]
                start = {**start, "status": 304, "headers": kept}
                message = {**message, "body": b""}
            start["headers"] = [*start["headers"], (b"etag", tag.encode())]
            await send(start)
            await send(message)

        await self.app(scope, receive, tagged)


def tag_of(body: bytes) -> str:
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def _may_have_a_tag(start: Message) -> bool:
    headers = Headers(raw=start.get("headers", []))
    kind = headers.get("content-type", "").partition(";")[0]
    return start["status"] == 200 and kind == "application/json" and "etag" not in headers


def _names(given: str, tag: str) -> bool:
    """Compares weakly: `W/` is ignored."""
    wanted = tag.removeprefix("W/")
    return any(part.strip() in ("*", wanted, f"W/{wanted}") for part in given.split(","))
