"""Removes a partner, a connection or a customer, with everything that belongs to it.

Queries for what blocks a removal and for its size; and statements that delete a limited number of rows each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.db.sql import execute, fetch_all, fetch_all_as, fetch_one, fetch_one_as, listed
from app.db.sqlstate import DEADLOCK_DETECTED, IS_REMOVED, sqlstate_of
from app.db.tables import metadata
from app.domain.batch import OPEN_BATCH
from app.domain.ids import PartnerId
from app.domain.imports import OVER
from app.domain.registration import MOVING_WITH_BATCH
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class UnfinishedOrder:
    id: UUID
    reference: str
    devices: int | None
    unknown: int | None
    batches: int


@dataclass(frozen=True, slots=True)
class WaitingImport:
    id: UUID
    reference: str
    state: str


@dataclass(frozen=True, slots=True)
class FoundSubject:
    id: UUID
    name: str


FOREIGN_KEY_VIOLATION: Final = "23503"
AT_A_TIME: Final = 5_000
"""The most rows deleted in one transaction."""


def is_deadlock(error: DBAPIError) -> bool:
    return sqlstate_of(error) == DEADLOCK_DETECTED


def refuses_removed(error: Exception) -> bool:
    """Whether PostgreSQL refused a row because its parent is being removed or has been removed."""
    return sqlstate_of(error) in (IS_REMOVED, FOREIGN_KEY_VIOLATION)


class Kind(StrEnum):
    PARTNER = "partner"
    CONNECTION = "connection"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Subject:
    """The partner, connection or customer that is removed."""

    kind: Kind
    partner_id: PartnerId
    id: UUID

    def orders(self) -> str:
        """SQL for the orders that belong to it."""
        own = {Kind.PARTNER: "", Kind.CONNECTION: "connection_id", Kind.CUSTOMER: "customer_id"}[self.kind]
        return "partner_id = :partner" + (f" AND {own} = :subject" if own else "")

    def customers(self) -> str:
        own = {Kind.PARTNER: "", Kind.CONNECTION: "connection_id", Kind.CUSTOMER: "id"}[self.kind]
        return "partner_id = :partner" + (f" AND {own} = :subject" if own else "")


_ROW: Final = {Kind.PARTNER: "partners", Kind.CONNECTION: "connections", Kind.CUSTOMER: "customers"}


async def find(tx: PartnerTx, subject: Subject, *, hold: bool) -> FoundSubject | None:
    """The subject's name. `hold`: waits for writers that use its row, and locks it for the transaction."""
    own = "" if subject.kind is Kind.PARTNER else "partner_id = :partner AND "
    lock = "FOR UPDATE" if hold else ""
    return await fetch_one_as(
        tx,
        FoundSubject,
        f"SELECT id, name FROM {_ROW[subject.kind]} WHERE {own}id = :subject {lock}",
        **({} if not own else {"partner": tx.partner_id}),
        subject=subject.id,
    )


async def mark(tx: PartnerTx, subject: Subject, now: datetime) -> None:
    """Marks the subject: after the commit, all processes refuse new rows that belong to it."""
    await execute(
        tx,
        "INSERT INTO removals (partner_id, subject, kind, began_at) "
        "VALUES (:partner, :subject, :kind, :now) ON CONFLICT (subject) DO NOTHING",
        partner=tx.partner_id,
        subject=subject.id,
        kind=subject.kind.value,
        now=now,
    )


async def unmark(tx: PartnerTx, subject: Subject) -> None:
    await execute(
        tx,
        "DELETE FROM removals WHERE partner_id = :partner AND subject = :subject",
        partner=tx.partner_id,
        subject=subject.id,
    )


async def revoke_keys(tx: PartnerTx, now: datetime) -> int:
    return await execute(
        tx,
        "UPDATE api_keys SET revoked_at = :now WHERE partner_id = :partner AND revoked_at IS NULL",
        partner=tx.partner_id,
        now=now,
    )


# --- what blocks a removal ------------------------------------------------------------------------


async def unfinished_orders(tx: PartnerTx, subject: Subject) -> list[UnfinishedOrder]:
    """Orders with an open batch, or with devices without an outcome: they must not be lost."""
    return await fetch_all_as(
        tx,
        UnfinishedOrder,
        f"SELECT o.id, o.reference, c.devices, c.unknown, b.batches FROM "
        f"(SELECT id, reference FROM orders WHERE {subject.orders()}) AS o "
        "LEFT JOIN LATERAL (SELECT sum(n) AS devices, sum(n) FILTER (WHERE state = 'unknown') AS unknown "
        "  FROM registration_counts WHERE order_id = o.id AND partner_id = :partner "
        f"  AND state IN ({listed(MOVING_WITH_BATCH)})) AS c ON true "
        "LEFT JOIN LATERAL (SELECT count(*) AS batches FROM batches WHERE order_id = o.id "
        f"  AND partner_id = :partner AND state IN ({listed(OPEN_BATCH)})) AS b ON true "
        "WHERE c.devices > 0 OR b.batches > 0 ORDER BY o.id",
        **_used(tx.partner_id, subject, subject.orders()),
    )


