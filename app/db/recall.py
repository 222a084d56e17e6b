"""An order's batches and the rows with findings, to rebuild an answer that was too large to store."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db.sql import fetch_all_as, fetch_one
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class CutBatch:
    group_tag: str
    device_count: int


@dataclass(frozen=True, slots=True)
class NotedRow:
    row_number: int
    line_ref: str | None
    state: str
    findings: list[dict[str, Any]]


_NOTED = "partner_id = :partner AND order_id = :order AND findings IS NOT NULL"


async def batches(tx: PartnerTx, order_id: UUID) -> list[CutBatch]:
    """The order's batches, in the order in which they were cut: group tag and number of devices."""
    return await fetch_all_as(
        tx,
        CutBatch,
        "SELECT group_tag, device_count FROM batches WHERE partner_id = :partner AND order_id = :order "
        "ORDER BY id",
        partner=tx.partner_id,
        order=order_id,
    )


async def noted_rows(tx: PartnerTx, order_id: UUID, *, limit: int) -> list[NotedRow]:
    """The first rows with findings."""
    return await fetch_all_as(
        tx,
        NotedRow,
        "SELECT row_number, line_ref, state, findings FROM registrations "
        f"WHERE {_NOTED} ORDER BY row_number LIMIT :limit",
        partner=tx.partner_id,
        order=order_id,
        limit=limit,
    )


async def count_noted(tx: PartnerTx, order_id: UUID) -> int:
    row = await fetch_one(
        tx,
        f"SELECT count(*) AS n FROM registrations WHERE {_NOTED}",
        partner=tx.partner_id,
        order=order_id,
    )
    return int(row["n"]) if row else 0
