"""The tests' webhook receiver: listens on a real socket and gives the answers that a test sets.

Messages are verified with the public `standardwebhooks` library, which our signatures must agree with. It
runs on the event loop of its test. Chaos and the attacks, which have none, use `app.local.receiver`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any
from unittest.mock import patch
from uuid import UUID

import orjson
import standardwebhooks.webhooks

from tests.support.world import Partner, World


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hold: asyncio.Event | None = None
    """The answer waits until this is set."""


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]
    body: bytes
    at: datetime

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = orjson.loads(self.body)
        return value

    @property
    def type(self) -> str:
        return str(self.json["type"])

    @property
    def data(self) -> dict[str, Any]:
        value: dict[str, Any] = self.json["data"]
        return value

    def verify(self, secret: str) -> None:
        """Verifies it as of its arrival. Raises the library's WebhookVerificationError."""
        arrived = self.at

        class ReceiversClock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> "ReceiversClock":
                return cls.fromtimestamp(arrived.timestamp(), tz)

        with patch.object(standardwebhooks.webhooks, "datetime", ReceiversClock):
            standardwebhooks.Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    now: Callable[[], datetime]
    port: int = 0
    messages: list[Message] = field(default_factory=list)
    connections: int = 0
    script: deque[Answer] = field(default_factory=deque)
    """The next answers; afterwards `usual`."""
    usual: Answer = field(default_factory=Answer)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def of_path(self, path: str) -> list[Message]:
        return [message for message in self.messages if message.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            message = Message(first.split(" ")[1], headers, body, self.now())
            self.messages.append(message)
            answer = self.script.popleft() if self.script else self.usual
            if answer.hold is not None:
                await answer.hold.wait()
            extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            writer.write(
                f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(answer.body)}\r\n"
                f"Connection: close\r\n{extra}\r\n".encode()
                + answer.body
            )
            await writer.drain()
        writer.close()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Serves every connection to a free loopback port. Yields the port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def open_receiver(world: World) -> AsyncIterator[Receiver]:
    receiver = Receiver(world.clock.now)
    async with listening(receiver.serve) as receiver.port:
        yield receiver


@dataclass(frozen=True)
class Endpoint:
    id: UUID
    secret: str


async def subscribe(world: World, partner: Partner, url: str, event_types: Sequence[str] = ()) -> Endpoint:
    """Creates a webhook endpoint through the API."""
    response = await world.client.post(
        "/v1/webhook-endpoints", headers=partner.headers, json={"url": url, "event_types": list(event_types)}
    )
    assert response.status_code == 201, response.text
    body = response.json()
    return Endpoint(UUID(body["id"]), body["secret"])


async def until(condition: Callable[[], object], patience: float = 5.0) -> None:
    """Waits until the condition is true. Raises TimeoutError."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)
