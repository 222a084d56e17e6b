"""HTTP on one connection: uvicorn's protocol with the bounds of app/api/http/edge.py, which it lacks.

`registrar api` serves with it (`app/serve.py`), and so does `uvicorn --factory app.main:build` with
`--http app.api.http.protocol:BoundedHttp`.
"""

import asyncio
from enum import StrEnum, auto
from typing import Any, cast
from weakref import WeakKeyDictionary

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.http.edge import LINGER_BYTES, LINGER_S, MAX_HEADERS, MAX_PIPELINED, Cut, Edge, Limits
from app.api.http.peers import address_of
from app.domain.address import Address
from app.kernel.settings import load_or_exit

_edges: WeakKeyDictionary[ServerState, Edge] = WeakKeyDictionary()
"""One for each server of the process."""


class Phase(StrEnum):
    HEAD = auto()  # a request line and headers are awaited or arrive
    BODY = auto()  # the body arrives
    DRAINING = auto()  # answered, but the body is still arriving
    ANSWERING = auto()  # the request is complete
    IDLE = auto()  # answered; the next request may come
    REFUSED = auto()  # what arrives is discarded until the client has read why


class _OfRequest(asyncio.Transport):
    """A connection, seen from the answer to one request."""

    def __init__(self, connection: "BoundedHttp") -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: Any) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.close_after_answer()


