"""Hands a call with a large body to the intake process and returns its answer (docs/adr/0024).

The front has authenticated the call, counted it and given it its turn. It passes the body on as it arrives
and keeps nothing of it. The intake process, which runs the same program, does the rest.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import orjson
from fastapi import FastAPI, Request, Response
from starlette.types import Message

from app.api.http.intake_wire import (
    Answer,
    Kind,
    ProcessGone,
    caller_as_json,
    headers_as_json,
    read_answer,
    read_taken,
    write,
)
from app.domain.errors import Busy, Unprocessable
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.services.access.identities import Caller

log = logger("api")

HANDED_OVER: Final = 64 * 1024
"""Bytes from which a body goes to the intake process: about 16 devices with hashes, or 600 without."""
PATIENCE: Final = 30.0
"""Seconds a call waits until the intake process takes it; nothing of its body is read meanwhile."""
RETRY_AFTER: Final = 5
_KEPT_HERE: Final = frozenset({b"authorization", b"cookie"})
"""Headers that are not passed on: the front has read the key."""

_PLAIN: Final = ("method", "path", "root_path", "scheme", "http_version")

Channel = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Intake(Protocol):
    """The intake process as the front sees it."""

    @property
    def is_there(self) -> bool:
        """Whether calls can be handed over. Also true while the process is being restarted."""

    async def open(self) -> Channel:
        """A channel for one call. Raises Busy if too many are waiting."""


class HandOver(Exception):
    """The body belongs to the intake process. `begun`: the part that has been read."""

    def __init__(self, begun: list[bytes], *, is_whole: bool) -> None:
        super().__init__("the body belongs to the intake process")
        self.begun = begun
        self.is_whole = is_whole


def hands_over(request: Request) -> bool:
    """Whether this process has an intake process. The intake process and a plain uvicorn have none."""
    intake: Intake | None = getattr(request.app.state, "intake", None)
    return intake is not None and intake.is_there


def install(app: FastAPI) -> None:
    @app.exception_handler(HandOver)
    async def on_hand_over(request: Request, over: HandOver) -> Response:
        return await relay(request, over)


async def relay(request: Request, over: HandOver) -> Response:
    """Raises Busy if the intake process does not take the call, or ends before it has answered."""
    intake: Intake = request.app.state.intake
    reader, writer = await intake.open()
    sending: asyncio.Task[None] | None = None
    try:
        try:
            async with asyncio.timeout(PATIENCE):
                write(writer, Kind.HEAD, orjson.dumps(head_of(request)))
                await read_taken(reader)
        except (TimeoutError, OSError, ProcessGone):
            raise _not_taken() from None
        sending = asyncio.create_task(_send_body(request.receive, writer, over))
        answer = await _answer(reader, sending)
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])
        writer.transport.abort()
    metrics.add_counted(answer.counted)
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response


async def _answer(reader: asyncio.StreamReader, sending: asyncio.Task[None]) -> Answer:
    """The answer, which may come before the whole body has been sent. Raises the error that ended the
    body."""
    answering = asyncio.create_task(read_answer(reader))
    try:
        await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            with contextlib.suppress(ConnectionError):  # there is an answer, or the process has ended
                sending.result()
        return await answering
    except ProcessGone:
        log.error("intake_interrupted")
        raise Busy("intake_interrupted", retry_after=RETRY_AFTER) from None
    finally:
        answering.cancel()


async def _send_body(
    receive: Callable[[], Awaitable[Message]], writer: asyncio.StreamWriter, over: HandOver
) -> None:
    """Raises TooLarge for more than the call may have; Unprocessable if the client disconnects."""
    for chunk in over.begun:
        write(writer, Kind.BODY, chunk)
    is_whole = over.is_whole
    while not is_whole:
        await writer.drain()
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Unprocessable("not_json", "The connection ended before the body did.")
        if chunk := message.get("body", b""):
            write(writer, Kind.BODY, chunk)
        is_whole = not message.get("more_body", False)
    write(writer, Kind.END)
    await writer.drain()


def head_of(request: Request) -> dict[str, Any]:
    """The call for the intake process: its scope and its caller."""
    scope, state = request.scope, request.state
    passed_on = [header for header in scope["headers"] if header[0] not in _KEPT_HERE]
    caller: Caller = state.caller
    return {
        "scope": {
            **{name: scope.get(name, "") for name in _PLAIN},
            "raw_path": scope.get("raw_path", b"").decode("latin-1"),
            "query_string": scope.get("query_string", b"").decode("latin-1"),
            "headers": headers_as_json(passed_on),
        },
        "correlation_id": state.correlation_id,
        "client": str(state.client) if state.client else None,
        "caller": caller_as_json(caller),
    }


def _not_taken() -> Busy:
    return Busy(
        "large_bodies_waiting",
        "The process that takes large bodies did not take this one in time. Nothing has been done.",
        retry_after=RETRY_AFTER,
    )
