"""Events, webhook endpoints, deliveries and their attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from app.db import tables
from app.db.engine import load, stamp
from app.db.ids import first_id_of
from app.db.leases import DELIVERIES
from app.db.paging import Page, PageRequest, cut
from app.db.searching import Search, equal, page_of
from app.db.sql import (
    columns,
    execute,
    fetch_all,
    fetch_all_as,
    fetch_one,
    fetch_one_as,
    insert,
    listed,
)
from app.domain.attempt import OPEN_DELIVERY
from app.domain.event import EventType, Payload
from app.domain.webhook import Delivery, DeliveryAttempt, Endpoint, HeldEndpoint, StoredEvent, Subscriber
from app.kernel.transactions import PartnerTx, SystemTx

LIVE = "NOT EXISTS (SELECT FROM deleted_webhook_endpoints gone WHERE gone.endpoint_id = webhook_endpoints.id)"
"""SQL for endpoints that are not deleted. A deleted one keeps its row while deliveries of it can be read."""
FULL_SINCE = (
    "(SELECT p.full_since FROM webhook_pauses p WHERE p.endpoint_id = webhook_endpoints.id) "
    "AS backlog_full_since"
)
_OPEN = listed(OPEN_DELIVERY)


@dataclass(frozen=True, slots=True)
class NewEvent:
    id: UUID
    type: EventType
    order_id: UUID | None
    customer_id: UUID | None
    sequence: int | None
    data: Payload


def encode_payload(payload: Payload) -> str:
    """The payload as it is stored. The encoder reads the fields itself, which is faster than a dictionary."""
    return orjson.dumps(payload, _text_of, _HOW).decode()


_HOW = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


def _text_of(value: object) -> str | None:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, UUID):  # the driver's own subclass, which the encoder does not know
        return str(value)
    raise TypeError(type(value).__name__)


async def add_events(tx: PartnerTx, events: Sequence[NewEvent], now: datetime) -> None:
    await load(
        tx,
        tables.events,
        ("id", "partner_id", "type", "order_id", "customer_id", "sequence", "occurred_at", "data"),
        [
            (e.id, tx.partner_id, e.type, e.order_id, e.customer_id, e.sequence, now, encode_payload(e.data))
            for e in events
        ],
    )


async def subscribers(tx: PartnerTx) -> list[Subscriber]:
    return await fetch_all_as(
        tx,
        Subscriber,
        f"SELECT id, event_types, {FULL_SINCE} FROM webhook_endpoints "
        f"WHERE partner_id = :partner AND state <> 'disabled' AND {LIVE}",
        partner=tx.partner_id,
    )


_NEW_DELIVERY = ("id", "partner_id", "event_id", "endpoint_id", "state", "due_at", "created_at")


async def add_deliveries(
    tx: PartnerTx,
    deliveries: Sequence[tuple[UUID, UUID, UUID]],
    now: datetime,
) -> None:
    """Adds deliveries: (delivery, event, endpoint) each."""
    await load(
        tx,
        tables.deliveries,
        _NEW_DELIVERY,
        [
            (id, tx.partner_id, event_id, endpoint_id, "pending", now, now)
            for id, event_id, endpoint_id in deliveries
        ],
    )


async def add_deliveries_not_tried(
    tx: PartnerTx,
    deliveries: Sequence[tuple[UUID, UUID, UUID]],
    kind: str,
    now: datetime,
) -> None:
    """Adds deliveries that ended without an attempt, and can be redelivered: (delivery, event, endpoint)."""
    await load(
        tx,
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
            (id, tx.partner_id, event_id, endpoint_id, "exhausted", kind, now, now, now)
            for id, event_id, endpoint_id in deliveries
        ],
    )


async def purge(tx: SystemTx, *, occurred_before: datetime, limit: int) -> int:
    """Deletes up to `limit` of the oldest events, with their deliveries and attempts; returns how many.

    Events with open deliveries are kept, however old. So are events whose deliveries are locked at this
    moment (they may be redelivered): waiting for the locks could deadlock.
    """
    found = await fetch_all(
        tx,
        # Ids sort by age, so this needs no index of its own.
        "SELECT id FROM events e WHERE id < :first_kept AND occurred_at < :before AND NOT EXISTS ("
        f"SELECT FROM deliveries d WHERE d.event_id = e.id AND d.state IN ({_OPEN})) "
        "ORDER BY id LIMIT :limit FOR UPDATE OF e SKIP LOCKED",
        first_kept=first_id_of(occurred_before),
        before=occurred_before,
        limit=limit,
    )
    ids = [row["id"] for row in found]
    await execute(
        tx,
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries "
        f"WHERE event_id = ANY(:ids) AND state NOT IN ({_OPEN}) FOR UPDATE SKIP LOCKED)",
        ids=ids,
    )
    return await execute(
        tx,
        "DELETE FROM events e WHERE id = ANY(:ids) "
        "AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id)",
        ids=ids,
    )


async def get_event(tx: PartnerTx, event_id: UUID) -> StoredEvent | None:
    return await fetch_one_as(
        tx,
        StoredEvent,
        f"SELECT {columns(tables.events)} FROM events WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=event_id,
    )


# --- endpoints ------------------------------------------------------------------------------------


_ENDPOINT = columns(tables.webhook_endpoints)


async def add_endpoint(tx: PartnerTx, values: Mapping[str, Any]) -> None:
    await insert(tx, "webhook_endpoints", {"partner_id": tx.partner_id, **values})


async def get_endpoint(tx: PartnerTx, endpoint_id: UUID) -> Endpoint | None:
    """The endpoint, also if it is deleted (`is_deleted`): its deliveries can still be read."""
    return await fetch_one_as(
        tx,
        Endpoint,
        f"SELECT {_ENDPOINT}, NOT {LIVE} AS is_deleted, {FULL_SINCE} FROM webhook_endpoints "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=endpoint_id,
    )


async def lock_endpoint(tx: PartnerTx, endpoint_id: UUID) -> HeldEndpoint | None:
    """The endpoint, locked until the transaction ends. Lock endpoints before deliveries."""
    return await fetch_one_as(
        tx,
        HeldEndpoint,
        # NO KEY, so that new deliveries, whose foreign key checks this row, need not wait.
        f"SELECT state, consecutive_failures, event_types, secret, NOT {LIVE} AS is_deleted "
        "FROM webhook_endpoints WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=endpoint_id,
    )


async def list_endpoints(tx: PartnerTx, page: PageRequest) -> Page[Endpoint]:
    rows = await fetch_all_as(
        tx,
        Endpoint,
        f"SELECT {_ENDPOINT}, false AS is_deleted, {FULL_SINCE} FROM webhook_endpoints "
        f"WHERE partner_id = :partner AND {LIVE} "
        "AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid)) ORDER BY id LIMIT :limit",
        partner=tx.partner_id,
        after=page.after,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row.id)


async def update_endpoint(tx: PartnerTx, endpoint_id: UUID, values: dict[str, Any]) -> bool:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    return bool(
        await execute(
            tx,
            f"UPDATE webhook_endpoints SET {assignments} WHERE partner_id = :partner AND id = :row",
            partner=tx.partner_id,
            row=endpoint_id,
            **values,
        )
    )


async def delete_endpoint(tx: PartnerTx, endpoint_id: UUID, now: datetime) -> None:
    """Marks the endpoint as deleted, and erases its secret. The row stays for its deliveries; it is also
    disabled, because the previous release does not know the mark."""
    await execute(
        tx,
        "INSERT INTO deleted_webhook_endpoints (partner_id, endpoint_id, deleted_at) "
        "VALUES (:partner, :id, :now) ON CONFLICT DO NOTHING",
        partner=tx.partner_id,
        id=endpoint_id,
        now=now,
    )
    values = {"state": "disabled", "secret": b"", "updated_at": now}
    await update_endpoint(tx, endpoint_id, values)


async def purge_deleted_endpoints(tx: SystemTx, *, deleted_before: datetime) -> int:
    """Deletes endpoints that are marked as deleted and have no deliveries left; returns how many."""
    return await execute(
        tx,
        "DELETE FROM webhook_endpoints e USING deleted_webhook_endpoints gone "
        "WHERE gone.endpoint_id = e.id AND gone.deleted_at < :before "
        "AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = e.id)",
        before=deleted_before,
    )


# --- deliveries -----------------------------------------------------------------------------------


async def count_deliveries_due(tx: SystemTx, now: datetime, *, limit: int) -> int:
    """The number of deliveries that could be claimed now, counted up to `limit`."""
    row = await fetch_one(
        tx,
        f"SELECT count(*) AS n FROM (SELECT FROM deliveries WHERE state IN ({_OPEN}) "
        f"AND due_at <= :now AND {DELIVERIES.free()} LIMIT :limit) AS due",
        now=now,
        limit=limit,
    )
    return int(row["n"]) if row else 0


async def exhaust_deliveries(tx: PartnerTx, endpoint_id: UUID, now: datetime) -> int:
    """Ends a disabled endpoint's waiting deliveries; they can be redelivered. Returns how many."""
    return await execute(
        tx,
        f"UPDATE deliveries SET state = 'exhausted', settled_at = :now, {DELIVERIES.given_up} "
        f"WHERE partner_id = :partner AND endpoint_id = :endpoint AND state IN ({_OPEN})",
        partner=tx.partner_id,
        endpoint=endpoint_id,
        now=now,
    )


