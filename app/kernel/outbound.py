"""The guarded HTTP client for webhook URLs: which addresses may be called, and what an answer means.

A webhook URL is written by a partner and called from inside the operator's network, so every address is
judged where the connection is made: the name is resolved once, every address it has is checked, and the
connection goes to the checked address, while Host header and certificate name stay those of the URL. So
neither a name that points inwards nor one that changes its mind between check and use gets through.

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
"""Seconds for the body once the status is known: the status is the answer, the body is only for people."""
_LOOK_PATIENCE = 2.0
"""Seconds that a person who types a URL waits for its name: what is not known then is found out later."""
_SYN_PATIENCE = 3.0
"""Seconds until the next address of a name is tried: two lost SYNs (sent at 0 and 1 s, a third at 3 s)."""
_MAX_ADDRESSES = 4
"""Addresses of one name that are tried; all are checked."""
_KEEPALIVE_EXPIRY = 4.0
"""Seconds. Below the 5 s after which the commonest servers drop an idle connection (Node.js default)."""

_SPOKEN_FOR_PORTS = frozenset({21, 22, 23, 25, 53, 110, 143, 465, 587, 993, 995})
"""FTP, SSH, Telnet, DNS, mail: browsers refuse to send HTTP there too (WHATWG Fetch, "bad port")."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~]+([ \t]+[!-~]+)*")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@dataclass(slots=True)
class _Reply:
    """What has arrived so far; survives a failure further down the same response."""

    status: int | None = None
    retry_after: timedelta | None = None
    body: bytes = b""


def check_url(url: str, *, allowed: Sequence[Allowance] = (), allow_http: bool = False) -> None:
    """Refuse what can be refused without the network, for the moment an endpoint is created.

    A host name is not resolved here: what it resolves to is judged at each call.

    Raises:
        UrlRefused: the message is for the person who typed the URL.
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
    """The machine's resolver in threads of its own, so that a slow name server holds up nothing else."""

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
    """Where this exchange may go besides what every one may: its partner's own networks."""
    is_fresh: bool = False
    """It was made for this exchange; otherwise it was kept from one before."""
    has_answered: bool = False
    """At least one byte has come."""


_WIRE: ContextVar[_Wire | None] = ContextVar("wire", default=None)
"""That of the exchange that runs in this task: the pool lets nobody ask it for its connection."""


class _WatchedStream(httpcore.AsyncNetworkStream):
    """A connection that notes the first byte of an answer, and is closed when its TLS handshake is cancelled.

    httpcore closes it only on errors, so a receiver that stalls the handshake until our deadline would leave
    us a socket each time.
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
        """The addresses of a name. Raises AddressRefused, or OSError where it has none."""
        addresses = [ip_address(found) for found in await self._resolve(host, port)]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            if (meaning := refusal(address, port, (*self._allowed, *own))) is not None:
                # The address itself stays unsaid: with a split-horizon DNS it is the operator's to know.
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
    """Sends webhooks. One per process; safe for concurrent use; `close` it with the event loop still up."""

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
        """A client with a pool of its own. Must be called before, or inside, the loop it is used in.

        Args:
            timeout: seconds for the whole attempt, from resolving to the status line. 15 is the lower end
                of what the Standard Webhooks specification recommends (15 to 30 s).
            allowed: networks that every partner reaches although private (an ERP on the premises).
            allow_http: for development; a webhook in the clear shows its content to the way.
            max_response_bytes: where reading a body stops; the connection is then closed.
            ca_file: PEM file of authorities trusted besides the public ones. SSL_CERT_FILE is not read.
            resolve: how names become addresses; the machine's resolver if None.
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
                # Unbounded, since callers bound their concurrency; a bound here would let one receiver's slow
                # endpoints use up the pool, and then the deadlines, of everybody else's.
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
        """`check_url` with this client's allowances and the partner's own. Raises UrlRefused."""
        check_url(url, allowed=(*self._allowed, *own), allow_http=self._allow_http)

    async def check_host(self, url: str, own: Sequence[Allowance] = ()) -> None:
        """`check_url`, and a look at what the name means now, for the person who types the URL.

        A name that has no address yet is not refused. What counts is the look at each connection. Raises
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
        """Send `content` once. Network failures are outcomes; only a programming error raises.

        `timeout`: seconds for this attempt, where they are fewer than usual. `own`: networks that the
        endpoint's partner may reach and others may not.

        A kept connection that ends without a byte is no answer: most often the receiver closed it while we
        were writing. Then it is sent once more, on a fresh connection and within the same deadline. The
        receiver may have read the first one; it drops what has a `webhook-id` that it knows.

        A status decides the outcome even when the body behind it stalls, breaks off or has no end: the
        receiver has answered, and sending again would only give it the same event twice.

        Raises:
            ValueError: a header is not one, or is one of _OWN_HEADERS, which this client sets itself.
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
        # A kept connection serves every partner: one that a partner's own network has opened is not kept.
        pool = self._unkept if own else self._pool
        try:
            await self._exchange(pool, target, content, headers, reply, limit)
        except (httpcore.NetworkError, httpcore.RemoteProtocolError):
            if wire.is_fresh or wire.has_answered:
                raise
            # Of several kept connections all may be dead: one that was never kept is taken.
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
                # Nothing is decompressed here, so a body that grows a thousandfold has no way in.
                (b"accept-encoding", b"identity"),
                *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
            ],
            content=content,
            # A certificate never names the trailing dot of a fully qualified name.
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
        # The value stays unsaid: it may be a signature or a token.
        if _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(value) is None:
            raise ValueError(f"Not a header: {name!r}")
