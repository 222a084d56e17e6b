"""The guarded HTTP client for webhook URLs: which addresses may be called, and what an answer means.

A partner chooses the webhook URL, and Registrar calls it from inside the operator's network, so addresses are
checked where the connection is made: the name is resolved once, all its addresses are checked, and the
connection goes to a checked address, while Host header and certificate name stay those of the URL. So neither
a name of an internal address nor one that changes between check and use gets through.

It is built on httpcore's pool and not on `httpx.AsyncClient`, because everything the latter would add is
unwanted here: redirects, cookies, environment proxies, and an INFO line with the whole URL in it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import httpcore
import httpx

from app.domain.address import AddressRefused, Allowance, UrlRefused, check_host, explain, refusal
from app.domain.attempt import Kind, Outcome, excerpt, meaning, read_retry_after
from app.kernel.outbound_failures import judge

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to the addresses of that name; raises OSError when there is none."""

MAX_URL_LENGTH = 2_000
_BODY_PATIENCE = 2.0
"""Seconds for the body after the status. The status decides; the body is only for people."""
_LOOK_PATIENCE = 2.0
"""Seconds to resolve the name when somebody enters a URL. Otherwise the first call resolves it."""
_SYN_PATIENCE = 3.0
"""Seconds until the next address of a name is tried: two lost SYNs (sent at 0 and 1 s, a third at 3 s)."""
_MAX_ADDRESSES = 4
"""The most addresses of one name that are tried. All are checked."""
_KEEPALIVE_EXPIRY = 4.0
"""Seconds. Below the 5 s after which the commonest servers drop an idle connection (Node.js default)."""

_SPOKEN_FOR_PORTS = frozenset({21, 22, 23, 25, 53, 110, 143, 465, 587, 993, 995})
"""FTP, SSH, Telnet, DNS, mail: browsers refuse to send HTTP there too (WHATWG Fetch, "bad port")."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~]+([ \t]+[!-~]+)*")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@dataclass(slots=True)
class _Reply:
    """What has arrived so far, kept if the response fails later."""

    status: int | None = None
    retry_after: timedelta | None = None
    body: bytes = b""


def check_url(url: str, *, allowed: Sequence[Allowance] = (), allow_http: bool = False) -> None:
    """Checks a new endpoint's URL as far as possible without the network.

    Host names are not resolved here: their addresses are checked at each call.

    Raises:
        UrlRefused: the message is for the person who entered the URL.
        AddressRefused: the host is an IP address that webhooks may not reach.
    """
    _parse(url, allowed, allow_http)


def _parse(url: str, allowed: Sequence[Allowance], allow_http: bool) -> httpx.URL:
    if len(url) > MAX_URL_LENGTH:
        raise UrlRefused(f"The URL is {len(url)} characters long; at most {MAX_URL_LENGTH} are accepted.")
    if any(character.isspace() or character == "\\" or not character.isprintable() for character in url):
        raise UrlRefused("The URL contains a blank, a backslash or a control character; remove it.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise UrlRefused("This is not a URL; write it like https://hooks.example.com/registrar.") from None
    if parsed.scheme != "https" and not (allow_http and parsed.scheme == "http"):
        accepted = "https:// or http://" if allow_http else "https://"
        raise UrlRefused(f"The URL must begin with {accepted}.")
    if parsed.userinfo:
        raise UrlRefused(
            "The URL contains a user name or password; remove it. Receivers verify the signature instead."
        )
    if "#" in url:
        raise UrlRefused("The URL contains a fragment (#...), which is never sent to a server; remove it.")
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise UrlRefused(f"Port {parsed.port} does not exist; use 1 to 65535.")
    if parsed.port in _SPOKEN_FOR_PORTS:
        raise UrlRefused(f"Port {parsed.port} belongs to another protocol than HTTP; use another one.")
    check_host(parsed.raw_host.decode("ascii"), _port_of(parsed), allowed)
    return parsed


def _port_of(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


class SystemResolver:
    """The machine's resolver in its own threads, so that a slow name server delays nothing else."""

    def __init__(self, threads: int = 16) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-dns")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Wire:
    """What has happened to the connection of one exchange."""

    allowed: Sequence[Allowance] = ()
    """Further networks that this exchange may reach: its partner's own."""
    is_fresh: bool = False
    """Whether the connection was made for this exchange and not kept from an earlier one."""
    has_answered: bool = False
    """Whether at least one byte has arrived."""


_WIRE: ContextVar[_Wire | None] = ContextVar("wire", default=None)
"""The connection of this task's exchange, which the pool does not reveal."""


