"""The bounds on connections, over real sockets: what is refused, with which answer, and what is not."""

import asyncio
import functools
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.http.edge import DRAIN_RATE, LINGER_BYTES, MAX_HEADERS, MAX_LINGERING, MAX_PIPELINED, Limits
from app.api.http.peers import networks_of
from app.api.http.protocol import BoundedHttp, Phase
from app.domain.catalogue import CATALOGUE
from app.kernel.settings import Settings
from tests.support.log_lines import log_lines

PATIENCE = 45.0
LONG = 600.0
"""Seconds of each time limit. No test waits for one: they say that the time has passed."""
CALM = Limits(
    head_bytes=4096,
    head_s=LONG,
    body_window_s=LONG,
    body_window_bytes=1000,
    answer_s=LONG,
    connections=1000,
    client_connections=1000,
    trusted=(),
    public_url="https://registrar.example",
)
HOST = "127.0.0.1"


@dataclass
class Application:
    """Answers with the size of the body; with what a path asks for besides."""

    served: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    disconnects: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.served.append(scope["path"])
        self.headers = scope["headers"]
        answer = b"ok"
        if scope["path"] in ("/large", "/close"):
            answer = bytes(32 * 1024 * 1024)
        if scope["path"] == "/hold":
            await self.hold.wait()
        if scope["path"] not in ("/unread", "/refused"):
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.disconnects += 1
                    return
                self.parts.append(len(message["body"]))
                size, more = size + len(message["body"]), message.get("more_body", False)
            self.bodies.append(size)
        headers = [(b"content-length", str(len(answer)).encode())]
        if scope["path"] in ("/close", "/refused"):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@dataclass
class Served:
    application: Application
    port: int
    server: uvicorn.Server
    passed: float = 0.0

    @property
    def connections(self) -> list[BoundedHttp]:
        return [c for c in self.server.server_state.connections if isinstance(c, BoundedHttp)]

    def let_time_pass(self) -> None:
        """As if every time limit that runs were over."""
        self.passed += LONG + 1
        for connection in self.connections:
            connection.look(connection.loop.time() + self.passed)

    async def until(self, condition: Callable[[BoundedHttp], bool]) -> None:
        """Until the only connection is so."""
        await until(lambda: len(self.connections) == 1 and condition(self.connections[0]))

    async def until_gone(self) -> None:
        await until(lambda: not self.connections)

    async def connect(self, source: str = HOST) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.open_connection(HOST, self.port, local_addr=(source, 0))


@asynccontextmanager
async def serving(limits: Limits = CALM) -> AsyncIterator[Served]:
    class Small(BoundedHttp):
        @classmethod
        def bounds(cls) -> Limits:
            return limits

    application = Application()
    listening = socket.create_server((HOST, 0))
    config = uvicorn.Config(
        application, http=Small, ws="none", log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(PATIENCE):
            while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
                await asyncio.sleep(0.005)
        yield Served(application, listening.getsockname()[1], server)
    finally:
        application.hold.set()
        server.should_exit = server.force_exit = True
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server ends the connection, in whatever way."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                part = await reader.read(65536)
            except ConnectionError:
                return received
            if not part:
                return received
            received += part


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer on a connection that stays open."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line.split(b":")[1] for line in head.split(b"\r\n") if b"content-length" in line]
        return int(head.split()[1]), await reader.readexactly(int(length))


def problem_in(received: bytes, status: int, code: str) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, received[:200]
    headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-security-policy"].startswith(b"default-src 'none'")
    assert int(headers[b"content-length"]) == len(body)
    problem: dict[str, Any] = json.loads(body)
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["remedy"] == CATALOGUE[code].remedy
    assert problem["type"] == f"https://registrar.example/v1/error-codes/{code}"
    return problem


def get(path: str = "/", extra: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: registrar\r\n%s\r\n" % (path.encode(), extra)


def post(size: int, body: bytes = b"", path: str = "/") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: registrar\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        size,
        body,
    )


async def send_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    """As much of it as the server takes."""
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return


async def refused(served: Served, sent: bytes) -> bytes:
    reader, writer = await served.connect()
    sending = asyncio.create_task(send_all(writer, sent))
    received = await until_closed(reader)
    writer.transport.abort()
    await sending
    return received


# --- the head -----------------------------------------------------------------------------------------


HUGE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * HUGE,
        get("/" + "a" * CALM.head_bytes),
        b"GET / HTTP/1.1\r\nHost: registrar\r\nX: " + b"a" * HUGE,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(HUGE // 10)),
        get(extra=b"".join(b"X-%d: 1\r\n" % n for n in range(MAX_HEADERS))),
        b"\r\n" * HUGE,
    ],
    ids=["line", "complete line", "header", "headers", "complete headers", "empty lines"],
)
async def test_a_head_over_the_limit_is_refused_however_it_is_large(sent: bytes) -> None:
    async with serving() as served:
        problem = problem_in(await refused(served, sent), 431, "head_too_large")
        assert "may have 4,096 bytes, and 100 headers" in problem["detail"]
        assert served.application.served == []


