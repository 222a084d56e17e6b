"""Waiting work by customer and by connection, for `GET /v1/limits`; and making it due early.

Reads open batches only, of which there are few however many orders there were. An index finds them by
customer and state, and no registration is read.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db import holds
from app.db.events import LIVE
from app.db.leases import BATCHES, IMPORTS
from app.db.sql import execute, fetch_all_as, fetch_one, fetch_one_as, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.batch import IN_FLIGHT, OPEN_BATCH
from app.domain.hold import BatchFacts, ConnectionFacts
from app.domain.imports import WITH_WORKERS
from app.domain.registration import MOVING_WITH_BATCH
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class _Open:
    """The open batches of a customer or a connection, and their devices."""

    held_batches: int
    queued_batches: int
    in_flight_batches: int
    held_devices: int
    queued_devices: int
    in_flight_devices: int
    oldest_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenOfCustomer(_Open):
    customer_id: UUID
    name: str
    connection_id: UUID


@dataclass(frozen=True, slots=True)
class OpenOfConnection(_Open):
    connection_id: UUID
    customers: int


@dataclass(frozen=True, slots=True)
class TagBeingCreated:
    """A group tag that one batch is creating while the other batches of the tag wait."""

    customer_id: UUID
    tag_key: str
    creator: UUID
    since: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class OpenByState:
    state: str
    batches: int
    devices: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class StuckWork:
    kind: str
    id: UUID
    name: str
    state: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingImports:
    imports: int = 0
    oldest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FailingEndpoint:
    id: UUID
    url: str
    state: str
    consecutive_failures: int


@dataclass(frozen=True, slots=True)
class WaitingDeliveries:
    deliveries: int = 0
    oldest_at: datetime | None = None


_SUMS = f"""
    count(*) FILTER (WHERE b.state = 'held') AS held_batches,
    count(*) FILTER (WHERE b.state = 'queued') AS queued_batches,
    count(*) FILTER (WHERE b.state IN ({listed(IN_FLIGHT)})) AS in_flight_batches,
    coalesce(sum(b.device_count) FILTER (WHERE b.state = 'held'), 0) AS held_devices,
    coalesce(sum(b.device_count) FILTER (WHERE b.state = 'queued'), 0) AS queued_devices,
    coalesce(sum(b.device_count) FILTER (WHERE b.state IN ({listed(IN_FLIGHT)})), 0) AS in_flight_devices,
    min(b.due_at) FILTER (WHERE b.state <> 'held') AS oldest_due_at
"""

_OPEN = f"b.partner_id = :partner AND b.state IN ({listed(OPEN_BATCH)})"


async def has_met(tx: PartnerTx, connection_id: UUID, code: str) -> bool:
    """Whether the last failure of an open batch of the connection had this code."""
    row = await fetch_one(
        tx,
        "SELECT EXISTS (SELECT FROM batches WHERE partner_id = :partner AND connection_id = :connection "
        f"AND state IN ('queued', {listed(IN_FLIGHT)}) AND failure_code = :code) AS has_met",
        partner=tx.partner_id,
        connection=connection_id,
        code=code,
    )
    return row is not None and bool(row["has_met"])


# Devices come from the triggers' counts (registration_counts), so that of a batch with most outcomes only the
# open rows count. The creator of a group tag counts while it is open. The subqueries run once per statement:
# few tags are being created at a time, and a partial index has only those.
_BEING_CREATED = "FROM group_tags WHERE partner_id = :partner AND creating_batch_id IS NOT NULL"
_WHERE_TAGS_ARE_CREATED = f"ARRAY(SELECT customer_id {_BEING_CREATED})"
_TAG_CREATORS = f"ARRAY(SELECT creating_batch_id {_BEING_CREATED})"
_STANDING = f"""
SELECT {{key}} AS id, b.connection_id, b.state, b.holds, b.failure_code,
    s.state AS consent, CASE WHEN b.state = 'queued' THEN b.customer_id END AS customer_id,
    CASE WHEN b.state = 'queued' AND b.customer_id = ANY({_WHERE_TAGS_ARE_CREATED})
        AND NOT b.id = ANY({_TAG_CREATORS}) THEN b.group_tag END AS group_tag,
    CAST(sum(open_rows.n) AS bigint) AS devices,
    min(b.created_at) AS created_at, min(b.updated_at) AS updated_at,
    min(b.due_at) AS due_at, min(b.submitted_at) AS submitted_at, max(b.failure_said) AS failure_said,
    min(first_call.started_at) AS uncertain_since
