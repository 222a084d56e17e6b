"""The guarded client against real sockets on loopback; only names and certificates are made up."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from app.domain.address import AddressRefused, Allowance, UrlRefused, for_one_partner, refusal
from app.domain.attempt import EXCERPT_BYTES, MAX_RETRY_AFTER, Kind, Outcome, read_retry_after
from app.kernel import outbound
from app.kernel.outbound import Outbound, SystemResolver, check_url

LOOPBACK = (Allowance.parse("127.0.0.0/8"),)
NAME = "hooks.example.test"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


def replying(answer: bytes) -> Answer:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return reply


async def silence(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(45):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in plain lists
            await asyncio.sleep(0.01)


def repeating(head: bytes, chunk: bytes, pause: float = 0.0) -> Answer:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)

    return reply


@asynccontextmanager
async def receiving(answer: Answer | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A web server of a few lines on 127.0.0.1 that reads a request and answers as told."""
    reply = replying(answer) if isinstance(answer, bytes) else answer
    receiver, tasks = Receiver(), set[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        receiver.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                receiver.requests.append(head + await reader.readexactly(length))
                await reply(writer)
        receiver.hung_up.set()
        writer.transport.abort()

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: receiver.server_names.append(name)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Outbound]:
    options = {"allow_http": True, "allowed": LOOPBACK, "timeout": 5.0, **options}
    built = Outbound.build(**options)
    try:
        yield built
    finally:
        await built.close()


