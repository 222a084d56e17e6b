"""Calls to platform APIs: time limits, one retry with a fresh token, and interrupted calls.

After a failure it matters whether the request may have left this machine. Waiting for a free connection,
connecting and TLS have their own time limits, which together are shorter than that of the whole call; so a
call that ends later than these counts as sent. Only a 401 is retried, because it had no effect: any other
retry is for callers, who know what has been stored. `answer` interprets the answers. Addresses, headers and
the meaning of refusals belong to the platform, and come with each call.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, Self

import httpx

from app.domain.budget import Permit, Priority
from app.domain.upstream import (
    ConnectionTrouble,
    NotUnderstood,
    OutcomeUnknown,
    Said,
    Unreachable,
    UpstreamFailure,
)
from app.kernel.settings import Settings
from app.microsoft.answer import Reply, failure
from app.microsoft.timing import CallTiming
from app.microsoft.tokens import TokenService, no_cookies

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Our own limit. A job of 1,000 devices is about 0.3 MB; a customer's list of group tags is not paged."""
MAX_CONNECTIONS = 64
"""Our own limit for one process: twice the `worker_lanes` of the largest sensible worker."""
LOGIN_TIMEOUT_S = 30.0
"""The most seconds for each of the two requests of a login: Entra answers in under one."""

_KEEPALIVE_S = 4.0  # below the 5 s after which common servers drop an idle connection
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Gate(Protocol):
    """The budget of a connection: every call enters it and reports its result."""

    async def enter(self, priority: Priority) -> Permit:
        """Waits briefly if needed. Raises HeldBack if the wait would be too long."""
        ...

    async def leave(self, permit: Permit, failure: UpstreamFailure | None) -> None:
        """Reports the call's failure, or None for success. A cancelled call reports nothing."""
        ...


class Bearer(Protocol):
    """The source of a call's access token, and its budget."""

    @property
    def gate(self) -> Gate: ...

    @property
    def delegated(self) -> bool:
        """Whether it is an App+User token."""
        ...

    async def token(self) -> str:
        """A valid token. Raises ConnectionTrouble, Throttled or Unreachable."""
        ...

    def forget(self) -> None:
        """Drops a token that Microsoft refused; the next `token` fetches a fresh one."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """One API: its address, and the meaning of its refusals."""

    base_url: str
    refusal: Callable[[Said, bool], UpstreamFailure]
    """The failure for a status from 400 to 499 except 401, 408 and 429. True: the path names a customer."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to make; an equal value is the same call."""

    service: Service
    operation: str
    """The call's name for the metrics, one of a few, without any id."""
    method: str
    path: str
    """Follows the base URL, with the query, percent-encoded."""
    priority: Priority
    of_customer: bool
    """The path names a customer: a refusal may concern only this customer."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The platform's own headers, besides those of every call."""
    body: bytes | None = field(default=None, repr=False)
    """JSON in UTF-8."""


class Microsoft:
    """The HTTP clients for Microsoft, one for each process. Holds no partner's data and no token."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient, tokens: TokenService) -> None:
        self.tokens = tokens
        self._deadline_s = settings.upstream_timeout_s
        self._client = client

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        login_transport: httpx.BaseTransport | None = None,
    ) -> Self:
        """Creates the clients without connecting. The transports are for tests at the wire."""
        total = settings.upstream_timeout_s
        # Three waits before the first byte (a free connection, TCP, TLS), together below `total`.
        before_sending = min(10.0, total / 4)
        client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            cookies=no_cookies(),
            http2=False,  # measured: ten times the CPU of HTTP/1.1 for a body of 4 MB
            follow_redirects=False,
            timeout=httpx.Timeout(total, connect=before_sending, pool=before_sending),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS // 2,
                keepalive_expiry=_KEEPALIVE_S,
            ),
        )
        tokens = TokenService(
            settings.login_url, timeout_s=min(LOGIN_TIMEOUT_S, total), transport=login_transport
        )
        return cls(settings, client, tokens)

    async def close(self) -> None:
        self.tokens.close()
        await self._client.aclose()

    async def call(self, call: Call, bearer: Bearer) -> Reply:
        """Makes a call and returns the answer if it succeeded (2xx).

        After a 401, retries once with a fresh token and the same request id. Raises HeldBack if the
        connection's budget allows no call now; what `app.microsoft.answer.failure` makes of any other answer;
        Unreachable if nothing was sent; OutcomeUnknown(answered=False) if something may have been; and the
        token service's failures, because a login that hangs delays a connection as a call does.
        `settings.upstream_timeout_s` bounds both tries together.
        """
        permit = await bearer.gate.enter(call.priority)
        try:
            reply = await self._answer(call, bearer)
        except UpstreamFailure as failure:
            await bearer.gate.leave(permit, failure)
            raise
        await bearer.gate.leave(permit, None)
        return reply

    async def _answer(self, call: Call, bearer: Bearer) -> Reply:
        token = await bearer.token()
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        reply = await self._exchange(call, token, deadline)
        if reply.status == 401:
            bearer.forget()
            token = await bearer.token()
            if asyncio.get_running_loop().time() >= deadline:
                raise Unreachable(Said(401, None, "no time was left to try again with a fresh token"))
            reply = await self._exchange(call, token, deadline)
        wrong = failure(
            reply,
            call.service.refusal,
            of_customer=call.of_customer,
            delegated=bearer.delegated,
            now=datetime.now(UTC),
        )
        if wrong is None:
            return reply
        if isinstance(wrong, ConnectionTrouble):
            bearer.forget()
        raise wrong

    async def _exchange(self, call: Call, token: str, deadline: float) -> Reply:
        timing = CallTiming(call.operation)
        request = self._client.build_request(
            call.method, call.service.base_url + call.path, content=call.body, headers=_headers(call, token)
        )
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._client.send(request, stream=True)
                try:
                    reply = await _read(response)
                finally:
                    await response.aclose()
        except OutcomeUnknown:
            timing.failed(sent=True)
            raise
        except _NOTHING_SENT as error:
            timing.failed(sent=False)
            raise Unreachable(_about(error)) from None
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            timing.failed(sent=True)
            raise OutcomeUnknown(_about(error), answered=False) from None
        timing.answered(reply.status)
        return reply


def _headers(call: Call, token: str) -> dict[str, str]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": "Registrar",
        **call.headers,
    }
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    return headers


async def _read(response: httpx.Response) -> Reply:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise NotUnderstood(Said(response.status_code, None, "the answer is too large"))
    return Reply(response.status_code, bytes(body), _folded_headers(response.headers), response.reason_phrase)


def _folded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _about(error: Exception) -> Said:
    """Only the kind of the error, because its text may name addresses inside the operator's network."""
    return Said(description=type(error).__name__)