FROM batches b
LEFT JOIN consents s ON b.state = 'held' AND s.customer_id = b.customer_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(c.n), 0) AS n FROM registration_counts c
    WHERE c.order_id = b.order_id AND c.bucket = b.id AND c.state IN ({listed(MOVING_WITH_BATCH)})
) open_rows
LEFT JOIN LATERAL (
    SELECT min(a.started_at) AS started_at FROM batch_attempts a WHERE a.batch_id = b.id
    AND (b.state = 'unknown' OR b.failure_code IS NOT NULL)
) first_call ON true
WHERE {_OPEN} """
_ALIKE = "GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, b.due_at > :now"
"""The same key, connection, state, holds, failure, consent, customer and tag; all due, or all due later."""


async def by_customer(tx: PartnerTx, *, limit: int) -> list[OpenOfCustomer]:
    """Customers with open batches, those with the most waiting devices first."""
    return await fetch_all_as(
        tx,
        OpenOfCustomer,
        f"SELECT c.id AS customer_id, c.name, c.connection_id, {_SUMS} "
        "FROM customers c JOIN batches b ON b.customer_id = c.id "
        f"WHERE c.partner_id = :partner AND {_OPEN} GROUP BY c.id "
        "ORDER BY sum(b.device_count) FILTER (WHERE b.state IN ('held', 'queued')) DESC NULLS LAST, c.id "
        "LIMIT :limit",
        partner=tx.partner_id,
        limit=limit,
    )


async def by_connection(tx: PartnerTx) -> list[OpenOfConnection]:
    """Every connection that has open batches."""
    return await fetch_all_as(
        tx,
        OpenOfConnection,
        f"SELECT b.connection_id, count(DISTINCT b.customer_id) AS customers, {_SUMS} "
        f"FROM batches b WHERE {_OPEN} GROUP BY b.connection_id",
        partner=tx.partner_id,
    )


async def hasten(
    tx: PartnerTx,
    connection_id: UUID,
    now: datetime,
    *,
    but_code: str | None = None,
) -> int:
    """Makes the connection's waiting batches due now, because the connection works again. Returns how many.

    Skips claimed batches, and those that failed for `but_code`, because that trouble may still exist.
    """
    return await execute(
        tx,
        "UPDATE batches SET due_at = :now WHERE id IN ("
        "  SELECT id FROM batches WHERE partner_id = :partner AND connection_id = :connection "
        f"  AND state IN ('queued', {listed(IN_FLIGHT)}) AND due_at > :now "
        f"  AND {BATCHES.free()} "
        "  AND (CAST(:but AS text) IS NULL OR failure_code IS DISTINCT FROM CAST(:but AS text)) "
        "  FOR NO KEY UPDATE SKIP LOCKED)",
        partner=tx.partner_id,
        connection=connection_id,
        now=now,
        but=but_code,
    )


async def of_orders(tx: PartnerTx, order_ids: list[UUID], now: datetime) -> list[BatchFacts]:
    """Facts about the open batches of these orders, with similar batches as one row. `id` is the order's."""
    return await fetch_all_as(
        tx,
        BatchFacts,
        _STANDING.format(key="b.order_id") + "AND b.order_id = ANY(:ids) " + _ALIKE,
        partner=tx.partner_id,
        ids=order_ids,
        now=now,
    )


async def of_batches(tx: PartnerTx, batch_ids: list[UUID], now: datetime) -> list[BatchFacts]:
    """Facts about those of these batches that are open. `id` is the batch's."""
    return await fetch_all_as(
        tx,
        BatchFacts,
        _STANDING.format(key="b.id") + "AND b.id = ANY(:ids) " + _ALIKE,
        partner=tx.partner_id,
        ids=batch_ids,
        now=now,
    )


async def of_partner(tx: PartnerTx, now: datetime) -> list[BatchFacts]:
    """Facts about all open batches of the partner, with similar batches as one row. `id` is the partner's."""
    return await fetch_all_as(
        tx,
        BatchFacts,
        _STANDING.format(key="b.partner_id") + _ALIKE,
        partner=tx.partner_id,
        now=now,
    )