class BoundedHttp(HttpToolsProtocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if server_state not in _edges:
            _edges[server_state] = Edge(self.bounds(), self.loop)
        self.edge = _edges[server_state]
        self.limits = self.edge.limits
        self.peer: Address | None = None
        self._has_cycle = False
        self._closing_since: float | None = None
        self._waste: int | None = None
        """Bytes that may still arrive and be discarded; None: any number."""
        self.blocked_since: float | None = None
        """Since when the client has read nothing of an answer that is ready."""
        self._await_head()

    @classmethod
    def bounds(cls) -> Limits:
        return Limits.of(load_or_exit())

    def _await_head(self) -> None:
        self.phase = Phase.HEAD
        self._due = self.loop.time() + self.limits.head_s
        self.unread = 0
        """Bytes since the parser last returned something: an incomplete head or trailer."""
        self._has_given = False
        self._window_bytes = 0
        self.edge.rest(self)

    # --- the connection ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from it
        super().connection_made(cast(asyncio.Transport, transport))
        self.peer = address_of(self.client[0]) if self.client else None
        if (cut := self.edge.admit(self)) is not None:
            self._refuse(cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_thrown_away(len(data)):
            return
        if self.phase is Phase.DRAINING:
            self._slow_down(self.edge.drain(len(data)))
        self._unset_keepalive_if_required()
        if self.phase is Phase.IDLE:
            self._await_head()
        while data and self.phase is not Phase.REFUSED and not self.transport.is_closing():
            room = self.limits.head_bytes - self.unread
            piece, data = data[:room], data[room:]
            self.unread += len(piece)
            self._has_given = False
            self._feed(piece)
            if self._has_given:
                self.unread = 0
            elif self.unread >= self.limits.head_bytes:
                self._refuse(Cut.HEAD_TOO_LARGE)

    def _is_thrown_away(self, size: int) -> bool:
        """Whether incoming bytes are discarded."""
        if self.phase is not Phase.REFUSED:
            return False
        if self._waste is not None:
            self._waste -= size
            if self._waste <= 0:
                self.flow.pause_reading()
        return True

    def _slow_down(self, seconds: float) -> None:
        """Pauses reading, so that draining does not keep the process from other calls."""
        if not self.flow.read_paused:
            self.flow.pause_reading()
            self.loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing() and self.phase is not Phase.REFUSED:
            self.flow.resume_reading()

    def _feed(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self._refuse(Cut.MALFORMED)
        except httptools.HttpParserUpgrade:
            pass  # only HTTP/1.1 is supported: ignore the upgrade and answer the request

    def pause_writing(self) -> None:
        self.blocked_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.blocked_since = None
        super().resume_writing()

    # --- what the parser finds ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.phase is not Phase.HEAD:
            self._await_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Headers after the head are trailers, which nothing here reads.
        if self.phase is Phase.HEAD and len(self.headers) <= MAX_HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_given = True
        if self.phase is Phase.REFUSED:
            return
        if len(self.headers) > MAX_HEADERS:
            self._refuse(Cut.HEAD_TOO_LARGE)
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(Cut.PIPELINED)
            return
        super().on_headers_complete()
        self._has_cycle = True
        self.cycle.transport = _OfRequest(self)
        self.phase = Phase.BODY
        self.edge.work(self)
        self._open_window()

    def on_body(self, body: bytes) -> None:
        self._has_given = True
        self._window_bytes += len(body)
        if self.phase is not Phase.REFUSED:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.phase is Phase.REFUSED:
            return
        super().on_message_complete()
        self.phase = Phase.ANSWERING
        self._rest_if_answered()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.phase is Phase.BODY and self.cycle.response_complete:
            self.phase = Phase.DRAINING
            self._due = self.loop.time() + self.limits.head_s
            self.edge.rest(self)
        elif self.phase is Phase.ANSWERING:
            self._rest_if_answered()

    def _rest_if_answered(self) -> None:
        if self.cycle.response_complete:
            self.phase = Phase.IDLE
            self._due = self.loop.time() + self.timeout_keep_alive + self.limits.look_s
            self.edge.rest(self)

    # --- time limits --------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        if self.transport.is_closing():
            self._look_at_closing(now)
        elif self.blocked_since is not None and now - self.blocked_since >= self.limits.answer_s:
            self._refuse(Cut.ANSWER_NOT_READ)
        elif self.phase is Phase.BODY:
            self._look_at_body(now)
        elif self.phase is not Phase.ANSWERING and now >= self._due:
            self._end()

    def _end(self) -> None:
        """The time limit of the phase has passed."""
        match self.phase:
            case Phase.HEAD:
                self._refuse(Cut.HEAD_TOO_SLOW if self.unread else Cut.SILENT)
            case Phase.REFUSED:
                self.transport.abort()
            case _:
                self.transport.close()

    def _look_at_closing(self, now: float) -> None:
        """Limits how long a closing connection waits for its client to read everything."""
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since >= self.limits.answer_s:
            self.transport.abort()

    def _look_at_body(self, now: float) -> None:
        """Each window must bring a minimum of bytes, unless we have paused reading or not asked for the body
        yet."""
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._open_window()
        elif now >= self._due:
            if self._window_bytes < self.limits.body_window_bytes:
                self._refuse(Cut.BODY_TOO_SLOW)
            else:
                self._open_window()

    def _open_window(self) -> None:
        self._window_bytes = 0
        self._due = self.loop.time() + self.limits.body_window_s

    # --- refusing -------------------------------------------------------------------------------------

    def _refuse(self, cut: Cut) -> None:
        """Ends the connection, with an answer if the client can take it as the answer to this request."""
        if self.phase is Phase.REFUSED or self.transport.is_closing():
            return
        is_understood = self._awaits_answer()
        self.phase = Phase.REFUSED
        self.edge.note(cut, self.peer)
        self._tell_application()
        has_begun = cut is not Cut.GAVE_WAY or self.unread > 0
        answer = self.edge.answer(cut) if has_begun else None
        if answer is None or not is_understood or not self.edge.linger(self):
            self.transport.abort()
            return
        self.transport.write(answer)
        self._waste = LINGER_BYTES
        self._linger(LINGER_S)

    def give_way(self) -> bool:
        if self._has_call():
            return False
        self._refuse(Cut.GAVE_WAY)
        return True

    def _has_call(self) -> bool:
        """Whether a request is being handled, or part of an answer still waits for the client."""
        has_request = self._has_cycle and (not self.cycle.response_complete or bool(self.pipeline))
        return has_request or self.phase is Phase.REFUSED or self.transport.get_write_buffer_size() > 0

    def close_after_answer(self) -> None:
        """For an answer that ends the connection, perhaps before the body has arrived, such as 413."""
        if self.phase is Phase.BODY and not self.pipeline and self.edge.linger(self):
            self._linger(self.limits.head_s)
        else:
            self.transport.close()

    def _linger(self, seconds: float) -> None:
        """Reads and discards until the client has closed its side, too.

        To close at once would reset the connection under a client that is still sending, and with it the
        answer that the client has not read yet.
        """
        self.phase = Phase.REFUSED
        self._due = self.loop.time() + seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _awaits_answer(self) -> bool:
        """Whether the next answer that the client reads is that of the request which is refused."""
        if not self._has_cycle or self.cycle.response_complete:
            return True
        return self.phase is Phase.BODY and not self.pipeline and not self.cycle.response_started

    def _tell_application(self) -> None:
        if self._has_cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()
