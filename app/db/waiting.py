"""Work that waits or is under way, counted by customer and by connection: what `GET /v1/limits` shows.

Counted over open batches only, of which there are few however many orders there were: each is
found by its customer and state in an index, and no registration is touched.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.sql import Record, fetch_all, listed
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
