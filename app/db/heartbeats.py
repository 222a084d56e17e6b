"""Workers' signs of life: in the database, because Redis may be the thing that is down."""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.sql import execute, fetch_one


async def beat(session: AsyncConnection, worker_id: str, now: datetime) -> None:
    await execute(
        session,
        "INSERT INTO worker_heartbeats (worker_id, started_at, beat_at) VALUES (:worker, :now, :now) "
        "ON CONFLICT (worker_id) DO UPDATE SET beat_at = :now",
        worker=worker_id,
        now=now,
    )


async def end(session: AsyncConnection, worker_id: str) -> None:
    await execute(session, "DELETE FROM worker_heartbeats WHERE worker_id = :worker", worker=worker_id)


async def last(session: AsyncConnection) -> datetime | None:
    row = await fetch_one(session, "SELECT max(beat_at) AS beat_at FROM worker_heartbeats")
    return row["beat_at"] if row else None


async def purge(session: AsyncConnection, now: datetime, *, older_than: timedelta) -> int:
    return await execute(
        session, "DELETE FROM worker_heartbeats WHERE beat_at < :before", before=now - older_than
    )
