"""The table of event types, and that what is published of it notices what differs."""

import json
import re
from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from app.api.contract.models import WaitingOut
from app.domain.event import (
    BYTES_PER_EVENT,
    EVENTS,
    ROWS_PER_EVENT,
    EndpointTestData,
    EventType,
    SettledRow,
    WaitingReason,
    pages,
)
from app.domain.registration import RegistrationState
from app.services.events.publishing import Happening
from tests.support.published import require_published

ID = UUID(int=7)


def settled(number: int, line_ref: str | None) -> SettledRow:
    return SettledRow(ID, number, line_ref, RegistrationState.FAILED, "device_not_found", None)


def size(rows: list[SettledRow]) -> int:
    """Bytes of the rows as a list in JSON."""
    return len(json.dumps([vars(row) | {"id": str(row.id)} for row in rows], ensure_ascii=False).encode()) - 1


def test_the_table_has_one_entry_for_each_type() -> None:
    assert list(EVENTS) == list(EventType)
    assert all(entry.scope.value.endswith(":read") for entry in EVENTS.values())
    assert all(re.fullmatch(r"\d+\.\d+", entry.since) for entry in EVENTS.values())


def test_a_payload_of_another_type_is_never_published() -> None:
    with pytest.raises(TypeError, match=r"order.failed does not tell EndpointTestData"):
        Happening(EventType.ORDER_FAILED, EndpointTestData(ID, "Hello"))


@pytest.mark.parametrize("line_ref", [None, "line 1", "\N{SNOWMAN}" * 250, 'a"b\\\n\x01' * 60])
def test_a_page_of_rows_is_as_long_as_both_limits_let_it_be(line_ref: str | None) -> None:
    rows = [settled(number, line_ref) for number in range(1, 451)]
    cut = [list(page) for page in pages(rows)]
    assert [row for page in cut for row in page] == rows
    for page, following in zip(cut, [*cut[1:], []], strict=True):
        assert len(page) <= ROWS_PER_EVENT
        assert size(page) <= BYTES_PER_EVENT
        if following:
            assert len(page) == ROWS_PER_EVENT or size([*page, following[0]]) > BYTES_PER_EVENT


def test_a_reason_to_wait_has_one_shape_in_events_and_in_answers() -> None:
    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {key: bare(value) for key, value in schema.items() if key not in ("description", "title")}
        return [bare(item) for item in schema] if isinstance(schema, list) else schema

    assert bare(TypeAdapter(WaitingReason).json_schema()) == bare(WaitingOut.model_json_schema())


ACCEPTED: dict[str, Any] = {
    "type": "order.accepted",
    "timestamp": "2026-11-28T10:00:00.000Z",
    "data": {
        "order_id": str(ID),
        "reference": "R-1",
        "purchase_order": None,
        "customer_id": str(ID),
        "state": "held",
        "counts": {"held": 1},
        "waiting_for": [
            {
                "code": "consent_missing",
                "title": "No consent",
                "advice": "person",
                "since": "2026-11-28T10:00:00.000Z",
                "until": None,
                "remedy": "Ask for it.",
                "detail": None,
                "devices": 1,
            }
        ],
        "sequence": 1,
    },
}


def test_an_event_as_it_is_published_is_let_pass() -> None:
    require_published(ACCEPTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"reference": None},
        {"order_id": "4711"},
        {"state": "sleeping"},
        {"counts": {"lost": 1}},
        {"sequence": None},
        {"serial_number": "SYN0001"},
        {"waiting_for": [ACCEPTED["data"]["waiting_for"][0] | {"since": "yesterday"}]},
        {"waiting_for": [ACCEPTED["data"]["waiting_for"][0] | {"whose": "ours"}]},
        {"waiting_for": [{"code": "consent_missing"}]},
    ],
    ids=str,
)
def test_an_event_that_differs_from_what_is_published_is_noticed(changes: dict[str, Any]) -> None:
    event = deepcopy(ACCEPTED)
    event["data"] |= changes
    with pytest.raises(AssertionError, match=r"order\.accepted"):
        require_published(event)


def test_an_event_without_a_field_or_with_another_type_is_noticed() -> None:
    for name in ACCEPTED["data"]:
        event = deepcopy(ACCEPTED)
        del event["data"][name]
        with pytest.raises(AssertionError, match=name):
            require_published(event)
    with pytest.raises(AssertionError, match=r"consent\.granted"):
        require_published(ACCEPTED | {"type": "consent.granted"})
    with pytest.raises(AssertionError, match=r"No webhook order\.lost"):
        require_published(ACCEPTED | {"type": "order.lost"})
