"""Access tokens from Entra: requests, time limits, and the meaning of refusals.

The only module that imports MSAL. MSAL calls only https://login.microsoftonline.com, so it gets our own
transport, which sends these calls to the configured login address, keeps the time limits, ignores proxy and
certificate settings of the environment, and reads errors itself: MSAL would repeat a refusal from its cache
for a minute and drop half of what Entra said. For the same reason every call has its own application object
(2 to 3 ms), so that nothing is cached here.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import httpx
import msal
import orjson

from app.domain.upstream import (
    ConnectionTrouble,
    LoginNotUnderstood,
    Said,
    Throttled,
    Unreachable,
    UpstreamFailure,
)
from app.microsoft.answer import read_retry_after, tidy, without_mark
from app.microsoft.timing import CallTiming

_MSAL_HOST = "login.microsoftonline.com"
_MAX_ANSWER_BYTES = 256 * 1024  # a token with many groups in it is some 10 KB
_THREADS = 8
_NUMBER = re.compile(r"[0-9]{4,9}")
_IN_TEXT = re.compile(r"\bAADSTS([0-9]{4,9})\b")
_PREFIX = re.compile(r"\AAADSTS[0-9]{4,9}: ?")
_DEFAULT_LIFETIME_S = 3599

_APP_ERRORS = frozenset({"invalid_client", "unauthorized_client"})
_USER_ERRORS = frozenset(
    {"invalid_grant", "interaction_required", "consent_required", "login_required", "access_denied"}
)
"""OAuth's `error` tells whom a refusal concerns: the app and its secret, or the signed-in user."""

_APP_NUMBERS = {
    700016: "app_not_found",
    70001: "app_not_found",
    7000112: "app_not_found",  # disabled
    7000222: "client_secret_expired",
}
_USER_NUMBERS = {
    65001: "app_consent_missing",
    65004: "app_consent_missing",
    90094: "app_consent_missing",  # an administrator has to consent
    53000: "conditional_access_blocked",
    53001: "conditional_access_blocked",
    53002: "conditional_access_blocked",
    53003: "conditional_access_blocked",
    530032: "conditional_access_blocked",  # security defaults
    530034: "conditional_access_blocked",  # risk in the partner's tenant
    530035: "conditional_access_blocked",
    50072: "mfa_required",
    50074: "mfa_required",
    50076: "mfa_required",
    50078: "mfa_required",
    50079: "mfa_required",
    50158: "mfa_required",  # an external challenge
    53004: "mfa_required",  # to be enrolled
    500121: "mfa_required",
    70043: "sign_in_frequency",
    70044: "sign_in_frequency",
    70008: "refresh_token_expired",
    700082: "refresh_token_expired",
    50173: "sign_in_revoked",
    50057: "user_disabled",
    700016: "app_not_found",
}
_OTHER_NUMBERS = {90002: "tenant_not_found"} | _USER_NUMBERS | _APP_NUMBERS
"""Codes of AADSTS numbers that are more exact than `error`, by whom they concern."""

_SUBERRORS = {
    "consent_required": "app_consent_missing",
    "message_only": "conditional_access_blocked",
    "basic_action": "mfa_required",
    "additional_action": "mfa_required",
    "token_expired": "refresh_token_expired",
}
_ERRORS = {"consent_required": "app_consent_missing", "interaction_required": "mfa_required"}
_BUSY = frozenset({90006, 90012, 90033})
"""AADSTS codes of temporary faults at Entra, some of them sent with HTTP 400."""
_THROTTLED = frozenset({50196, 90055})
"""AADSTS codes for too many calls: a detected loop, or the tenant's limit."""


def no_cookies() -> CookieJar:
    """A jar that stores nothing: one client serves all partners, and a cookie would link them."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The result of one call to the token service."""

    access_token: str = field(repr=False)
    expires_in: timedelta
    refresh_token: str | None = field(repr=False)
    """The rotated refresh token, if any: store it before dropping the old one."""


