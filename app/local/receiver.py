"""A webhook receiver as an integrator would write one: it verifies each webhook with the public library.

The demonstration uses it. `take` and `_Handler` are all that a receiver needs.
"""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """Listens on a free loopback port and keeps the events that came. A context manager."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.repeated = 0
        self.refused = 0
        self.secret: str | None = None
        """`whsec_...`, from the answer that created the endpoint."""
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        receiver = self

        class _Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                status = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing: the demonstration prints what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/webhooks"

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Keeps a verified event and returns the status to answer. Drops one whose id came before."""
        try:
            Webhook(self.secret or "").verify(body, headers)
        except (WebhookVerificationError, ValueError):
            with self._lock:
                self.refused += 1
            return 400
        with self._lock:
            if headers["webhook-id"] in self._seen:
                self.repeated += 1
            else:
                self._seen.add(headers["webhook-id"])
                self.events.append(json.loads(body))
        return 204

    def counts(self) -> Counter[str]:
        with self._lock:
            return Counter(event["type"] for event in self.events)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
