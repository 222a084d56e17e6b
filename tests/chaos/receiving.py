"""The webhook receivers of a run, and the events that they got."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from app.local import receiver as webhooks
from tests.chaos.verdict import Told

FAILS_EVERY = 23
"""After this many webhooks a new event is refused although it was kept, so that it comes again."""


class Receiver(webhooks.Receiver):
    def on_new(self, event: Mapping[str, Any]) -> int:
        return 503 if self.arrived % FAILS_EVERY == 0 else 204


def told(receivers: list[Receiver]) -> Told:
    """The events of all receivers together."""
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
