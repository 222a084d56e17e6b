"""What an order was made of, for an answer that was too large to be kept: its batches and its noted rows."""

from uuid import UUID

from app.db.sql import Record, fetch_all, fetch_one
from app.kernel.transactions import PartnerTx

_NOTED = "partner_id = :partner AND order_id = :order AND findings IS NOT NULL"


async def batches(tx: PartnerTx, order_id: UUID) -> list[Record]:
    """Group tag and number of devices of each, in the order in which they were cut."""
    return await fetch_all(
        tx,
        "SELECT group_tag, device_count FROM batches WHERE partner_id = :partner AND order_id = :order "
        "ORDER BY id",
        partner=tx.partner_id,
        order=order_id,
    )


async def noted_rows(tx: PartnerTx, order_id: UUID, *, limit: int) -> list[Record]:
    """The first rows with findings."""
    return await fetch_all(
        tx,
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
