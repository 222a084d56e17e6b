"""The intake process: answers the calls with large bodies that the front hands over (docs/adr/0024).

It runs the same routes as the front, without what the front has already done: the key, the limits of calls,
the headers of every answer, the log line and the metrics of the request.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.contract.problems import unexpected
from app.api.http.intake_wire import LIMIT, Answer, Kind, caller_of, headers_of, read, write, write_answer
from app.api.http.peers import address_of
from app.api.http.turns import CallTurns
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.runtime import Runtime

log = logger("intake")

NICENESS: Final = 5
"""Its niceness: the front answers all other calls and goes first when the processor is busy."""

Open = Callable[[], Awaitable[Runtime]]
"""Opens the runtime of the intake process."""


class _Context:
    """Binds the fields of log lines, and answers after an unexpected exception."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        client = str(state["client"]) if state["client"] else None
        with structlog.contextvars.bound_contextvars(correlation_id=state["correlation_id"], client=client):
            try:
                await self.app(scope, receive, send)
            except Exception as error:
                await unexpected(Request(scope), error)(scope, receive, send)
                raise


def prepare(app: FastAPI) -> None:
    """Removes middleware whose work the front does."""
    app.user_middleware = [Middleware(_Context), Middleware(CallTurns)]
    app.middleware_stack = None


class IntakeServer:
    """Takes calls from `control`, one socket each, until the front closes its end."""

    def __init__(self, app: FastAPI, control: socket.socket, open_runtime: Open) -> None:
        self.app = app
        self.control = control
        self.open_runtime = open_runtime
        self._runtime: asyncio.Future[Runtime] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self.taken = 0
        """Calls that have begun."""

    @property
    def working(self) -> int:
        """Calls that are not over."""
        return len(self._calls)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.control.setblocking(False)
        loop.add_reader(self.control.fileno(), self._take_calls)
        try:
            await self._ended.wait()
        finally:
            loop.remove_reader(self.control.fileno())
            if self._calls:
                await asyncio.wait(self._calls)
            if self._runtime is not None:
                await (await self._runtime).close()

    def _take_calls(self) -> None:
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                said, descriptors = b"", []
            if not said:
                self._ended.set()
                return
            for descriptor in descriptors:
                task = asyncio.create_task(self._answer(socket.socket(fileno=descriptor)))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _answer(self, channel: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LIMIT)
        try:
            _, content = await read(reader)
            head = orjson.loads(content)
            self.app.state.runtime = await self._opened()
            self.taken += 1
            write(writer, Kind.TAKEN)
            answer = await _run(self.app, _scope_of(head), reader)
            write_answer(writer, answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the front has given up the call
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _opened(self) -> Runtime:
        """The runtime. The first call opens it."""
        if self._runtime is None:
            self._runtime = asyncio.ensure_future(self.open_runtime())
        try:
            return await asyncio.shield(self._runtime)
        except Exception as error:
            log.error("intake_not_opened", error=str(error))
            self._runtime = None
            raise ConnectionError from error


def _scope_of(head: dict[str, Any]) -> Scope:
    given = head["scope"]
    client = head["client"]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        **given,
        "raw_path": given["raw_path"].encode("latin-1"),
        "query_string": given["query_string"].encode("latin-1"),
        "headers": headers_of(given["headers"]),
        "client": (client, 0) if client else None,
        "server": None,
        "state": {
            "correlation_id": head["correlation_id"],
            "client": address_of(client) if client else None,
            "handed_over": caller_of(head["caller"]),
        },
    }


async def _run(app: ASGIApp, scope: Scope, reader: asyncio.StreamReader) -> Answer:
    status, headers, body = 500, [], []

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", []))
        else:
            body.append(message.get("body", b""))

    with contextlib.suppress(Exception):  # it has been logged and answered
        await app(scope, _receiving(reader), send)
    return Answer(status, headers, b"".join(body), metrics.take_counted())


def _receiving(reader: asyncio.StreamReader) -> Receive:
    async def receive() -> Message:
        try:
            kind, content = await read(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": content, "more_body": kind is Kind.BODY}

    return receive