async def waiting_imports(tx: PartnerTx, subject: Subject) -> list[WaitingImport]:
    """Unfinished imports that belong to the subject or have rows for it."""
    whose = ""
    if subject.kind is not Kind.PARTNER:
        customers = f"(SELECT id FROM customers WHERE {subject.customers()})"
        whose = (
            f" AND (i.customer_id IN {customers} OR EXISTS (SELECT FROM import_rows r "
            f"WHERE r.import_id = i.id AND r.partner_id = :partner AND r.customer_id IN {customers}))"
        )
    return await fetch_all_as(
        tx,
        WaitingImport,
        "SELECT i.id, i.reference, i.state FROM imports i "
        f"WHERE i.partner_id = :partner AND i.state NOT IN ({listed(OVER)}){whose} ORDER BY i.id",
        **_used(tx.partner_id, subject, whose),
    )


def _used(partner_id: PartnerId, subject: Subject, text: str) -> dict[str, Any]:
    """The parameters that the text names."""
    return {"partner": partner_id, **({"subject": subject.id} if ":subject" in text else {})}


# --- size of a removal ----------------------------------------------------------------------------


COUNTED_TO: Final = 1_000_000
"""The most rows of a table that are counted. A larger number would change no decision, and counting it would
keep the database busy for minutes."""


async def counts(tx: PartnerTx, subject: Subject) -> Mapping[str, int]:
    """Rows by table, without empty tables, counted up to COUNTED_TO."""
    found = {}
    for table, where in _contents(subject).items():
        # A customer's devices, which may be very many, are already counted by triggers.
        by_counts = table == "registrations" and subject.kind is not Kind.PARTNER
        what = f"count(*) AS n FROM (SELECT FROM {table} WHERE {where} LIMIT {COUNTED_TO}) AS some_rows"
        if by_counts:
            what = f"sum(n) AS n FROM registration_counts WHERE {where}"
        row = await fetch_one(tx, f"SELECT {what}", **_used(tx.partner_id, subject, where))
        if row is not None and row["n"]:
            found[table] = min(int(row["n"]), COUNTED_TO)
    return found


def _contents(subject: Subject) -> dict[str, str]:
    if subject.kind is Kind.PARTNER:
        owned = [table.name for table in metadata.sorted_tables if "partner_id" in table.c]
        return {**dict.fromkeys(owned, "partner_id = :partner"), "partners": "id = :partner"}
    orders = f"partner_id = :partner AND order_id IN (SELECT id FROM orders WHERE {subject.orders()})"
    customers = (
        f"partner_id = :partner AND customer_id IN (SELECT id FROM customers WHERE {subject.customers()})"
    )
    found = {
        "customers": subject.customers(),
        "consent_changes": customers,
        "group_tags": customers,
        "orders": subject.orders(),
        "batches": orders,
        "registrations": orders,
        "devices": customers,
        "events": f"({orders}) OR ({customers})",
    }
    if subject.kind is Kind.CONNECTION:
        found["connections"] = "partner_id = :partner AND id = :subject"
    return found


# --- deleting -------------------------------------------------------------------------------------


async def next_orders(tx: PartnerTx, subject: Subject, limit: int) -> Sequence[UUID]:
    where = subject.orders()
    rows = await fetch_all(
        tx,
        f"SELECT id FROM orders WHERE {where} ORDER BY id LIMIT {limit}",
        **_used(tx.partner_id, subject, where),
    )
    return [row["id"] for row in rows]


async def some_registrations(tx: PartnerTx, order_id: UUID) -> int:
    """Deletes some of the order's registrations; a trigger deletes their hashes."""
    return await execute(
        tx,
        "DELETE FROM registrations WHERE partner_id = :partner AND id IN (SELECT id FROM registrations "
        f"WHERE partner_id = :partner AND order_id = :order LIMIT {AT_A_TIME})",
        partner=tx.partner_id,
        order=order_id,
    )


async def some_events(tx: PartnerTx, order_id: UUID) -> int:
    """Deletes some of the order's events, with their deliveries."""
    return await execute(
        tx,
        "DELETE FROM events WHERE partner_id = :partner AND id IN (SELECT id FROM events "
        f"WHERE partner_id = :partner AND order_id = :order LIMIT {AT_A_TIME})",
        partner=tx.partner_id,
        order=order_id,
    )


