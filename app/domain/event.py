"""What happened, in the words that webhooks carry. Thin: ids, states, counts, never an identity secret.

An event's payload follows Standard Webhooks: `{type, timestamp, data}`. `sequence` counts an
order's events, because deliveries promise no order.
"""

import json
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
    CONNECTION_TROUBLE = "connection.trouble"
    CONNECTION_RECOVERED = "connection.recovered"
    IMPORT_READY = "import.ready"
    IMPORT_REFUSED = "import.refused"
    IMPORT_COMMITTED = "import.committed"
    ENDPOINT_TEST = "endpoint.test"


SUBSCRIBABLE = frozenset(EventType) - {EventType.ENDPOINT_TEST}
"""What an endpoint can ask for; the test event goes only where it was asked for."""

ROWS_PER_EVENT = 100
"""Rows in one registration.settled: 1,000 devices are 10 calls."""
BYTES_PER_EVENT = 18_000
"""Of JSON for the rows of one event, which with all around them stay under the 20 kB that Standard
Webhooks advises, however long the callers' own `line_ref`s are."""


def pages(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The rows as they are to be sent, in pages of both limits. A row has strings and numbers only."""
    page: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row, ensure_ascii=False).encode()) + 1
        if page and (len(page) == ROWS_PER_EVENT or size + length > BYTES_PER_EVENT):
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    if page:
        yield page
