"""Customers, for whom devices are registered. A worker reads the consent of a new one at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.db import connections, customers
from app.db.ids import new_row_id
from app.db.paging import Page, PageRequest
from app.db.removal import refuses_removed
from app.domain.actor import Principal
from app.domain.consent import ConsentState, Evidence
from app.domain.customer import Customer
from app.domain.errors import Conflict, NotFound
from app.domain.quota import Quota
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access import quotas


@dataclass(frozen=True, slots=True)
class NewCustomer:
    connection_id: UUID
    entra_tenant_id: UUID
    name: str
    domain: str | None = None
    default_group_tag: str | None = None


@asynccontextmanager
async def create(
    runtime: Runtime, principal: Principal, new: NewCustomer
) -> AsyncIterator[tuple[PartnerTx, Customer]]:
    """Creates a customer in a transaction that commits when the block ends.

    Raises NotFound for the connection, Conflict if the connection has this tenant already, or
    `quota_exceeded`."""
    now, customer_id = runtime.now(), new_row_id()
    try:
        async with runtime.transaction(principal) as tx:
            await quotas.require(tx, Quota.CUSTOMERS)
            if await connections.get(tx, new.connection_id) is None:
                raise NotFound("unknown_connection", f"There is no connection {new.connection_id}.")
            await customers.add(
                tx,
                {
                    "id": customer_id,
                    "connection_id": new.connection_id,
                    "entra_tenant_id": new.entra_tenant_id,
                    "name": new.name,
                    "domain": new.domain,
                    "default_group_tag": new.default_group_tag,
                    "last_turn_at": now,
                    "created_at": now,
                    "updated_at": now,
                },
            )
            await customers.add_consent(
                tx, customer_id, state=ConsentState.UNKNOWN, evidence=Evidence.CUSTOMER_CREATED, now=now
            )
            await connections.hasten_customers(tx, new.connection_id, now)
            tx.wake(WakeKind.CONSENT)
            record = await customers.get(tx, customer_id)
            assert record is not None
            yield tx, record
    except IntegrityError as error:
        if refuses_removed(error):
            raise NotFound("unknown_connection", f"There is no connection {new.connection_id}.") from error
        raise await _taken(runtime, principal, new) from error


async def _taken(runtime: Runtime, principal: Principal, new: NewCustomer) -> Conflict:
    async with runtime.transaction(principal) as tx:
        existing = await customers.find_by_tenant(tx, new.connection_id, new.entra_tenant_id)
    links = {"customer_id": str(existing.id)} if existing is not None else {}
    return Conflict(
        "already_exists",
        f"The connection has a customer with the tenant {new.entra_tenant_id} already.",
        links=links,
    )


async def list_page(
    runtime: Runtime,
    principal: Principal,
    page: PageRequest,
    *,
    entra_tenant_id: UUID | None = None,
    domain: str | None = None,
    consent_state: str | None = None,
) -> Page[Customer]:
    async with runtime.reading(principal) as tx:
        return await customers.list_page(
            tx, page, entra_tenant_id=entra_tenant_id, domain=domain, consent_state=consent_state
        )


async def update(
    runtime: Runtime, principal: Principal, customer_id: UUID, values: dict[str, Any]
) -> Customer:
    """Changes name, domain and default group tag. The tenant id is the customer's identity and stays."""
    async with runtime.transaction(principal) as tx:
        await customers.update(tx, customer_id, {**values, "updated_at": runtime.now()})
        record = await customers.get(tx, customer_id)
    if record is None:
        raise NotFound("unknown_customer", f"There is no customer {customer_id}.")
    return record
