"""Workers' signs of life: in the database, because Redis may be the thing that is down.

And what follows when they cease: the claims of a worker that is silent end before their lease does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.sql import execute, fetch_all, fetch_all_as, fetch_one, listed
from app.domain.batch import IN_FLIGHT
from app.domain.presence import claim_tokens
from app.kernel.transactions import SystemTx, Tx


@dataclass(frozen=True, slots=True)
class Heartbeat:
    started_at: datetime
    beat_at: datetime


_CLAIMED = {
    "batches": f"c.state IN ({listed(IN_FLIGHT)}) OR (c.state = 'queued' AND c.lease_until IS NOT NULL)",
    "deliveries": "c.owner IS NOT NULL",
    "imports": "c.due_at IS NOT NULL",
}
"""The claimed tables, and where in each of them claims can be: as the indexes have it that are there."""


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
    """Those that were heard of lately, the last one first: what ended in good order is gone."""
    return await fetch_all_as(
        tx,
        Heartbeat,
        "SELECT started_at, beat_at FROM worker_heartbeats ORDER BY beat_at DESC, worker_id LIMIT :limit",
        limit=limit,
    )


async def silent(tx: SystemTx, *, since: datetime, until: datetime) -> list[str]:
    """The workers whose last sign of life lies between the two."""
    found = await fetch_all(
        tx,
        "SELECT worker_id FROM worker_heartbeats WHERE beat_at >= :since AND beat_at < :until "
        "ORDER BY worker_id",
        since=since,
        until=until,
    )
    return [row["worker_id"] for row in found]


async def end_claims(
    tx: SystemTx, worker_ids: Sequence[str], now: datetime, *, lease_before: datetime
) -> list[str]:
    """Ends the leases of these workers' claims, except those that end at `lease_before` or later; whose
    they were, a name for each claim.

    The owner stays, as where a lease has run out: nobody else having claimed it, the worker may still
    finish. What is locked is left: somebody is at work on it, or a frozen worker's transaction holds it.
    """
    first, last = zip(*map(claim_tokens, worker_ids), strict=True)
    names = dict(zip(first, worker_ids, strict=True))
    ended: list[str] = []
    for table, claimed in _CLAIMED.items():
        found = await fetch_all(
            tx,
            f"WITH dead AS MATERIALIZED (SELECT c.id, w.first FROM {table} c "
            "JOIN unnest(CAST(:first AS uuid[]), CAST(:last AS uuid[])) AS w(first, last) "
            "ON c.owner BETWEEN w.first AND w.last "
            f"WHERE ({claimed}) AND c.lease_until >= :now AND c.lease_until < :before "
            "FOR NO KEY UPDATE OF c SKIP LOCKED) "
            f"UPDATE {table} SET lease_until = NULL FROM dead WHERE {table}.id = dead.id "
            "RETURNING dead.first",
            first=list(first),
            last=list(last),
            now=now,
            before=lease_before,
        )
        ended += [names[row["first"]] for row in found]
    return ended


async def purge(tx: SystemTx, now: datetime, *, older_than: timedelta) -> int:
    return await execute(tx, "DELETE FROM worker_heartbeats WHERE beat_at < :before", before=now - older_than)