async def test_of_a_head_without_an_end_only_so_much_is_thrown_away() -> None:
    """Its sender is stopped by TCP, and has had its answer by then."""
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /")
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"a" * (32 * LINGER_BYTES))
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).split()[1] == b"431"
        await served.until(lambda connection: connection.flow.read_paused)
        assert not writer.transport.is_closing()
        served.let_time_pass()
        await served.until_gone()
        writer.close()


async def test_a_trailer_is_bounded_as_the_head_is_and_is_not_kept() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: registrar\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    async with serving() as served:
        problem_in(await refused(served, chunked + b"X: " + b"a" * HUGE), 431, "head_too_large")
        reader, writer = await served.connect()
        writer.write(chunked + b"Authorization: Bearer smuggled\r\n\r\n")
        assert await answer_of(reader) == (200, b"ok")
        assert b"authorization" not in dict(served.application.headers)
        writer.close()


async def test_heads_up_to_the_limit_are_served_one_after_the_other() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        most = b"".join(b"X-%d: 1\r\n" % n for n in range(MAX_HEADERS - 1))
        room = CALM.head_bytes - len(get(extra=b"X: \r\n"))
        for sent in (get(extra=most), get(extra=b"X: " + b"a" * room + b"\r\n"), get()):
            for start in range(0, len(sent), 1500):
                writer.write(sent[start : start + 1500])
                await writer.drain()
            assert await answer_of(reader) == (200, b"ok")
        writer.close()


@pytest.mark.parametrize("sent", [b"GET / HT", b"\r\n", get()[:-2]], ids=["half", "empty line", "no end"])
async def test_a_head_that_does_not_come_to_its_end_is_told(sent: bytes) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(sent)
        await served.until(lambda c: c.unread == len(sent))
        served.let_time_pass()
        problem_in(await until_closed(reader), 408, "head_too_slow")
        writer.close()


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with serving(replace(CALM, head_s=0.2)) as served:  # the only test that waits for a time limit
        reader, writer = await served.connect()
        assert await until_closed(reader) == b""
        writer.close()


async def test_every_head_on_a_connection_has_its_time() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get())
        assert await answer_of(reader) == (200, b"ok")
        writer.write(b"\r\nGET /se")
        await served.until(lambda c: c.phase is Phase.HEAD)
        served.let_time_pass()
        problem_in(await until_closed(reader), 408, "head_too_slow")
        writer.close()


async def test_a_connection_without_a_next_request_is_closed() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get())
        assert await answer_of(reader) == (200, b"ok")
        served.let_time_pass()
        assert await until_closed(reader) == b""
        writer.close()


