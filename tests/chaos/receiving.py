"""The receiver of webhooks that a run listens with, and what all of them were told."""

from __future__ import annotations

from collections import defaultdict

from tests.chaos.verdict import Told
from tests.support.receiver import Answer, Message, Subscriber

FAILS_EVERY = 23
"""Every so many messages a new event is refused after it was taken, so that it has to come again."""


class Receiver(Subscriber):
    def taken(self, message: Message) -> Answer:
        return Answer(503 if len(self.messages) % FAILS_EVERY == 0 else 200)


def told(receivers: list[Receiver]) -> Told:
    """What all of them got, put together."""
    states: dict[str, list[str]] = defaultdict(list)
    orders: dict[str, list[str]] = defaultdict(list)
    for receiver in receivers:
        for event in list(receiver.events.values()):
            data = event["data"]
            if event["type"] == "registration.settled":
                for row in data["registrations"]:
                    states[row["id"]].append(row["state"])
            elif event["type"].startswith("order."):
                orders[data["reference"]].append(event["type"])
    return Told(
        ids=frozenset(id for receiver in receivers for id in list(receiver.events)),
        states={id: tuple(found) for id, found in states.items()},
        orders={reference: tuple(found) for reference, found in orders.items()},
        repeated=sum(receiver.repeated for receiver in receivers),
        refused=sum(receiver.refused for receiver in receivers),
    )
