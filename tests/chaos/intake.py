"""Order systems, one for each partner, that send orders carefully.

Each order has an Idempotency-Key and is sent again, unchanged, until there is an answer. So in the end they
know what a real caller would know: accepted, refused, or never answered.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.chaos.scene import Account, Order

PAUSE = 0.3
"""Seconds between two attempts."""
PASSING = frozenset({429, 500, 502, 503, 504})


@dataclass
class Intake:
    """The orders' results so far. Shared by the threads."""

    deadline: float
    """On the monotonic clock."""
    stop: threading.Event
    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    under_way: int = 0
    repetitions: int = 0
    replays: int = 0
    longest_outage: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, api_url: str, account: Account, spread: float) -> threading.Thread:
        """Sends the account's orders in a thread, spread over a number of seconds."""
        thread = threading.Thread(target=self._send_all, args=(api_url, account, spread), daemon=True)
        thread.start()
        return thread

    def _send_all(self, api_url: str, account: Account, spread: float) -> None:
        begun = time.monotonic()
        headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
        with httpx.Client(base_url=api_url, headers=headers, timeout=20, trust_env=False) as api:
            for number, order in enumerate(account.orders):
                turn = begun + spread * number / len(account.orders)
                if self.stop.wait(max(turn - time.monotonic(), 0)):
                    return
                self._send(api, account, order)

    def _send(self, api: httpx.Client, account: Account, order: Order) -> None:
        begun = time.monotonic()
        key = f"{account.name}-{order.reference}"
        repeated = False
        while time.monotonic() < self.deadline and not self.stop.is_set():
            answer = self._post(api, key, order)
            if answer is not None:
                with self._lock:
                    if answer.status_code == 201:
                        self.accepted.add(order.reference)
                        self.replays += "idempotency-replayed" in answer.headers
                    else:
                        self.refused[order.reference] = f"{answer.status_code} {answer.text[:300]}"
                    if repeated:
                        self.longest_outage = max(self.longest_outage, time.monotonic() - begun)
                return
            with self._lock:
                self.repetitions += 1
            repeated = True
            self.stop.wait(PAUSE)

    def _post(self, api: httpx.Client, key: str, order: Order) -> httpx.Response | None:
        """The answer; None if there was none about the order."""
        with self._lock:
            self.under_way += 1
        try:
            answer = api.post("/v1/orders", content=order.body, headers={"Idempotency-Key": key})
        except httpx.HTTPError:
            return None
        finally:
            with self._lock:
                self.under_way -= 1
        if answer.status_code in PASSING:
            return None
        if answer.status_code == 409 and answer.json().get("code") == "idempotency_in_progress":
            return None
        return answer
