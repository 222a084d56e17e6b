"""Events, webhook endpoints, deliveries and their attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import tables
from app.db.engine import encode_json, load
from app.db.ids import first_id_of
from app.db.paging import Page, PageRequest, cut
from app.db.searching import Search, equal, page_of
from app.db.sql import Record, columns, execute, fetch_all, fetch_one, insert, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.ids import PartnerId

LIVE = "NOT EXISTS (SELECT FROM deleted_webhook_endpoints gone WHERE gone.endpoint_id = webhook_endpoints.id)"
"""An endpoint that has been deleted stays for as long as there are deliveries of it to read."""
FULL_SINCE = (
    "(SELECT p.full_since FROM webhook_pauses p WHERE p.endpoint_id = webhook_endpoints.id) "
    "AS backlog_full_since"
)
_OPEN = listed(OPEN_DELIVERY)


@dataclass(frozen=True, slots=True)
class NewEvent:
    id: UUID
    type: str
    order_id: UUID | None
    customer_id: UUID | None
    sequence: int | None
    data: dict[str, Any]


async def add_events(
    session: AsyncConnection, partner_id: PartnerId, events: Sequence[NewEvent], now: datetime
) -> None:
    await load(
        session,
        tables.events,
        ("id", "partner_id", "type", "order_id", "customer_id", "sequence", "occurred_at", "data"),
        [
            (e.id, partner_id, e.type, e.order_id, e.customer_id, e.sequence, now, encode_json(e.data))
            for e in events
        ],
    )


async def subscribers(session: AsyncConnection, partner_id: PartnerId) -> list[Record]:
    return await fetch_all(
        session,
        f"SELECT id, event_types, {FULL_SINCE} FROM webhook_endpoints "
        f"WHERE partner_id = :partner AND state <> 'disabled' AND {LIVE}",
        partner=partner_id,
    )


_NEW_DELIVERY = ("id", "partner_id", "event_id", "endpoint_id", "state", "due_at", "created_at")


async def add_deliveries(
    session: AsyncConnection,
    partner_id: PartnerId,
    deliveries: Sequence[tuple[UUID, UUID, UUID]],
    now: datetime,
) -> None:
    """(delivery, event, endpoint) each."""
    await load(
        session,
        tables.deliveries,
        _NEW_DELIVERY,
        [
            (id, partner_id, event_id, endpoint_id, "pending", now, now)
            for id, event_id, endpoint_id in deliveries
        ],
    )


async def add_deliveries_not_tried(
    session: AsyncConnection,
    partner_id: PartnerId,
    deliveries: Sequence[tuple[UUID, UUID, UUID]],
    kind: str,
    now: datetime,
) -> None:
    """(delivery, event, endpoint) each: over before they began. They can be looked up and redelivered."""
    await load(
        session,
        tables.deliveries,
        (
            "id",
            "partner_id",
            "event_id",
            "endpoint_id",
            "state",
            "last_kind",
            "due_at",
            "created_at",
            "settled_at",
        ),
        [
            (id, partner_id, event_id, endpoint_id, "exhausted", kind, now, now, now)
            for id, event_id, endpoint_id in deliveries
        ],
    )


async def purge(session: AsyncConnection, *, occurred_before: datetime, limit: int) -> int:
    """As the system: up to `limit` of the oldest events, with their deliveries and attempts; how many.

    An event that somebody still waits for is kept, however old, and so is one of which a delivery is being
    changed at this moment (it may be redelivered): nobody is waited for, so that nobody waits in a circle.
    """
    found = await fetch_all(
        session,
        # Ids sort by age, which spares events an index of their own for this.
        "SELECT id FROM events e WHERE id < :first_kept AND occurred_at < :before AND NOT EXISTS ("
        f"SELECT FROM deliveries d WHERE d.event_id = e.id AND d.state IN ({_OPEN})) "
        "ORDER BY id LIMIT :limit FOR UPDATE OF e SKIP LOCKED",
        first_kept=first_id_of(occurred_before),
        before=occurred_before,
        limit=limit,
    )
    ids = [row["id"] for row in found]
    await execute(
        session,
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries "
        f"WHERE event_id = ANY(:ids) AND state NOT IN ({_OPEN}) FOR UPDATE SKIP LOCKED)",
        ids=ids,
    )
    return await execute(
        session,
        "DELETE FROM events e WHERE id = ANY(:ids) "
        "AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id)",
        ids=ids,
    )


async def get_event(session: AsyncConnection, partner_id: PartnerId, event_id: UUID) -> Record | None:
    return await fetch_one(
        session,
        f"SELECT {columns(tables.events)} FROM events WHERE partner_id = :partner AND id = :id",
        partner=partner_id,
        id=event_id,
    )


# --- endpoints ------------------------------------------------------------------------------------


_ENDPOINT = columns(tables.webhook_endpoints)


async def add_endpoint(session: AsyncConnection, partner_id: PartnerId, values: Record) -> None:
    await insert(session, "webhook_endpoints", {"partner_id": partner_id, **values})


async def get_endpoint(session: AsyncConnection, partner_id: PartnerId, endpoint_id: UUID) -> Record | None:
    """With `is_deleted`: its deliveries can still be read."""
    return await fetch_one(
        session,
        f"SELECT {_ENDPOINT}, NOT {LIVE} AS is_deleted, {FULL_SINCE} FROM webhook_endpoints "
        "WHERE partner_id = :partner AND id = :id",
        partner=partner_id,
        id=endpoint_id,
    )


async def lock_endpoint(session: AsyncConnection, partner_id: PartnerId, endpoint_id: UUID) -> Record | None:
    """The endpoint as it is, held until the transaction ends. Endpoints are locked before deliveries."""
    return await fetch_one(
        session,
        # NO KEY: new deliveries, whose foreign key looks at this row, need not wait.
        f"SELECT state, consecutive_failures, event_types, secret, NOT {LIVE} AS is_deleted "
        "FROM webhook_endpoints WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=partner_id,
        id=endpoint_id,
    )


async def list_endpoints(session: AsyncConnection, partner_id: PartnerId, page: PageRequest) -> Page[Record]:
    rows = await fetch_all(
        session,
        f"SELECT {_ENDPOINT}, {FULL_SINCE} FROM webhook_endpoints WHERE partner_id = :partner AND {LIVE} "
        "AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid)) ORDER BY id LIMIT :limit",
        partner=partner_id,
        after=page.after,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row["id"])


async def update_endpoint(
    session: AsyncConnection, partner_id: PartnerId, endpoint_id: UUID, values: dict[str, Any]
) -> bool:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    return bool(
        await execute(
            session,
            f"UPDATE webhook_endpoints SET {assignments} WHERE partner_id = :partner AND id = :row",
            partner=partner_id,
            row=endpoint_id,
            **values,
        )
    )


async def delete_endpoint(
    session: AsyncConnection, partner_id: PartnerId, endpoint_id: UUID, now: datetime
) -> None:
    """Marks it, and destroys its secret. The row stays for its deliveries; disabled, as the release before
    understands it."""
    await execute(
        session,
        "INSERT INTO deleted_webhook_endpoints (partner_id, endpoint_id, deleted_at) "
        "VALUES (:partner, :id, :now) ON CONFLICT DO NOTHING",
        partner=partner_id,
        id=endpoint_id,
        now=now,
    )
    values = {"state": "disabled", "secret": b"", "updated_at": now}
    await update_endpoint(session, partner_id, endpoint_id, values)


async def purge_deleted_endpoints(session: AsyncConnection, *, deleted_before: datetime) -> int:
    """As the system: those whose last delivery has been forgotten; how many."""
    return await execute(
        session,
        "DELETE FROM webhook_endpoints e USING deleted_webhook_endpoints gone "
        "WHERE gone.endpoint_id = e.id AND gone.deleted_at < :before "
        "AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = e.id)",
        before=deleted_before,
    )


# --- deliveries -----------------------------------------------------------------------------------


async def count_deliveries_due(session: AsyncConnection, now: datetime, *, limit: int) -> int:
    """As the system: how many deliveries could be claimed now, counted up to `limit`."""
    row = await fetch_one(
        session,
        f"SELECT count(*) AS n FROM (SELECT FROM deliveries WHERE state IN ({_OPEN}) "
        "AND due_at <= :now AND (lease_until IS NULL OR lease_until < :now) LIMIT :limit) AS due",
        now=now,
        limit=limit,
    )
    return int(row["n"]) if row else 0


async def exhaust_deliveries(
    session: AsyncConnection, partner_id: PartnerId, endpoint_id: UUID, now: datetime
) -> int:
    """The endpoint is disabled: what waits for it ends, and can be redelivered by hand."""
    return await execute(
        session,
        "UPDATE deliveries SET state = 'exhausted', settled_at = :now, owner = NULL, lease_until = NULL "
        f"WHERE partner_id = :partner AND endpoint_id = :endpoint AND state IN ({_OPEN})",
        partner=partner_id,
        endpoint=endpoint_id,
        now=now,
    )


async def redeliver(
    session: AsyncConnection, partner_id: PartnerId, delivery_id: UUID, now: datetime
) -> bool:
    """Starts the attempts over, also under an attempt that is being made; False: no such delivery."""
    return bool(
        await execute(
            session,
            "UPDATE deliveries SET state = 'pending', attempts = 0, due_at = :now, settled_at = NULL, "
            "owner = NULL, lease_until = NULL WHERE partner_id = :partner AND id = :id",
            partner=partner_id,
            id=delivery_id,
            now=now,
        )
    )


_DELIVERY = (
    f"SELECT {columns(tables.deliveries, 'd')}, "
    "e.type AS event_type, e.occurred_at, e.order_id FROM deliveries d "
    # For each row by itself: of a partner's many events a page needs few.
    "CROSS JOIN LATERAL (SELECT type, occurred_at, order_id FROM events WHERE id = d.event_id LIMIT 1) e "
)


async def get_delivery(session: AsyncConnection, partner_id: PartnerId, delivery_id: UUID) -> Record | None:
    return await fetch_one(
        session,
        _DELIVERY + "WHERE d.partner_id = :partner AND d.id = :id",
        partner=partner_id,
        id=delivery_id,
    )


async def list_deliveries(
    session: AsyncConnection,
    partner_id: PartnerId,
    page: PageRequest,
    *,
    endpoint_id: UUID | None = None,
    state: str | None = None,
) -> Page[Record]:
    given = equal(endpoint_id=endpoint_id, state=state)
    found_by = "" if endpoint_id is None else "endpoint_id = :endpoint_id"
    filters = "" if state is None else "AND d.state = :state "
    search = Search(_DELIVERY, "deliveries", "d", found_by, filters, given)
    return await page_of(session, partner_id, page, search)


async def delivery_attempts(
    session: AsyncConnection, partner_id: PartnerId, delivery_id: UUID
) -> list[Record]:
    return await fetch_all(
        session,
        "SELECT started_at, duration_ms, status, kind, excerpt FROM delivery_attempts "
        "WHERE partner_id = :partner AND delivery_id = :id ORDER BY started_at DESC LIMIT 100",
        partner=partner_id,
        id=delivery_id,
    )
