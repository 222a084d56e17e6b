"""The table of event types: payload, the scope that may receive it, and the first release that has it.

Everything else is derived from `EVENTS`: the webhooks in the OpenAPI document, the types that an endpoint may
subscribe to, and the tests that check every published event against its published shape. Payloads have ids,
states and counts, never serial numbers or hashes: receivers read the details from the API.

Receivers get `{type, timestamp, data}`, as Standard Webhooks defines. `data` is the payload plus its
`sequence`, which numbers an order's events, because deliveries can arrive in any order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from json.encoder import encode_basestring
from typing import Annotated, Final
from uuid import UUID

from app.domain.catalogue import Advice
from app.domain.consent import ConsentState, Evidence
from app.domain.imports import ImportState
from app.domain.order import OrderState
from app.domain.registration import RegistrationState
from app.domain.scope import Scope

ROWS_PER_EVENT = 100
"""Rows in one registration.settled event: 1,000 devices take 10 events."""
BYTES_PER_EVENT = 18_000
"""JSON bytes for the rows of one event. The whole event then stays under the 20 kB that Standard Webhooks
advises, however long the callers' `line_ref`s are."""
ORDERS_PER_EVENT = 40
"""Orders named in one import event. References may have 249 characters each; the event stays under 20 kB."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """The most items in a list of a payload. Text in `Annotated` is the description of a field."""

    items: int


# --- payloads -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Payload:
    """The data of an event. Payloads with an `order_id` are numbered within their order.

    Without slots, like its parts: the JSON encoder reads an instance's dictionary three times as fast.
    """


@dataclass(frozen=True)
class WaitingReason:
    """Why devices wait, in the catalogue's words. The API shows it in the same shape."""

    code: str
    title: str
    advice: Advice
    since: datetime | None
    until: datetime | None
    remedy: str
    detail: str | None
    devices: int


@dataclass(frozen=True)
class OrderData(Payload):
    order_id: UUID
    reference: str
    purchase_order: str | None
    customer_id: UUID
    state: OrderState
    counts: Mapping[RegistrationState, int]
    waiting_for: Annotated[
        Sequence[WaitingReason],
        "What the order waits for: in `order.accepted` and `order.held`; otherwise empty.",
    ]


@dataclass(frozen=True)
class SettledRow:
    id: UUID
    row: int
    line_ref: str | None
    state: RegistrationState
    error_code: str | None
    corrects: Annotated[
        RegistrationState | None,
        "The wrong state that was reported before a person corrected a portal's outcome. Null otherwise.",
    ]


@dataclass(frozen=True)
class SettledData(Payload):
    order_id: UUID
    reference: str
    customer_id: UUID
    registrations: Annotated[Sequence[SettledRow], AtMost(ROWS_PER_EVENT)]


@dataclass(frozen=True)
class ConsentData(Payload):
    customer_id: UUID
    state: ConsentState
    evidence: Evidence
    devices: Annotated[int, "Devices that were released or are held now."]


@dataclass(frozen=True)
class ConnectionTroubleData(Payload):
    connection_id: UUID
    name: str
    code: Annotated[str, "A code of `GET /v1/error-codes`."]
    detail: Annotated[str | None, "Microsoft's own words, shortened; never a credential."]
    remedy: Annotated[str, "What to do about it."]
    since: datetime


@dataclass(frozen=True)
class ConnectionRecoveredData(Payload):
    connection_id: UUID
    name: str
    code: Annotated[str, "The trouble that has ended."]
    since: Annotated[datetime, "When it had begun."]


@dataclass(frozen=True)
class ImportEventOrder:
    order_id: UUID
    reference: str


@dataclass(frozen=True)
class ImportEventData(Payload):
    import_id: UUID
    state: ImportState
    reference: str
    file_name: str | None
    rows: int
    counts: Annotated[Mapping[str, int], "Rows by verdict."]
    failure: Annotated[str | None, "Code, when the file was refused."]
    orders: Annotated[Sequence[ImportEventOrder], f"The first {ORDERS_PER_EVENT}."]
    orders_total: int


