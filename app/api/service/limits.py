"""`GET /v1/limits`: each connection's rate of calls, waiting work, quotas, and Registrar's own bounds.

The models are here and not in `models`, because no other route shows them.
"""

from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from app.api.contract.models import Output
from app.api.contract.times import Timestamp
from app.api.requests import ReadsOrders, RuntimeOf
from app.db.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from app.db.waiting import OpenOfConnection, OpenOfCustomer
from app.domain.budget import Breaker
from app.domain.devices import SerialNumberSearch
from app.domain.order import MAX_DEVICES
from app.domain.quota import QUOTAS, Quota, Use
from app.kernel.settings import Settings
from app.services.operations import limits
from app.services.operations.limits import SHOWN_CONNECTIONS, SHOWN_CUSTOMERS, ConnectionLimits

router = APIRouter(tags=["Service"])


class BreakerOut(Output):
    state: Breaker = Field(
        description="`open`: Microsoft has not been answering, so no calls are made. "
        "`half_open`: one call tries."
    )
    failures: int = Field(description="Calls in a row without a usable answer.")
    retry_at: Timestamp | None = Field(description="When one call tries again; null unless it is open.")


class Work(Output):
    """Open batches and their devices."""

    held_batches: int = Field(description="Waiting for the customer's consent.")
    queued_batches: int = Field(description="Waiting to be sent.")
    in_flight_batches: int = Field(description="Being sent, followed or looked up.")
    held_devices: int
    queued_devices: int
    in_flight_devices: int
    oldest_due_at: Timestamp | None = Field(
        description="When the longest-waiting batch was, or will be, due. Held batches do not count."
    )


class ConnectionLimitsOut(Output):
    connection_id: UUID
    name: str
    rate_per_second: float = Field(description="Calls per second now, of all workers together.")
    ceiling_per_second: float = Field(description="The highest rate.")
    floor_per_second: float = Field(description="The lowest rate after 429 answers.")
    last_throttled_at: Timestamp | None = Field(description="Microsoft's last 429.")
    blocked_until: Timestamp | None = Field(
        description="No calls before this time: Retry-After, an open breaker, or a trouble of the connection."
    )
    breaker: BreakerOut
    trouble: str | None = Field(description="The code of `GET /v1/error-codes` for what must be fixed.")
    work: Work


class CustomerWork(Work):
    customer_id: UUID
    name: str
    connection_id: UUID


class OwnLimits(Output):
    """What Registrar itself accepts and does at the same time."""

    max_body_bytes: int = Field(description="Of an order; the bodies of other calls are smaller.")
    max_devices_per_order: int
    default_page_size: int
    max_page_size: int
    max_group_tag_characters: int
    idempotency_hours: float
    requests_per_minute: int = Field(description="Calls with one API key in a minute; 0: any number.")
    customer_window: int = Field(description="Batches of one customer under way at the same time.")
    connection_window: int = Field(description="Batches of one connection under way at the same time.")
    serial_number_search: SerialNumberSearch = Field(
        description="Which part of a serial number `GET /v1/devices` searches by. `fragment`: any part. "
        "`prefix`: its beginning, because the database has no pg_trgm."
    )


class QuotaOut(Output):
    """One quota: its limit and its use."""

    quota: Quota
    limit: int
    used: int
    is_default: bool = Field(description="False: the operator has set the limit for you.")
    counts: str = Field(description="What is counted.")


class LimitsOut(Output):
    at: Timestamp
    shared: bool = Field(
        description="Whether all workers share the budgets. False while Redis is down: the rates shown are "
        "the last ones this process knew, and each worker calls at a quarter of them at most."
    )
    connections: list[ConnectionLimitsOut] = Field(description=f"At most {SHOWN_CONNECTIONS}.")
    customers: list[CustomerWork] = Field(
        description=f"The {SHOWN_CUSTOMERS} customers with the most waiting devices."
    )
    quotas: list[QuotaOut] = Field(
        description="What you may have at a time. A call beyond a limit gets `quota_exceeded`: 429 where the "
        "use falls by itself, else 422. Only `waiting_events` refuses nothing: deliveries over it end as "
        "`exhausted`."
    )
    registrar: OwnLimits


def quota_out(use: Use) -> QuotaOut:
    return QuotaOut(
        quota=use.quota,
        limit=use.limit,
        used=use.used,
        is_default=not use.is_own,
        counts=QUOTAS[use.quota].counts,
    )


@router.get("/v1/limits")
async def show_limits(runtime: RuntimeOf, caller: ReadsOrders) -> LimitsOut:
    """How fast your connections may call Microsoft now, what waits for them, your quotas with their use, and
    Registrar's own bounds."""
    found = await limits.look(runtime, caller)
    return LimitsOut(
        at=found.now,
        shared=found.shared,
        connections=[_connection(each, runtime.settings) for each in found.connections],
        customers=[
            CustomerWork(
                customer_id=row.customer_id,
                name=row.name,
                connection_id=row.connection_id,
                **_work(row).model_dump(),
            )
            for row in found.customers
        ],
        quotas=[quota_out(use) for use in found.quotas],
        registrar=_own(runtime.settings, found.serial_number_search),
    )


def _connection(each: ConnectionLimits, settings: Settings) -> ConnectionLimitsOut:
    return ConnectionLimitsOut(
        connection_id=each.record.id,
        name=each.record.name,
        rate_per_second=round(each.budget.rate, 3),
        ceiling_per_second=settings.budget_ceiling,
        floor_per_second=settings.budget_floor,
        last_throttled_at=each.budget.throttled_at,
        blocked_until=each.blocked_until,
        breaker=BreakerOut(
            state=each.breaker,
            failures=each.budget.failures,
            retry_at=each.budget.open_until if each.breaker is Breaker.OPEN else None,
        ),
        trouble=each.record.trouble_code,
        work=_work(each.work),
    )


def _work(row: OpenOfCustomer | OpenOfConnection | None) -> Work:
    if row is None:
        return Work.model_validate(dict.fromkeys(Work.model_fields, 0) | {"oldest_due_at": None})
    return Work.model_validate(row, from_attributes=True)


def _own(settings: Settings, search: SerialNumberSearch) -> OwnLimits:
    return OwnLimits(
        max_body_bytes=settings.max_body_bytes,
        max_devices_per_order=MAX_DEVICES,
        default_page_size=DEFAULT_PAGE_SIZE,
        max_page_size=MAX_PAGE_SIZE,
        max_group_tag_characters=settings.max_group_tag,
        idempotency_hours=settings.idempotency_hours,
        requests_per_minute=settings.requests_per_minute,
        customer_window=settings.customer_window,
        connection_window=settings.connection_window,
        serial_number_search=search,
    )