async def test_half_a_head_behind_a_request_is_not_answered_in_its_place() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/hold") + b"GET /second")
        await served.until(lambda c: c.phase is Phase.HEAD and bool(served.application.served))
        served.let_time_pass()
        assert await until_closed(reader) == b""
        writer.close()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nBad\r\n\r\n"]
)
async def test_what_is_no_http_is_told_so(sent: bytes) -> None:
    async with serving() as served:
        problem_in(await refused(served, sent), 400, "malformed_http")


async def test_a_wish_for_another_protocol_is_passed_over() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get(extra=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
        assert await answer_of(reader) == (200, b"ok")
        writer.close()


async def test_requests_sent_ahead_are_answered_in_turn_and_too_many_are_cut() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get() * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED):
            assert await answer_of(reader) == (200, b"ok")
        writer.close()
        assert await refused(served, get("/hold") + get() * (MAX_PIPELINED + 1)) == b""
        assert served.application.served.count("/hold") == 1


# --- the body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x" * (CALM.body_window_bytes - 1)])
async def test_a_body_that_comes_too_slowly_is_told_and_the_application_is_let_go(body: bytes) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(post(5000, body))
        await served.until(lambda c: c.phase is Phase.BODY)
        served.let_time_pass()
        problem_in(await until_closed(reader), 408, "body_too_slow")
        await until(lambda: served.application.disconnects == 1)
        writer.close()


async def test_a_body_that_comes_fast_enough_is_taken() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        size, part = 5, b"x" * CALM.body_window_bytes

        def has_come(size: int) -> bool:
            return sum(served.application.parts) == size

        writer.write(post(size * len(part)))
        for n in range(1, size + 1):
            writer.write(part)
            await until(functools.partial(has_come, n * len(part)))
            served.let_time_pass()
        assert await answer_of(reader) == (200, b"ok")
        writer.close()


async def test_an_answer_that_comes_before_the_body_reaches_a_client_that_only_sends() -> None:
    """As most clients do: they read once everything is sent."""
    size = 8 * 1024 * 1024
    async with serving() as served:
        for _ in range(3):
            reader, writer = await served.connect()
            await send_all(writer, post(size, bytes(size), "/refused"))
            received = await until_closed(reader)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.endswith(b"ok")
            writer.close()
            await served.until_gone()
        reader, writer = await served.connect()
        writer.write(post(size, b"x", "/refused"))
        assert (await until_closed(reader)).endswith(b"ok")
        assert len(served.connections) == 1
        served.let_time_pass()
        await served.until_gone()
        writer.close()


async def test_a_body_that_comes_after_its_answer_is_read_slowly_and_to_its_end() -> None:
    size = 2 * DRAIN_RATE
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(post(size, path="/unread"))
        assert (await answer_of(reader))[0] == 200
        sending = asyncio.create_task(send_all(writer, bytes(size) + get()))
        await served.until(lambda connection: connection.flow.read_paused)
        async with asyncio.timeout(PATIENCE):
            await sending
        assert (await answer_of(reader))[0] == 200
        assert served.application.served == ["/unread", "/"]
        writer.close()


async def test_a_body_that_does_not_end_is_cut_after_its_answer() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(post(5000, b"x", "/unread"))
        assert await answer_of(reader) == (200, b"ok")
        writer.write(b"x")
        served.let_time_pass()
        assert await until_closed(reader) == b""
        writer.close()


async def test_a_body_that_the_application_does_not_read_yet_is_not_slow() -> None:
    async with serving() as served:
        size = 8 * 1024 * 1024
        reader, writer = await served.connect()
        sending = asyncio.create_task(send_all(writer, post(size, bytes(size), "/hold")))
        await served.until(lambda c: c.phase is Phase.BODY and c.flow.read_paused)
        for _ in range(3):
            served.let_time_pass()
        served.application.hold.set()
        assert await answer_of(reader) == (200, b"ok")
        await sending
        assert served.application.bodies == [size]
        writer.close()


