"""`GET /v1/status`: an overview of everything, for people and for monitoring."""

from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from app.api.contract import fields
from app.api.contract.models import Output, WaitingOut
from app.api.contract.times import Timestamp
from app.api.orders import rendering
from app.api.requests import ReadsOrders, RuntimeOf
from app.api.service.limits import QuotaOut, quota_out
from app.domain.budget import Breaker
from app.domain.endpoint_health import EndpointState
from app.services.operations import status
from app.services.operations.limits import ConnectionLimits
from app.services.operations.status import Level, Status

router = APIRouter(tags=["Service"])


class SchemaStatus(Output):
    ok: bool
    at: str = Field(description="The database's revision.")
    wanted: str = Field(description="The revision that this release knows.")


class WorkerStatus(Output):
    alive: bool
    started_at: Timestamp
    seen_at: Timestamp = Field(description="Its last heartbeat.")


class WorkersStatus(Output):
    ok: bool = Field(description="At least one is alive.")
    alive: int
    items: list[WorkerStatus] = Field(description="Seen within the last hour, the latest first.")


class WorkStatus(Output):
    state: Literal["held", "queued", "in_flight"]
    batches: int
    devices: int
    oldest_at: Timestamp = Field(description="When the oldest of these batches was made.")


class ConnectionStatus(Output):
    connection_id: UUID
    name: str
    trouble: str | None = Field(description="The code of `GET /v1/error-codes` for what must be fixed.")
    trouble_since: Timestamp | None
    remedy: str | None
    breaker: Breaker
    blocked_until: Timestamp | None


class EndpointStatus(Output):
    endpoint_id: UUID
    host: str | None
    state: EndpointState
    consecutive_failures: int


class DeliveriesStatus(Output):
    waiting: int = Field(description=f"Counted up to {status.MOST_DELIVERIES:,}.")
    oldest_at: Timestamp | None


class ImportsStatus(Output):
    waiting: int = Field(description="Files that are being read or committed, or wait for it.")
    oldest_due_at: Timestamp | None


class StuckOut(Output):
    kind: Literal["import", "batch"]
    id: UUID
    name: str = Field(description="The import's reference, the batch's group tag.")
    state: str
    due_at: Timestamp


class StatusOut(Output):
    at: Timestamp
    level: Level = Field(
        description="`down`: the schema, Redis or all workers are missing. `attention`: everything runs, and "
        "a connection, a webhook, an import, a batch or a quota needs attention."
    )
    database: bool = Field(True, description="True in every answer: without the database there is a 503.")
    schema_: SchemaStatus = Field(alias="schema")
    redis: bool
    workers: WorkersStatus
    work: list[WorkStatus] = Field(description="Your open batches by state, without states that have none.")
    waiting_for: list[WaitingOut] = Field(description="What your open work waits for.")
    connections: list[ConnectionStatus] = Field(
        description="Those in trouble, with an open breaker, or asked by Microsoft to wait."
    )
    connections_total: int
    webhooks: list[EndpointStatus] = Field(description="Endpoints that fail or are disabled.")
    deliveries: DeliveriesStatus
    imports: ImportsStatus
    stuck: list[StuckOut] = Field(
        description="Due for longer than REGISTRAR_SWEEP_PATIENCE_S without a worker taking it."
    )
    quotas: list[QuotaOut] = Field(description="Quotas of yours that are used up by 90 % or more.")


@router.get("/v1/status")
async def show_status(runtime: RuntimeOf, caller: ReadsOrders) -> StatusOut:
    """Whether all is well: the service's parts, your work and its age, and what needs attention."""
    return _status(await status.look(runtime, caller))


def _status(found: Status) -> StatusOut:
    return StatusOut(
        at=found.at,
        level=found.level,
        schema=SchemaStatus(ok=found.schema_serves, at=found.schema_at, wanted=found.schema_wanted),
        redis=found.redis,
        workers=WorkersStatus(
            ok=found.has_worker,
            alive=sum(worker.alive for worker in found.workers),
            items=[
                WorkerStatus(alive=worker.alive, started_at=worker.started_at, seen_at=worker.seen_at)
                for worker in found.workers
            ],
        ),
        work=[WorkStatus.model_validate(row, from_attributes=True) for row in found.work],
        waiting_for=rendering.waiting_for(found.waiting_for),
        connections=[_connection(each) for each in found.connections if _is_worth_telling(each)],
        connections_total=len(found.connections),
        webhooks=[
            EndpointStatus(
                endpoint_id=row.id,
                # The rest of a URL may be a secret.
                host=urlsplit(row.url).hostname,
                state=row.state,
                consecutive_failures=row.consecutive_failures,
            )
            for row in found.endpoints
        ],
        deliveries=DeliveriesStatus(
            waiting=found.deliveries.deliveries, oldest_at=found.deliveries.oldest_at
        ),
        imports=ImportsStatus(waiting=found.imports.imports, oldest_due_at=found.imports.oldest_at),
        stuck=[StuckOut.model_validate(row, from_attributes=True) for row in found.stuck],
        quotas=[quota_out(use) for use in found.quotas],
    )


def _is_worth_telling(each: ConnectionLimits) -> bool:
    return status.needs_attention(each) or each.blocked_until is not None


def _connection(each: ConnectionLimits) -> ConnectionStatus:
    code = each.record.trouble_code
    return ConnectionStatus(
        connection_id=each.record.id,
        name=each.record.name,
        trouble=code,
        trouble_since=each.record.trouble_since,
        remedy=fields.remedy(code),
        breaker=each.breaker,
        blocked_until=each.blocked_until,
    )
