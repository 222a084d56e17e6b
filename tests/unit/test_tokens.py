"""Tokens: what goes to Entra, and what its refusals mean. The only fake is the wire."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import httpx
import pytest

from app.domain.catalogue import lookup
from app.domain.upstream import ConnectionTrouble, LoginNotUnderstood, Throttled, Unreachable, UpstreamFailure
from app.microsoft.tokens import TokenService, refusal

TENANT = UUID("11111111-2222-3333-4444-555555555555")
CLIENT = "66666666-7777-8888-9999-000000000000"
SECRET = "s3cret/with+odd=chars"
REFRESH = "1.refresh-token-of-the-test"
LOGIN = "http://login.test:9000/base"
SCOPE, USER_SCOPE = "https://api.example.com/.default", "https://api.example.com/user_impersonation"
MSAL_BASE = f"https://login.microsoftonline.com/{TENANT}"


def configuration(token_endpoint: str = f"{MSAL_BASE}/oauth2/v2.0/token") -> httpx.Response:
    return httpx.Response(
        200,
        json={
            "issuer": f"{MSAL_BASE}/v2.0",
            "authorization_endpoint": f"{MSAL_BASE}/oauth2/v2.0/authorize",
            "token_endpoint": token_endpoint,
        },
    )


class Entra:
    """The token service at the wire: gives metadata, and the answers in their order (the last one stays)."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.metadata: httpx.Response | Exception = configuration()
        self.forms: list[dict[str, str]] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "GET":
            answer = self.metadata
        else:
            self.forms.append(
                {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
            )
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def granted(**more: Any) -> httpx.Response:
    return httpx.Response(
        200, json={"token_type": "Bearer", "expires_in": 3599, "access_token": "at-1", **more}
    )


def refused(status: int, error: str, code: int, text: str, **more: Any) -> httpx.Response:
    description = f"AADSTS{code}: {text} Trace ID: 0000-1 Correlation ID: 0000-2 Timestamp: 2026-01-01"
    body = {"error": error, "error_description": description, "error_codes": [code], **more}
    return httpx.Response(status, json=body)


Open = Callable[[Entra], TokenService]


@pytest.fixture
def open_service() -> Iterator[Open]:
    services: list[TokenService] = []

    def open_one(entra: Entra) -> TokenService:
        services.append(TokenService(LOGIN, timeout_s=5, transport=httpx.MockTransport(entra)))
        return services[-1]

    yield open_one
    for service in services:
        service.close()


async def app_token(service: TokenService) -> Any:
    return await service.for_app(tenant_id=TENANT, scope=SCOPE, client_id=CLIENT, client_secret=SECRET)


async def user_token(service: TokenService) -> Any:
    return await service.redeem(
        tenant_id=TENANT,
        scope=USER_SCOPE,
        client_id=CLIENT,
        client_secret=SECRET,
        refresh_token=REFRESH,
    )


async def test_an_app_token_is_asked_for_at_the_configured_address(open_service: Open) -> None:
    entra = Entra(granted())
    tokens = await app_token(open_service(entra))
    assert (tokens.access_token, tokens.expires_in, tokens.refresh_token) == (
        "at-1",
        timedelta(seconds=3599),
        None,
    )
    assert [(r.method, str(r.url)) for r in entra.requests] == [
        ("GET", f"{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration"),
        ("POST", f"{LOGIN}/{TENANT}/oauth2/v2.0/token"),
    ]
    form = entra.forms[0]
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == SCOPE
    assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)


async def test_a_refresh_token_is_redeemed_for_its_scope_and_the_rotated_one_comes_back(
    open_service: Open,
) -> None:
    entra = Entra(granted(refresh_token="rt-2", scope="user_impersonation"))
    tokens = await user_token(open_service(entra))
    assert (tokens.access_token, tokens.refresh_token) == ("at-1", "rt-2")
    form = entra.forms[0]
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", REFRESH)
    assert USER_SCOPE in form["scope"].split()
    assert "offline_access" in form["scope"].split()


async def test_every_call_reaches_entra_even_right_after_a_token_or_a_refusal(open_service: Open) -> None:
    entra = Entra(
        granted(),
        granted(access_token="at-2"),
        refused(400, "invalid_grant", 50173, "Revoked."),
        granted(access_token="at-3"),
    )
    service = open_service(entra)
    assert (await user_token(service)).access_token == "at-1"
    assert (await user_token(service)).access_token == "at-2"
    with pytest.raises(ConnectionTrouble):
        await user_token(service)
    assert (await user_token(service)).access_token == "at-3"


