"""Webhook endpoints and their deliveries."""

from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.api import answers
from app.api.contract.schema import body_of
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import PageOfIds, ReadsWebhooks, RuntimeOf, WritesWebhooks, has_body, path_of, read
from app.api.webhooks import rendering
from app.api.webhooks.models import (
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
from app.domain.attempt import DeliveryState
from app.runtime import Runtime
from app.services.access import idempotency
from app.services.access.identities import Caller
from app.services.webhooks import deliveries, endpoint_secrets, endpoints
from app.services.webhooks.endpoints import NewEndpoint

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
    """Adds an endpoint for events. The answer shows the signing secret this once. The key needs the scopes to
    read what the endpoint will receive: `orders:read`, `customers:read`, `connections:read`."""
    given, digest = await read(request, EndpointIn)
    new = NewEndpoint(given.url, given.event_types, given.description)

    shown_to = await _shown_to(runtime, caller, key)
    async with answered_once(request, runtime, caller, key, digest, shown_to=shown_to) as answer:
        if answer.is_due:
            async with endpoints.create_endpoint(runtime, caller, new) as (tx, record, secret):
                location = path_of(request, "get_endpoint", endpoint_id=str(record.id))
                created = EndpointCreated(**rendering.endpoint_fields(record), secret=secret)
                await answer.give(tx, 201, location, created)
    return answer.response


async def _shown_to(runtime: Runtime, caller: Caller, key: str | None) -> UUID | None:
    """Who may see a secret again. The key of an order system may have been rotated since its call."""
    return None if key is None else await idempotency.lineage(runtime, caller, caller.key_id)


@router.get("/webhook-endpoints", response_model=Endpoints)
async def list_endpoints(runtime: RuntimeOf, caller: ReadsWebhooks, page: PageOfIds) -> Endpoints | Response:
    found = await endpoints.list_endpoints(runtime, caller, page)
    return await answers.page(Endpoints, found, lambda row: EndpointOut(**rendering.endpoint_fields(row)))


@router.get("/webhook-endpoints/{endpoint_id}")
async def get_endpoint(runtime: RuntimeOf, caller: ReadsWebhooks, endpoint_id: UUID) -> EndpointOut:
    record = await endpoints.get_endpoint(runtime, caller, endpoint_id)
    return EndpointOut(**rendering.endpoint_fields(record))


@router.patch("/webhook-endpoints/{endpoint_id}", openapi_extra=body_of(EndpointPatch))
async def update_endpoint(
    request: Request, runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID
) -> EndpointOut:
    """Changes the given fields. Disabling ends the waiting deliveries, which can be redelivered. For another
    URL, other types and enabling, the key needs the scopes to read what the endpoint receives."""
    given, _ = await read(request, EndpointPatch)
    values = given.model_dump(mode="json", exclude_unset=True)
    record = await endpoints.update_endpoint(runtime, caller, endpoint_id, values)
    return EndpointOut(**rendering.endpoint_fields(record))


@router.delete("/webhook-endpoints/{endpoint_id}", status_code=204)
async def delete_endpoint(runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID) -> None:
    """Deletes the endpoint with its secrets and ends its waiting deliveries, which stay readable."""
    await endpoints.delete_endpoint(runtime, caller, endpoint_id)


@router.post("/webhook-endpoints/{endpoint_id}:test", status_code=202)
async def test_endpoint(runtime: RuntimeOf, caller: WritesWebhooks, endpoint_id: UUID) -> DeliveryOut:
    """Sends `endpoint.test` to this endpoint only; follow the delivery."""
    record = await deliveries.send_test(runtime, caller, endpoint_id)
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
    """Creates a new signing secret and shows it this once. Until `previous_secret_until` each webhook is
    signed with both, so that the receiver has time to change."""
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
    """Newest first, including those of deleted endpoints."""
    await endpoints.find_endpoint(runtime, caller, endpoint_id)
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
    found = await deliveries.list_deliveries(
        runtime,
        caller,
        page,
        endpoint_id=endpoint_id,
        state=None if state is None else state.value,
    )
    return await answers.page(Deliveries, found, lambda row: DeliveryOut(**rendering.delivery_fields(row)))


@router.get("/webhook-deliveries/{delivery_id}")
async def get_delivery(runtime: RuntimeOf, caller: ReadsWebhooks, delivery_id: UUID) -> DeliveryDetail:
    """A delivery with its body and every attempt."""
    record = await deliveries.get_delivery(runtime, caller, delivery_id)
    attempts = await deliveries.attempts(runtime, caller, delivery_id)
    payload = await deliveries.payload_of(runtime, caller, record)
    return DeliveryDetail(
        **rendering.delivery_fields(record),
        payload=None if payload is None else payload.decode(),
        attempt_log=[DeliveryAttempt(**asdict(attempt)) for attempt in attempts],
    )


@router.post("/webhook-deliveries/{delivery_id}:redeliver", status_code=202)
async def redeliver(runtime: RuntimeOf, caller: WritesWebhooks, delivery_id: UUID) -> DeliveryOut:
    """Sends it again with a full series of attempts, whatever became of it, under the same event id. The key
    needs the scope for the event's subject."""
    record = await deliveries.redeliver(runtime, caller, delivery_id)
    return DeliveryOut(**rendering.delivery_fields(record))
