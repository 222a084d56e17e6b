"""Messages on the wire: a call as received, an answer as sent, and Partner Center's error body.

Paths ignore case and doubled slashes, and bodies ignore the case of property names, because documents and
clients in the field use all of these.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import orjson
from starlette.types import Receive, Scope, Send


class ConnectionDropped(httpx.RemoteProtocolError):
    """Raised if there is no socket to cut, so that an in-process httpx client sees what a real one would."""


@dataclass(slots=True)
class Call:
    """One call as received. `path` is decoded per segment, so a batch id may hold a slash."""

    method: str
    raw_path: str
    path: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    scheme: str
    operation: str = "unknown"
    customer: str | None = None
    request_id: str = ""
    correlation_id: str = ""
    device_count: int = 0
    replayed: bool = False
    number: int = 0
    """The number of this call in the ledger."""

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://{self.headers.get('host', 'localhost')}"


@dataclass(slots=True)
class Answer:
    """One complete answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(
        status, orjson.dumps(value), {"content-type": "application/json; charset=utf-8", **(headers or {})}
    )


def problem(status: int, code: str | int, description: str, headers: dict[str, str] | None = None) -> Answer:
    """Partner Center's error object (its documented form)."""
    body = {"code": str(code), "description": description, "data": [], "source": "PartnerFD"}
    return json_answer(body, status, headers)


NOT_FOUND = 1000
INVALID_INPUT = 800002


def is_guid(text: str) -> bool:
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


async def read_call(scope: Scope, receive: Receive) -> Call | None:
    """The whole call, or None if the client disconnected before it was complete."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    raw_path = (scope.get("raw_path") or scope["path"].encode()).split(b"?")[0].decode("latin-1")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Call(
        method=scope["method"],
        raw_path=raw_path,
        path=tuple(unquote(part) for part in raw_path.split("/") if part),
        query={
            name.lower(): value
            for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        },
        headers=headers,
        body=b"".join(chunks),
        scheme=scope.get("scheme", "http"),
    )


async def send_answer(
    answer: Answer, call: Call, receive: Receive, send: Send, echo: Mapping[str, str]
) -> bool:
    """Sends the answer. False if the client had gone, as far as the server knows."""
    headers = [(b"content-length", b"%d" % len(answer.body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in echo.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else answer.body})
    return not getattr(getattr(send, "__self__", None), "disconnected", False)


async def drop_connection(receive: Receive, send: Send, mode: str) -> None:
    """Cuts the connection without an answer.

    `reset` ends it with a TCP reset, `close` normally, `truncate` after half an answer. The only way to the
    transport is `send`, which uvicorn binds to the request's cycle. In process, where there is no transport,
    `ConnectionDropped` is raised.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None or not hasattr(transport, "abort"):
        raise ConnectionDropped("Server disconnected without sending a response.")
    if mode == "truncate":
        head = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b'{"batchTrackingId":"', "more_body": True})
        transport.close()
    elif mode == "close":
        transport.close()
    else:
        linger_none = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError, AttributeError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def folded(item: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with its property names in lower case."""
    return {name.lower(): value for name, value in item.items()}


def draw_guid(bits: Callable[[int], int]) -> str:
    """A version 4 GUID from the given source of random bits, so that a seed decides it."""
    return str(uuid.UUID(int=bits(128), version=4))
