"""Orders. Their states are not stored, but computed from the counts of their rows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.paging import Page, PageRequest
from app.db.registrations import state_of
from app.db.searching import Search, equal, page_of
from app.db.sql import columns, execute, fetch_all, fetch_one, fetch_one_as, insert
from app.domain.batch import OPEN_BATCH
from app.domain.order import Order, StoredOrder
from app.domain.registration import RegistrationState
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class TakenReference:
    """The order that already has a reference."""

    id: UUID
    body_digest: bytes


_OPEN_BATCHES = (
    "EXISTS (SELECT FROM batches b WHERE b.order_id = o.id AND b.state = ANY(:open_batches)) "
    "AS has_open_batches, "
    "(SELECT c.mode FROM connections c WHERE c.id = o.connection_id) AS mode"
)
_COLUMNS = columns(tables.orders, "o")
_OPEN = sorted(OPEN_BATCH)


async def add(tx: PartnerTx, order: Order) -> None:
    values = {column.name: getattr(order, column.name) for column in tables.orders.columns}
    await insert(tx, "orders", {**values, "partner_id": tx.partner_id})


async def get(tx: PartnerTx, order_id: UUID) -> Order | None:
    return await fetch_one_as(
        tx,
        Order,
        f"SELECT {_COLUMNS}, {_OPEN_BATCHES} FROM orders o WHERE o.partner_id = :partner AND o.id = :id",
        partner=tx.partner_id,
        id=order_id,
        open_batches=_OPEN,
    )


async def lock(tx: PartnerTx, order_id: UUID) -> StoredOrder | None:
    """The order, locked until the transaction ends. Lock it before changing outcomes of its rows, so that
    exactly one of several finishing batches sees itself as the last.

    NO KEY, so that rows that refer to the order (counts, batches) need not wait for this lock: a worker that
    holds a batch writes counts, and the holder of the order may want that batch.
    """
    return await fetch_one_as(
        tx,
        StoredOrder,
        f"SELECT {_COLUMNS} FROM orders o WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=order_id,
    )


async def get_by_reference(tx: PartnerTx, reference: str) -> TakenReference | None:
    return await fetch_one_as(
        tx,
        TakenReference,
        "SELECT id, body_digest FROM orders WHERE partner_id = :partner AND reference = :reference",
        partner=tx.partner_id,
        reference=reference,
    )


async def list_page(
    tx: PartnerTx,
    page: PageRequest,
    *,
    customer_id: UUID | None = None,
    reference: str | None = None,
    purchase_order: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
) -> Page[Order]:
    """A page of orders, newest first. `state` filters by the last reported state, which is kept current."""
    given = equal(
        reference=reference, purchase_order=purchase_order, customer_id=customer_id, announced_state=state
    )
    by = next(iter(given), None)  # the first of these matches the fewest rows
    filters = "".join(f"AND o.{name} = :{name} " for name in given if name != by)
    values = {**given, "open_batches": _OPEN}
    if since is not None:
        filters += "AND o.created_at >= :since "
        values["since"] = since
    found_by = "" if by is None else f"{by} = :{by}"
    select = f"SELECT {_COLUMNS}, {_OPEN_BATCHES} FROM orders o"
    search = Search(select, "orders", "o", found_by, filters, values)
    return await page_of(tx, Order, page, search)


async def counts(tx: PartnerTx, order_ids: list[UUID]) -> dict[UUID, dict[RegistrationState, int]]:
    """Rows per state of each order. Reads a few hundred counts at most, never the rows themselves."""
    found = await fetch_all(
        tx,
        f"SELECT c.order_id, {state_of('c.state')} AS state, sum(c.n) AS n "
        "FROM registration_counts c LEFT JOIN batches b ON b.id = c.bucket "
        "WHERE c.partner_id = :partner AND c.order_id = ANY(:ids) GROUP BY 1, 2",
        partner=tx.partner_id,
        ids=order_ids,
    )
    counted: dict[UUID, dict[RegistrationState, int]] = {order_id: {} for order_id in order_ids}
    for row in found:
        counted[row["order_id"]][RegistrationState(row["state"])] = int(row["n"])
    return counted


async def update(tx: PartnerTx, order_id: UUID, values: dict[str, Any]) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    await execute(
        tx,
        f"UPDATE orders SET {assignments} WHERE partner_id = :partner AND id = :row",
        partner=tx.partner_id,
        row=order_id,
        **values,
    )


async def take_sequences(tx: PartnerTx, order_id: UUID, count: int) -> int:
    """Takes `count` numbers for the order's events, and returns the first. Locks the order's row."""
    row = await fetch_one(
        tx,
        "UPDATE orders SET last_sequence = last_sequence + :count "
        "WHERE partner_id = :partner AND id = :id RETURNING last_sequence",
        partner=tx.partner_id,
        id=order_id,
        count=count,
    )
    if row is None:
        raise LookupError("the order has gone")
    return int(row["last_sequence"]) - count + 1


async def waiting_of_customer(tx: PartnerTx, customer_id: UUID) -> list[UUID]:
    """Orders of the customer with batches that are held or queued."""
    rows = await fetch_all(
        tx,
        "SELECT DISTINCT order_id FROM batches WHERE partner_id = :partner AND customer_id = :customer "
        "AND state IN ('held', 'queued') ORDER BY order_id",
        partner=tx.partner_id,
        customer=customer_id,
    )
    return [row["order_id"] for row in rows]