async def test_a_client_that_waits_for_100_continue_is_not_slow() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        asks = b"Content-Length: 2\r\nExpect: 100-continue\r\n"
        writer.write(b"POST /hold HTTP/1.1\r\nHost: registrar\r\n" + asks + b"\r\n")
        await served.until(lambda c: c.phase is Phase.BODY)
        for _ in range(3):
            served.let_time_pass()
        served.application.hold.set()
        async with asyncio.timeout(PATIENCE):
            assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hi")
        assert await answer_of(reader) == (200, b"ok")
        writer.close()


# --- the answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/large", "/close"])
async def test_an_answer_that_is_not_read_does_not_stay(path: str) -> None:
    async with serving() as served:
        with socket.create_connection((HOST, served.port), PATIENCE) as client:  # reads nothing
            client.sendall(get(path))
            await served.until(lambda c: c.blocked_since is not None)
            served.let_time_pass()
            served.let_time_pass()
            await served.until_gone()


async def test_an_answer_may_take_the_application_as_long_as_it_takes() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/hold"))
        await served.until(lambda c: c.phase is Phase.ANSWERING)
        for _ in range(3):
            served.let_time_pass()
        served.application.hold.set()
        assert await answer_of(reader) == (200, b"ok")
        writer.close()


# --- how many -----------------------------------------------------------------------------------------


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def held(served: Served, count: int) -> list[Client]:
    """Connections with a call under way."""
    kept = [await served.connect() for _ in range(count)]
    for _, writer in kept:
        writer.write(get("/hold"))
    await until(lambda: served.application.served.count("/hold") == count)
    return kept


async def resting(served: Served, sent: bytes, half: bytes = b"", source: str = HOST) -> Client:
    """A connection without a call under way that has sent this, and then half a head."""
    before = {*served.connections}
    reader, writer = await served.connect(source)
    if sent:
        writer.write(sent)
        assert await answer_of(reader) == (200, b"ok")
    writer.write(half)

    def has_come() -> bool:
        new = {*served.connections} - before
        return len(new) == 1 and all(c.phase in RESTS and c.unread == len(half) for c in new)

    await until(has_come)
    return reader, writer


RESTS = (Phase.HEAD, Phase.IDLE, Phase.DRAINING)
RESTING = {
    "silent": (b"", b""),
    "half a head": (b"", b"GET / HT"),
    "answered": (get(), b""),
    "answered before its body": (post(5000, b"x", "/unread"), b""),
    "half a second head": (get(), b"GET / HT"),
}


@pytest.mark.parametrize(("sent", "half"), RESTING.values(), ids=RESTING)
async def test_a_resting_connection_gives_way_to_a_new_one(sent: bytes, half: bytes) -> None:
    async with serving(replace(CALM, connections=2)) as served:
        (held_one,) = await held(served, 1)
        reader, writer = await resting(served, sent, half)
        with log_lines() as lines:
            for _ in range(3):  # each of them takes the place of the one before
                new = await served.connect()
                new[1].write(get())
                assert await answer_of(new[0]) == (200, b"ok")
                received = await until_closed(reader)
                writer.close()
                if half:
                    problem_in(received, 503, "too_many_connections")
                else:
                    assert received == b""
                (reader, writer), half = new, b""
        assert [(line["event"], line["reason"], line["client"]) for line in lines()] == [
            ("connection_cut", "gave_way", HOST)
        ]
        served.application.hold.set()
        assert await answer_of(held_one[0]) == (200, b"ok")
        for each in (held_one, (reader, writer)):
            each[1].close()


async def test_the_connection_that_has_rested_longest_gives_way() -> None:
    async with serving(replace(CALM, connections=3)) as served:
        first = await resting(served, get())
        second = await resting(served, get())
        third = await resting(served, b"")
        first[1].write(get())  # now it has rested for the shortest time
        assert await answer_of(first[0]) == (200, b"ok")
        await until(lambda: all(c.phase in (Phase.IDLE, Phase.HEAD) for c in served.connections))
        new = [await resting(served, get())]
        assert await until_closed(second[0]) == b""
        new.append(await resting(served, get()))
        assert await until_closed(third[0]) == b""
        first[1].write(get())
        assert await answer_of(first[0]) == (200, b"ok")
        for each in (first, second, third, *new):
            each[1].close()


