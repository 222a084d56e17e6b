"""A receiver of webhooks that keeps ids and states, and fails now and then as receivers do."""

from __future__ import annotations

from collections import defaultdict

from app.local import receiver as plain
from tests.chaos.verdict import Told

FAILS_EVERY = 23
"""Every so many deliveries one is refused after it was taken, so that it has to come again."""


class Receiver(plain.Receiver):
    """Every event is taken once; a delivery refused after it was taken comes again with the same id."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.deliveries = 0

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        if len(body) < int(headers.get("content-length", "0")):
            return 400  # cut off: the sender was killed while it sent
        status = super().take(body, headers)
        if status != 204:
            return status
        with self._lock:
            self.deliveries += 1
            known = headers["webhook-id"] in self.ids
            self.ids.add(headers["webhook-id"])
            return 503 if self.deliveries % FAILS_EVERY == 0 and not known else 204


def told(receivers: list[Receiver]) -> Told:
    """What all of them got, put together."""
    states: dict[str, list[str]] = defaultdict(list)
    orders: dict[str, list[str]] = defaultdict(list)
    for receiver in receivers:
        for event in list(receiver.events):
            data = event["data"]
            if event["type"] == "registration.settled":
                for row in data["registrations"]:
                    states[row["id"]].append(row["state"])
            elif event["type"].startswith("order."):
                orders[data["reference"]].append(event["type"])
    return Told(
        ids=frozenset(id for receiver in receivers for id in receiver.ids),
        states={id: tuple(found) for id, found in states.items()},
        orders={reference: tuple(found) for reference, found in orders.items()},
        repeated=sum(receiver.repeated for receiver in receivers),
        refused=sum(receiver.refused for receiver in receivers),
    )
