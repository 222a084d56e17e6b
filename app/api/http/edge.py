"""Bounds on connections before the caller is known: their number and how long a request may take.

Refusals are counted and logged.

One `Edge` serves all connections of a process (app/api/http/protocol.py). It looks at them a few times
within their shortest time limit, so that connections need no timers of their own.
"""

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, Protocol, Self

import orjson

from app.api.http.answer_headers import AnswerHeaders
from app.api.http.peers import Networks, client_name, is_within, networks_of
from app.domain.address import Address
from app.domain.catalogue import lookup
from app.kernel import metrics
from app.kernel.settings import Settings
from app.kernel.telemetry import logger

log = logger("edge")

MAX_HEADERS: Final = 100
"""Header fields of one request. Browsers and proxies send about twenty."""
MAX_PIPELINED: Final = 16
"""Requests that a connection may send while an earlier one is being answered. Honest clients send none."""
MAX_LINGERING: Final = 64
"""Refused connections that may stay open until their client has read why."""
LINGER_S: Final = 2.0
"""Seconds for a refused client to read why."""
LINGER_BYTES: Final = 1024 * 1024
"""Bytes that are still read from a client whose request was refused while it arrived. The rest is never
read."""
DRAIN_RATE: Final = 32 * 1024 * 1024
"""Bytes per second, over all connections, that are read of bodies whose answer was given before they had
arrived. Most clients read the answer only after they have sent everything."""
BURST_S: Final = 60.0
"""Seconds covered by one log line about refusals of the same kind."""
SPARE_DESCRIPTORS: Final = 256
"""Files and database connections that a process has open as well."""
ASKED_TO_GIVE_WAY: Final = 64
"""The most connections that are asked to give way before a new one is refused."""


class Cut(StrEnum):
    """Why a connection was refused or cut. Where an answer is given, the value is a code of the catalogue."""

    CONNECTIONS = "too_many_connections"
    CLIENT_CONNECTIONS = "too_many_connections_of_client"
    HEAD_TOO_LARGE = "head_too_large"
    HEAD_TOO_SLOW = "head_too_slow"
    SILENT = "silent"
    MALFORMED = "malformed_http"
    PIPELINED = "too_many_pipelined"
    BODY_TOO_SLOW = "body_too_slow"
    ANSWER_NOT_READ = "answer_not_read"
    GAVE_WAY = "gave_way"


ANSWERS: Final = {
    Cut.CONNECTIONS: (503, "too_many_connections", "The service has too many connections open."),
    Cut.GAVE_WAY: (503, "too_many_connections", "The service has too many connections open."),
    Cut.CLIENT_CONNECTIONS: (503, "too_many_connections", "Your address has too many connections open."),
    Cut.HEAD_TOO_LARGE: (431, "head_too_large", ""),
    Cut.HEAD_TOO_SLOW: (408, "head_too_slow", ""),
    Cut.MALFORMED: (400, "malformed_http", ""),
    Cut.BODY_TOO_SLOW: (408, "body_too_slow", ""),
}
"""Status, code and detail of the answer. Connections without one are closed silently, and so is one that gave
way before it had begun a request."""

_PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Limits:
    head_bytes: int
    head_s: float
    body_window_s: float
    body_window_bytes: int
    answer_s: float
    connections: int
    client_connections: int
    trusted: Networks
    public_url: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.max_head_bytes,
            settings.head_timeout_s,
            settings.body_window_s,
            round(settings.min_body_rate * settings.body_window_s),
            settings.answer_timeout_s,
            settings.max_connections,
            settings.max_connections_per_client,
            networks_of(settings.trusted_proxies),
            (settings.public_url or "").rstrip("/"),
        )

    @property
    def look_s(self) -> float:
        """Seconds between looks at the connections."""
        return min(self.head_s / 4, self.body_window_s / 4, self.answer_s / 4, 1.0)


class Connection(Protocol):
    """What `Edge` needs of a connection."""

    peer: Address | None

    def look(self, now: float) -> None:
        """Ends it if one of its time limits is over."""

    def give_way(self) -> bool:
        """Ends it in favour of a new one. False: a call is under way on it."""


