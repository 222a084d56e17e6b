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

EVERY_TYPE = "*"
"""Stored in front of the types of an endpoint that asked for every type."""


def stored_types(wanted: Sequence[str]) -> list[str]:
    """What is stored for an endpoint. None wanted means every type, also those that come later; today's stand
    beside the mark for a process of the release before, which knows no mark."""
    if wanted:
        return [EventType(type).value for type in wanted]
    return [EVERY_TYPE, *sorted(type.value for type in SUBSCRIBABLE)]


def shown_types(stored: Sequence[str]) -> list[str]:
    """As the endpoint's owner has asked for them."""
    return [] if EVERY_TYPE in stored else list(stored)


def hears(stored: Sequence[str], type: EventType) -> bool:
    """Whether an endpoint with these types is told of it."""
    return type.value in stored or (EVERY_TYPE in stored and type in SUBSCRIBABLE)


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
