"""How much work waits, over all partners: what `/metrics` shows. Open rows only, found by their indexes."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.events import LIVE
from app.db.sql import Record, fetch_all, fetch_one, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.batch import IN_FLIGHT

_AGES: Final = (
    "count(*) AS n, min(w.created_at) AS oldest, "
    # What is claimed has been taken, however long ago it was due.
    "min(w.due_at) FILTER (WHERE w.lease_until IS NULL OR w.lease_until < :now) AS due"
)

_WAITING: Final = f"""
    SELECT CASE WHEN c.client_id IS NULL THEN 'portal_batch' ELSE 'batch' END AS kind, w.state, {_AGES}
    FROM (
        SELECT connection_id, state, created_at, CAST(NULL AS timestamptz) AS due_at, lease_until
        FROM batches WHERE state = 'held'
        UNION ALL
        SELECT connection_id, state, created_at, due_at, lease_until FROM batches WHERE state = 'queued'
        UNION ALL
        SELECT connection_id, state, created_at, due_at, lease_until
        FROM batches WHERE state IN ({listed(IN_FLIGHT)})
    ) AS w JOIN connections c ON c.id = w.connection_id GROUP BY 1, 2
    UNION ALL
    SELECT 'delivery', w.state, {_AGES} FROM deliveries w
    WHERE w.state IN ({listed(OPEN_DELIVERY)}) GROUP BY w.state
    UNION ALL
    SELECT 'import', w.state, {_AGES} FROM imports w WHERE w.due_at IS NOT NULL
    AND w.state IN ('uploading', 'uploaded', 'reading', 'committing') GROUP BY w.state
"""


async def waiting(session: AsyncConnection, now: datetime) -> list[Record]:
    """`kind`, `state`, `n`, `oldest` (made) and `due` (the earliest of what is not claimed)."""
    return await fetch_all(session, _WAITING, now=now)


async def troubles(session: AsyncConnection) -> dict[str, int]:
    """Connections in trouble, by code."""
    rows = await fetch_all(
        session,
        "SELECT trouble_code, count(*) AS n FROM connections WHERE trouble_code IS NOT NULL "
        "GROUP BY trouble_code",
    )
    return {row["trouble_code"]: row["n"] for row in rows}


async def endpoints(session: AsyncConnection) -> dict[str, int]:
    """Webhook endpoints by state."""
    rows = await fetch_all(
        session, f"SELECT state, count(*) AS n FROM webhook_endpoints WHERE {LIVE} GROUP BY state"
    )
    return {row["state"]: row["n"] for row in rows}


async def automated_connections(session: AsyncConnection, *, limit: int) -> list[Record]:
    """The ids of connections that make calls, the newest first."""
    return await fetch_all(
        session,
        "SELECT id FROM connections WHERE client_id IS NOT NULL ORDER BY id DESC LIMIT :limit",
        limit=limit,
    )


async def workers_alive(session: AsyncConnection, now: datetime, *, silence: timedelta) -> int:
    row = await fetch_one(
        session, "SELECT count(*) AS n FROM worker_heartbeats WHERE beat_at >= :since", since=now - silence
    )
    return int(row["n"]) if row else 0
