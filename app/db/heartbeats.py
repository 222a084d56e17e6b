"""Workers' heartbeats. Kept in the database, because Redis may be the part that is down."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.sql import execute, fetch_all, fetch_all_as, fetch_one
from app.kernel.transactions import SystemTx, Tx


@dataclass(frozen=True, slots=True)
class Heartbeat:
    started_at: datetime
    beat_at: datetime


async def beat(tx: SystemTx, worker_id: str, now: datetime) -> None:
    await execute(
        tx,
        "INSERT INTO worker_heartbeats (worker_id, started_at, beat_at) VALUES (:worker, :now, :now) "
        "ON CONFLICT (worker_id) DO UPDATE SET beat_at = :now",
        worker=worker_id,
        now=now,
    )


async def end(tx: SystemTx, worker_id: str) -> None:
    await execute(tx, "DELETE FROM worker_heartbeats WHERE worker_id = :worker", worker=worker_id)


async def last(tx: Tx) -> datetime | None:
    row = await fetch_one(tx, "SELECT max(beat_at) AS beat_at FROM worker_heartbeats")
    return row["beat_at"] if row else None


async def workers(tx: Tx, *, limit: int = 50) -> list[Heartbeat]:
    """Workers with a recent heartbeat, latest first. Workers that ended cleanly are not among them."""
    return await fetch_all_as(
        tx,
        Heartbeat,
        "SELECT started_at, beat_at FROM worker_heartbeats ORDER BY beat_at DESC, worker_id LIMIT :limit",
        limit=limit,
    )


async def silent(tx: SystemTx, *, since: datetime, until: datetime) -> list[str]:
    """The workers whose last heartbeat was between `since` and `until`."""
    found = await fetch_all(
        tx,
        "SELECT worker_id FROM worker_heartbeats WHERE beat_at >= :since AND beat_at < :until "
        "ORDER BY worker_id",
        since=since,
        until=until,
    )
    return [row["worker_id"] for row in found]


async def purge(tx: SystemTx, now: datetime, *, older_than: timedelta) -> int:
    return await execute(tx, "DELETE FROM worker_heartbeats WHERE beat_at < :before", before=now - older_than)
