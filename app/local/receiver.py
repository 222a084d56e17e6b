"""A webhook receiver as an integrator would write one: it verifies each webhook with the public library.

The demonstration uses it, and so do the tests that run whole processes. `take` and `_Handler` are all that a
receiver needs.
"""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Receiver:
    """Listens on a free loopback port and keeps the events that came. A context manager."""

    def __init__(self) -> None:
        self.secret = ""
        """`whsec_...`, from the answer that created the endpoint."""
        self.events: dict[str, dict[str, Any]] = {}
        """By webhook id, in the order of their arrival."""
        self.arrived = 0
        self.repeated = 0
        self.refused = 0
        self._lock = threading.Lock()
        receiver = self

        class _Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = self.headers.get("content-length")
                body = self.rfile.read(int(length or "0"))
                if length is None or len(body) < int(length):
                    return  # a sender that died has sent a part of it: that is not a forged webhook
                status = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Logs nothing."""

        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/webhooks"

    def take(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Keeps a verified event and returns the status to answer. Drops one whose id came before."""
        with self._lock:
            self.arrived += 1
            try:
                Webhook(self.secret).verify(body, dict(headers))
            except (WebhookVerificationError, ValueError):
                self.refused += 1
                return 400
            if (id := headers["webhook-id"]) in self.events:
                self.repeated += 1
                return 204
            event = self.events[id] = json.loads(body)
            return self.on_new(event)

    def on_new(self, event: Mapping[str, Any]) -> int:
        """The status to answer for an event that had not come before."""
        return 204

    def kept(self) -> dict[str, dict[str, Any]]:
        """The events that have come by now, by webhook id."""
        with self._lock:
            return dict(self.events)

    def counts(self) -> Counter[str]:
        """Events by type."""
        return Counter(event["type"] for event in self.kept().values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