async def tags_being_created(tx: PartnerTx, customer_ids: list[UUID]) -> list[TagBeingCreated]:
    """The group tags of these customers that an open batch is creating."""
    return await fetch_all_as(
        tx,
        TagBeingCreated,
        "SELECT g.customer_id, g.tag_key, b.id AS creator, g.updated_at AS since, b.due_at "
        "FROM group_tags g JOIN batches b ON b.id = g.creating_batch_id "
        "WHERE g.partner_id = :partner AND g.customer_id = ANY(:customers) "
        f"AND b.state IN ('queued', {listed(IN_FLIGHT)})",
        partner=tx.partner_id,
        customers=customer_ids,
    )


async def by_state(tx: PartnerTx) -> list[OpenByState]:
    """The number of open batches and their devices by state, and when the oldest was made."""
    return await fetch_all_as(
        tx,
        OpenByState,
        f"SELECT CASE WHEN b.state IN ({listed(IN_FLIGHT)}) THEN 'in_flight' ELSE b.state END AS state, "
        "count(*) AS batches, sum(b.device_count) AS devices, min(b.created_at) AS oldest_at "
        f"FROM batches b WHERE {_OPEN} GROUP BY 1 ORDER BY 1",
        partner=tx.partner_id,
    )


async def stuck(tx: PartnerTx, *, before: datetime) -> list[StuckWork]:
    """Imports and batches under way that were due long ago, although unclaimed and not delayed."""
    return await fetch_all_as(
        tx,
        StuckWork,
        "SELECT 'import' AS kind, id, reference AS name, state, due_at FROM imports "
        f"WHERE partner_id = :partner AND due_at < :before AND {IMPORTS.free(at='before')} "
        "UNION ALL "
        "SELECT 'batch', b.id, b.group_tag, b.state, b.due_at FROM batches b "
        "JOIN connections n ON n.id = b.connection_id "
        f"WHERE b.partner_id = :partner AND b.state IN ({listed(IN_FLIGHT)}) AND b.due_at < :before "
        f"AND {BATCHES.free('b', 'before')} "
        f"AND {holds.takes_work('n', ':before')} "
        "ORDER BY due_at LIMIT 50",
        partner=tx.partner_id,
        before=before,
    )


async def imports_waiting(tx: PartnerTx) -> WaitingImports:
    """The number of files that are being read or committed, or wait for it, and the earliest due time."""
    row = await fetch_one_as(
        tx,
        WaitingImports,
        "SELECT count(*) AS imports, min(due_at) AS oldest_at FROM imports "
        f"WHERE partner_id = :partner AND due_at IS NOT NULL AND state IN ({listed(WITH_WORKERS)})",
        partner=tx.partner_id,
    )
    return row or WaitingImports()


async def connections_of(tx: PartnerTx, connection_ids: list[UUID]) -> list[ConnectionFacts]:
    return await fetch_all_as(
        tx,
        ConnectionFacts,
        "SELECT id, mode, trouble_code, trouble_said, trouble_since, not_before "
        "FROM connections WHERE partner_id = :partner AND id = ANY(:ids)",
        partner=tx.partner_id,
        ids=connection_ids,
    )


async def failing_endpoints(tx: PartnerTx, *, limit: int = 50) -> list[FailingEndpoint]:
    """Endpoints that are not enabled, or whose last deliveries failed."""
    return await fetch_all_as(
        tx,
        FailingEndpoint,
        "SELECT id, url, state, consecutive_failures FROM webhook_endpoints WHERE partner_id = :partner "
        f"AND (state <> 'enabled' OR consecutive_failures > 0) AND {LIVE} ORDER BY id LIMIT :limit",
        partner=tx.partner_id,
        limit=limit,
    )


async def deliveries_waiting(tx: PartnerTx, *, limit: int) -> WaitingDeliveries:
    """The number of waiting deliveries, counted up to `limit`, and when the oldest of these was made."""
    row = await fetch_one_as(
        tx,
        WaitingDeliveries,
        "SELECT count(*) AS deliveries, min(created_at) AS oldest_at FROM ("
        "SELECT created_at FROM deliveries WHERE partner_id = :partner "
        f"AND state IN ({listed(OPEN_DELIVERY)}) ORDER BY due_at LIMIT :limit) AS open",
        partner=tx.partner_id,
        limit=limit,
    )
    return row or WaitingDeliveries()