def naming(*answers: Sequence[str]) -> tuple[outbound.Resolve, list[str]]:
    """A name server that gives the next answer each time, the last one forever, and notes the questions."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


async def post(url: str, *, content: bytes = b"{}", **options: Any) -> Outcome:
    async with client(**options) as sender:
        return await sender.post(url, content=content, headers={"content-type": "application/json"})


async def answered(answer: Answer | bytes, **options: Any) -> Outcome:
    async with receiving(answer) as receiver:
        return await post(f"http://127.0.0.1:{receiver.port}/", **options)


# What is sent, and what an answer means


async def test_the_request_arrives_as_written() -> None:
    resolve, _ = naming(["127.0.0.1"])
    async with receiving(OK) as receiver:
        outcome = await post(f"http://{NAME}:{receiver.port}/in/ü?key=1", content=b'{"a":1}', resolve=resolve)
    assert (outcome.kind, outcome.status, outcome.detail) == (Kind.SUCCEEDED, 200, "")
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /in/%c3%bc?key=1 http/1.1"
    assert f"host: {NAME}:{receiver.port}".encode() in lines
    assert b"content-type: application/json" in lines
    assert b"accept-encoding: identity" in lines
    assert body == b'{"a":1}'


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Kind.SUCCEEDED),
        (204, Kind.SUCCEEDED),
        (299, Kind.SUCCEEDED),
        (304, Kind.REJECTED),
        (400, Kind.REJECTED),
        (410, Kind.GONE),
        (429, Kind.REJECTED),
        (503, Kind.REJECTED),
        (599, Kind.REJECTED),
    ],
)
async def test_a_status_decides_the_outcome(status: int, kind: Kind) -> None:
    outcome = await answered(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    assert (outcome.kind, outcome.status) == (kind, status)


async def test_connections_are_used_again() -> None:
    async with receiving(OK) as receiver, client() as sender:
        for _ in range(3):
            outcome = await sender.post(f"http://127.0.0.1:{receiver.port}/", content=b"{}", headers={})
            assert outcome.kind is Kind.SUCCEEDED
        assert (receiver.connections, len(receiver.requests)) == (1, 3)


def one_answer(after: bytes, *, connections: int = 1) -> Answer:
    """So many connections answer once and end at the next request, after these bytes; later ones answer."""
    seen: dict[asyncio.StreamWriter, int] = {}

    async def reply(writer: asyncio.StreamWriter) -> None:
        seen[writer] = seen.get(writer, 0) + 1
        if seen[writer] == 2 and list(seen).index(writer) < connections:
            writer.write(after)
            await writer.drain()
            writer.close()
            return
        writer.write(OK)
        await writer.drain()

    return reply


async def twice(sender: Outbound, url: str) -> Outcome:
    """The second of two posts, one after the other."""
    first = await sender.post(url, content=b"{}", headers={})
    assert first.kind is Kind.SUCCEEDED
    return await sender.post(url, content=b'{"n":2}', headers={"webhook-id": "same"})


async def test_a_kept_connection_that_ends_without_a_byte_is_tried_again_on_a_fresh_one() -> None:
    async with receiving(one_answer(b"")) as receiver, client() as sender:
        outcome = await twice(sender, f"http://127.0.0.1:{receiver.port}/")
        assert (outcome.kind, outcome.status) == (Kind.SUCCEEDED, 200)
        assert receiver.connections == 2
        assert receiver.requests[1] == receiver.requests[2], "the same to the byte"


async def test_a_kept_tls_connection_that_ends_without_a_byte_is_tried_again(authority: Authority) -> None:
    resolve, asked = naming(["127.0.0.1"])
    async with (
        receiving(one_answer(b""), authority.server) as receiver,
        client(resolve=resolve, ca_file=authority.ca_file) as sender,
    ):
        outcome = await twice(sender, f"https://{NAME}:{receiver.port}/")
        assert (outcome.kind, receiver.connections, len(asked)) == (Kind.SUCCEEDED, 2, 2)


async def test_the_second_try_takes_no_kept_connection_although_there_are_several() -> None:
    async with receiving(one_answer(b"", connections=3)) as receiver, client() as sender:
        url = f"http://127.0.0.1:{receiver.port}/"
        await asyncio.gather(*(sender.post(url, content=b"{}", headers={}) for _ in range(3)))
        assert receiver.connections == 3
        outcome = await sender.post(url, content=b"{}", headers={})
        assert (outcome.kind, receiver.connections) == (Kind.SUCCEEDED, 4)


@pytest.mark.parametrize("some", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_a_kept_connection_that_ends_after_a_byte_is_not_tried_again(some: bytes) -> None:
    async with receiving(one_answer(some)) as receiver, client() as sender:
        outcome = await twice(sender, f"http://127.0.0.1:{receiver.port}/")
        assert (outcome.kind, receiver.connections, len(receiver.requests)) == (Kind.PROTOCOL, 1, 2)


async def test_a_fresh_connection_that_ends_without_a_byte_is_not_tried_again() -> None:
    async def drop(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with receiving(drop) as receiver:
        outcome = await post(f"http://127.0.0.1:{receiver.port}/")
        assert (outcome.kind, receiver.connections) == (Kind.PROTOCOL, 1)


async def test_a_receiver_that_drops_the_second_try_too_is_left_for_the_next_attempt() -> None:
    answered: list[int] = []

    async def reply(writer: asyncio.StreamWriter) -> None:
        answered.append(1)
        if len(answered) > 1:
            writer.close()
            return
        writer.write(OK)
        await writer.drain()

    async with receiving(reply) as receiver, client() as sender:
        outcome = await twice(sender, f"http://127.0.0.1:{receiver.port}/")
        assert (outcome.kind, len(answered), receiver.connections) == (Kind.PROTOCOL, 3, 2)


async def test_both_tries_have_one_deadline() -> None:
    answered: list[int] = []

    async def reply(writer: asyncio.StreamWriter) -> None:
        answered.append(1)
        match len(answered):
            case 1:
                writer.write(OK)
                await writer.drain()
            case 2:
                writer.close()
            case _:
                await silence(writer)

    async with receiving(reply) as receiver, client(timeout=0.4) as sender:
        outcome = await twice(sender, f"http://127.0.0.1:{receiver.port}/")
        assert (outcome.kind, len(answered)) == (Kind.TIMEOUT, 3)
        assert outcome.duration_ms < 30_000


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/inside", "http://169.254.169.254/", "/other"])
async def test_a_redirect_is_a_failure_and_not_followed(location: str) -> None:
    resolve, _ = naming(["127.0.0.1"])

    async def redirect(writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        target = location.format(port=port)
        writer.write(f"HTTP/1.1 307 X\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

    async with receiving(redirect) as receiver:
        outcome = await post(f"http://{NAME}:{receiver.port}/", resolve=resolve)
        assert (outcome.kind, outcome.status) == (Kind.REJECTED, 307)
        assert "redirect" in outcome.detail
        assert len(receiver.requests) == 1


async def test_the_excerpt_is_text_an_operator_can_look_at_and_postgresql_can_store() -> None:
    body = b"caf\xc3\xa9\x00\x1b[31m red\r\nline\xe2\x80\xaetxt.exe \xff\xfe end\n"
    outcome = await answered(b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert outcome.excerpt == "café[31m red  linetxt.exe  end"


async def test_the_excerpt_never_ends_in_half_a_character() -> None:
    body = b"x" + "é".encode() * 1000
    outcome = await answered(b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert outcome.excerpt == "x" + "é" * 511


async def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    number = await answered(b"HTTP/1.1 503 X\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n")
    assert number.retry_after == timedelta(minutes=2)
    at = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    date = await answered(b"HTTP/1.1 429 X\r\nretry-after: %s\r\nContent-Length: 0\r\n\r\n" % at)
    assert date.retry_after is not None
    assert timedelta(seconds=590) < date.retry_after <= timedelta(minutes=10)
    assert (await answered(OK)).retry_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 57 ", 57),
        ("9" * 15, MAX_RETRY_AFTER.total_seconds()),
        ("9" * 10_000, MAX_RETRY_AFTER.total_seconds()),
        ("-5", None),
        ("1.5", 1.5),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),  # the two obsolete forms RFC 9110 still wants understood
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("Sun, 06 Nov 2094 08:00:00 GMT", MAX_RETRY_AFTER.total_seconds()),
        ("Sun, 99 Nov 1994 08:00:00 GMT", None),
    ],
)
def test_retry_after_by_example(value: str, seconds: float | None) -> None:
    now = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    wait = read_retry_after(value, now=now)
    assert wait == (None if seconds is None else timedelta(seconds=seconds))


@given(st.text(max_size=60))
def test_no_retry_after_breaks_the_reading(value: str) -> None:
    wait = read_retry_after(value, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert wait is None or timedelta() <= wait <= MAX_RETRY_AFTER


# Bounds


async def test_a_body_without_end_is_read_to_the_bound_only() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    async with receiving(repeating(head, b"x" * 65_536)) as receiver:
        outcome = await post(f"http://127.0.0.1:{receiver.port}/", timeout=60.0)
        async with asyncio.timeout(45):
            await receiver.hung_up.wait()
    assert outcome.kind is Kind.SUCCEEDED
    assert outcome.excerpt == "x" * EXCERPT_BYTES
    assert outcome.duration_ms < 30_000


async def test_a_dripping_body_ends_with_the_deadline_and_keeps_its_status() -> None:
    head = b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n"
    async with receiving(repeating(head, b"x", 0.02)) as receiver:
        outcome = await post(f"http://127.0.0.1:{receiver.port}/", timeout=0.3)
        async with asyncio.timeout(45):
            await receiver.hung_up.wait()
    assert (outcome.kind, outcome.status) == (Kind.REJECTED, 500)
    assert outcome.excerpt.startswith("xx")
    assert 250 <= outcome.duration_ms < 30_000


async def test_a_body_gets_less_patience_than_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_BODY_PATIENCE", 0.2)
    outcome = await answered(repeating(b"HTTP/1.1 200 X\r\n\r\n", b"x", 0.02), timeout=60.0)
    assert outcome.kind is Kind.SUCCEEDED
    assert 150 <= outcome.duration_ms < 30_000


async def test_dripping_headers_end_with_the_deadline() -> None:
    outcome = await answered(repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02), timeout=0.3)
    assert (outcome.kind, outcome.status) == (Kind.TIMEOUT, None)
    assert 250 <= outcome.duration_ms < 30_000


async def test_endless_interim_answers_end_with_the_deadline() -> None:
    outcome = await answered(repeating(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01), timeout=0.3)
    assert (outcome.kind, outcome.status) == (Kind.TIMEOUT, None)


async def test_headers_without_end_are_not_collected() -> None:
    outcome = await answered(repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536), timeout=60.0)
    assert (outcome.kind, outcome.status) == (Kind.PROTOCOL, None)
    assert outcome.duration_ms < 30_000


async def test_a_name_server_that_never_answers_ends_with_the_deadline() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    outcome = await post(f"https://{NAME}/", resolve=silent, timeout=0.2)
    assert outcome.kind is Kind.TIMEOUT


async def test_many_slow_receivers_do_not_hold_up_another() -> None:
    async with receiving(silence) as slow, receiving(OK) as quick, client(timeout=60.0) as sender:
        waiting = [
            asyncio.create_task(sender.post(f"http://127.0.0.1:{slow.port}/", content=b"{}", headers={}))
            for _ in range(120)
        ]
        await until(lambda: len(slow.requests) == 120)
        outcome = await sender.post(f"http://127.0.0.1:{quick.port}/", content=b"{}", headers={})
        assert outcome.kind is Kind.SUCCEEDED
        assert outcome.duration_ms < 30_000
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ended} == {asyncio.CancelledError}


# Failures on the way


async def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await post(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert (outcome.kind, outcome.status) == (Kind.UNREACHABLE, None)


async def test_a_name_without_an_address_is_unresolved() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert (await post(f"https://{NAME}/", resolve=unknown)).kind is Kind.UNRESOLVED
    assert (await post(f"https://{NAME}/", resolve=naming([])[0])).kind is Kind.UNRESOLVED


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_protocol_failure(answer: bytes) -> None:
    assert (await answered(answer)).kind is Kind.PROTOCOL


async def test_a_connection_closed_without_an_answer_is_a_failure() -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    assert (await answered(hang_up)).kind is Kind.PROTOCOL


async def test_a_body_that_breaks_off_does_not_undo_the_status() -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    outcome = await answered(break_off)
    assert (outcome.kind, outcome.excerpt) == (Kind.SUCCEEDED, "half")


async def test_the_next_address_of_a_name_is_tried() -> None:
    resolve, _ = naming(["127.0.0.9", "127.0.0.1"])
    async with receiving(OK) as receiver:
        outcome = await post(f"http://{NAME}:{receiver.port}/", resolve=resolve)
    assert outcome.kind is Kind.SUCCEEDED


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "X: y", "", "x\n"])
async def test_a_header_that_is_not_the_callers_to_set_is_a_programming_error(name: str) -> None:
    async with client() as sender:
        with pytest.raises(ValueError, match=r"[Hh]eader"):
            await sender.post("http://127.0.0.1/", content=b"", headers={name: "1"})


async def test_a_header_value_that_would_begin_another_header_is_refused_unquoted() -> None:
    async with client() as sender:
        with pytest.raises(ValueError) as refused:
            await sender.post("http://127.0.0.1/", content=b"", headers={"x-key": "hidden\r\nhost: other"})
    assert "hidden" not in str(refused.value)


# Where webhooks may not go


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", Kind.REFUSED_ADDRESS),
        ("localhost", Kind.REFUSED_ADDRESS),
        ("[::ffff:127.0.0.1]", Kind.REFUSED_ADDRESS),
        ("[::ffff:7f00:1]", Kind.REFUSED_ADDRESS),
        ("[64:ff9b::127.0.0.1]", Kind.REFUSED_ADDRESS),
        ("[::1]", Kind.REFUSED_ADDRESS),
        ("0.0.0.0", Kind.REFUSED_ADDRESS),  # noqa: S104
        ("127.0.0.1.", Kind.REFUSED_ADDRESS),
        ("127.1", Kind.REFUSED_URL),
        ("2130706433", Kind.REFUSED_URL),
        ("0x7f.1", Kind.REFUSED_URL),
        ("0177.0.0.1", Kind.REFUSED_URL),
        ("127.0.0.1%2f", Kind.REFUSED_URL),
        ("①②⑦.⓪.⓪.①", Kind.REFUSED_URL),
    ],
)
async def test_loopback_is_not_reached_in_any_spelling(host: str, kind: Kind) -> None:
    async with receiving(OK) as receiver:
        outcome = await post(f"http://{host}:{receiver.port}/", allowed=())
        assert (outcome.kind, outcome.status, receiver.connections) == (kind, None, 0)
        assert outcome.detail


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "127.0.0.1", "localhost", "::1"])
async def test_the_connection_itself_refuses_what_the_systems_resolver_reads_as_loopback(host: str) -> None:
    resolver = SystemResolver()
    network = outbound._GuardedNetwork(resolver, ())
    async with receiving(OK) as receiver:
        with pytest.raises(AddressRefused, match="loopback"):
            await network.connect_tcp(host, receiver.port)
        assert receiver.connections == 0
    resolver.close()


async def test_the_connection_goes_to_no_unix_socket() -> None:
    network = outbound._GuardedNetwork(naming([])[0], ())
    with pytest.raises(AddressRefused):
        await network.connect_unix_socket("/run/docker.sock")


async def test_one_bad_address_among_good_ones_refuses_the_name() -> None:
    resolve, _ = naming(["127.0.0.1", "10.0.0.5"])
    async with receiving(OK) as receiver:
        outcome = await post(f"http://{NAME}:{receiver.port}/", resolve=resolve)
        assert (outcome.kind, receiver.connections) == (Kind.REFUSED_ADDRESS, 0)
    assert "private" in outcome.detail
    assert "10.0.0.5" not in outcome.detail


async def test_a_name_that_changes_its_address_between_calls_is_checked_again() -> None:
    resolve, asked = naming(["127.0.0.1"], ["127.0.0.2"])
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    only_one = (Allowance.parse("127.0.0.1/32"),)
    async with (
        receiving(closing) as receiver,
        client(resolve=resolve, allowed=only_one) as sender,
    ):
        kinds = [
            (await sender.post(f"http://{NAME}:{receiver.port}/", content=b"{}", headers={})).kind
            for _ in range(2)
        ]
    assert kinds == [Kind.SUCCEEDED, Kind.REFUSED_ADDRESS]
    assert asked == [NAME, NAME]  # once for each connection: nothing to change in between


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"])
async def test_no_allowance_opens_the_cloud_metadata_services(address: str) -> None:
    everything = (Allowance.parse("0.0.0.0/0"), Allowance.parse("::/0"))
    outcome = await post(f"http://{NAME}/", resolve=naming([address])[0], allowed=everything)
    assert outcome.kind is Kind.REFUSED_ADDRESS
    assert "metadata" in outcome.detail
    for hidden in ("::ffff:", "64:ff9b::") if "." in address else ():
        assert refusal(ip_address(hidden + address), 443, everything) == "a cloud metadata address"


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade"),
        ("169.254.1.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("::", "unspecified"),
        ("::127.0.0.1", "reserved"),
        ("::ffff:8.8.8.8", "IPv6 form"),
        ("2002:7f00:1::", "6to4"),
        ("2001:0:1::1", "Teredo"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::1", "reserved"),
        ("fd12::1", "private"),
        ("fe80::1", "link-local"),
        ("2606:4700::1111%1", "zone"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
    ],
)
def test_a_refusal_says_what_the_address_is(address: str, meaning: str) -> None:
    assert meaning in str(refusal(ip_address(address), 443))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_open(address: str) -> None:
    assert refusal(ip_address(address), 443) is None


@given(st.ip_addresses())
def test_whatever_python_knows_as_special_is_refused(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    if special and address not in ip_network("64:ff9b::/96"):
        assert refusal(address, 443) is not None


@given(st.ip_addresses(v=4))
def test_no_ipv6_clothing_opens_what_is_refused_as_ipv4(address: IPv4Address) -> None:
    if refusal(address, 443) is not None:
        for template in ("::ffff:{}", "::{}", "64:ff9b::{}"):
            assert refusal(ip_address(template.format(address)), 443) is not None
        assert refusal(IPv6Address((0x2002 << 112) | (int(address) << 80)), 443) is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://hooks.example.com/", "begin with https"),
        ("ftp://hooks.example.com/", "begin with https"),
        ("file:///etc/passwd", "begin with https"),
        ("hooks.example.com", "begin with https"),
        ("", "begin with https"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user:secret@hooks.example.com/", "user name or password"),
        ("https://user@hooks.example.com/", "user name or password"),
        ("https://hooks.example.com/#part", "fragment"),
        ("https://hooks.example.com/#", "fragment"),
        ("https://hooks.example.com:0/", "Port 0"),
        ("https://hooks.example.com:65536/", "Port 65536"),
        ("https://hooks.example.com:25/", "another protocol"),
        ("https://hooks.example.com:port/", "not a URL"),
        ("https://hooks.example.com\\@127.0.0.1/", "backslash"),
        ("https://hooks.example.com/ x", "blank"),
        ("https://hooks.example.com/\r\nx", "blank"),
        ("https://hooks..example.com/", "not valid|not a URL"),
        ("https://ex%61mple.com/", "not valid"),
        ("https://" + "a" * 64 + ".com/", "not valid|not a URL"),
        ("https://127.1/", "is a number"),
        ("https://example.0x7f/", "is a number"),
        ("https://127.0.0.1/", "loopback"),
        ("https://10.0.0.5/", "private"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://hooks.example.com/" + "x" * 2000, "at most 2000"),
    ],
)
def test_a_refused_url_says_what_to_change(url: str, words: str) -> None:
    with pytest.raises(UrlRefused, match=words) as refused:
        check_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com./x",
        "https://hooks.example.com:8443/in?key=value%20x",
        "HTTPS://Hooks.Example.COM/",
        "https://bücher.example/",
        "https://erp/hooks",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:443/",
    ],
)
def test_an_ordinary_url_is_accepted(url: str) -> None:
    check_url(url)


async def test_allowances_open_exactly_what_they_name() -> None:
    check_url("http://10.0.0.5/", allow_http=True, allowed=[Allowance.parse("10.0.0.0/24")])
    with pytest.raises(AddressRefused):
        check_url("https://10.0.1.5/", allowed=[Allowance.parse("10.0.0.0/24")])
    async with client(allow_http=False) as sender:
        sender.check_url("https://127.0.0.1/")
        with pytest.raises(UrlRefused, match="https"):
            sender.check_url("http://127.0.0.1/")
        assert (await sender.post("http://127.0.0.1/", content=b"", headers={})).kind is Kind.REFUSED_URL


@given(
    st.text(max_size=40) | st.text("htps:/@[]%.#?0123456789abcdefx\\ ", max_size=40).map("https://".__add__)
)
def test_no_url_breaks_the_check(url: str) -> None:
    with suppress(UrlRefused):
        check_url(url)


# TLS


@dataclass
class Authority:
    """A certificate authority of this run, and a server certificate for NAME and 127.0.0.1."""

    ca_file: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory, now = tmp_path_factory.mktemp("tls"), datetime.now(UTC)

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
    ) -> bytes:
        public, issuing = key.public_key(), signer.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False)
        )
        if name != issuer:
            names = [x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_file, chain_file = directory / "ca.pem", directory / "server.pem"
    ca_file.write_bytes(certificate("Test CA", ca_key, "Test CA", ca_key))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain_file.write_bytes(private + certificate(NAME, key, "Test CA", ca_key))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain_file)
    return Authority(ca_file, server)


@pytest.mark.parametrize(("host", "sni"), [(NAME, NAME), (NAME + ".", NAME), ("127.0.0.1", None)])
async def test_the_certificate_is_checked_against_the_urls_host(
    authority: Authority, host: str, sni: str | None
) -> None:
    resolve, _ = naming(["127.0.0.1"])
    async with receiving(OK, authority.server) as receiver:
        outcome = await post(
            f"https://{host}:{receiver.port}/", resolve=resolve, ca_file=authority.ca_file, allow_http=False
        )
        assert outcome.kind is Kind.SUCCEEDED, outcome.detail
        assert receiver.server_names == [sni]
        assert f"host: {host}:{receiver.port}".encode() in receiver.requests[0].lower()


async def test_a_certificate_for_another_name_is_a_tls_failure(authority: Authority) -> None:
    resolve, _ = naming(["127.0.0.1"])
    async with receiving(OK, authority.server) as receiver:
        outcome = await post(
            f"https://other.example.test:{receiver.port}/", resolve=resolve, ca_file=authority.ca_file
        )
        assert (outcome.kind, receiver.requests) == (Kind.TLS, [])
    assert "Hostname mismatch" in outcome.detail


async def test_the_environment_names_neither_authorities_nor_proxies(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, _ = naming(["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.ca_file.parent))
    async with receiving(OK, authority.server) as receiver, receiving(OK) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        outcome = await post(f"https://{NAME}:{receiver.port}/", resolve=resolve)
        assert (outcome.kind, receiver.requests, proxy.connections) == (Kind.TLS, [], 0)


async def test_tls_to_a_server_without_it_is_a_tls_failure() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        outcome = await post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert outcome.kind is Kind.TLS


async def test_a_handshake_that_stalls_is_a_timeout_and_one_that_is_dropped_is_unreachable() -> None:
    async with AsyncExitStack() as stack:
        freed = asyncio.Event()

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the client closes its side
            freed.set()
            writer.transport.abort()

        async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.transport.abort()

        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            plain = writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

        stalling = await stack.enter_async_context(await asyncio.start_server(stall, "127.0.0.1", 0))
        dropping = await stack.enter_async_context(await asyncio.start_server(drop, "127.0.0.1", 0))
        resetting = await stack.enter_async_context(await asyncio.start_server(reset, "127.0.0.1", 0))
        sender = await stack.enter_async_context(client(timeout=0.4))
        kinds = [
            (await sender.post(f"https://127.0.0.1:{port}/", content=b"", headers={})).kind
            for port in (server.sockets[0].getsockname()[1] for server in (stalling, dropping, resetting))
        ]
        async with asyncio.timeout(45):
            await freed.wait()  # the stalled connection was closed, with the client still open
    assert kinds == [Kind.TIMEOUT, Kind.UNREACHABLE, Kind.UNREACHABLE]


# Silence


async def test_neither_query_nor_header_values_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    resolve, _ = naming(["127.0.0.1"])
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="httpcore"):
        async with receiving(OK) as receiver, client(resolve=resolve) as sender:
            url = f"http://{NAME}:{receiver.port}/path-of-theirs?token=hidden-query"
            await sender.post(url, content=b"hidden-body", headers={"webhook-signature": "v1,hidden-header"})
    assert b"hidden-query" in receiver.requests[0]
    assert caplog.records  # httpcore does log, so the check below looks at something
    assert "hidden" not in caplog.text
    assert "path-of-theirs" not in caplog.text


def test_an_outcome_holds_no_url() -> None:
    assert "url" not in {name.lower() for name in Outcome.__slots__}
    assert issubclass(outbound._GuardedNetwork, httpcore.AsyncNetworkBackend)


# --- networks of one partner, and ports -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "network", "first", "last", "shown"),
    [
        ("10.1.0.0/16", "10.1.0.0/16", 1, 65535, "10.1.0.0/16"),
        (" 10.1.0.0/16:8443 ", "10.1.0.0/16", 8443, 8443, "10.1.0.0/16:8443"),
        ("10.1.0.0/16:8000-8099", "10.1.0.0/16", 8000, 8099, "10.1.0.0/16:8000-8099"),
        ("10.1.2.3", "10.1.2.3/32", 1, 65535, "10.1.2.3/32"),
        ("10.1.2.3:443", "10.1.2.3/32", 443, 443, "10.1.2.3/32:443"),
        ("fd00::/8", "fd00::/8", 1, 65535, "fd00::/8"),
        ("[fd00::/8]", "fd00::/8", 1, 65535, "fd00::/8"),
        ("[fd00::/8]:8443", "fd00::/8", 8443, 8443, "[fd00::/8]:8443"),
    ],
)
def test_allowance_is_a_network_and_ports(text: str, network: str, first: int, last: int, shown: str) -> None:
    allowance = Allowance.parse(text)
    assert (str(allowance.network), allowance.first_port, allowance.last_port) == (network, first, last)
    assert str(allowance) == shown
    assert Allowance.parse(shown) == allowance


@pytest.mark.parametrize(
    "text",
    ["", "intranet", "10.1.0.0/33", "10.1.0.1/16", "10.1.0.0/16:0", "10.1.0.0/16:65536", "10.1.0.0/16:9-8",
     "10.1.0.0/16:http", "fd00::/8:8443", "[10.1.0.0/16", "10.1.0.0/16:", "10.1.0.0/16:1-2-3", "[]:443"],
)  # fmt: skip
def test_what_is_no_allowance_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no network|ports are numbers"):
        Allowance.parse(text)


INWARD = {
    "0.0.0.0/0": "machine itself",
    "0.0.0.0/8": "machine itself",
    "0.0.0.0/32": "machine itself",
    "64.0.0.0/2": "loopback",
    "127.0.0.1": "loopback",
    "127.0.0.0/8:8443": "loopback",
    "169.254.0.0/16": "link-local",
    "169.254.7.0/24": "link-local",
    "168.0.0.0/6": "link-local",
    "224.0.0.0/24": "multicast",
    "255.255.255.255": "reserved",
    "128.0.0.0/1": "link-local",
    "::/0": "loopback",
    "::1": "loopback",
    "::/96": "loopback",
    "::ffff:10.0.0.0/104": "IPv4 addresses in IPv6",
    "64:ff9b::/96": "IPv4 addresses in IPv6",
    "2002::/16": "6to4",
    "2001::/32": "Teredo",
    "fe80::/64": "link-local",
    "[fe80::/10]:443": "link-local",
    "f000::/4": "link-local",
    "ff02::/16": "multicast",
}
OPEN = [
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "10.1.2.3:443",
    "fd00::/8", "fc00::/7", "2001:db8:7::/48", "203.0.113.0/24",
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), INWARD.items(), ids=INWARD)
def test_what_no_webhook_may_reach_is_opened_to_no_partner_and_in_no_production(
    text: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        for_one_partner(text)


@pytest.mark.parametrize("text", OPEN)
def test_private_networks_may_be_opened(text: str) -> None:
    assert for_one_partner(text) == Allowance.parse(text)


@pytest.mark.parametrize(
    ("text", "is_wide"),
    [("10.0.0.0/15", True), ("10.0.0.0/16", False), ("10.0.0.0/8:443", True), ("fd00::/47", True),
     ("fd00::/48", False), ("fc00::/7", True), ("10.1.2.3", False)],
)  # fmt: skip
def test_a_network_of_more_than_one_site_is_wide(text: str, *, is_wide: bool) -> None:
    assert Allowance.parse(text).is_wide is is_wide


async def test_own_network_opens_its_port_for_this_exchange_and_for_no_other() -> None:
    async with receiving(OK) as receiver, client(allowed=()) as sender:
        url = f"http://127.0.0.1:{receiver.port}/"
        own = (Allowance.parse(f"127.0.0.1/32:{receiver.port}"),)
        beside = (Allowance.parse(f"127.0.0.1/32:{receiver.port + 1}"),)
        kinds = [
            (await sender.post(url, content=b"{}", headers={}, own=networks)).kind
            for networks in (own, (), beside, own)
        ]
    refused = Kind.REFUSED_ADDRESS
    assert kinds == [Kind.SUCCEEDED, refused, refused, Kind.SUCCEEDED]
    assert receiver.connections == 2, "no connection that was opened so is kept for another partner"


async def test_name_is_judged_by_the_port_it_is_called_at_also_behind_a_kept_connection() -> None:
    resolve, _ = naming(["127.0.0.1"])
    async with receiving(OK) as receiver, client(allowed=(), resolve=resolve) as sender:
        url = f"http://{NAME}:{receiver.port}/"
        own = (Allowance.parse(f"127.0.0.0/8:{receiver.port}"),)
        assert (await sender.post(url, content=b"{}", headers={}, own=own)).kind is Kind.SUCCEEDED
        assert (await sender.post(url, content=b"{}", headers={})).kind is Kind.REFUSED_ADDRESS
        assert receiver.connections == 1


async def test_person_who_types_a_url_is_told_at_once_where_its_name_leads() -> None:
    resolve, _ = naming(["93.184.216.34"], ["10.0.0.5"], ["10.0.0.5"], [])
    async with client(allowed=(), resolve=resolve) as sender:
        await sender.check_host(f"https://{NAME}/")
        with pytest.raises(AddressRefused, match="resolves to a private address"):
            await sender.check_host(f"https://{NAME}/")
        await sender.check_host(f"https://{NAME}/", (Allowance.parse("10.0.0.0/8:443"),))
        await sender.check_host(f"https://{NAME}/")  # it has no address yet


@pytest.mark.parametrize("text", ["169.254.169.254/32", "168.63.129.16:80", "[fd00:ec2::254/128]:80"])
def test_what_no_allowance_opens_is_refused_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="no webhook goes there"):
        Allowance.parse(text)
