"""Customers and their consent."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.api import answers
from app.api.contract.schema import ASKS_MICROSOFT, body_of
from app.api.contract.texts import Sought
from app.api.customers import rendering
from app.api.customers.models import (
    ConsentChange,
    ConsentLink,
    ConsentOut,
    CustomerIn,
    CustomerOut,
    CustomerPatch,
    Customers,
)
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import PageOfIds, ReadsCustomers, RuntimeOf, WritesCustomers, path_of, read
from app.domain.actor import Principal
from app.domain.consent import ConsentState, lets_pass
from app.runtime import Runtime
from app.services.connections import customer_readings
from app.services.consents import consents
from app.services.customers import customers
from app.services.customers.customers import NewCustomer

router = APIRouter(prefix="/v1/customers", tags=["Customers"])


@router.post("", status_code=201, response_model=CustomerOut, openapi_extra=body_of(CustomerIn))
async def create_customer(
    request: Request, runtime: RuntimeOf, caller: WritesCustomers, key: IdempotencyKey = None
) -> Response:
    """Adds a customer of one connection. Its consent is looked up at Microsoft at once."""
    given, digest = await read(request, CustomerIn)
    new = NewCustomer(
        connection_id=given.connection_id,
        entra_tenant_id=given.entra_tenant_id,
        name=given.name,
        domain=given.domain,
        default_group_tag=given.default_group_tag,
    )

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            async with customers.create(runtime, caller, new) as (tx, record):
                location = path_of(request, "get_customer", customer_id=str(record.id))
                await answer.give(tx, 201, location, rendering.customer(record))
    return answer.response


@router.get("", response_model=Customers)
async def list_customers(
    runtime: RuntimeOf,
    caller: ReadsCustomers,
    page: PageOfIds,
    entra_tenant_id: UUID | None = None,
    domain: Annotated[Sought | None, Query()] = None,
    consent_state: ConsentState | None = None,
) -> Customers | Response:
    found = await customers.list_page(
        runtime,
        caller,
        page,
        entra_tenant_id=entra_tenant_id,
        domain=domain,
        consent_state=None if consent_state is None else consent_state.value,
    )
    return await answers.page(Customers, found, rendering.customer)


@router.get("/{customer_id}")
async def get_customer(runtime: RuntimeOf, caller: ReadsCustomers, customer_id: UUID) -> CustomerOut:
    return rendering.customer(await consents.get_customer(runtime, caller, customer_id))


@router.patch("/{customer_id}", openapi_extra=body_of(CustomerPatch))
async def update_customer(
    request: Request, runtime: RuntimeOf, caller: WritesCustomers, customer_id: UUID
) -> CustomerOut:
    """Changes the given fields. The tenant identifies the customer and cannot be changed."""
    given, _ = await read(request, CustomerPatch)
    values = given.model_dump(exclude_unset=True)
    return rendering.customer(await customers.update(runtime, caller, customer_id, values))


@router.get("/{customer_id}/consent")
async def get_consent(runtime: RuntimeOf, caller: ReadsCustomers, customer_id: UUID) -> ConsentOut:
    """The consent's state, its evidence and its history."""
    return await consent_of(runtime, caller, customer_id)


@router.post("/{customer_id}/consent:request", responses=ASKS_MICROSOFT)
async def request_consent(runtime: RuntimeOf, caller: WritesCustomers, customer_id: UUID) -> ConsentLink:
    """Returns the link to send to the customer. Held orders go on by themselves once it is accepted."""
    return ConsentLink(url=await customer_readings.request(runtime, caller, customer_id))


@router.post("/{customer_id}/consent:recheck", responses=ASKS_MICROSOFT)
async def recheck_consent(runtime: RuntimeOf, caller: WritesCustomers, customer_id: UUID) -> ConsentOut:
    """Reads Microsoft's customers list now instead of at the next round."""
    await customer_readings.recheck(runtime, caller, customer_id)
    return await consent_of(runtime, caller, customer_id)


async def consent_of(runtime: Runtime, principal: Principal, customer_id: UUID) -> ConsentOut:
    record = await consents.get_customer(runtime, principal, customer_id)
    history = await consents.history(runtime, principal, customer_id)
    summary = rendering.consent_summary(record)
    return ConsentOut(
        **dict(summary),
        customer_id=customer_id,
        lets_pass=lets_pass(summary.state),
        history=[ConsentChange(**asdict(change)) for change in history],
    )
