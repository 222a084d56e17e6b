"""Inserts an order's rows and hashes in bulk."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from app.db import tables
from app.db.driver import run_raw
from app.db.engine import arrays
from app.domain.order import Order
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class NewRegistrations:
    """An order's rows, column by column. Rows without a batch are invalid; the others are queued or held."""

    id: Sequence[UUID]
    batch_id: Sequence[UUID | None]
    row_number: Sequence[int]
    batch_position: Sequence[int | None]
    line_ref: Sequence[str | None]
    group_tag: Sequence[str]
    identity: Sequence[str | None]
    serial_number: Sequence[str | None]
    manufacturer: Sequence[str | None]
    model: Sequence[str | None]
    product_key: Sequence[str | None]
    findings: Sequence[str | None]
    """JSON."""
    error_code: Sequence[str | None]
    error_detail: Sequence[str | None]


_OF_ROW = tuple(field.name for field in fields(NewRegistrations))


def insertion(
    source: str, row: str, *, partner: str, order: str, customer: str, now: str, batch_id: str = ""
) -> str:
    """SQL that inserts registrations from any source of rows: `source` is what follows FROM.

    `row` is the alias of the relation with the columns of NewRegistrations. `batch_id` is SQL for the batch's
    id if it is elsewhere. The other arguments are SQL too. All new orders are stored by this statement.
    """
    batch_id = batch_id or f"{row}.batch_id"
    values = {name: f"{row}.{name}" for name in _OF_ROW} | {
        "batch_id": batch_id,
        "partner_id": partner,
        "order_id": order,
        "customer_id": customer,
        "state": f"CASE WHEN {batch_id} IS NULL THEN 'invalid' ELSE 'queued' END",
        "created_at": now,
        "updated_at": now,
        "settled_at": f"CASE WHEN {batch_id} IS NULL THEN {now} END",
    }
    names, selected = ", ".join(values), ", ".join(values.values())
    return f"INSERT INTO registrations ({names}) SELECT {selected} FROM {source}"


_ADD = insertion(
    arrays(tables.registrations, _OF_ROW, "u", first=5),
    "u",
    partner="$1::uuid",
    order="$2::uuid",
    customer="$3::uuid",
    now="$4::timestamptz",
)


async def add_registrations(tx: PartnerTx, order: Order, now: datetime, rows: NewRegistrations) -> None:
    """Inserts the rows with one statement, with one array per varying column (docs/adr/0004).

    Columns without any value are sent as empty arrays, which `unnest` fills up with nulls: the driver looks
    at every value, and half of the columns are empty in most orders.
    """
    columns = [getattr(rows, name) for name in _OF_ROW]
    columns = [column if any(value is not None for value in column) else [] for column in columns]
    await run_raw(tx.session, _ADD, tx.partner_id, order.id, order.customer_id, now, *columns)


async def add_hashes(tx: PartnerTx, rows: Sequence[tuple[UUID, bytes]]) -> None:
    """Inserts hashes: (registration, hash without its zero fill) each."""
    if rows:
        ids, hashes = zip(*rows, strict=True)
        await run_raw(
            tx.session,
            "INSERT INTO device_hashes (registration_id, partner_id, data) "
            "SELECT id, $1, data FROM unnest($2::uuid[], $3::bytea[]) AS u(id, data)",
            tx.partner_id,
            ids,
            hashes,
        )