async def order(tx: PartnerTx, order_id: UUID) -> None:
    """Deletes the order with its batches, attempts and counts. Its registrations must be deleted before."""
    await execute(
        tx,
        "DELETE FROM orders WHERE partner_id = :partner AND id = :order",
        partner=tx.partner_id,
        order=order_id,
    )


async def next_imports(tx: PartnerTx, subject: Subject, limit: int) -> Sequence[UUID]:
    """Imports that belong to the subject, without those that also have rows for others: they stay."""
    whose = ""
    if subject.kind is not Kind.PARTNER:
        whose = f" AND customer_id IN (SELECT id FROM customers WHERE {subject.customers()})"
    rows = await fetch_all(
        tx,
        f"SELECT id FROM imports WHERE partner_id = :partner{whose} ORDER BY id LIMIT {limit}",
        **_used(tx.partner_id, subject, whose),
    )
    return [row["id"] for row in rows]


_STAGED: Final = {
    "import_rows": ("row_number", 5_000),
    "import_hashes": ("row_number", 5_000),
    "import_pieces": ("number", 50),
}
"""Tables of staged data, with their keys and the rows deleted at a time: a piece is a megabyte."""


async def some_of_import(tx: PartnerTx, import_id: UUID) -> int:
    """Deletes some of the import's rows, hashes and pieces, or the import itself when none are left."""
    for table, (key, limit) in _STAGED.items():
        gone = await execute(
            tx,
            f"DELETE FROM {table} WHERE partner_id = :partner AND import_id = :import AND {key} IN "
            f"(SELECT {key} FROM {table} WHERE import_id = :import LIMIT {limit})",
            **{"partner": tx.partner_id, "import": import_id},
        )
        if gone:
            return gone
    await execute(
        tx,
        "DELETE FROM imports WHERE partner_id = :partner AND id = :import",
        **{"partner": tx.partner_id, "import": import_id},
    )
    return 0


async def some_of_customers(tx: PartnerTx, subject: Subject) -> int:
    """Deletes some of the customers' devices, committed files' rows, and events without an order."""
    where = subject.customers()
    gone = 0
    for table, key in (
        ("devices", "(id)"),
        ("import_rows", "(import_id, row_number)"),
        ("events", "(id)"),
    ):
        columns = key.strip("()")
        gone += await execute(
            tx,
            f"DELETE FROM {table} WHERE partner_id = :partner AND {key} IN (SELECT {columns} FROM {table} "
            "WHERE partner_id = :partner AND customer_id IN "
            f"(SELECT id FROM customers WHERE {where}) LIMIT {AT_A_TIME})",
            **_used(tx.partner_id, subject, where),
        )
    return gone


async def some_customers(tx: PartnerTx, subject: Subject) -> int:
    """Deletes some customers with their consent. Consents go first: everybody locks them before customers."""
    where = subject.customers()
    some = f"(SELECT id FROM customers WHERE {where} ORDER BY id LIMIT 500)"
    given = _used(tx.partner_id, subject, where)
    await execute(tx, f"DELETE FROM consents WHERE partner_id = :partner AND customer_id IN {some}", **given)
    return await execute(tx, f"DELETE FROM customers WHERE partner_id = :partner AND id IN {some}", **given)


async def connection(tx: PartnerTx, subject: Subject) -> None:
    await execute(
        tx,
        "DELETE FROM connections WHERE partner_id = :partner AND id = :subject",
        partner=tx.partner_id,
        subject=subject.id,
    )


LARGE: Final = {"devices": "id", "deliveries": "id", "events": "id", "idempotency_keys": "key"}
"""A partner's large tables whose rows belong to no order and no file, with their keys."""


async def some_of_table(tx: PartnerTx, table: str) -> int:
    key = LARGE[table]
    return await execute(
        tx,
        f"DELETE FROM {table} WHERE partner_id = :partner AND {key} IN "
        f"(SELECT {key} FROM {table} WHERE partner_id = :partner LIMIT {AT_A_TIME})",
        partner=tx.partner_id,
    )


async def partner(tx: PartnerTx) -> None:
    """Deletes the partner with everything that is left."""
    await execute(tx, "DELETE FROM partners WHERE id = :partner", partner=tx.partner_id)


async def connection_ids(tx: PartnerTx, subject: Subject) -> list[UUID]:
    """The connections that are removed. Redis and processes also keep facts under their ids."""
    if subject.kind is Kind.CUSTOMER:
        return []
    where = "partner_id = :partner" + (" AND id = :subject" if subject.kind is Kind.CONNECTION else "")
    rows = await fetch_all(
        tx, f"SELECT id FROM connections WHERE {where}", **_used(tx.partner_id, subject, where)
    )
    return [row["id"] for row in rows]
