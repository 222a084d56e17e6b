"""Calls to Partner Center: what an answer means (tables), and what a broken call means (real sockets)."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import orjson
import pytest

from app.domain.budget import Permit, Priority
from app.domain.catalogue import CATALOGUE
from app.domain.upstream import (
    ConnectionTrouble,
    HeldBack,
    NoRelationship,
    NotUnderstood,
    OutcomeUnknown,
    Refused,
    Said,
    Throttled,
    Unreachable,
    UpstreamFailure,
)
from app.kernel.settings import Settings
from app.microsoft import http
from app.microsoft.answer import MAX_RETRY_AFTER, Reply, failure, fold, read_retry_after, tidy
from app.microsoft.http import Call, Microsoft, Service
from app.platforms.partner_center.refusals import failure_of
from tests.support.gates import OpenGate

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REQUEST_ID = UUID("aaaaaaaa-0000-4000-8000-000000000001")
SERVICE = Service("http://partner-center.test/base", failure_of)


def error(code: object, description: str = "Words of Microsoft.") -> bytes:
    return orjson.dumps({"code": code, "description": description, "data": [], "source": "PartnerFD"})


# --- what an answer means -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_is_no_failure(status: int) -> None:
    assert failure(Reply(status), failure_of, of_customer=True, delegated=True, now=NOW) is None


@pytest.mark.parametrize(
    "status, body, of_customer, kind, code",
    [
        # the customer has not agreed
        (403, error("20002"), True, NoRelationship, "consent_missing"),
        (403, error(20002), True, NoRelationship, "consent_missing"),
        (403, error("9", "No commerce relationship with it."), True, NoRelationship, "consent_missing"),
        (404, error("1000", "Customer not found."), True, NoRelationship, "consent_missing"),
        (404, error("1000", "Customer 1-2-3 was not found"), True, NoRelationship, "consent_missing"),
        (404, error("60003", "?"), True, NoRelationship, "consent_missing"),
        (404, error("0", "The tenant does not exist."), True, NoRelationship, "consent_missing"),
        # the wrong kind of token
        (403, error("900329"), True, ConnectionTrouble, "credential_missing"),
        (403, error("900329"), False, ConnectionTrouble, "credential_missing"),
        # the partner as such
        (403, error("900124"), True, ConnectionTrouble, "access_denied"),
        (403, error("900149"), True, ConnectionTrouble, "access_denied"),
        # no access: for one customer it is that customer's matter, without one the connection's
        (403, error("900150"), True, Refused, "access_denied"),
        (403, error("900308"), True, Refused, "access_denied"),
        (403, error("900309"), True, Refused, "access_denied"),
        (403, error("2032"), True, Refused, "access_denied"),
        (403, error("123456"), True, Refused, "access_denied"),
        (403, b"", True, Refused, "access_denied"),
        (403, error("2032"), False, ConnectionTrouble, "access_denied"),
        (403, b"<html>", False, ConnectionTrouble, "access_denied"),
        # this request
        (400, error("800002"), True, Refused, "batch_refused"),
        (400, error("900118"), True, Refused, "batch_refused"),
        (400, b"", True, Refused, "batch_refused"),
        (400, error("3000"), False, Refused, "upstream_bad_request"),
        (404, error("1000", "Batch job not found."), True, Refused, "batch_refused"),
        (404, error("1000", "Device batch of the customer not known."), True, Refused, "batch_refused"),
        (404, b"", True, Refused, "batch_refused"),
        (405, b"", True, Refused, "batch_refused"),
        (409, error("409", "Exists already."), True, Refused, "batch_refused"),
        (413, b"", True, Refused, "batch_refused"),
        # nobody knows
        (500, error("900192"), True, OutcomeUnknown, "upstream_unavailable"),
        (500, b"Sequence contains no matching element", True, OutcomeUnknown, "upstream_unavailable"),
        (501, b"", True, OutcomeUnknown, "upstream_unavailable"),
        (502, b"<html>", True, OutcomeUnknown, "upstream_unavailable"),
        (503, b"", False, OutcomeUnknown, "upstream_unavailable"),
        (504, b"\xff\xfe", True, OutcomeUnknown, "upstream_unavailable"),
        (408, b"", True, OutcomeUnknown, "upstream_unavailable"),
        (302, b"", True, NotUnderstood, "upstream_not_understood"),
        # credentials
        (401, error("400", "Access denied."), True, ConnectionTrouble, "credential_refused"),
        (401, b"", True, ConnectionTrouble, "credential_refused"),
        (401, error("900420"), False, ConnectionTrouble, "credential_refused"),
        (401, error("900421"), True, ConnectionTrouble, "mfa_required"),
        (401, error(900421), False, ConnectionTrouble, "mfa_required"),
        (429, b"", True, Throttled, "upstream_throttled"),
    ],
)
def test_what_a_status_with_a_code_means(
    status: int, body: bytes, of_customer: bool, kind: type[UpstreamFailure], code: str
) -> None:
    wrong = failure(Reply(status, body), failure_of, of_customer=of_customer, delegated=True, now=NOW)
    assert type(wrong) is kind
    assert wrong.code == code
    assert wrong.code in CATALOGUE
    assert wrong.said.status == status
    if isinstance(wrong, OutcomeUnknown):
        assert wrong.answered


@pytest.mark.parametrize(
    "reply, delegated, code",
    [
        (Reply(401, reason="Unauthorized - MFA required"), True, "mfa_required"),
        (Reply(401, headers={"www-authenticate": 'Bearer error="invalid_token"'}), True, "mfa_required"),
        (Reply(401, headers={"www-authenticate": 'Bearer realm="x", error="MFA"'}), True, "mfa_required"),
        (Reply(401, error("400", "Multi-factor authentication is required")), True, "mfa_required"),
        (
            Reply(401, headers={"www-authenticate": 'Bearer error="invalid_token"'}),
            False,
            "credential_refused",
        ),
        (
            Reply(401, error("400"), {"www-authenticate": 'Bearer error="invalid_token"'}),
            True,
            "credential_refused",
        ),
        (
            Reply(401, headers={"www-authenticate": "OAuth realm=urn:cpsvc:cpid:1"}),
            True,
            "credential_refused",
        ),
    ],
)
def test_the_need_of_mfa_is_found_wherever_microsoft_hides_it(
    reply: Reply, delegated: bool, code: str
) -> None:
    wrong = failure(reply, failure_of, of_customer=True, delegated=delegated, now=NOW)
    assert isinstance(wrong, ConnectionTrouble)
    assert wrong.code == code


@pytest.mark.parametrize(
    "headers, body, seconds",
    [
        ({"retry-after": "57"}, b"", 57),
        ({"retry-after": " 0 "}, b"", 0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, b"", 30),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, b"", 0),
        # Microsoft's date is measured by Microsoft's clock
        ({"retry-after": "Sun, 01 Mar 2026 15:00:30 GMT", "date": "Sun, 01 Mar 2026 15:00:00 GMT"}, b"", 30),
        ({"retry-after": "99999999999"}, b"", MAX_RETRY_AFTER.total_seconds()),
        ({"retry-after": "20"}, b'{"statusCode":429,"message":"Try again in 57 seconds."}', 20),
        ({}, b'{"statusCode":429,"message":"Rate limit is exceeded. Try again in 57 seconds."}', 57),
        ({}, error("429", "Too many requests, try again in 9 s."), 9),
        ({"retry-after": "soon"}, b'{"message":"Try again in 5 seconds."}', 5),
        ({"retry-after": "soon"}, b"", None),
        ({}, b"", None),
        ({}, error("429", "Too many requests."), None),
    ],
)
def test_how_long_a_429_asks_to_wait(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    wrong = failure(Reply(429, body, headers), failure_of, of_customer=True, delegated=True, now=NOW)
    assert isinstance(wrong, Throttled)
    assert wrong.retry_after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "value", [None, "", "-5", "1e9", "٣", "Sun, 99 Foo 2026", "Sun, 01 Mar 99999 12:00:30 GMT"]
)
def test_an_unreadable_retry_after_is_none(value: str | None) -> None:
    assert read_retry_after(value, now=NOW) is None


@pytest.mark.parametrize(
    "body, content_type, code, description",
    [
        (error("800002", "Bad."), "application/json", "800002", "Bad."),
        (error(800002, "Bad."), "application/json", "800002", "Bad."),
        (b'{"Code":"3000","Description":"Bad."}', "application/json", "3000", "Bad."),
        (b'{"statusCode":400,"message":"Bad."}', "application/json", None, "Bad."),
        (b'{"error":{"code":"X1","message":"Bad."}}', "application/json", "X1", "Bad."),
        (b'{"error":"X1","error_description":"Bad."}', "application/json", "X1", "Bad."),
        (b'"Bad."', "application/json", None, "Bad."),
        (b'["Bad."]', "application/json", None, "Status line"),
        (b'{"code":null,"description":""}', "application/json", None, "Status line"),
        (b'{"code":true}', "application/json", None, "Status line"),
        (b"Bad.", "text/plain", None, "Bad."),
        (b"Bad.", "", None, "Bad."),
        (b"<html>Bad.</html>", "text/html", None, "Status line"),
        (b"", "application/json", None, "Status line"),
        (b'\xef\xbb\xbf{"code":', "application/json", None, "Status line"),
        (error("1", "two\r\nlines\x00\x1b[31m"), "application/json", "1", "two lines [31m"),
        (error("1", "x " * 500), "application/json", "1", ("x " * 500)[:300]),
        (
            error("1", "hash T0" + "Ab1/" * 900 + " refused"),
            "application/json",
            "1",
            "hash [removed] refused",
        ),
    ],
)
def test_microsofts_words_are_kept_short_and_clean(
    body: bytes, content_type: str, code: str | None, description: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    wrong = failure(
        Reply(400, body, headers, "Status line"), failure_of, of_customer=True, delegated=True, now=NOW
    )
    assert wrong is not None
    assert (wrong.said.code, wrong.said.description) == (code, description)


def test_property_names_are_folded_at_every_depth() -> None:
    assert fold({" Attributes": [{"ObjectType": "Device"}], "B": 1}) == {
        "attributes": [{"objecttype": "Device"}],
        "b": 1,
    }


def test_tidy_leaves_identifiers_and_links_whole() -> None:
    text = "see https://a.test/b?c=d and 0127ed8e-aaaa-4bbb-8ccc-ddddeeeeffff"
    assert tidy(text, limit=100) == text


MARK = b"\xef\xbb\xbf"


def test_one_byte_order_mark_before_the_json_is_dropped() -> None:
    assert Reply(200, MARK + b'{"Items": []}').json() == {"items": []}
    wrong = failure(
        Reply(400, MARK + error("2000", "Bad."), {}), failure_of, of_customer=True, delegated=True, now=NOW
    )
    assert wrong is not None
    assert (wrong.said.code, wrong.said.description) == ("2000", "Bad.")


def test_a_byte_order_mark_before_plain_words_is_not_shown() -> None:
    wrong = failure(
        Reply(400, MARK + b"Bad.", {"content-type": "text/plain"}),
        failure_of,
        of_customer=True,
        delegated=True,
        now=NOW,
    )
    assert wrong is not None
    assert wrong.said.description == "Bad."


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", MARK, MARK + MARK + b"{}", b"\xff\xfe{\x00}\x00", b"[" * 900 + b"]" * 900]
)
def test_a_success_that_is_not_json_is_an_unknown_outcome(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown) as raised:
        Reply(200, body, {"content-type": "text/html; charset=utf-8"}).json()
    assert raised.value.answered
    assert "text/html" in str(raised.value.said)


@pytest.mark.parametrize(
    "status, body, divisible",
    [
        (400, b"", True),
        (400, error("800002", "The request is invalid."), True),
        (400, error("3000", "Invalid property: SerialNumber."), True),
        (413, b"<html>", True),
        (400, error("3000", "Invalid property: BatchId."), False),
        (400, error("900118"), False),
        (400, error("900127"), False),
        (404, b"", False),
        (409, b"", False),
        (405, b"", False),
    ],
)
def test_which_refusals_may_be_for_the_size_of_the_call(status: int, body: bytes, divisible: bool) -> None:
    wrong = failure(Reply(status, body, {}), failure_of, of_customer=True, delegated=True, now=NOW)
    assert isinstance(wrong, Refused)
    assert wrong.divisible is divisible


@pytest.mark.parametrize(
    "body, kind",
    [
        (error("20002"), NoRelationship),
        (error("1", "No commerce relationship with the customer."), NoRelationship),
        (error("60003"), NoRelationship),
        (error("900329"), ConnectionTrouble),
    ],
)
def test_a_400_with_a_code_or_words_that_are_known_means_what_they_mean(
    body: bytes, kind: type[UpstreamFailure]
) -> None:
    assert type(failure(Reply(400, body, {}), failure_of, of_customer=True, delegated=True, now=NOW)) is kind


# --- making the call ------------------------------------------------------------------------------


@dataclass
class Tokens:
    """A bearer that hands out t1, t2, ... and notes when one is thrown away."""

    delegated: bool = True
    current: int = 1
    forgotten: list[str] = field(default_factory=list)
    gate: OpenGate = field(default_factory=OpenGate)

    async def token(self) -> str:
        return f"t{self.current}"

    def forget(self) -> None:
        self.forgotten.append(f"t{self.current}")
        self.current += 1


def a_call(
    method: str = "GET",
    body: bytes | None = None,
    priority: Priority = Priority.FIRST,
) -> Call:
    headers = {"MS-RequestId": str(REQUEST_ID)}
    path = "/v1/customers/x/deviceBatches"
    return Call(SERVICE, "list_batches", method, path, priority, True, headers, body)


def settings(timeout_s: float = 5.0) -> Settings:
    return Settings(upstream_timeout_s=timeout_s)


@dataclass(frozen=True)
class Wired:
    """The clients, and the server of a test that they call."""

    microsoft: Microsoft
    base_url: str

    async def call(self, call: Call, bearer: Tokens) -> Reply:
        return await self.microsoft.call(replace(call, service=Service(self.base_url, failure_of)), bearer)


Wire = Callable[[httpx.Request], httpx.Response]


@asynccontextmanager
async def microsoft(wire: Wire) -> AsyncIterator[Microsoft]:
    opened = Microsoft.open(settings(), transport=httpx.MockTransport(wire))
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_call_carries_the_platforms_headers_and_the_body_untouched() -> None:
    seen: list[httpx.Request] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, headers={"Location": "/customers/x/batchJobStatus/y"})

    async with microsoft(wire) as opened:
        reply = await opened.call(a_call("POST", b'{"a":1}'), Tokens())
    assert (reply.status, reply.header("LOCATION")) == (202, "/customers/x/batchJobStatus/y")
    request = seen[0]
    assert str(request.url) == "http://partner-center.test/base/v1/customers/x/deviceBatches"
    assert request.content == b'{"a":1}'
    expected = {
        "Authorization": "Bearer t1",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "MS-RequestId": str(REQUEST_ID),
    }
    assert {name: request.headers.get(name) for name in expected} == expected


async def test_a_call_without_body_says_nothing_of_content() -> None:
    seen: list[httpx.Request] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    async with microsoft(wire) as opened:
        await opened.call(a_call(), Tokens())
    assert "content-type" not in seen[0].headers


async def test_a_401_is_tried_once_more_with_a_fresh_token_and_the_same_ids() -> None:
    seen: list[tuple[str, str, bytes]] = []

    def wire(request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"]
        seen.append((token, request.headers["ms-requestid"], request.content))
        return httpx.Response(200 if token == "Bearer t2" else 401, json={})

    tokens = Tokens()
    async with microsoft(wire) as opened:
        await opened.call(a_call("POST", b"[]"), tokens)
    assert seen == [("Bearer t1", str(REQUEST_ID), b"[]"), ("Bearer t2", str(REQUEST_ID), b"[]")]
    assert tokens.forgotten == ["t1"]


async def test_a_second_401_is_believed() -> None:
    seen: list[str] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(401, content=error("400", "Access denied."))

    async with microsoft(wire) as opened:
        with pytest.raises(ConnectionTrouble) as raised:
            await opened.call(a_call(), Tokens())
    assert raised.value.code == "credential_refused"
    assert seen == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 429, 500, 503])
async def test_nothing_but_a_401_is_repeated(status: int) -> None:
    seen: list[str] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return httpx.Response(status)

    async with microsoft(wire) as opened:
        with pytest.raises(UpstreamFailure):
            await opened.call(a_call("POST", b"{}"), Tokens())
    assert seen == ["POST"]


async def test_a_redirect_is_not_followed_and_no_cookie_is_kept() -> None:
    seen: list[httpx.Request] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"Location": "/elsewhere", "Set-Cookie": "ARRAffinity=1; Path=/"})

    async with microsoft(wire) as opened:
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await opened.call(a_call(), Tokens())
    assert [request.url.path for request in seen] == ["/base/v1/customers/x/deviceBatches"] * 2
    assert all("cookie" not in request.headers for request in seen)


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ConnectError("x"),
        httpx.ConnectTimeout("x"),
        httpx.PoolTimeout("x"),
        httpx.UnsupportedProtocol("x"),
    ],
)
async def test_a_call_that_never_left_is_unreachable(broken: httpx.HTTPError) -> None:
    def wire(request: httpx.Request) -> httpx.Response:
        raise broken

    async with microsoft(wire) as opened:
        with pytest.raises(Unreachable):
            await opened.call(a_call("POST", b"{}"), Tokens())


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.LocalProtocolError("x"),
        httpx.DecodingError("x"),
    ],
)
async def test_a_call_that_broke_later_has_an_unknown_outcome(broken: httpx.HTTPError) -> None:
    def wire(request: httpx.Request) -> httpx.Response:
        raise broken

    async with microsoft(wire) as opened:
        with pytest.raises(OutcomeUnknown) as raised:
            await opened.call(a_call("POST", b"{}"), Tokens())
    assert not raised.value.answered
    assert raised.value.said.description == type(broken).__name__


async def test_an_answer_too_large_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1_000_000)
    packed = gzip.compress(bytes(50_000_000))

    def wire(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(packed))

    async with microsoft(wire) as opened:
        with pytest.raises(OutcomeUnknown) as raised:
            await opened.call(a_call(), Tokens())
    assert raised.value.answered


# --- real sockets ---------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, *, timeout_s: float = 5.0) -> AsyncIterator[Wired]:
    """Microsoft on a loopback socket that behaves as `serve` says."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    opened = Microsoft.open(settings(timeout_s))
    try:
        yield Wired(opened, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        await opened.close()
        server.close()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_closed_port_is_unreachable() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody connects")

    async with served(serve) as gone:
        pass
    again = Microsoft.open(settings())
    try:
        with pytest.raises(Unreachable):
            await Wired(again, gone.base_url).call(a_call("POST", b"{}"), Tokens())
    finally:
        await again.close()


async def test_a_server_that_is_no_tls_server_is_unreachable() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with served(serve) as plain:
        opened = Microsoft.open(settings())
        try:
            with pytest.raises(Unreachable):
                await Wired(opened, plain.base_url.replace("http:", "https:")).call(
                    a_call("POST", b"{}"), Tokens()
                )
        finally:
            await opened.close()


async def test_silence_after_the_request_is_an_unknown_outcome_at_the_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await reader.read()  # until the caller gives up

    async with served(serve, timeout_s=0.3) as opened:
        with pytest.raises(OutcomeUnknown) as raised:
            await opened.call(a_call("POST", b"{}"), Tokens())
    assert not raised.value.answered


async def test_an_answer_that_dribbles_for_ever_ends_at_the_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with served(serve, timeout_s=0.4) as opened:
        started = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown) as raised:
            await opened.call(a_call(), Tokens())
        assert asyncio.get_running_loop().time() - started < 3
    assert not raised.value.answered


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 202 Acc", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"]
)
async def test_a_connection_cut_at_any_point_of_the_answer_is_an_unknown_outcome(start: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(start)

    async with served(serve) as opened:
        with pytest.raises(OutcomeUnknown) as raised:
            await opened.call(a_call("POST", b"{}"), Tokens())
    assert not raised.value.answered


async def test_a_connection_reset_while_the_body_is_being_sent_is_an_unknown_outcome() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.transport.abort()

    async with served(serve) as opened:
        with pytest.raises(OutcomeUnknown):
            await opened.call(a_call("POST", b"x" * 8_000_000), Tokens())


async def test_a_refusal_sent_before_the_body_was_read_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with served(serve) as opened:
        with pytest.raises(Refused) as raised:
            await opened.call(a_call("POST", b"x" * 1_000_000), Tokens())
    assert raised.value.said.status == 413


async def test_the_reason_phrase_of_the_status_line_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            writer.write(b"HTTP/1.1 401 Unauthorized - MFA required\r\nContent-Length: 0\r\n\r\n")

    async with served(serve) as opened:
        with pytest.raises(ConnectionTrouble) as raised:
            await opened.call(a_call(), Tokens())
    assert raised.value.code == "mfa_required"


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with served(serve) as opened:
        assert (await opened.call(a_call(), Tokens())).json() == {}


async def test_cancelling_a_call_lets_its_connection_go() -> None:
    arrived, hung_up = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        arrived.set()
        await reader.read()
        hung_up.set()

    async with served(serve) as opened:
        task = asyncio.ensure_future(opened.call(a_call(), Tokens()))
        await asyncio.wait_for(arrived.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(hung_up.wait(), 5)


async def test_every_call_enters_its_connections_budget_and_says_how_it_went() -> None:
    answers = [httpx.Response(200, json={}), httpx.Response(429, headers={"Retry-After": "7"})]
    tokens = Tokens()
    async with microsoft(lambda request: answers.pop(0)) as opened:
        await opened.call(a_call("POST", b"[]", Priority.BEGUN), tokens)
        with pytest.raises(Throttled):
            await opened.call(a_call(priority=Priority.NEXT), tokens)
    assert tokens.gate.entered == [Priority.BEGUN, Priority.NEXT]
    succeeded, throttled = tokens.gate.left
    assert succeeded is None
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == timedelta(seconds=7)


async def test_a_call_that_its_budget_holds_back_reaches_nobody() -> None:
    class Closed(OpenGate):
        async def enter(self, priority: Priority) -> Permit:
            raise HeldBack("upstream_throttled", timedelta(seconds=9), Said(description="not yet"))

    seen: list[httpx.Request] = []

    def wire(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    tokens = Tokens(gate=Closed())
    async with microsoft(wire) as opened:
        with pytest.raises(HeldBack):
            await opened.call(a_call(), tokens)
    assert seen == []
    assert tokens.gate.left == []
