"""Rows of an order and their hashes, stored by the thousand."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from app.db.driver import run_raw
from app.domain.order import Order
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of an order, column by column. One without a batch is invalid; the others wait for their turn."""

    after: int
    """Rows of the order that are stored already."""
    ids: list[UUID]
    batch_ids: list[UUID | None]
    positions: list[int | None]
    line_refs: list[str | None]
    group_tags: list[str]
    identities: list[str | None]
    serial_numbers: list[str | None]
    manufacturers: list[str | None]
    models: list[str | None]
    product_keys: list[str | None]
    findings: list[str | None]
    """JSON."""
    error_codes: list[str | None]
    error_details: list[str | None]


_ADD = """
INSERT INTO registrations (id, partner_id, order_id, customer_id, batch_id, row_number, batch_position, state,
    line_ref, group_tag, identity, serial_number, manufacturer, model, product_key, findings, error_code,
    error_detail, created_at, updated_at, settled_at)
SELECT u.id, $1, $2, $3, u.batch_id, $5::int + u.number::int, u.position,
    CASE WHEN u.batch_id IS NULL THEN 'invalid' ELSE 'queued' END,
    u.line_ref, u.group_tag, u.identity, u.serial_number, u.manufacturer, u.model, u.product_key,
    u.findings::jsonb, u.error_code, u.error_detail, $4, $4,
    CASE WHEN u.batch_id IS NULL THEN $4::timestamptz END
FROM unnest($6::uuid[], $7::uuid[], $8::int[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::text[], $15::text[], $16::text[], $17::text[], $18::text[]) WITH ORDINALITY
AS u(id, batch_id, position, line_ref, group_tag, identity, serial_number, manufacturer, model, product_key,
    findings, error_code, error_detail, number)
"""


async def add_registrations(tx: PartnerTx, order: Order, now: datetime, rows: NewRows) -> None:
    """One statement with one array per column that varies (docs/adr/0004).

    A column without any value goes as an empty array, which `unnest` fills up with nulls: the driver looks
    at every single value, and half of the columns are empty in most orders.
    """
    columns = [getattr(rows, each.name) for each in fields(rows)[1:]]
    columns = [column if any(value is not None for value in column) else [] for column in columns]
    await run_raw(tx.session, _ADD, tx.partner_id, order.id, order.customer_id, now, rows.after, *columns)


async def add_hashes(tx: PartnerTx, rows: Sequence[tuple[UUID, bytes]]) -> None:
    """(registration, hash without its zero fill) each."""
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
