"""Models of webhook endpoints and deliveries in calls and answers."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.api.contract.models import Input, Output, PageOf, Patch, Text255
from app.api.contract.times import Timestamp
from app.domain.attempt import DeliveryState
from app.domain.endpoint_health import EndpointState
from app.domain.event import EventType

_EVERY_TYPE = "Empty: every type, including future ones."


class EndpointIn(Input):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    description: Text255 | None = None
    event_types: list[EventType] = Field(
        default_factory=list, strict=False, description=_EVERY_TYPE, max_length=len(EventType)
    )


class EndpointPatch(Patch):
    MAY_BE_EMPTY = frozenset({"description"})

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    description: Text255 | None = None
    event_types: Annotated[list[EventType], Field(max_length=len(EventType))] | None = Field(
        None, strict=False, description=_EVERY_TYPE
    )
    state: Literal["enabled", "disabled"] | None = None


class EndpointOut(Output):
    id: UUID
    url: str
    description: str | None
    event_types: list[str] = Field(description=_EVERY_TYPE)
    state: EndpointState
    consecutive_failures: int
    backlog_full_since: Timestamp | None = Field(
        None,
        description="Since when too many deliveries wait for this endpoint. Until fewer wait, new ones end "
        "at once as `exhausted` with `last_kind` `backlog_full`; `:redeliver` sends them.",
    )
    created_at: Timestamp
    updated_at: Timestamp


class EndpointCreated(EndpointOut):
    secret: str = Field(description="Signs the webhooks (Standard Webhooks). Shown this once.")


class RotationIn(Input):
    overlap_seconds: int = Field(
        24 * 3600,
        ge=0,
        le=7 * 24 * 3600,
        description="How long the present secret still signs beside the new one. 0 ends it, and older ones, "
        "at once, for a secret that has leaked.",
    )


class EndpointRotated(EndpointCreated):
    previous_secret_until: Timestamp = Field(description="Until then the previous secret signs as well.")


class Endpoints(PageOf):
    items: list[EndpointOut]


class _ShownAsFirst:
    """In the OpenAPI document a union is shown as its first type."""

    def __get_pydantic_json_schema__(
        self, union: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        first: JsonSchemaValue = handler(union)["anyOf"][0]
        return first


TypeOfEvent = Annotated[EventType | str, _ShownAsFirst()]
"""May be a type of the next release, whose workers publish it while an upgrade runs."""


class DeliveryOut(Output):
    id: UUID
    event_id: UUID = Field(description="The `webhook-id` header, the same at every attempt.")
    event_type: TypeOfEvent
    endpoint_id: UUID
    order_id: UUID | None
    state: DeliveryState
    attempts: int
    due_at: Timestamp | None = Field(description="When the next attempt is due; null if there is none.")
    last_status: int | None = Field(description="HTTP status of the last answer.")
    last_kind: str | None = Field(description="How the last attempt ended.")
    occurred_at: Timestamp
    created_at: Timestamp
    settled_at: Timestamp | None


class DeliveryAttempt(Output):
    started_at: Timestamp
    duration_ms: int
    status: int | None
    kind: str
    excerpt: str | None


class DeliveryDetail(DeliveryOut):
    payload: str | None = Field(
        description="The exact body that was or will be signed. Null if the key lacks the scope "
        "for the event's subject."
    )
    attempt_log: list[DeliveryAttempt] = Field(description="Newest first, at most 100.")


class Deliveries(PageOf):
    items: list[DeliveryOut]
