"""Adds devices for registrations that had their outcomes before there was a devices table."""

from typing import Final

from app.db.sql import execute, fetch_all, fetch_one
from app.kernel.transactions import SystemTx, Tx

LOCK: Final = 7_431_985_024
"""An advisory lock, held while earlier registrations are read and their devices added. A correction waits for
it (migration 0017), and only one process at a time adds devices."""


async def is_complete(tx: Tx) -> bool:
    """Whether the devices of all outcomes, of all partners, have been added."""
    return await fetch_one(tx, "SELECT last_id FROM device_backfill") is None


async def add_some(tx: SystemTx, limit: int) -> int | None:
    """Adds the devices of the next `limit` registrations; returns the number of registrations.

    None: everything is done, or another process is adding devices. Raises DBAPIError with SQLSTATE 55P03 if a
    correction holds a lock.
    """
    taken = await fetch_one(
        tx,
        "SELECT set_config('lock_timeout', '500ms', true), pg_try_advisory_xact_lock(:lock) AS taken",
        lock=LOCK,
    )
    place = await fetch_one(tx, "SELECT last_id, after_id FROM device_backfill")
    if place is None or taken is None or not taken["taken"]:
        return None
    rows = await fetch_all(
        tx,
        "SELECT id FROM registrations WHERE id > :after AND id <= :last ORDER BY id LIMIT :limit",
        after=place["after_id"],
        last=place["last_id"],
        limit=limit,
    )
    ids = [row["id"] for row in rows]
    await fetch_one(tx, "SELECT keep_devices(:ids)", ids=ids)
    if len(ids) < limit:
        await execute(tx, "DELETE FROM device_backfill")
    else:
        await execute(tx, "UPDATE device_backfill SET after_id = :after", after=ids[-1])
    return len(ids)
