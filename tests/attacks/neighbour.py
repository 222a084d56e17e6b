"""The neighbour B: an honest partner whose calls, orders and webhooks are timed while A attacks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from app.local import receiver as webhooks

GET_EVERY = 0.1
ORDER_EVERY = 1.0
PATIENCE = 60.0
"""Seconds after which a call or an order counts as unanswered, with this time in the figures."""


class Receiver(webhooks.Receiver):
    """Notes how long after its event each webhook arrived. Both ends go by the same clock."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def on_new(self, event: Mapping[str, Any]) -> int:
        happened = datetime.fromisoformat(event["timestamp"])
        self.delays.append((datetime.now(UTC) - happened).total_seconds())
        return super().on_new(event)


@dataclass(frozen=True, slots=True)
class Measured:
    gets: Sequence[float]
    """Seconds of each GET of the list of orders."""
    orders: Sequence[float]
    """Seconds from sending an order of three devices until it has been sent to Microsoft."""
    webhooks: Sequence[float]
    """Seconds from an event until its message arrived."""
    missing_webhooks: int
    """Completed orders whose webhook did not arrive in time."""
    answers: Counter[str]
    """The answers that B got."""


@dataclass
class Neighbour:
    """Measures from `begin` to `end`, in threads of its own."""

    url: str
    key: str
    customer_id: str
    receiver: Receiver
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _gets: list[float] = field(default_factory=list)
    _orders: list[float] = field(default_factory=list)
    _answers: Counter[str] = field(default_factory=Counter)
    _sent: int = 0

    def begin(self) -> None:
        self._stop.clear()
        self._gets, self._orders, self._answers = [], [], Counter()
        self.receiver.delays.clear()
        self._told_before = self.receiver.counts()["order.completed"]
        self._completed = 0
        self._threads = [threading.Thread(target=part, daemon=True) for part in (self._look, self._order)]
        for thread in self._threads:
            thread.start()

    def end(self) -> Measured:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        missing = self._await_webhooks()
        return Measured(self._gets, self._orders, list(self.receiver.delays), missing, self._answers)

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=PATIENCE,
            trust_env=False,
        )

    def _call(self, client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response | None:
        try:
            response = client.request(method, path, json=body)
        except httpx.TransportError as error:
            self._answers[type(error).__name__] += 1
            return None
        self._answers[str(response.status_code)] += 1
        return response

    def _look(self) -> None:
        with self._client() as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                response = self._call(client, "GET", "/v1/orders?page_size=5")
                good = response is not None and response.status_code == 200
                self._gets.append(time.monotonic() - begun if good else PATIENCE)
                self._stop.wait(GET_EVERY)

    def _order(self) -> None:
        with self._client() as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                self._orders.append(time.monotonic() - begun if self._is_sent(client, begun) else PATIENCE)
                self._stop.wait(max(ORDER_EVERY - (time.monotonic() - begun), 0))

    def _is_sent(self, client: httpx.Client, begun: float) -> bool:
        self._sent += 1
        serial = f"NEIGHBOUR{self._sent:06d}"
        rows = [
            {"serial_number": f"{serial}{letter}", "manufacturer": "Contoso", "model": "Book"}
            for letter in "ABC"
        ]
        body = {"customer_id": self.customer_id, "reference": serial, "devices": rows}
        made = self._call(client, "POST", "/v1/orders", body)
        if made is None or made.status_code != 201:
            return False
        path = f"/v1/orders/{made.json()['id']}"
        while time.monotonic() - begun < PATIENCE:
            response = self._call(client, "GET", path)
            if response is not None and response.status_code == 200:
                counts = response.json()["counts"]
                if not any(counts[state] for state in ("held", "queued", "submitting")):
                    self._completed += 1
                    return True
            time.sleep(0.02)
        return False

    def _await_webhooks(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while True:
            told = self.receiver.counts()["order.completed"] - self._told_before
            if told >= self._completed or time.monotonic() > deadline:
                return max(self._completed - told, 0)
            time.sleep(0.05)