async def test_a_throttled_or_failed_call_is_asked_again_when_the_caller_asks_again(
    open_service: Open,
) -> None:
    entra = Entra(httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(503), granted())
    service = open_service(entra)
    with pytest.raises(Throttled) as throttled:
        await app_token(service)
    assert throttled.value.retry_after == timedelta(seconds=7)
    with pytest.raises(Unreachable):
        await app_token(service)
    assert (await app_token(service)).access_token == "at-1"


@pytest.mark.parametrize(
    "status, error, code, failure, catalogue_code",
    [
        (400, "invalid_grant", 50076, ConnectionTrouble, "mfa_required"),
        (400, "invalid_grant", 50079, ConnectionTrouble, "mfa_required"),
        (400, "invalid_grant", 50158, ConnectionTrouble, "mfa_required"),
        (400, "invalid_grant", 50078, ConnectionTrouble, "mfa_required"),
        (400, "interaction_required", 50199, ConnectionTrouble, "mfa_required"),
        (400, "invalid_grant", 50173, ConnectionTrouble, "sign_in_revoked"),
        (400, "invalid_grant", 700082, ConnectionTrouble, "refresh_token_expired"),
        (400, "invalid_grant", 53003, ConnectionTrouble, "conditional_access_blocked"),
        (400, "invalid_grant", 65001, ConnectionTrouble, "app_consent_missing"),
        (401, "invalid_client", 7000215, ConnectionTrouble, "credential_refused"),
        (401, "invalid_client", 7000222, ConnectionTrouble, "client_secret_expired"),
        (400, "unauthorized_client", 700016, ConnectionTrouble, "app_not_found"),
        (400, "invalid_request", 90002, ConnectionTrouble, "tenant_not_found"),
        (400, "something_new", 999999, ConnectionTrouble, "credential_refused"),
        (400, "temporarily_unavailable", 90033, Unreachable, "upstream_unavailable"),
        (400, "invalid_request", 90012, Unreachable, "upstream_unavailable"),
        (503, "temporarily_unavailable", 90033, Unreachable, "upstream_unavailable"),
        (500, "server_error", 90000, Unreachable, "upstream_unavailable"),
        (400, "invalid_request", 50196, Throttled, "upstream_throttled"),
        (429, "too_many_requests", 90055, Throttled, "upstream_throttled"),
    ],
)
async def test_what_a_refusal_means(
    open_service: Open,
    status: int,
    error: str,
    code: int,
    failure: type[UpstreamFailure],
    catalogue_code: str,
) -> None:
    service = open_service(Entra(refused(status, error, code, "Words of Entra.")))
    with pytest.raises(UpstreamFailure) as raised:
        await user_token(service)
    assert type(raised.value) is failure
    assert raised.value.code == catalogue_code
    said = raised.value.said
    assert (said.status, said.code, said.description) == (status, f"AADSTS{code}", "Words of Entra.")


@pytest.mark.parametrize(
    "error, suberror, number, code",
    [
        # The number refines what `error` says...
        ("invalid_grant", None, 50079, "mfa_required"),
        ("interaction_required", None, 53003, "conditional_access_blocked"),
        ("access_denied", None, 53003, "conditional_access_blocked"),
        ("invalid_grant", "token_expired", 70043, "sign_in_frequency"),
        ("invalid_grant", "basic_action", 53003, "conditional_access_blocked"),
        ("invalid_grant", None, 50057, "user_disabled"),
        ("invalid_client", None, 700016, "app_not_found"),
        ("unauthorized_client", None, 7000112, "app_not_found"),
        ("INVALID_GRANT", "Consent_Required", 1, "app_consent_missing"),
        # ...and is not believed against it.
        ("invalid_client", None, 65001, "credential_refused"),
        ("invalid_client", "basic_action", 50076, "credential_refused"),
        ("invalid_grant", None, 7000222, "credential_refused"),
        ("invalid_grant", "consent_required", 50076, "app_consent_missing"),
        # Without a number that is known, `error` and `suberror` stand alone.
        ("invalid_grant", "consent_required", None, "app_consent_missing"),
        ("consent_required", None, None, "app_consent_missing"),
        ("interaction_required", None, None, "mfa_required"),
        ("invalid_grant", "basic_action", 999999, "mfa_required"),
        ("invalid_grant", "message_only", None, "conditional_access_blocked"),
        ("invalid_grant", "token_expired", None, "refresh_token_expired"),
        ("invalid_grant", "something_new", None, "credential_refused"),
        ("invalid_grant", None, None, "credential_refused"),
        ("invalid_client", None, None, "credential_refused"),
    ],
)
@pytest.mark.parametrize("place", ["array", "text"])
def test_error_and_suberror_decide_and_the_number_refines(
    error: str, suberror: str | None, number: int | None, code: str, place: str
) -> None:
    body: dict[str, Any] = {"error": error, "error_description": "Words of Entra."}
    if suberror is not None:
        body["suberror"] = suberror
    if number is not None and place == "array":
        body["error_codes"] = [123456, number]
    elif number is not None:
        body["error_description"] = f"Refused: AADSTS{number}: Words of Entra."
    assert refusal(400, body, None).code == code