class TokenService:
    """Entra's token endpoint. Safe to call from many tasks; does not merge equal calls.

    Every method raises ConnectionTrouble, Throttled, Unreachable or LoginNotUnderstood. A token call changes
    nothing at Microsoft that would have to be looked up, so there is no unknown outcome, with one exception:
    a redeemed refresh token whose answer is lost. Entra keeps the old token valid, so the next redemption
    succeeds. If a tenant's policy has revoked it, the next call raises `sign_in_revoked` and somebody has to
    sign in again.
    """

    def __init__(
        self, login_url: str, *, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`timeout_s` bounds each of the two requests of a call. `transport` is for tests at the wire."""
        self._login_url = login_url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            trust_env=False,
            cookies=no_cookies(),
            follow_redirects=False,
            headers={"User-Agent": "Registrar", "Accept-Encoding": "gzip"},
        )
        # Its own threads: a hanging login must not occupy the threads that decode uploads.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="login")

    async def for_app(self, *, tenant_id: UUID, scope: str, client_id: str, client_secret: str) -> Tokens:
        """An App-only token."""

        def ask(application: Any) -> dict[str, Any]:
            answer: dict[str, Any] = application.acquire_token_for_client([scope])
            return answer

        return await self._call(tenant_id, client_id, client_secret, (client_secret,), ask)

    async def redeem(
        self, *, tenant_id: UUID, scope: str, client_id: str, client_secret: str, refresh_token: str
    ) -> Tokens:
        """An App+User token, and the next refresh token."""

        def ask(application: Any) -> dict[str, Any]:
            answer: dict[str, Any] = application.acquire_token_by_refresh_token(refresh_token, [scope])
            return answer

        return await self._call(tenant_id, client_id, client_secret, (client_secret, refresh_token), ask)

    def close(self) -> None:
        """Closes without waiting: running calls fail because their connection is closed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _call(
        self,
        tenant_id: UUID,
        client_id: str,
        client_secret: str,
        unspeakable: tuple[str, ...],
        ask: Callable[[Any], dict[str, Any]],
    ) -> Tokens:
        wire = _Wire(self._client, self._login_url, self._timeout_s, unspeakable)

        def run() -> Tokens:
            application = msal.ConfidentialClientApplication(
                client_id,
                client_credential=client_secret,
                authority=f"https://{_MSAL_HOST}/{tenant_id}",
                instance_discovery=False,
                http_client=wire,
                # Otherwise MSAL_FORCE_REGION in the environment sends secrets to another host.
                azure_region=msal.ConfidentialClientApplication.DISABLE_MSAL_FORCE_REGION,
            )
            return _tokens(ask(application))

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _tokens(answer: Mapping[str, Any]) -> Tokens:
    access_token = answer.get("access_token")
    if not isinstance(access_token, str) or not access_token.isascii() or not access_token.strip():
        raise LoginNotUnderstood(Said(200, None, "the token service's answer has no token"))
    refresh_token = answer.get("refresh_token")
    try:
        lifetime = int(answer.get("expires_in") or _DEFAULT_LIFETIME_S)
    except (TypeError, ValueError):
        lifetime = _DEFAULT_LIFETIME_S
    return Tokens(
        access_token,
        timedelta(seconds=lifetime),
        refresh_token if isinstance(refresh_token, str) and refresh_token else None,
    )


@dataclass(frozen=True, slots=True)
class _WireAnswer:
    """An answer in MSAL's form. Always 200 with a JSON object, because anything else has been raised."""

    text: str
    headers: Mapping[str, str]
    status_code: int = 200

    def raise_for_status(self) -> None:
        """Does nothing: errors were raised before."""


@dataclass(frozen=True, slots=True)
class _Wire:
    """MSAL's HTTP client for one call. Raises the domain's failures straight through MSAL."""

    client: httpx.Client
    login_url: str
    timeout_s: float
    unspeakable: tuple[str, ...] = field(repr=False)
    """Secrets of this call. No message repeats them, even if the service's answer does."""

    def get(
        self, url: str, *, params: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> _WireAnswer:
        """Fetches the tenant's metadata, and checks its endpoints, because MSAL would trust them."""
        answer, body = self._exchange("GET", url, params=params, headers=headers, data=None)
        for name in ("authorization_endpoint", "token_endpoint"):
            endpoint = body.get(name)
            if not isinstance(endpoint, str):
                raise LoginNotUnderstood(Said(200, None, "the token service's metadata is incomplete"))
            _split_known(endpoint)
        return answer

    def post(
        self,
        url: str,
        *,
        params: Any = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        **_: Any,
    ) -> _WireAnswer:
        return self._exchange("POST", url, params=params, headers=headers, data=data)[0]

    def close(self) -> None:
        """Does nothing, because the client outlives the call."""

    def _exchange(
        self, method: str, url: str, *, params: Any, headers: Mapping[str, str] | None, data: Any
    ) -> tuple[_WireAnswer, dict[str, Any]]:
        timing = CallTiming("token" if method == "POST" else "token_metadata")
        target = _split_known(url)
        query = f"?{target.query}" if target.query else ""
        deadline = time.monotonic() + self.timeout_s
        try:
            with self.client.stream(
                method,
                f"{self.login_url}{target.path}{query}",
                params=params,
                headers=dict(headers or {}),
                data=data,
            ) as response:
                body = without_mark(_read(response, deadline))
                timing.answered(response.status_code)
        except UpstreamFailure:
            timing.failed(sent=True)
            raise
        except httpx.TimeoutException:
            timing.failed(sent=True)
            raise Unreachable(Said(description="the token service did not answer in time")) from None
        except httpx.HTTPError as error:
            timing.failed(sent=True)
            raise Unreachable(
                Said(description=f"the token service cannot be reached: {type(error).__name__}")
            ) from None
        answer = _json_object(body)
        if response.status_code == 200 and answer is not None and "error" not in answer:
            return _WireAnswer(body.decode("utf-8"), dict(response.headers)), answer
        raise refusal(
            response.status_code,
            answer or {},
            read_retry_after(response.headers.get("retry-after"), now=datetime.now(UTC)),
            unspeakable=self.unspeakable,
        )


def _split_known(url: str) -> SplitResult:
    """Splits a URL, and refuses any host but MSAL's own: the secret must not go elsewhere.

    A tenant of another cloud names that cloud's hosts, which Registrar does not support.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or parts.scheme != "https" or parts.netloc != _MSAL_HOST:
        raise ConnectionTrouble(
            "credential_refused",
            Said(description=f"the tenant's token service is at {tidy(url, limit=80)}"),
        )
    return parts


def _read(response: httpx.Response, deadline: float) -> bytes:
    """Reads the whole body before the deadline. httpx's own timeouts restart with every byte."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise LoginNotUnderstood(
                Said(response.status_code, None, "the token service's answer is too large")
            )
        if time.monotonic() > deadline:
            raise Unreachable(
                Said(response.status_code, None, "the token service's answer did not end in time")
            )
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class _Entra:
    """Entra's error body, as far as it could be read."""

    error: str
    suberror: str
    numbers: tuple[int, ...]
    """AADSTS numbers, from `error_codes` or otherwise from the text."""
    description: str | None

    @classmethod
    def read(cls, answer: Mapping[str, Any], unspeakable: tuple[str, ...]) -> Self:
        text = answer.get("error_description")
        codes = answer.get("error_codes")
        listed = codes if isinstance(codes, list) else []
        numbers = [int(str(code)) for code in listed if _NUMBER.fullmatch(str(code))]
        description = None
        if isinstance(text, str):
            numbers = numbers or [int(number) for number in _IN_TEXT.findall(text)]
            text = _PREFIX.sub("", text, count=1)
            for secret in unspeakable:
                text = text.replace(secret, "[removed]")
            # Entra's trace ids follow the first line, and nobody here can use them.
            text = text.lstrip().partition("\n")[0].partition(" Trace ID:")[0]
            description = tidy(text, limit=200)
        error, suberror = str(answer.get("error") or ""), str(answer.get("suberror") or "")
        return cls(error.lower(), suberror.lower(), tuple(numbers), description)

    @property
    def trouble(self) -> str:
        """The trouble's code. `error` and `suberror` decide its kind, and a number of that kind refines it.

        There are many numbers and they change between releases, so one of another kind is ignored.
        """
        if self.error in _APP_ERRORS:
            known, usual = _APP_NUMBERS, None
        else:
            known = _USER_NUMBERS if self.error in _USER_ERRORS else _OTHER_NUMBERS
            usual = _SUBERRORS.get(self.suberror) or _ERRORS.get(self.error)
            if usual == "app_consent_missing":
                return usual
        refined = next((known[number] for number in self.numbers if number in known), None)
        return refined or usual or "credential_refused"


def refusal(
    status: int,
    answer: Mapping[str, Any],
    retry_after: timedelta | None,
    *,
    unspeakable: tuple[str, ...] = (),
) -> UpstreamFailure:
    """The failure for an answer that is not a token. `answer` is its body, empty if that was not JSON.

    Anything but a temporary fault is the connection's trouble, with the code whose remedy fixes it; if none
    is more exact, `credential_refused`: a new secret or a new sign-in.
    """
    entra = _Entra.read(answer, unspeakable)
    code = f"AADSTS{entra.numbers[0]}" if entra.numbers else tidy(entra.error, limit=60) or None
    said = Said(status, code, entra.description)
    if status == 429 or _THROTTLED & set(entra.numbers):
        return Throttled(retry_after, said)
    if (
        status >= 500
        or _BUSY & set(entra.numbers)
        or entra.error in ("temporarily_unavailable", "server_error")
    ):
        return Unreachable(said)
    if not entra.error and not entra.numbers:
        words = entra.description or "the token service's answer is neither a token nor an error of Entra's"
        return LoginNotUnderstood(Said(status, None, words))
    return ConnectionTrouble(entra.trouble, said)
