"""Registrations and their hashes: loaded in bulk, moved in bulk, every move guarded by its source states."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import tables
from app.db.engine import load
from app.db.paging import Page, PageRequest, cut
from app.db.sql import Record, execute, fetch_all, fetch_one
from app.domain.ids import PartnerId
from app.domain.registration import OUTCOME_MOVES, RegistrationState, sources_of

COLUMNS = (
    "id",
    "partner_id",
    "order_id",
    "customer_id",
    "batch_id",
    "row_number",
    "batch_position",
    "state",
    "line_ref",
    "group_tag",
    "identity",
    "serial_number",
    "manufacturer",
    "model",
    "product_key",
    "findings",
    "error_code",
    "error_detail",
    "created_at",
    "updated_at",
    "settled_at",
)


@dataclass(frozen=True, slots=True)
class SendableRow:
    """What a call needs of one registration, in the order of the batch."""

    id: UUID
    row_number: int
    line_ref: str | None
    state: RegistrationState
    attempt: int
    identity: str
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    hash_data: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one registration."""

    id: UUID
    state: RegistrationState
    error_code: str | None = None
    error_detail: str | None = None
    upstream_code: str | None = None
    upstream_name: str | None = None
    upstream_device_id: str | None = None


async def add_many(session: AsyncConnection, rows: Sequence[Sequence[Any]]) -> None:
    """Rows in the order of COLUMNS."""
    await load(session, tables.registrations, COLUMNS, rows)


async def add_hashes(session: AsyncConnection, rows: Sequence[tuple[UUID, UUID, bytes]]) -> None:
    """(registration, partner, hash without its zero fill) each."""
    await load(session, tables.device_hashes, ("registration_id", "partner_id", "data"), rows)


async def of_batch(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_id: UUID,
    states: frozenset[RegistrationState],
    *,
    with_hashes: bool,
) -> list[SendableRow]:
    """The batch's rows in these states, by position; `hash_data` has no zero fill."""
    data = "h.data" if with_hashes else "NULL"
    join = "LEFT JOIN device_hashes h ON h.registration_id = r.id" if with_hashes else ""
    rows = await fetch_all(
        session,
        "SELECT r.id, r.row_number, r.line_ref, r.state, r.attempt, r.identity, r.serial_number, "
        f"r.manufacturer, r.model, r.product_key, {data} AS hash_data FROM registrations r {join} "
        "WHERE r.partner_id = :partner AND r.batch_id = :batch AND r.state = ANY(:states) "
        "ORDER BY r.batch_position",
        partner=partner_id,
        batch=batch_id,
        states=sorted(states),
    )
    return [SendableRow(**{**row, "state": RegistrationState(row["state"])}) for row in rows]


async def move_batches(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_ids: list[UUID],
    new: RegistrationState,
    now: datetime,
    *,
    only: frozenset[RegistrationState] | None = None,
) -> int:
    """Moves the rows of whole batches, those only whose state may become `new`."""
    return await execute(
        session,
        "UPDATE registrations SET state = :new, updated_at = :now, "
        "settled_at = CASE WHEN :final THEN :now ELSE settled_at END "
        "WHERE partner_id = :partner AND batch_id = ANY(:batches) AND state = ANY(:sources)",
        partner=partner_id,
        batches=batch_ids,
        new=new,
        final=new is RegistrationState.CANCELLED,
        now=now,
        sources=sorted(only if only is not None else sources_of(new)),
    )