def test_every_kind_of_refusal_has_a_remedy_of_its_own() -> None:
    codes = {65001, 53003, 700016, 7000222, 700082, 50173, 50076, 70043, 50057, 90002}
    of_app = {700016: "unauthorized_client", 7000222: "invalid_client", 90002: "invalid_request"}
    found = {
        refusal(400, {"error": of_app.get(n, "invalid_grant"), "error_codes": [n]}, None).code for n in codes
    }
    assert len(found) == len(codes)
    assert len({lookup(code).remedy for code in found}) == len(codes)


@pytest.mark.parametrize(
    "body, code, description",
    [
        ({"error": "invalid_client"}, "invalid_client", None),
        ({"error": "invalid_grant", "error_codes": ["50076", "x", None]}, "AADSTS50076", None),
        ({"error": "x", "error_description": "AADSTS50173: One.\r\nTrace ID: 5"}, "AADSTS50173", "One."),
        ({"error": "x", "error_description": "No number: here"}, "x", "No number: here"),
        ({"error": 5, "error_description": 6}, "5", None),
    ],
)
def test_refusals_of_odd_shape_are_read_as_far_as_they_go(
    body: dict[str, Any], code: str, description: str | None
) -> None:
    said = refusal(400, body, None).said
    assert (said.code, said.description) == (code, description)


async def test_an_unknown_tenant_is_the_connections_trouble(open_service: Open) -> None:
    entra = Entra(granted())
    entra.metadata = refused(400, "invalid_tenant", 90002, "Tenant not found.")
    with pytest.raises(ConnectionTrouble) as raised:
        await app_token(open_service(entra))
    assert raised.value.code == "tenant_not_found"
    assert raised.value.said.code == "AADSTS90002"
    assert entra.forms == []


MARK = b"\xef\xbb\xbf"
AWAY: list[httpx.Response | Exception] = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("slow"),
    httpx.ReadTimeout("silent"),
    httpx.RemoteProtocolError("cut"),
    httpx.Response(502, text="<html>bad gateway</html>"),
]
NO_ANSWERS = [
    httpx.Response(403, text="<html>a proxy says no</html>"),
    httpx.Response(200, text="<html>welcome to the hotel</html>"),
    httpx.Response(200, json=["no", "object"]),
    httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
    httpx.Response(200, content=b"x" * 300_000),
    httpx.Response(400),
    httpx.Response(400, json={"message": "no error of Entra's"}),
    httpx.Response(200, content=MARK * 2 + b"{}"),
]
NO_TOKENS = [
    httpx.Response(200, json={"token_type": "Bearer"}),
    httpx.Response(200, json={"access_token": "nicht-ascii-ä"}),
    httpx.Response(200, json={"access_token": 5}),
]


def marked(answer: httpx.Response) -> httpx.Response:
    return httpx.Response(answer.status_code, content=MARK + answer.content)


async def test_a_byte_order_mark_before_answers_and_errors_is_dropped(open_service: Open) -> None:
    entra = Entra(marked(granted()), marked(refused(401, "invalid_client", 7000215, "Wrong secret.")))
    entra.metadata = marked(configuration())
    service = open_service(entra)

    assert (await app_token(service)).access_token == "at-1"
    with pytest.raises(ConnectionTrouble) as raised:
        await app_token(service)
    assert raised.value.said.code == "AADSTS7000215"


@pytest.mark.parametrize("answer", AWAY)
async def test_a_token_service_that_is_away_is_unreachable(
    open_service: Open, answer: httpx.Response | Exception
) -> None:
    with pytest.raises(Unreachable):
        await app_token(open_service(Entra(answer)))
    entra = Entra(granted())
    entra.metadata = answer
    with pytest.raises(Unreachable):
        await app_token(open_service(entra))
    assert entra.forms == []


