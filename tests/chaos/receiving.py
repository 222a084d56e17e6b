"""The receiver of webhooks that a run listens with, and what all of them were told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from app.local import receiver as webhooks
from tests.chaos.verdict import Told

FAILS_EVERY = 23
"""Every so many messages a new event is refused after it was taken, so that it has to come again."""


class Receiver(webhooks.Receiver):
    def on_new(self, event: Mapping[str, Any]) -> int:
        return 503 if self.arrived % FAILS_EVERY == 0 else 204


def told(receivers: list[Receiver]) -> Told:
    """What all of them got, put together."""
    states: dict[str, list[str]] = defaultdict(list)
    orders: dict[str, list[str]] = defaultdict(list)
    for receiver in receivers:
        for event in receiver.kept().values():
            data = event["data"]
            if event["type"] == "registration.settled":
                for row in data["registrations"]:
                    states[row["id"]].append(row["state"])
            elif event["type"].startswith("order."):
                orders[data["reference"]].append(event["type"])
    return Told(
        ids=frozenset(id for receiver in receivers for id in receiver.kept()),
        states={id: tuple(found) for id, found in states.items()},
        orders={reference: tuple(found) for reference, found in orders.items()},
        repeated=sum(receiver.repeated for receiver in receivers),
        refused=sum(receiver.refused for receiver in receivers),
    )