async def settle(
    session: AsyncConnection, partner_id: PartnerId, outcomes: Sequence[Outcome], now: datetime
) -> list[Record]:
    """Writes outcomes row by row where the move is legal; returns the rows it wrote, for the events."""
    if not outcomes:
        return []
    return await fetch_all(
        session,
        "UPDATE registrations r SET state = u.state, error_code = u.error_code, "
        "error_detail = u.error_detail, upstream_code = u.upstream_code, "
        "upstream_name = u.upstream_name, upstream_device_id = coalesce(u.device_id, r.upstream_device_id), "
        "updated_at = :now, settled_at = :now "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:codes AS text[]), "
        "CAST(:details AS text[]), CAST(:upstream_codes AS text[]), CAST(:names AS text[]), "
        "CAST(:devices AS text[])) "
        "AS u(id, state, error_code, error_detail, upstream_code, upstream_name, device_id) "
        "WHERE r.partner_id = :partner AND r.id = u.id AND r.state || '>' || u.state = ANY(:moves) "
        "RETURNING r.id, r.row_number, r.line_ref, r.state, r.error_code",
        partner=partner_id,
        now=now,
        ids=[outcome.id for outcome in outcomes],
        states=[outcome.state.value for outcome in outcomes],
        codes=[outcome.error_code for outcome in outcomes],
        details=[outcome.error_detail for outcome in outcomes],
        upstream_codes=[_storable(outcome.upstream_code) for outcome in outcomes],
        names=[_storable(outcome.upstream_name) for outcome in outcomes],
        devices=[_storable(outcome.upstream_device_id) for outcome in outcomes],
        moves=[f"{old}>{new}" for old, new in sorted(OUTCOME_MOVES)],
    )


def _storable(theirs: str | None) -> str | None:
    """Foreign words as they came, but for the one character that PostgreSQL's text can not hold."""
    return None if theirs is None else theirs.replace("\x00", "\ufffd")


async def delete_hashes(
    session: AsyncConnection, partner_id: PartnerId, registration_ids: list[UUID]
) -> None:
    await execute(
        session,
        "DELETE FROM device_hashes WHERE partner_id = :partner AND registration_id = ANY(:ids)",
        partner=partner_id,
        ids=registration_ids,
    )


async def retryable_of_order(
    session: AsyncConnection,
    partner_id: PartnerId,
    order_id: UUID,
    states: frozenset[RegistrationState],
) -> list[Record]:
    """The order's rows that may be tried again, of batches that are done."""
    return await fetch_all(
        session,
        "SELECT r.id, r.group_tag, r.identity, r.product_key, r.serial_number, h.registration_id AS hashed "
        "FROM registrations r JOIN batches b ON b.id = r.batch_id "
        "LEFT JOIN device_hashes h ON h.registration_id = r.id "
        "WHERE r.partner_id = :partner AND r.order_id = :order AND r.state = ANY(:states) "
        "AND b.state = 'settled' ORDER BY r.row_number FOR UPDATE OF r",
        partner=partner_id,
        order=order_id,
        states=sorted(states),
    )


async def rebatch(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_id: UUID,
    registration_ids: Sequence[UUID],
    new: RegistrationState,
    now: datetime,
) -> int:
    """Moves rows into a new batch for another attempt, in the order given."""
    return await execute(
        session,
        "UPDATE registrations r SET batch_id = :batch, batch_position = u.position, state = :new, "
        "attempt = r.attempt + 1, error_code = NULL, error_detail = NULL, upstream_code = NULL, "
        "upstream_name = NULL, settled_at = NULL, updated_at = :now "
        "FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS u(id, position) "
        "WHERE r.partner_id = :partner AND r.id = u.id AND r.state = ANY(:sources)",
        partner=partner_id,
        batch=batch_id,
        ids=list(registration_ids),
        new=new,
        sources=sorted(sources_of(new)),
        now=now,
    )


_VIEW = (
    "SELECT r.id, r.order_id, r.customer_id, r.batch_id, r.row_number, r.state, r.line_ref, r.group_tag, "
    "r.identity, r.serial_number, r.manufacturer, r.model, r.product_key, r.findings, r.error_code, "
    "r.error_detail, r.upstream_code, r.upstream_name, r.upstream_device_id, r.attempt, r.created_at, "
    "r.updated_at, r.settled_at FROM registrations r "
)