@pytest.mark.parametrize("answer", [*NO_ANSWERS, *NO_TOKENS])
async def test_what_is_no_token_of_entra_is_not_understood(
    open_service: Open, answer: httpx.Response
) -> None:
    entra = Entra(answer)
    with pytest.raises(LoginNotUnderstood) as raised:
        await app_token(open_service(entra))
    assert raised.value.code == "upstream_not_understood"
    assert f"HTTP {answer.status_code}" in str(raised.value.said)
    assert len(entra.forms) == 1


@pytest.mark.parametrize("answer", [*NO_ANSWERS, httpx.Response(200, json={"issuer": "x"})])
async def test_what_is_no_metadata_of_entra_is_not_understood(
    open_service: Open, answer: httpx.Response
) -> None:
    entra = Entra(granted())
    entra.metadata = answer
    with pytest.raises(LoginNotUnderstood):
        await app_token(open_service(entra))
    assert entra.forms == []


@pytest.mark.parametrize(
    "endpoint",
    [
        f"https://login.microsoftonline.us/{TENANT}/oauth2/v2.0/token",
        f"https://login.microsoftonline.com.evil.test/{TENANT}/oauth2/v2.0/token",
        f"https://login.microsoftonline.com:444/{TENANT}/oauth2/v2.0/token",
        f"http://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token",
        "https://[login.microsoftonline.com/x",
    ],
)
async def test_the_secret_goes_to_no_other_host_than_the_configured_one(
    open_service: Open, endpoint: str
) -> None:
    entra = Entra(granted())
    entra.metadata = configuration(endpoint)
    with pytest.raises(ConnectionTrouble) as raised:
        await app_token(open_service(entra))
    assert raised.value.code == "credential_refused"
    assert entra.forms == []


async def test_no_region_of_the_environment_changes_the_way(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSAL_FORCE_REGION", "westeurope")
    entra = Entra(granted())
    await app_token(open_service(entra))
    assert {request.url.host for request in entra.requests} == {"login.test"}


async def test_no_proxy_or_certificate_file_of_the_environment_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "absent.pem")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = (configuration() if head.startswith(b"GET") else granted()).content
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    service = TokenService(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=5)
    try:
        assert (await app_token(service)).access_token == "at-1"
    finally:
        service.close()
        server.close()


async def test_no_failure_and_no_log_line_repeats_a_secret(
    open_service: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = refused(400, "invalid_grant", 9002313, f"Malformed: {REFRESH} with {SECRET}")
    with pytest.raises(ConnectionTrouble) as raised:
        await user_token(open_service(Entra(echo)))
    shown = f"{raised.value!r} {raised.value.said} {raised.value.__cause__!r}"
    assert "Malformed" in shown
    tokens = await user_token(open_service(Entra(granted(refresh_token="rt-2"))))
    shown += repr(tokens) + "".join(
        record.getMessage() for record in caplog.records if record.name != "asyncio"
    )
    for secret in (SECRET, REFRESH, "at-1", "rt-2"):
        assert secret not in shown


async def test_cookies_of_one_partner_do_not_travel_with_the_next(open_service: Open) -> None:
    first = granted()
    first.headers["Set-Cookie"] = "fpc=partner-one; path=/"
    entra = Entra(first)
    service = open_service(entra)
    await app_token(service)
    await app_token(service)
    assert all("cookie" not in request.headers for request in entra.requests)


async def test_calls_run_side_by_side_and_leave_the_loop_free() -> None:
    together = threading.Barrier(4)

    def meet(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            together.wait(timeout=10)  # broken, and the test with it, unless all four are under way
        return configuration() if request.method == "GET" else granted()

    service = TokenService(LOGIN, timeout_s=5, transport=httpx.MockTransport(meet))
    try:
        tokens = await asyncio.gather(*(app_token(service) for _ in range(4)))
    finally:
        service.close()
    assert [token.access_token for token in tokens] == ["at-1"] * 4


@pytest.fixture
async def dribbling() -> AsyncIterator[str]:
    """A server that sends one byte of its answer every 20 ms, forever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_an_answer_that_never_ends_is_given_up_at_the_deadline(dribbling: str) -> None:
    service = TokenService(dribbling, timeout_s=0.3)
    try:
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unreachable):
            await app_token(service)
        assert asyncio.get_running_loop().time() - started < 3
    finally:
        service.close()


async def test_a_closed_port_is_unreachable() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    service = TokenService(f"http://127.0.0.1:{port}", timeout_s=2)
    try:
        with pytest.raises(Unreachable):
            await app_token(service)
    finally:
        service.close()
