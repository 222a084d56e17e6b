"""Removes customers and connections with everything that belongs to them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.contract.models import Output
from app.api.requests import RuntimeOf, WritesConnections, WritesCustomers
from app.db.removal import Kind, Subject
from app.runtime import Runtime
from app.services.access.identities import Caller
from app.services.operations import removal
from app.services.operations.removal import Removal

router = APIRouter(prefix="/v1")

SECONDS = 20.0
"""Seconds of removing in one call. The caller repeats it until all is gone."""

DryRun = Annotated[bool, Query(description="Only show what would be removed and what is in the way.")]
Everything = Annotated[
    bool, Query(description="Also its customers and orders, with all their devices, outcomes and events.")
]


class ObstacleOut(Output):
    kind: str = Field(description="`order` or `import`.")
    id: UUID
    name: str = Field(description="Its reference.")
    words: str = Field(description="Why it is in the way, and what to do.")


class RemovalOut(Output):
    dry_run: bool = Field(description="Nothing was changed.")
    finished: bool = Field(description="All of it is gone. If not, and this was not a dry run, call again.")
    name: str
    counts: dict[str, int] = Field(
        description="Rows by table when the call began. 1000000 means that many or more."
    )
    obstacles: list[ObstacleOut] = Field(description="What must be finished first; only in a dry run.")


@router.delete("/customers/{customer_id}", tags=["Customers"])
async def delete_customer(
    runtime: RuntimeOf,
    caller: WritesCustomers,
    customer_id: UUID,
    dry_run: DryRun = False,
    everything: Everything = False,
) -> RemovalOut:
    """Permanently removes a customer. Devices at Microsoft stay registered. If it takes long, the answer has
    `finished` false: call again. New orders are refused meanwhile."""
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
    """Permanently removes a connection and its credentials. If it takes long, the answer has `finished`
    false: call again. New customers and orders are refused meanwhile."""
    subject = Subject(Kind.CONNECTION, caller.partner_id, connection_id)
    return await _removed(runtime, caller, subject, dry_run=dry_run, everything=everything)


async def _removed(
    runtime: Runtime, caller: Caller, subject: Subject, *, dry_run: bool, everything: bool
) -> RemovalOut:
    if dry_run:
        return _shown(await removal.look(runtime, caller, subject), dry_run=True)
    found = await removal.remove(runtime, caller, subject, everything=everything, seconds=SECONDS)
    return _shown(found, dry_run=False)


def _shown(found: Removal, *, dry_run: bool) -> RemovalOut:
    return RemovalOut(
        dry_run=dry_run,
        finished=found.finished,
        name=found.name,
        counts=dict(found.counts),
        obstacles=[
            ObstacleOut(kind=each.kind, id=each.id, name=each.name, words=each.words)
            for each in found.obstacles
        ],
    )