class _WatchedStream(httpcore.AsyncNetworkStream):
    """A connection that notes the first byte of an answer, and is closed when its TLS handshake is cancelled.

    httpcore closes it only on errors, so a receiver that stalls the handshake until our deadline would leak a
    socket each time.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self.write = stream.write  # type: ignore[method-assign]
        self.aclose, self.get_extra_info = stream.aclose, stream.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        if data and (wire := _WIRE.get()) is not None:
            wire.has_answered = True
        return data

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _WatchedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except asyncio.CancelledError:
            await self._stream.aclose()
            raise


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks every address, connects to a checked one."""

    def __init__(self, resolve: Resolve, allowed: Sequence[Allowance]) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        own: Sequence[Allowance] = ()
        if (wire := _WIRE.get()) is not None:
            wire.is_fresh = True
            own = wire.allowed
        addresses = (await self.checked(host, port, own))[:_MAX_ADDRESSES]
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, _SYN_PATIENCE, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port, timeout, local_address, socket_options)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        plain = await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
        return _WatchedStream(plain)

    async def checked(self, host: str, port: int, own: Sequence[Allowance]) -> list[str]:
        """The addresses of a name. Raises AddressRefused, or OSError if it has none."""
        addresses = [ip_address(found) for found in await self._resolve(host, port)]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            if (meaning := refusal(address, port, (*self._allowed, *own))) is not None:
                # Do not tell the partner the address: with split-horizon DNS it is internal.
                raise AddressRefused(explain("resolves to", meaning))
        return [str(address) for address in addresses]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("Webhooks do not go to unix sockets.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Outbound:
    """Sends webhooks. One per process, safe for concurrent use. `close` it while the event loop still
    runs."""

    def __init__(
        self,
        pool: httpcore.AsyncConnectionPool,
        unkept: httpcore.AsyncConnectionPool,
        network: _GuardedNetwork,
        resolver: SystemResolver | None,
        *,
        timeout: float,
        allowed: Sequence[Allowance],
        allow_http: bool,
        max_response_bytes: int,
    ) -> None:
        self._pool = pool
        self._unkept = unkept
        self._network = network
        self._resolver = resolver
        self._timeout = timeout
        self._allowed = tuple(allowed)
        self._allow_http = allow_http
        self._max_response_bytes = max_response_bytes

    @classmethod
    def build(
        cls,
        *,
        timeout: float = 15.0,
        allowed: Sequence[Allowance] = (),
        allow_http: bool = False,
        max_response_bytes: int = 16_384,
        ca_file: Path | None = None,
        resolve: Resolve | None = None,
    ) -> Outbound:
        """A client with its own pool. Create it before, or inside, the event loop that uses it.

        Args:
            timeout: seconds from resolving to the status line. Standard Webhooks recommends 15 to 30.
            allowed: networks that every partner reaches although private (an ERP on the premises).
            allow_http: for development; plain http exposes the content of webhooks.
            max_response_bytes: after these bytes reading stops and the connection is closed.
            ca_file: PEM file of authorities trusted besides the public ones. SSL_CERT_FILE is not read.
            resolve: the resolver; the machine's if None.
        """
        trust = httpx.create_ssl_context(trust_env=False)  # TLS 1.2 at least: Python's own default
        if ca_file is not None:
            trust.load_verify_locations(cafile=ca_file)
        resolver = None
        if resolve is None:
            resolve = resolver = SystemResolver()
        guarded = _GuardedNetwork(resolve, tuple(allowed))
        pool, unkept = (
            httpcore.AsyncConnectionPool(
                ssl_context=trust,
                # Unbounded, because callers bound their concurrency. A bound here would let one receiver's
                # slow endpoints use up the pool and the deadlines of all others.
                max_connections=None,
                max_keepalive_connections=kept,
                keepalive_expiry=_KEEPALIVE_EXPIRY,
                network_backend=guarded,
            )
            for kept in (20, 0)
        )
        return cls(
            pool,
            unkept,
            guarded,
            resolver,
            timeout=timeout,
            allowed=allowed,
            allow_http=allow_http,
            max_response_bytes=max_response_bytes,
        )

    async def close(self) -> None:
        """Close idle connections and the resolver's threads."""
        await self._pool.aclose()
        await self._unkept.aclose()
        if self._resolver is not None:
            self._resolver.close()

    def check_url(self, url: str, own: Sequence[Allowance] = ()) -> None:
        """`check_url` with the networks of this client and of the partner. Raises UrlRefused."""
        check_url(url, allowed=(*self._allowed, *own), allow_http=self._allow_http)

    async def check_host(self, url: str, own: Sequence[Allowance] = ()) -> None:
        """`check_url`, and also checks the name's present addresses, for the person who enters the URL.

        A name without an address is not refused, because each connection is checked anyway. Raises
        UrlRefused.
        """
        target = _parse(url, (*self._allowed, *own), self._allow_http)
        with suppress(OSError):  # TimeoutError and gaierror are
            async with asyncio.timeout(_LOOK_PATIENCE):
                await self._network.checked(target.raw_host.decode("ascii"), _port_of(target), own)

    async def post(
        self,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        timeout: float | None = None,
        own: Sequence[Allowance] = (),
    ) -> Outcome:
        """Sends `content` once. Network failures are outcomes; only a programming error raises.

        `timeout`: seconds for this attempt, if fewer than usual. `own`: networks that only the endpoint's
        partner may reach.

        If a kept connection ends without a byte, most often the receiver closed it while we were writing.
        Then the content is sent once more, on a new connection and within the same deadline. If the receiver
        has read the first one, it drops the second by its `webhook-id`.

        A status decides the outcome even if the body after it stalls, breaks off or never ends: the receiver
        has answered, and sending again would only repeat the event.

        Raises:
            ValueError: a header is malformed, or is one of _OWN_HEADERS, which this client sets itself.
        """
        _check_headers(headers)
        started = time.monotonic()
        reply = _Reply()
        kind, detail = Kind.REJECTED, ""
        try:
            target = _parse(url, (*self._allowed, *own), self._allow_http)
            patience = self._timeout if timeout is None else min(timeout, self._timeout)
            async with asyncio.timeout(patience) as limit:
                await self._exchange_twice(target, content, headers, reply, limit, own)
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            OSError,  # TimeoutError, gaierror and ssl.SSLError among them
            UrlRefused,
        ) as failure:
            kind, detail = judge(failure)
        if reply.status is not None:
            kind, detail = meaning(reply.status)
        return Outcome(
            kind=kind,
            status=reply.status,
            retry_after=reply.retry_after,
            excerpt=excerpt(reply.body),
            detail=detail,
            duration_ms=round((time.monotonic() - started) * 1000),
        )

    async def _exchange_twice(
        self,
        target: httpx.URL,
        content: bytes,
        headers: Mapping[str, str],
        reply: _Reply,
        limit: asyncio.Timeout,
        own: Sequence[Allowance],
    ) -> None:
        wire = _Wire(tuple(own))
        token = _WIRE.set(wire)
        # Kept connections serve every partner, so one to a partner's own network is not kept.
        pool = self._unkept if own else self._pool
        try:
            await self._exchange(pool, target, content, headers, reply, limit)
        except (httpcore.NetworkError, httpcore.RemoteProtocolError):
            if wire.is_fresh or wire.has_answered:
                raise
            # All kept connections may be dead, so use a new one.
            await self._exchange(self._unkept, target, content, headers, reply, limit)
        finally:
            _WIRE.reset(token)

    async def _exchange(
        self,
        pool: httpcore.AsyncConnectionPool,
        target: httpx.URL,
        content: bytes,
        headers: Mapping[str, str],
        reply: _Reply,
        limit: asyncio.Timeout,
    ) -> None:
        exchange = pool.stream(
            "POST",
            httpcore.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            ),
            headers=[
                (b"host", target.netloc),
                (b"content-length", str(len(content)).encode("ascii")),
                # Nothing is decompressed here, so a compressed bomb does no harm.
                (b"accept-encoding", b"identity"),
                *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
            ],
            content=content,
            # Certificates never have the trailing dot of a fully qualified name.
            extensions={"sni_hostname": target.raw_host.decode("ascii").rstrip(".")},
        )
        async with exchange as response:
            reply.status = response.status
            for name, value in response.headers:
                if name.lower() == b"retry-after":
                    reply.retry_after = read_retry_after(value.decode("latin-1"), now=datetime.now(UTC))
            patience = asyncio.get_running_loop().time() + _BODY_PATIENCE
            limit.reschedule(min(patience, limit.when() or patience))
            async for chunk in response.aiter_stream():
                reply.body += chunk
                if len(reply.body) >= self._max_response_bytes:
                    break


def _check_headers(headers: Mapping[str, str]) -> None:
    if clash := _OWN_HEADERS & {name.lower() for name in headers}:
        raise ValueError(f"Headers set by the client itself: {', '.join(sorted(clash))}")
    for name, value in headers.items():
        # Without the value, which may be a signature or a token.
        if _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(value) is None:
            raise ValueError(f"Not a header: {name!r}")
