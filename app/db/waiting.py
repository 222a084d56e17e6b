"""Work that waits or is under way, counted by customer and by connection: what `GET /v1/limits` shows;
and how it is pulled forward when nothing keeps it back any longer.

Counted over open batches only, of which there are few however many orders there were: each is
found by its customer and state in an index, and no registration is touched.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.sql import Record, execute, fetch_all, listed
from app.domain.batch import IN_FLIGHT, OPEN_BATCH
from app.domain.ids import PartnerId

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


async def by_customer(session: AsyncConnection, partner_id: PartnerId, *, limit: int) -> list[Record]:
    """Customers with open batches, those with the most waiting devices first."""
    return await fetch_all(
        session,
        f"SELECT c.id AS customer_id, c.name, c.connection_id, {_SUMS} "
        "FROM customers c JOIN batches b ON b.customer_id = c.id "
        f"WHERE c.partner_id = :partner AND {_OPEN} GROUP BY c.id "
        "ORDER BY sum(b.device_count) FILTER (WHERE b.state IN ('held', 'queued')) DESC NULLS LAST, c.id "
        "LIMIT :limit",
        partner=partner_id,
        limit=limit,
    )


async def by_connection(session: AsyncConnection, partner_id: PartnerId) -> list[Record]:
    """Every connection that has open batches."""
    return await fetch_all(
        session,
        f"SELECT b.connection_id, count(DISTINCT b.customer_id) AS customers, {_SUMS} "
        f"FROM batches b WHERE {_OPEN} GROUP BY b.connection_id",
        partner=partner_id,
    )


async def hasten(
    session: AsyncConnection,
    partner_id: PartnerId,
    connection_id: UUID,
    now: datetime,
    *,
    but_code: str | None = None,
) -> int:
    """The connection works: its batches that wait for a later time are due now. Returns how many.

    Left alone are those that failed for `but_code`, which the proof does not disprove, and those that
    somebody is working on.
    """
    return await execute(
        session,
        "UPDATE batches SET due_at = :now WHERE id IN ("
        "  SELECT id FROM batches WHERE partner_id = :partner AND connection_id = :connection "
        f"  AND state IN ('queued', {listed(IN_FLIGHT)}) AND due_at > :now "
        "  AND (lease_until IS NULL OR lease_until < :now) "
        "  AND (CAST(:but AS text) IS NULL OR failure_code IS DISTINCT FROM CAST(:but AS text)) "
        "  FOR NO KEY UPDATE SKIP LOCKED)",
        partner=partner_id,
        connection=connection_id,
        now=now,
        but=but_code,
    )
