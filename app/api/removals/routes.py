"""Removing customers and connections with what hangs on them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.api.removals.models import RemovalOut, shown
from app.api.requests import RuntimeOf, WritesConnections, WritesCustomers
from app.db.removal import Kind, Subject
from app.runtime import Runtime
from app.services.access.identities import Caller
from app.services.operations import removal

router = APIRouter(prefix="/v1")

SECONDS = 20.0
"""A call removes for so long, and is then called again."""

DryRun = Annotated[bool, Query(description="Show what would be removed and what is in its way, no more.")]
Everything = Annotated[
    bool, Query(description="Also its customers and orders, with every device, outcome and event of them.")
]


@router.delete("/customers/{customer_id}", tags=["Customers"])
async def delete_customer(
    runtime: RuntimeOf,
    caller: WritesCustomers,
    customer_id: UUID,
    dry_run: DryRun = False,
    everything: Everything = False,
) -> RemovalOut:
    """Removes a customer for good. What is registered at Microsoft stays registered. Where it takes long, the
    answer has `finished` false: call again; new orders are refused meanwhile."""
    subject = Subject(Kind.CUSTOMER, caller.partner_id, customer_id)
    return await _removed(runtime, caller, subject, dry_run=dry_run, everything=everything)


@router.delete("/connections/{connection_id}", tags=["Connections"])
async def delete_connection(
    runtime: RuntimeOf,
    caller: WritesConnections,
    connection_id: UUID,
    dry_run: DryRun = False,
    everything: Everything = False,
) -> RemovalOut:
    """Removes a connection and its credentials for good. Where it takes long, the answer has `finished`
    false: call again; new customers and orders are refused meanwhile."""
    subject = Subject(Kind.CONNECTION, caller.partner_id, connection_id)
    return await _removed(runtime, caller, subject, dry_run=dry_run, everything=everything)


async def _removed(
    runtime: Runtime, caller: Caller, subject: Subject, *, dry_run: bool, everything: bool
) -> RemovalOut:
    if dry_run:
        return shown(await removal.look(runtime, caller, subject), dry_run=True)
    found = await removal.remove(runtime, caller, subject, everything=everything, seconds=SECONDS)
    return shown(found, dry_run=False)