async def test_an_answer_that_the_client_still_reads_does_not_give_way() -> None:
    async with serving(replace(CALM, connections=1)) as served:
        with socket.create_connection((HOST, served.port), PATIENCE) as client:  # reads nothing yet
            client.sendall(get("/large"))
            await served.until(lambda c: c.blocked_since is not None)
            problem_in(await refused(served, get()), 503, "too_many_connections")
            client.setblocking(False)
            loop, received = asyncio.get_running_loop(), 0
            async with asyncio.timeout(PATIENCE):
                while received < 32 * 1024 * 1024:
                    received += len(await loop.sock_recv(client, 1 << 20))


async def test_a_client_at_its_own_limit_takes_nobodys_place() -> None:
    async with serving(replace(CALM, connections=2, client_connections=1)) as served:
        mine = await resting(served, b"", source="127.0.0.2")
        others = await resting(served, b"", source="127.0.0.3")
        reader, writer = await served.connect("127.0.0.2")
        problem = problem_in(await until_closed(reader), 503, "too_many_connections")
        assert "your address" in problem["detail"].casefold()
        for client in (mine, others):
            client[1].write(get())
            assert await answer_of(client[0]) == (200, b"ok")
            client[1].close()
        writer.close()


async def test_connections_over_the_limit_are_told_and_leave_room_again() -> None:
    async with serving(replace(CALM, connections=2)) as served:
        kept = await held(served, 2)
        with log_lines() as lines:
            for _ in range(3):
                problem = problem_in(await refused(served, get()), 503, "too_many_connections")
                assert "the service" in problem["detail"].casefold()
        assert [(line["event"], line["reason"]) for line in lines()] == [
            ("connection_cut", "too_many_connections")
        ]
        served.application.hold.set()
        for reader, writer in kept:  # who was there is served
            assert await answer_of(reader) == (200, b"ok")
            writer.close()
        await served.until_gone()
        reader, writer = await served.connect()
        writer.write(get())
        assert await answer_of(reader) == (200, b"ok")
        writer.close()


async def test_one_client_has_a_share_of_the_connections() -> None:
    async with serving(replace(CALM, client_connections=2)) as served:
        kept = [await served.connect("127.0.0.2") for _ in range(2)]
        await until(lambda: len(served.connections) == 2)
        reader, writer = await served.connect("127.0.0.2")
        problem = problem_in(await until_closed(reader), 503, "too_many_connections")
        assert "your address" in problem["detail"].casefold()
        writer.close()
        reader, writer = await served.connect("127.0.0.3")
        writer.write(get())
        assert await answer_of(reader) == (200, b"ok")
        for _, each in (*kept, (reader, writer)):
            each.close()


async def test_a_trusted_proxy_has_no_share() -> None:
    limits = replace(CALM, client_connections=1, trusted=networks_of(["127.0.0.2/32"]))
    async with serving(limits) as served:
        kept = [await served.connect("127.0.0.2") for _ in range(5)]
        for reader, writer in kept:
            writer.write(get())
            assert await answer_of(reader) == (200, b"ok")
        for _, writer in kept:
            writer.close()


async def test_refused_connections_that_are_not_closed_do_not_pile_up() -> None:
    async with serving(replace(CALM, connections=1)) as served:
        kept = await held(served, 1)
        kept += [await served.connect() for _ in range(MAX_LINGERING + 10)]
        await until(lambda: len(served.connections) == 1 + MAX_LINGERING)
        served.let_time_pass()
        await until(lambda: len(served.connections) == 1)
        for _, writer in kept:
            writer.transport.abort()


def test_the_defaults_let_a_large_order_through() -> None:
    limits = Limits.of(Settings())
    assert (limits.head_bytes, limits.head_s) == (65536, 10)
    assert limits.look_s <= 1
