"""The webhooks in the OpenAPI document: one for each entry of the table of event types, `app.domain.event`.

The models are made from the payloads there, so that a payload is written once.
"""

from dataclasses import is_dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from fastapi import FastAPI, Header
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from app.api.contract.models import Output, WaitingOut
from app.api.contract.schema import event_of
from app.api.contract.times import Timestamp
from app.domain.event import EVENTS, AtMost, Payload, WaitingReason

SHOWN_AS: Final[dict[type, Any]] = {datetime: Timestamp, WaitingReason: WaitingOut}
"""Types that have their own model in the API."""

_SEQUENCE = "Counts the order's events: deliveries promise no order."

MessageId = Annotated[
    str, Header(alias="webhook-id", description="The event's id: use it to drop repetitions.")
]
MessageTime = Annotated[str, Header(alias="webhook-timestamp")]
MessageSignature = Annotated[
    str, Header(alias="webhook-signature", description="`v1,` HMAC-SHA256, Standard Webhooks.")
]


def document(app: FastAPI) -> None:
    """Adds the webhooks to the OpenAPI document, by event type. They are never called here."""

    def received(id: MessageId, time: MessageTime, signature: MessageSignature) -> None: ...

    bodies = {payload: _body_of(payload) for payload in dict.fromkeys(e.payload for e in EVENTS.values())}
    for type, entry in EVENTS.items():
        app.webhooks.post(
            type.value,
            tags=["Webhooks"],
            summary=entry.summary,
            description=f"{entry.summary} Answer 2xx within 15 seconds.",
            openapi_extra=event_of(bodies[entry.payload], type.value),
        )(received)


def _body_of(payload: type[Payload]) -> type[Output]:
    """The model of an event with such a payload: `OrderEvent` for `OrderData`."""
    types: Any = Literal[tuple(type for type, entry in EVENTS.items() if entry.payload is payload)]
    data = _fields_of(payload)
    data["sequence"] = (int, Field(description=_SEQUENCE)) if "order_id" in data else (None, None)
    return create_model(
        payload.__name__.removesuffix("Data").removesuffix("Event") + "Event",
        __base__=Output,
        type=(types, ...),
        timestamp=(Timestamp, ...),
        data=(create_model(payload.__name__, __base__=Output, **data), ...),
    )


def _fields_of(shape: type) -> dict[str, Any]:
    hints = get_type_hints(shape, include_extras=True)
    return {name: (_shown(hint), FieldInfo(**_facets_of(hint))) for name, hint in hints.items()}


def _facets_of(hint: Any) -> dict[str, Any]:
    """The metadata of an `Annotated` field."""
    facets: dict[str, Any] = {}
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, AtMost):
            facets["max_length"] = note.items
        else:
            facets["description"] = note
    return facets


def _shown(hint: Any) -> Any:
    """The type with every dataclass in it replaced by a model."""
    if hint in SHOWN_AS:
        return SHOWN_AS[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return create_model(hint.__name__, __base__=Output, **_fields_of(hint))
    if get_origin(hint) is Annotated:
        return _shown(hint.__origin__)
    parts = tuple(_shown(part) for part in get_args(hint))
    if not parts:
        return hint
    return reduce(or_, parts) if isinstance(hint, UnionType) else get_origin(hint)[parts]
