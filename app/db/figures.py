"""Counts of waiting work over all partners, for `/metrics`. Reads open rows only, by their indexes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.db.events import LIVE
from app.db.holds import is_called, is_portal
from app.db.leases import BATCHES
from app.db.sql import fetch_all, fetch_all_as, fetch_one, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.batch import IN_FLIGHT
from app.kernel.transactions import SystemTx


@dataclass(frozen=True, slots=True)
class Waiting:
    """The waiting work of one kind in one state."""

    kind: str
    state: str
    n: int
    oldest: datetime | None
    due: datetime | None


_AGES: Final = (
    "count(*) AS n, min(w.created_at) AS oldest, "
    # Claimed work is not waiting, however long ago it was due.
    f"min(w.due_at) FILTER (WHERE {BATCHES.free('w')}) AS due"
)

_WAITING: Final = f"""
    SELECT CASE WHEN {is_portal("c")} THEN 'portal_batch' ELSE 'batch' END AS kind, w.state, {_AGES}
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


async def waiting(tx: SystemTx, now: datetime) -> list[Waiting]:
    """Waiting work by kind and state. `oldest`: when it was made; `due`: the earliest unclaimed."""
    return await fetch_all_as(tx, Waiting, _WAITING, now=now)


async def troubles(tx: SystemTx) -> dict[str, int]:
    """The number of connections in trouble, by code."""
    rows = await fetch_all(
        tx,
        "SELECT trouble_code, count(*) AS n FROM connections WHERE trouble_code IS NOT NULL "
        "GROUP BY trouble_code",
    )
    return {row["trouble_code"]: row["n"] for row in rows}


async def endpoints(tx: SystemTx) -> dict[str, int]:
    """The number of webhook endpoints, by state."""
    rows = await fetch_all(
        tx, f"SELECT state, count(*) AS n FROM webhook_endpoints WHERE {LIVE} GROUP BY state"
    )
    return {row["state"]: row["n"] for row in rows}


async def automated_connections(tx: SystemTx, *, limit: int) -> list[UUID]:
    """The ids of connections that workers call, newest first."""
    rows = await fetch_all(
        tx,
        f"SELECT id FROM connections n WHERE {is_called('n')} ORDER BY id DESC LIMIT :limit",
        limit=limit,
    )
    return [row["id"] for row in rows]


async def workers_alive(tx: SystemTx, now: datetime, *, silence: timedelta) -> int:
    row = await fetch_one(
        tx, "SELECT count(*) AS n FROM worker_heartbeats WHERE beat_at >= :since", since=now - silence
    )
    return int(row["n"]) if row else 0