async def redeliver(tx: PartnerTx, delivery_id: UUID, now: datetime) -> bool:
    """Starts the attempts again, even if one is being made now. False: there is no such delivery."""
    return bool(
        await execute(
            tx,
            "UPDATE deliveries SET state = 'pending', attempts = 0, due_at = :now, settled_at = NULL, "
            f"{DELIVERIES.given_up} WHERE partner_id = :partner AND id = :id",
            partner=tx.partner_id,
            id=delivery_id,
            now=now,
        )
    )


_DELIVERY = (
    f"SELECT {columns(tables.deliveries, 'd', Delivery)}, "
    "e.type AS event_type, e.occurred_at, e.order_id FROM deliveries d "
    # Joined per row: a page needs few of a partner's many events.
    "CROSS JOIN LATERAL (SELECT type, occurred_at, order_id FROM events WHERE id = d.event_id LIMIT 1) e "
)


async def get_delivery(tx: PartnerTx, delivery_id: UUID) -> Delivery | None:
    return await fetch_one_as(
        tx,
        Delivery,
        _DELIVERY + "WHERE d.partner_id = :partner AND d.id = :id",
        partner=tx.partner_id,
        id=delivery_id,
    )


async def list_deliveries(
    tx: PartnerTx,
    page: PageRequest,
    *,
    endpoint_id: UUID | None = None,
    state: str | None = None,
) -> Page[Delivery]:
    given = equal(endpoint_id=endpoint_id, state=state)
    found_by = "" if endpoint_id is None else "endpoint_id = :endpoint_id"
    filters = "" if state is None else "AND d.state = :state "
    search = Search(_DELIVERY, "deliveries", "d", found_by, filters, given)
    return await page_of(tx, Delivery, page, search)


async def delivery_attempts(tx: PartnerTx, delivery_id: UUID) -> list[DeliveryAttempt]:
    return await fetch_all_as(
        tx,
        DeliveryAttempt,
        "SELECT started_at, duration_ms, status, kind, excerpt FROM delivery_attempts "
        "WHERE partner_id = :partner AND delivery_id = :id ORDER BY started_at DESC LIMIT 100",
        partner=tx.partner_id,
        id=delivery_id,
    )
