"""Webhook endpoints and deliveries, and the webhooks themselves as OpenAPI shows them."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, FastAPI, Header, Request, Response
from pydantic import Field

from app.api import pages, rendering
from app.api.connection_events import ConnectionRecoveredEvent, ConnectionTroubleEvent
from app.api.import_models import ImportEvent
from app.api.models import Output
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import (
    PageOfIds,
    ReadsWebhooks,
    RuntimeOf,
    WritesWebhooks,
    has_body,
    path_of,
    read,
)
from app.api.schema import body_of, event_of
from app.api.times import Timestamp
from app.api.waiting_models import WaitingOut
from app.api.webhook_models import (
    Deliveries,
    DeliveryAttempt,
    DeliveryDetail,
    DeliveryOut,
    EndpointCreated,
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    EndpointRotated,
    Endpoints,
    RotationIn,
)
from app.domain.consent import ConsentState, Evidence
from app.domain.event import EventType
from app.domain.order import OrderState
from app.domain.registration import RegistrationState
from app.runtime import Runtime
from app.services import endpoint_secrets, idempotency, webhooks
from app.services.identities import Caller
from app.services.webhooks import DeliveryState, NewEndpoint

router = APIRouter(prefix="/v1", tags=["Webhooks"])


@router.post(
    "/webhook-endpoints",
    status_code=201,
    response_model=EndpointCreated,
    openapi_extra=body_of(EndpointIn),
)
async def create_endpoint(
    request: Request, runtime: RuntimeOf, caller: WritesWebhooks, key: IdempotencyKey = None
) -> Response:
    """Where to tell what happens. The answer shows the signing secret, this once. The key needs the scopes
    that read what the endpoint will be told: `orders:read`, `customers:read`, `connections:read`."""
    given, digest = await read(request, EndpointIn)
    new = NewEndpoint(given.url, given.event_types, given.description)

    shown_to = await _shown_to(runtime, caller, key)
    async with answered_once(request, runtime, caller, key, digest, shown_to=shown_to) as answer:
        if answer.is_due:
            async with webhooks.create_endpoint(runtime, caller, new) as (tx, record, secret):
                location = path_of(request, "get_endpoint", endpoint_id=str(record.id))
                created = EndpointCreated(**rendering.endpoint_fields(record), secret=secret)
                await answer.give(tx, 201, location, created)
    return answer.response


async def _shown_to(runtime: Runtime, caller: Caller, key: str | None) -> UUID | None:
    """Who may have a secret repeated. The key of an order system may have been rotated since its call."""
    return None if key is None else await idempotency.lineage(runtime, caller, caller.key_id)


@router.get("/webhook-endpoints")
async def list_endpoints(runtime: RuntimeOf, caller: ReadsWebhooks, page: PageOfIds) -> Endpoints:
    found = await webhooks.list_endpoints(runtime, caller, page)
    return Endpoints(
        items=[EndpointOut(**rendering.endpoint_fields(row)) for row in found.items],
        next_page_token=found.next_token,
    )


@router.get("/webhook-endpoints/{endpoint_id}")
async def get_endpoint(runtime: RuntimeOf, caller: ReadsWebhooks, endpoint_id: UUID) -> EndpointOut:
    record = await webhooks.get_endpoint(runtime, caller, endpoint_id)
    return EndpointOut(**rendering.endpoint_fields(record))


@router.patch("/webhook-endpoints/{endpoint_id}", openapi_extra=body_of(EndpointPatch))
async def update_endpoint(
    request: Request, runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID
) -> EndpointOut:
    """Changes what is given. Disabling ends what waits for the endpoint; it can be redelivered. For another
    URL, other types and enabling, the key needs the scopes that read what the endpoint is told."""
    given, _ = await read(request, EndpointPatch)
    values = given.model_dump(mode="json", exclude_unset=True)
    record = await webhooks.update_endpoint(runtime, caller, endpoint_id, values)
    return EndpointOut(**rendering.endpoint_fields(record))


@router.delete("/webhook-endpoints/{endpoint_id}", status_code=204)
async def delete_endpoint(runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID) -> None:
    """Ends what waits for it and destroys its secrets. Its deliveries stay readable."""
    await webhooks.delete_endpoint(runtime, caller, endpoint_id)


@router.post("/webhook-endpoints/{endpoint_id}:test", status_code=202)
async def test_endpoint(runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID) -> DeliveryOut:
    """Sends `endpoint.test` to this endpoint only; follow the delivery."""
    record = await webhooks.send_test(runtime, caller, endpoint_id)
    return DeliveryOut(**rendering.delivery_fields(record))


@router.post(
    "/webhook-endpoints/{endpoint_id}:rotate-secret",
    response_model=EndpointRotated,
    openapi_extra=body_of(RotationIn, required=False),
)
async def rotate_secret(
    request: Request,
    runtime: RuntimeOf,
    caller: WritesWebhooks,
    endpoint_id: UUID,
    key: IdempotencyKey = None,
) -> Response:
    """Makes a new signing secret and shows it, this once. Until `previous_secret_until` each webhook has a
    signature of both, so that a receiver has the time to change."""
    given, digest = (
        await read(request, RotationIn) if has_body(request) else (RotationIn.model_validate({}), b"")
    )

    shown_to = await _shown_to(runtime, caller, key)
    async with answered_once(request, runtime, caller, key, digest, shown_to=shown_to) as answer:
        if answer.is_due:
            overlap = timedelta(seconds=given.overlap_seconds)
            async with endpoint_secrets.rotate(runtime, caller, endpoint_id, overlap) as (tx, rotated):
                shown = EndpointRotated(
                    **rendering.endpoint_fields(rotated.endpoint),
                    secret=rotated.secret,
                    previous_secret_until=rotated.previous_until,
                )
                await answer.give(tx, 200, None, shown)
    return answer.response


@router.get("/webhook-endpoints/{endpoint_id}/deliveries", response_model=Deliveries)
async def list_deliveries_of_endpoint(
    runtime: RuntimeOf,
    caller: ReadsWebhooks,
    endpoint_id: UUID,
    page: PageOfIds,
    state: DeliveryState | None = None,
) -> Deliveries | Response:
    """Newest first; also those of an endpoint that has been deleted."""
    await webhooks.find_endpoint(runtime, caller, endpoint_id)
    return await _deliveries(runtime, caller, page, endpoint_id, state)


@router.get("/webhook-deliveries", response_model=Deliveries)
async def list_deliveries(
    runtime: RuntimeOf, caller: ReadsWebhooks, page: PageOfIds, state: DeliveryState | None = None
) -> Deliveries | Response:
    """Newest first."""
    return await _deliveries(runtime, caller, page, None, state)


async def _deliveries(
    runtime: Runtime,
    caller: Caller,
    page: PageOfIds,
    endpoint_id: UUID | None,
    state: DeliveryState | None,
) -> Deliveries | Response:
    found = await webhooks.list_deliveries(
        runtime,
        caller,
        page,
        endpoint_id=endpoint_id,
        state=None if state is None else state.value,
    )
    return await pages.answer(Deliveries, found, lambda row: DeliveryOut(**rendering.delivery_fields(row)))


@router.get("/webhook-deliveries/{delivery_id}")
async def get_delivery(runtime: RuntimeOf, caller: ReadsWebhooks, delivery_id: UUID) -> DeliveryDetail:
    """With the body that is sent, and every attempt."""
    record = await webhooks.get_delivery(runtime, caller, delivery_id)
    attempts = await webhooks.attempts(runtime, caller, delivery_id)
    payload = await webhooks.payload_of(runtime, caller, record)
    return DeliveryDetail(
        **rendering.delivery_fields(record),
        payload=None if payload is None else payload.decode(),
        attempt_log=[DeliveryAttempt(**asdict(attempt)) for attempt in attempts],
    )


@router.post("/webhook-deliveries/{delivery_id}:redeliver", status_code=202)
async def redeliver(runtime: RuntimeOf, caller: WritesWebhooks, delivery_id: UUID) -> DeliveryOut:
    """Sends it again from the start of the ladder, whatever became of it; the event id stays. The key needs
    the scope that reads what the event tells of."""
    record = await webhooks.redeliver(runtime, caller, delivery_id)
    return DeliveryOut(**rendering.delivery_fields(record))


# --- what arrives at an endpoint --------------------------------------------------------------------


class OrderData(Output):
    order_id: UUID
    reference: str
    purchase_order: str | None
    customer_id: UUID
    state: OrderState
    counts: dict[RegistrationState, int]
    waiting_for: list[WaitingOut] = Field(
        [], description="What the order waits for: in `order.accepted` and `order.held`; otherwise empty."
    )
    sequence: int = Field(description="Counts the order's events: deliveries promise no order.")


class SettledRow(Output):
    id: UUID
    row: int
    line_ref: str | None
    state: RegistrationState
    error_code: str | None
    corrects: RegistrationState | None = Field(
        description="What was told before and was wrong: a person has corrected the outcome of a portal. "
        "Null otherwise."
    )


class SettledData(Output):
    order_id: UUID
    reference: str
    customer_id: UUID
    registrations: list[SettledRow] = Field(max_length=100)
    sequence: int


class ConsentData(Output):
    customer_id: UUID
    state: ConsentState
    evidence: Evidence
    devices: int = Field(description="Devices that were released or are held now.")
    sequence: None = None


class OrderEvent(Output):
    type: Literal[
        EventType.ORDER_ACCEPTED,
        EventType.ORDER_HELD,
        EventType.ORDER_COMPLETED,
        EventType.ORDER_COMPLETED_WITH_ERRORS,
        EventType.ORDER_FAILED,
        EventType.ORDER_CANCELLED,
    ]
    timestamp: Timestamp
    data: OrderData


class SettledEvent(Output):
    type: Literal[EventType.REGISTRATION_SETTLED]
    timestamp: Timestamp
    data: SettledData


class ConsentEvent(Output):
    type: Literal[EventType.CONSENT_GRANTED, EventType.CONSENT_REVOKED]
    timestamp: Timestamp
    data: ConsentData


class EndpointTestData(Output):
    endpoint_id: UUID
    message: str
    sequence: None = None


class EndpointTestEvent(Output):
    type: Literal[EventType.ENDPOINT_TEST]
    timestamp: Timestamp
    data: EndpointTestData


MessageId = Annotated[
    str, Header(alias="webhook-id", description="The event's id: use it to drop repetitions.")
]
MessageTime = Annotated[str, Header(alias="webhook-timestamp")]
MessageSignature = Annotated[
    str, Header(alias="webhook-signature", description="`v1,` HMAC-SHA256, Standard Webhooks.")
]


_ORDER_ENDS = "An order has come to its end."
EVENTS: dict[EventType, tuple[type[Output], str]] = {
    EventType.ORDER_ACCEPTED: (OrderEvent, "An order was accepted."),
    EventType.ORDER_HELD: (OrderEvent, "All that is left of an order waits for the customer's consent."),
    EventType.ORDER_COMPLETED: (OrderEvent, _ORDER_ENDS),
    EventType.ORDER_COMPLETED_WITH_ERRORS: (OrderEvent, _ORDER_ENDS),
    EventType.ORDER_FAILED: (OrderEvent, _ORDER_ENDS),
    EventType.ORDER_CANCELLED: (OrderEvent, _ORDER_ENDS),
    EventType.REGISTRATION_SETTLED: (
        SettledEvent,
        "Up to 100 devices have come to their outcome, or a person has corrected it (`corrects`).",
    ),
    EventType.CONSENT_GRANTED: (ConsentEvent, "A customer has given its consent."),
    EventType.CONSENT_REVOKED: (ConsentEvent, "A customer has ended its consent."),
    EventType.IMPORT_READY: (ImportEvent, "A file has been read and can be committed."),
    EventType.IMPORT_REFUSED: (ImportEvent, "A file could not be read."),
    EventType.IMPORT_COMMITTED: (ImportEvent, "A file has become orders."),
    EventType.CONNECTION_TROUBLE: (
        ConnectionTroubleEvent,
        "A connection needs a person, or needs another step than before. Told once, not at each attempt.",
    ),
    EventType.CONNECTION_RECOVERED: (
        ConnectionRecoveredEvent,
        "A connection works again; what waited for it goes on by itself.",
    ),
    EventType.ENDPOINT_TEST: (EndpointTestEvent, "You asked for it with `:test`."),
}
"""What arrives for each type of event. The OpenAPI document has one webhook for each."""


def document(app: FastAPI) -> None:
    """Puts the webhooks into the OpenAPI document, by event type. They are never called here."""

    def received(id: MessageId, time: MessageTime, signature: MessageSignature) -> None: ...

    for type in EventType:
        model, words = EVENTS[type]
        app.webhooks.post(
            type.value,
            tags=["Webhooks"],
            summary=words,
            description=f"{words} Answer 2xx within 15 seconds.",
            openapi_extra=event_of(model, type.value),
        )(received)
