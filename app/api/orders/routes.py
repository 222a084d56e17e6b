"""Orders, their registrations and batches."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api import answers
from app.api.answers import CSV, download
from app.api.contract.schema import body_of
from app.api.contract.texts import CodeSought, Sought
from app.api.contract.times import Moment
from app.api.http.turns import take_heavy
from app.api.once import IdempotencyKey, answered_once
from app.api.orders import rendering
from app.api.orders.models import (
    BatchAttempt,
    BatchDetail,
    Batches,
    BatchOut,
    OrderAccepted,
    OrderIn,
    OrderOut,
    OrderRetried,
    Orders,
    OrderValidated,
    RegistrationOut,
    Registrations,
)
from app.api.orders.retries import RetryChoice, read_choice
from app.api.requests import PageOfIds, PageOfRows, ReadsOrders, RuntimeOf, WritesOrders, path_of, read
from app.db.registration_lists import Filter
from app.domain.batch import BatchState
from app.domain.order import FINAL, OrderState
from app.domain.registration import RegistrationState
from app.services.imports import reports
from app.services.orders import acceptance, orders, recall, registrations
from app.services.orders.acceptance import NewOrder

router = APIRouter(prefix="/v1", tags=["Orders"])

LARGE_ORDER = 500
"""Devices from which an order takes a second turn, because other callers would notice its work."""
RETRY_AFTER = "2"
"""Seconds that a poller should wait while an order is moving."""

Since = Annotated[Moment | None, Query(description="Changed at or after this time.")]
OneOf = Annotated[Sought | None, Query()]
OneCode = Annotated[CodeSought | None, Query()]
Fragment = Annotated[
    Sought | None,
    Query(
        min_length=3,
        description="Any part of the serial number, in any case, 3 characters or more. Across "
        "orders, and for other filters without an index, a page looks through 100,000 devices: it may "
        "have no items and a `next_page_token`.",
    ),
]
ProductKey = Annotated[Sought | None, Query(description="The whole PKID.")]


@router.post(
    "/orders",
    status_code=201,
    response_model=OrderAccepted,
    responses={200: {"model": OrderValidated, "description": "`validate_only`: nothing was stored."}},
    openapi_extra=body_of(OrderIn),
)
async def create_order(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, key: IdempotencyKey = None
) -> Response:
    """Accepts an order of up to 10,000 devices for one customer.

    Its devices are checked at once and registered in the background; follow the order, or let
    webhooks tell you. Devices of a customer without consent are held until it is given.
    """
    order, digest = await read(request, OrderIn)
    if len(order.devices) > LARGE_ORDER:
        await take_heavy(request, runtime, caller)
    new = _new_order(order, digest)
    if order.validate_only:
        found = await acceptance.preview(runtime, caller, new)
        validated = OrderValidated(**dict(rendering.preview(found)))
        return Response(validated.model_dump_json(), 200, media_type="application/json")

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            async with acceptance.accept(runtime, caller, new) as (tx, accepted):
                fields = rendering.order_fields(accepted.view)
                body = OrderAccepted(**fields, preview=rendering.preview(accepted.preview))
                location = path_of(request, "get_order", order_id=str(body.id))
                await answer.give(tx, 201, location, body)
        elif answer.is_to_be_reread:
            noted = rendering.MAX_PROBLEMS
            answer.reread(rendering.recalled(await recall.order(runtime, caller, answer.made, noted=noted)))
    return answer.response


def _new_order(order: OrderIn, digest: bytes) -> NewOrder:
    return NewOrder(
        customer_id=order.customer_id,
        reference=order.reference,
        purchase_order=order.purchase_order,
        group_tag=order.group_tag,
        devices=order.devices,
        reject_invalid=order.on_invalid == "reject",
        body_digest=digest,
    )


@router.get("/orders", response_model=Orders)
async def list_orders(
    runtime: RuntimeOf,
    caller: ReadsOrders,
    page: PageOfIds,
    customer_id: UUID | None = None,
    reference: OneOf = None,
    purchase_order: OneOf = None,
    state: OrderState | None = None,
    since: Annotated[Moment | None, Query(description="Created at or after this time.")] = None,
) -> Orders | Response:
    """Newest first."""
    found = await orders.list_page(
        runtime,
        caller,
        page,
        customer_id=customer_id,
        reference=reference,
        purchase_order=purchase_order,
        state=state,
        since=since,
    )
    return await answers.page(Orders, found, rendering.order)


@router.get("/orders/{order_id}")
async def get_order(runtime: RuntimeOf, caller: ReadsOrders, order_id: UUID, response: Response) -> OrderOut:
    """State, counts and what the order waits for, with `Retry-After` while it is moving."""
    view = await orders.get(runtime, caller, order_id)
    if view.state not in FINAL:
        response.headers["Retry-After"] = RETRY_AFTER
    return rendering.order(view)


@router.post("/orders/{order_id}:cancel")
async def cancel_order(runtime: RuntimeOf, caller: WritesOrders, order_id: UUID) -> OrderOut:
    """Cancels the devices that have not been sent. Those already sent go on."""
    return rendering.order(await orders.cancel(runtime, caller, order_id))


@router.post("/orders/{order_id}:retry-failed", openapi_extra=body_of(RetryChoice, required=False))
async def retry_failed(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, order_id: UUID
) -> OrderRetried:
    """Tries the failed, conflicting and unknown devices again, after the cause has been fixed.

    All of them, or those that the body selects.
    """
    found = await orders.retry_failed(runtime, caller, order_id, await read_choice(request))
    return OrderRetried(
        **rendering.order_fields(found.view), retried=found.retried, without_hash=found.without_hash
    )


@router.get("/orders/{order_id}/registrations", response_model=Registrations)
async def list_registrations_of_order(
    runtime: RuntimeOf,
    caller: ReadsOrders,
    order_id: UUID,
    page: PageOfRows,
    state: RegistrationState | None = None,
    error_code: OneCode = None,
    serial_prefix: OneOf = None,
    serial_contains: Fragment = None,
    product_key: ProductKey = None,
    line_ref: OneOf = None,
    since: Since = None,
) -> Registrations | Response:
    """The order's devices, by row."""
    wanted = Filter(
        state=None if state is None else state.value,
        error_code=error_code,
        serial_prefix=serial_prefix,
        serial_contains=serial_contains,
        product_key=product_key,
        line_ref=line_ref,
        since=since,
    )
    found = await registrations.list_of_order(runtime, caller, order_id, page, wanted)
    return await answers.page(Registrations, found, rendering.registration)