class Edge:
    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self._loop = loop
        self._open: set[Connection] = set()
        self._admitted: dict[Connection, str] = {}
        """The admitted connections, each with its client's name; empty for a trusted proxy."""
        self._resting: dict[Connection, None] = {}
        """The admitted connections without a call, the longest idle first."""
        self._shares: Counter[str] = Counter()
        self._lingering: set[Connection] = set()
        self._drained_at = 0.0
        """When the drained bytes so far would have arrived at DRAIN_RATE."""
        self._logged: dict[Cut, tuple[float, int]] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._headers = AnswerHeaders(limits.public_url)
        self.capacity = _capacity(limits.connections)

    def admit(self, connection: Connection) -> Cut | None:
        """Admits a new connection, or says why not. Watches it in both cases until `leave`.

        At the limit the connection that has been idle longest gives way, so that idle connections keep nobody
        out, however many addresses they come from.
        """
        self._open.add(connection)
        if self._looking is None:
            self._looking = self._loop.call_later(self.limits.look_s, self._look)
        peer = connection.peer
        share = "" if peer is None or is_within(peer, self.limits.trusted) else client_name(peer)
        if share and self._shares[share] >= self.limits.client_connections:
            return Cut.CLIENT_CONNECTIONS
        if len(self._admitted) >= self.capacity and not self._make_room():
            return Cut.CONNECTIONS
        self._admitted[connection] = share
        self._shares[share] += 1
        self.rest(connection)
        metrics.connections_open(1)
        return None

    def rest(self, connection: Connection) -> None:
        """Marks it as idle: it has not begun a call yet, or its call was answered."""
        if connection in self._admitted:
            self._resting.pop(connection, None)
            self._resting[connection] = None

    def work(self, connection: Connection) -> None:
        """Marks it as busy with a call."""
        self._resting.pop(connection, None)

    def _make_room(self) -> bool:
        for connection in [*islice(self._resting, ASKED_TO_GIVE_WAY)]:
            if connection.give_way():
                self._give_up_place(connection)
                return True
            self.rest(connection)  # the next time others are asked
        return False

    def leave(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._lingering.discard(connection)
        self._give_up_place(connection)

    def _give_up_place(self, connection: Connection) -> None:
        share = self._admitted.pop(connection, None)
        if share is None:
            return
        self._resting.pop(connection, None)
        metrics.connections_open(-1)
        self._shares[share] -= 1
        if not self._shares[share]:
            del self._shares[share]

    def linger(self, connection: Connection) -> bool:
        """Whether a refused connection may stay until its client has read the answer."""
        if len(self._lingering) >= MAX_LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def drain(self, size: int) -> float:
        """Counts drained bytes. Returns for how many seconds to stop reading the connection."""
        now = self._loop.time()
        self._drained_at = max(self._drained_at, now) + size / DRAIN_RATE
        return self._drained_at - now

    def note(self, cut: Cut, peer: Address | None) -> None:
        """Counts it and logs the first of a burst. The next line says how many there were since."""
        metrics.connection_cut(cut)
        now = self._loop.time()
        since, more = self._logged.get(cut, (-BURST_S, 0))
        if now - since < BURST_S:
            self._logged[cut] = (since, more + 1)
            return
        self._logged[cut] = (now, 0)
        log.warning(
            "connection_cut",
            reason=cut.value,
            client=str(peer) if peer else None,
            open=len(self._admitted),
            limit=self.capacity,
            more_since_last_line=more,
        )

    def answer(self, cut: Cut) -> bytes | None:
        """A complete HTTP answer, or None if the connection is closed without one."""
        if cut not in ANSWERS:
            return None
        status, code, detail = ANSWERS[cut]
        if cut is Cut.HEAD_TOO_LARGE:
            most = f"{self.limits.head_bytes:,} bytes, and {MAX_HEADERS} headers"
            detail = f"The request line and headers may have {most}."
        entry = lookup(code)
        body = orjson.dumps(
            {
                "type": f"{self.limits.public_url}/v1/error-codes/{code}",
                "title": entry.title,
                "status": status,
                "detail": detail or entry.title,
                "code": code,
                "remedy": entry.remedy,
                "correlation_id": "",
                "errors": [],
                "links": {},
            }
        )
        own = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            own.append((b"retry-after", b"5"))
        lines = [b"%s: %s\r\n" % header for header in (*own, *self._headers.beside(own))]
        return b"".join([f"HTTP/1.1 {status} {_PHRASES[status]}\r\n".encode(), *lines, b"\r\n", body])

    def _look(self) -> None:
        self._looking = None
        now = self._loop.time()
        for connection in [*self._open]:
            connection.look(now)
        if self._open:
            self._looking = self._loop.call_later(self.limits.look_s, self._look)


def _capacity(wanted: int) -> int:
    """How many connections the file descriptors allow, after raising their limit as far as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    granted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < needed:
        log.warning("few_descriptors", limit=hard, needed=needed)
    return max(granted - SPARE_DESCRIPTORS, granted // 2)
