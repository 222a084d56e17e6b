"""Sealed values of all tables, for sealing them again; and whether new ones are bound to their row."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.db.sql import execute, fetch_all_as, fetch_one
from app.domain.ids import PartnerId
from app.kernel.transactions import SystemTx, Tx


@dataclass(frozen=True, slots=True)
class SealedValue:
    partner_id: PartnerId
    key: Any
    """The row's id, or the Idempotency-Key."""
    sealed: bytes


@dataclass(frozen=True, slots=True)
class SealedColumn:
    table: str
    column: str
    key: str = "id"
    """The column that identifies the row; (partner_id, key) is unique."""


SEALED_COLUMNS = (
    SealedColumn("connections", "client_secret"),
    SealedColumn("connections", "refresh_token"),
    SealedColumn("webhook_endpoints", "secret"),
    SealedColumn("webhook_secrets", "secret"),
    SealedColumn("idempotency_keys", "body", key="key"),
)
"""All columns with the comment `sealed`; a test compares the two."""


async def binds_to_rows(tx: Tx) -> bool:
    """Whether new values are bound to their row. Works with a schema that does not have the table yet."""
    known = await fetch_one(tx, "SELECT to_regclass('row_sealing') IS NOT NULL AS known")
    if known is None or not known["known"]:
        return False
    return await fetch_one(tx, "SELECT since FROM row_sealing LIMIT 1") is not None


async def begin_binding(tx: SystemTx, now: datetime) -> None:
    """Makes all processes bind new sealed values to their rows from now on."""
    await execute(
        tx,
        "INSERT INTO row_sealing (since) SELECT CAST(:now AS timestamptz) "
        "WHERE NOT EXISTS (SELECT FROM row_sealing)",
        now=now,
    )


async def values_after(
    tx: SystemTx, place: SealedColumn, after: SealedValue | None, limit: int
) -> list[SealedValue]:
    """The next sealed values, in the order of their rows. Emptied values are skipped."""
    further = "" if after is None else f"AND (partner_id, {place.key}) > (:partner, :key)"
    given = {} if after is None else {"partner": after.partner_id, "key": after.key}
    return await fetch_all_as(
        tx,
        SealedValue,
        f"SELECT partner_id, {place.key} AS key, {place.column} AS sealed FROM {place.table} "
        f"WHERE length({place.column}) > 0 {further} ORDER BY partner_id, {place.key} LIMIT :limit",
        limit=limit,
        **given,
    )


async def replace(tx: SystemTx, place: SealedColumn, row: SealedValue, sealed: bytes) -> bool:
    """Replaces the value. False if another value was written meanwhile: that one stays."""
    return bool(
        await execute(
            tx,
            f"UPDATE {place.table} SET {place.column} = :new "
            f"WHERE partner_id = :partner AND {place.key} = :key AND {place.column} = :old",
            partner=row.partner_id,
            key=row.key,
            old=row.sealed,
            new=sealed,
        )
    )