@router.get("/orders/{order_id}/batches", tags=["Batches"], response_model=Batches)
async def list_batches_of_order(
    runtime: RuntimeOf, caller: ReadsOrders, order_id: UUID, page: PageOfIds
) -> Batches | Response:
    """How the order was cut for Microsoft, newest first, and what each batch waits for."""
    found = await registrations.list_batches_of_order(runtime, caller, order_id, page)
    return await answers.page(Batches, found, _batch_out)


@router.get("/orders/{order_id}/result.csv", response_class=StreamingResponse, responses=CSV)
async def download_result(runtime: RuntimeOf, caller: ReadsOrders, order_id: UUID) -> StreamingResponse:
    """Every device with its outcome, by row; with the file's own columns while its import has not expired."""
    return download("result.csv", await reports.result_of(runtime, caller, order_id))


@router.get("/registrations", tags=["Registrations"], response_model=Registrations)
async def list_registrations(
    request: Request,
    runtime: RuntimeOf,
    caller: ReadsOrders,
    page: PageOfIds,
    state: RegistrationState | None = None,
    error_code: OneCode = None,
    serial_prefix: OneOf = None,
    serial_contains: Fragment = None,
    product_key: ProductKey = None,
    line_ref: OneOf = None,
    since: Since = None,
    customer_id: UUID | None = None,
    batch_id: UUID | None = None,
) -> Registrations | Response:
    """Devices across all orders, newest first."""
    wanted = Filter(
        state=None if state is None else state.value,
        error_code=error_code,
        serial_prefix=serial_prefix,
        serial_contains=serial_contains,
        product_key=product_key,
        line_ref=line_ref,
        since=since,
        customer_id=customer_id,
        batch_id=batch_id,
    )
    if wanted.searches:
        await take_heavy(request, runtime, caller)
    found = await registrations.list_page(runtime, caller, page, wanted)
    return await answers.page(Registrations, found, rendering.registration)


@router.get("/registrations/{registration_id}", tags=["Registrations"])
async def get_registration(runtime: RuntimeOf, caller: ReadsOrders, registration_id: UUID) -> RegistrationOut:
    return rendering.registration(await registrations.get(runtime, caller, registration_id))


@router.get("/batches", tags=["Batches"], response_model=Batches)
async def list_batches(
    runtime: RuntimeOf,
    caller: ReadsOrders,
    page: PageOfIds,
    order_id: UUID | None = None,
    customer_id: UUID | None = None,
    state: BatchState | None = None,
) -> Batches | Response:
    """How the orders were cut for Microsoft, newest first. For information only."""
    found = await registrations.list_batches(
        runtime,
        caller,
        page,
        order_id=order_id,
        customer_id=customer_id,
        state=None if state is None else state.value,
    )
    return await answers.page(Batches, found, _batch_out)


@router.get("/batches/{batch_id}", tags=["Batches"])
async def get_batch(runtime: RuntimeOf, caller: ReadsOrders, batch_id: UUID) -> BatchDetail:
    """A batch with every call to Microsoft and its MS-RequestId, which Microsoft's support asks for."""
    view, attempts = await registrations.get_batch(runtime, caller, batch_id)
    return BatchDetail(**_batch(view), attempts=[BatchAttempt(**asdict(attempt)) for attempt in attempts])


def _batch_out(view: registrations.BatchView) -> BatchOut:
    return BatchOut(**_batch(view))


def _batch(view: registrations.BatchView) -> dict[str, Any]:
    return rendering.batch_fields(view.record, view.counts, view.waiting_for)