async def get(session: AsyncConnection, partner_id: PartnerId, registration_id: UUID) -> Record | None:
    return await fetch_one(
        session,
        _VIEW + "WHERE r.partner_id = :partner AND r.id = :id",
        partner=partner_id,
        id=registration_id,
    )


@dataclass(frozen=True, slots=True)
class Filter:
    state: str | None = None
    error_code: str | None = None
    serial_prefix: str | None = None
    line_ref: str | None = None
    since: datetime | None = None
    customer_id: UUID | None = None
    batch_id: UUID | None = None


_FILTERS = (
    "AND (CAST(:state AS text) IS NULL OR r.state = CAST(:state AS text)) "
    "AND (CAST(:error_code AS text) IS NULL OR r.error_code = CAST(:error_code AS text)) "
    "AND (CAST(:line_ref AS text) IS NULL OR r.line_ref = CAST(:line_ref AS text)) "
    "AND (CAST(:since AS timestamptz) IS NULL OR r.updated_at >= CAST(:since AS timestamptz)) "
    "AND (CAST(:customer AS uuid) IS NULL OR r.customer_id = CAST(:customer AS uuid)) "
    "AND (CAST(:batch AS uuid) IS NULL OR r.batch_id = CAST(:batch AS uuid)) "
)


def _parameters(filter: Filter) -> dict[str, Any]:
    return {
        "state": filter.state,
        "error_code": filter.error_code,
        "line_ref": filter.line_ref,
        "since": filter.since,
        "customer": filter.customer_id,
        "batch": filter.batch_id,
    }


def _serial_clause(filter: Filter) -> tuple[str, dict[str, Any]]:
    """Apart from the others, so that the index on upper(serial_number) is used when it is asked."""
    if filter.serial_prefix is None:
        return "", {}
    escaped = filter.serial_prefix.upper().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return "AND upper(r.serial_number) LIKE :serial ", {"serial": escaped + "%"}


async def list_of_order(
    session: AsyncConnection, partner_id: PartnerId, order_id: UUID, page: PageRequest, filter: Filter
) -> Page[Record]:
    """By row number."""
    clause, serial = _serial_clause(filter)
    rows = await fetch_all(
        session,
        _VIEW + "WHERE r.partner_id = :partner AND r.order_id = :order "
        "AND (CAST(:after AS integer) IS NULL OR r.row_number > CAST(:after AS integer)) "
        + _FILTERS
        + clause
        + "ORDER BY r.row_number LIMIT :limit",
        partner=partner_id,
        order=order_id,
        after=None if page.after is None else int(page.after),
        limit=page.size + 1,
        **_parameters(filter),
        **serial,
    )
    return cut(rows, page, lambda row: row["row_number"])


async def list_page(
    session: AsyncConnection, partner_id: PartnerId, page: PageRequest, filter: Filter
) -> Page[Record]:
    """Across orders, newest first."""
    clause, serial = _serial_clause(filter)
    rows = await fetch_all(
        session,
        _VIEW + "WHERE r.partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR r.id < CAST(:after AS uuid)) "
        + _FILTERS
        + clause
        + "ORDER BY r.id DESC LIMIT :limit",
        partner=partner_id,
        after=page.after,
        limit=page.size + 1,
        **_parameters(filter),
        **serial,
    )
    return cut(rows, page, lambda row: row["id"])


async def purge_hashes(session: AsyncConnection, *, settled_before: datetime, limit: int = 5000) -> int:
    """As the system: hashes of rows that settled long ago, and of rows that will never be sent."""
    return await execute(
        session,
        "DELETE FROM device_hashes WHERE registration_id IN ("
        "  SELECT h.registration_id FROM device_hashes h JOIN registrations r ON r.id = h.registration_id "
        "  WHERE r.settled_at < :before AND r.state NOT IN "
        "  ('held', 'queued', 'submitting', 'processing') LIMIT :limit)",
        before=settled_before,
        limit=limit,
    )