@dataclass(frozen=True)
class EndpointTestData(Payload):
    endpoint_id: UUID
    message: str


# --- the table ------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Entry:
    payload: type[Payload]
    scope: Scope
    """The scope for reading what the event is about: only keys with this scope may subscribe."""
    since: str
    """The first release that publishes it."""
    summary: str
    asked_for: bool = False
    """Sent only on request: an endpoint does not receive it because of its list of types."""


_T, _ENDED = EventType, "An order has ended."

EVENTS: Final[Mapping[EventType, Entry]] = {
    _T.ORDER_ACCEPTED: Entry(OrderData, Scope.ORDERS_READ, "0.1", "An order was accepted."),
    _T.ORDER_HELD: Entry(
        OrderData,
        Scope.ORDERS_READ,
        "0.1",
        "All unfinished devices of an order wait for the customer's consent.",
    ),
    _T.ORDER_COMPLETED: Entry(OrderData, Scope.ORDERS_READ, "0.1", _ENDED),
    _T.ORDER_COMPLETED_WITH_ERRORS: Entry(OrderData, Scope.ORDERS_READ, "0.1", _ENDED),
    _T.ORDER_FAILED: Entry(OrderData, Scope.ORDERS_READ, "0.1", _ENDED),
    _T.ORDER_CANCELLED: Entry(OrderData, Scope.ORDERS_READ, "0.1", _ENDED),
    _T.REGISTRATION_SETTLED: Entry(
        SettledData,
        Scope.ORDERS_READ,
        "0.1",
        "Up to 100 devices have their outcome, or a person has corrected it (`corrects`).",
    ),
    _T.CONSENT_GRANTED: Entry(ConsentData, Scope.CUSTOMERS_READ, "0.1", "A customer has given its consent."),
    _T.CONSENT_REVOKED: Entry(ConsentData, Scope.CUSTOMERS_READ, "0.1", "A customer has ended its consent."),
    _T.CONNECTION_TROUBLE: Entry(
        ConnectionTroubleData,
        Scope.CONNECTIONS_READ,
        "0.2",
        "A connection needs a person, or another step than before. Sent once, not at each attempt.",
    ),
    _T.CONNECTION_RECOVERED: Entry(
        ConnectionRecoveredData,
        Scope.CONNECTIONS_READ,
        "0.2",
        "A connection works again; waiting work continues automatically.",
    ),
    _T.IMPORT_READY: Entry(
        ImportEventData, Scope.ORDERS_READ, "0.1", "A file has been read and can be committed."
    ),
    _T.IMPORT_REFUSED: Entry(ImportEventData, Scope.ORDERS_READ, "0.1", "A file could not be read."),
    _T.IMPORT_COMMITTED: Entry(ImportEventData, Scope.ORDERS_READ, "0.1", "A file has become orders."),
    _T.ENDPOINT_TEST: Entry(
        EndpointTestData, Scope.WEBHOOKS_READ, "0.1", "You asked for it with `:test`.", asked_for=True
    ),
}


# --- pages of rows --------------------------------------------------------------------------------

_NAMES = [field.name for field in fields(SettledRow)]
_AROUND_VALUES = len(json.dumps(dict.fromkeys(_NAMES, 0))) - len(_NAMES) + len(",")
_ID = len('"01234567-89ab-cdef-0123-456789abcdef"')


def pages(rows: Sequence[SettledRow]) -> Iterator[Sequence[SettledRow]]:
    """Divides the rows into the pages that are sent, each within both limits."""
    page: list[SettledRow] = []
    size = 0
    for row in rows:
        length = _size(row)
        if page and (len(page) == ROWS_PER_EVENT or size + length > BYTES_PER_EVENT):
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    if page:
        yield page


def _size(row: SettledRow) -> int:
    """Bytes of the row as JSON, with the comma after it. Counted, because encoding the row takes five times
    as long."""
    texts = (row.line_ref, row.state, row.error_code, row.corrects)
    return _AROUND_VALUES + _ID + len(str(row.row)) + sum(map(_length, texts))


def _length(text: str | None) -> int:
    return len("null") if text is None else len(encode_basestring(text).encode())
