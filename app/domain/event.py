"""What happened, in the words that webhooks carry. Thin: ids, states, counts, never an identity secret.

An event's payload follows Standard Webhooks: `{type, timestamp, data}`. `sequence` counts an
order's events, because deliveries promise no order.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    ORDER_ACCEPTED = "order.accepted"
    ORDER_HELD = "order.held"
    ORDER_COMPLETED = "order.completed"
    ORDER_COMPLETED_WITH_ERRORS = "order.completed_with_errors"
    ORDER_FAILED = "order.failed"
    ORDER_CANCELLED = "order.cancelled"
    REGISTRATION_SETTLED = "registration.settled"
    CONSENT_GRANTED = "consent.granted"
    CONSENT_REVOKED = "consent.revoked"
    ENDPOINT_TEST = "endpoint.test"


SUBSCRIBABLE = frozenset(EventType) - {EventType.ENDPOINT_TEST}
"""What an endpoint can ask for; the test event goes only where it was asked for."""

ROWS_PER_EVENT = 100
"""Rows in one registration.settled: 1,000 devices are 10 calls, each under the 20 kB that
Standard Webhooks advises."""


def pages(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    for start in range(0, len(rows), ROWS_PER_EVENT):
        yield rows[start : start + ROWS_PER_EVENT]
