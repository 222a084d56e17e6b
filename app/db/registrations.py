"""Registrations and their hashes: loaded in bulk, settled in bulk, every move guarded by its source states.

A row is written when it comes and when its outcome is known. In between its state is that of its
batch, with which all of its rows move at once: see `state_of`, and ADR 0015.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import searching
from app.db.chosen import EVERY_ROW, Choice, chosen_rows
from app.db.paging import Page, PageRequest, cut, token_after
from app.db.searching import Search, page_of
from app.db.sql import Record, execute, fetch_all, fetch_one, listed, text
from app.domain.batch import OPEN_BATCH, BatchState
from app.domain.ids import PartnerId
from app.domain.registration import (
    CORRECTIONS,
    MOVING_WITH_BATCH,
    OUTCOME_MOVES,
    RegistrationState,
    sources_of,
)

_UNSETTLED = listed(MOVING_WITH_BATCH)


def state_of(stored: str, batch: str = "b") -> str:
    """SQL for a row's state: what is `stored`, or while its `batch` is open and it has no outcome, the
    batch's. Both are our own names of columns and joined tables; a row in no batch has no `batch`."""
    submitted, submitting = BatchState.SUBMITTED.value, BatchState.SUBMITTING.value
    return (
        f"CASE WHEN {stored} NOT IN ({_UNSETTLED}) OR {batch}.state IS NULL "
        f"OR {batch}.state NOT IN ({listed(OPEN_BATCH)}) THEN {stored} "
        f"WHEN {batch}.state = '{submitted}' THEN '{RegistrationState.PROCESSING.value}' "
        f"WHEN {batch}.state = '{submitting}' AND {batch}.uncertain THEN '{RegistrationState.UNKNOWN.value}' "
        f"ELSE {batch}.state END"
    )


class SendableRow(NamedTuple):
    """What a call needs of one registration, in the order of the batch."""

    id: UUID
    row_number: int
    line_ref: str | None
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


async def of_batch(
    session: AsyncConnection, partner_id: PartnerId, batch_id: UUID, *, with_hashes: bool
) -> list[tuple[SendableRow, RegistrationState]]:
    """All rows of a batch with their states, by position; `hash_data` has no zero fill."""
    columns, join = _sendable(with_hashes)
    rows = await session.execute(
        text(
            f"SELECT {columns}, {state_of('r.state')} FROM registrations r "
            f"JOIN batches b ON b.id = r.batch_id {join} "
            "WHERE r.partner_id = :partner AND r.batch_id = :batch ORDER BY r.batch_position"
        ),
        {"partner": partner_id, "batch": batch_id},
    )
    return [(SendableRow(*row[:-1]), RegistrationState(row[-1])) for row in rows]


def _sendable(with_hashes: bool) -> tuple[str, str]:
    """The columns of a SendableRow, and the join that they need."""
    columns = (
        "r.id, r.row_number, r.line_ref, r.attempt, r.identity, r.serial_number, r.manufacturer, r.model, "
        "r.product_key"
    )
    if not with_hashes:
        return f"{columns}, NULL AS hash_data", ""
    return f"{columns}, h.data AS hash_data", "LEFT JOIN device_hashes h ON h.registration_id = r.id"


async def open_of_batch(
    session: AsyncConnection, partner_id: PartnerId, batch_id: UUID, *, with_hashes: bool
) -> list[SendableRow]:
    """The rows of an open batch that have no outcome yet, by position; `hash_data` has no zero fill."""
    columns, join = _sendable(with_hashes)
    rows = await session.execute(
        text(
            f"SELECT {columns} FROM registrations r {join} "
            f"WHERE r.partner_id = :partner AND r.batch_id = :batch AND r.state IN ({_UNSETTLED}) "
            "ORDER BY r.batch_position"
        ),
        {"partner": partner_id, "batch": batch_id},
    )
    return [SendableRow(*row) for row in rows]


async def said_of_batch(
    session: AsyncConnection, partner_id: PartnerId, batch_id: UUID
) -> dict[UUID, tuple[str | None, str | None]]:
    """(code, name) of what Microsoft has said of rows that are being looked up."""
    rows = await fetch_all(
        session,
        "SELECT id, upstream_code, upstream_name FROM registrations WHERE partner_id = :partner "
        f"AND batch_id = :batch AND state IN ({_UNSETTLED}) "
        "AND (upstream_code IS NOT NULL OR upstream_name IS NOT NULL)",
        partner=partner_id,
        batch=batch_id,
    )
    return {row["id"]: (row["upstream_code"], row["upstream_name"]) for row in rows}


async def cancel_batches(
    session: AsyncConnection, partner_id: PartnerId, batch_ids: list[UUID], now: datetime
) -> int:
    """The rows of batches that have been cancelled. Returns how many."""
    return await execute(
        session,
        "UPDATE registrations SET state = 'cancelled', updated_at = :now, settled_at = :now "
        "WHERE partner_id = :partner AND batch_id = ANY(:batches) AND state = ANY(:sources)",
        partner=partner_id,
        batches=batch_ids,
        now=now,
        sources=sorted(sources_of(RegistrationState.CANCELLED)),
    )


async def settle(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_id: UUID,
    outcomes: Sequence[Outcome],
    now: datetime,
    *,
    settled: bool = True,
    moves: frozenset[tuple[RegistrationState, RegistrationState]] = OUTCOME_MOVES,
) -> list[Record]:
    """Writes outcomes row by row where the move is legal; returns the rows it wrote, for the events.

    The batch must still be in the state in which they came: its rows move from there. Not `settled`: the
    outcomes are not the last word, and the rows go on moving with their batch.
    """
    if not outcomes:
        return []
    return await fetch_all(
        session,
        "UPDATE registrations r SET state = u.state, error_code = u.error_code, "
        "error_detail = u.error_detail, upstream_code = u.upstream_code, "
        "upstream_name = u.upstream_name, upstream_device_id = coalesce(u.device_id, r.upstream_device_id), "
        "updated_at = :now, settled_at = :settled_at "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:codes AS text[]), "
        "CAST(:details AS text[]), CAST(:upstream_codes AS text[]), CAST(:names AS text[]), "
        "CAST(:devices AS text[])) "
        "AS u(id, state, error_code, error_detail, upstream_code, upstream_name, device_id), batches b "
        "WHERE r.partner_id = :partner AND r.id = u.id AND b.partner_id = :partner AND b.id = :batch "
        f"AND r.batch_id = b.id AND ({state_of('r.state')}) || '>' || u.state = ANY(:moves) "
        "RETURNING r.id, r.row_number, r.line_ref, r.state, r.error_code",
        partner=partner_id,
        batch=batch_id,
        now=now,
        settled_at=now if settled else None,
        ids=[outcome.id for outcome in outcomes],
        states=[outcome.state.value for outcome in outcomes],
        codes=[outcome.error_code for outcome in outcomes],
        details=[outcome.error_detail for outcome in outcomes],
        upstream_codes=[_storable(outcome.upstream_code) for outcome in outcomes],
        names=[_storable(outcome.upstream_name) for outcome in outcomes],
        devices=[_storable(outcome.upstream_device_id) for outcome in outcomes],
        moves=_spelt(moves),
    )


async def recorded_of_batch(
    session: AsyncConnection, partner_id: PartnerId, batch_id: UUID
) -> dict[UUID, Outcome]:
    """The outcomes that a correction may replace, without Microsoft's own ids."""
    rows = await fetch_all(
        session,
        "SELECT id, state, error_code, error_detail, upstream_code, upstream_name FROM registrations "
        f"WHERE partner_id = :partner AND batch_id = :batch AND state IN ({_CORRECTABLE})",
        partner=partner_id,
        batch=batch_id,
    )
    return {row["id"]: Outcome(**{**row, "state": RegistrationState(row["state"])}) for row in rows}


@cache
def _spelt(moves: frozenset[tuple[RegistrationState, RegistrationState]]) -> list[str]:
    return [f"{old}>{new}" for old, new in sorted(moves)]


_CORRECTABLE = listed({old for old, _ in CORRECTIONS})


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


_BATCHES_WITH = (
    "r.batch_id = ANY(ARRAY(SELECT c.bucket FROM registration_counts c "
    "LEFT JOIN batches b ON b.id = c.bucket "
    "WHERE c.partner_id = :partner AND c.order_id = :order AND c.n > 0 AND ({}) = {}))"
)
"""The counts tell in which batches of the order there are rows of a state: only those are opened."""


async def retryable_of_order(
    session: AsyncConnection,
    partner_id: PartnerId,
    order_id: UUID,
    states: frozenset[RegistrationState],
    choice: Choice = EVERY_ROW,
    *,
    chunk: int,
) -> AsyncIterator[list[Record]]:
    """The order's rows that may be tried again, of batches that are done: tag by tag, by row number, at most
    `chunk` at a time, for there may be a million. Each is held when it is handed out, and may be moved then.
    """
    chosen, values = chosen_rows(choice)
    result = await session.stream(
        text(
            "SELECT r.id, r.group_tag, r.identity, h.registration_id IS NOT NULL AS hashed "
            "FROM registrations r JOIN batches b ON b.id = r.batch_id "
            "LEFT JOIN device_hashes h ON h.registration_id = r.id "
            "WHERE r.partner_id = :partner AND r.order_id = :order AND r.state = ANY(:states) "
            f"AND {_BATCHES_WITH.format('c.state', 'ANY(:states)')} {chosen}"
            "AND b.state = 'settled' ORDER BY r.group_tag COLLATE \"C\", r.row_number FOR UPDATE OF r"
        ),
        {"partner": partner_id, "order": order_id, "states": sorted(states), **values},
    )
    async for rows in result.mappings().partitions(chunk):
        yield [dict(row) for row in rows]


async def rebatch(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_id: UUID,
    registration_ids: Sequence[UUID],
    now: datetime,
    *,
    another_attempt: bool = True,
) -> int:
    """Moves rows out of their batch into a new one, in the order given, usually for another attempt.

    Their present batch must still be in the state from which they move.
    """
    return await execute(
        session,
        "UPDATE registrations r SET batch_id = :batch, batch_position = u.position, state = 'queued', "
        "attempt = r.attempt + :one, error_code = NULL, error_detail = NULL, upstream_code = NULL, "
        "upstream_name = NULL, settled_at = NULL, updated_at = :now "
        "FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS u(id, position), batches b "
        # The ids twice: else a planner without statistics reads all of the partner's rows to find a thousand.
        "WHERE r.partner_id = :partner AND r.id = ANY(CAST(:ids AS uuid[])) AND r.id = u.id "
        "AND b.id = r.batch_id "
        f"AND ({state_of('r.state')}) = ANY(:sources)",
        partner=partner_id,
        batch=batch_id,
        ids=list(registration_ids),
        sources=sorted(sources_of(RegistrationState.QUEUED)),
        one=int(another_attempt),
        now=now,
    )


LAST_ROW: Final = 2**31 - 1
"""The largest number that a row can have in its order."""
_STATE = state_of("r.state")
_VIEW = (
    f"SELECT r.id, r.order_id, r.customer_id, r.batch_id, r.row_number, {_STATE} AS state, r.line_ref, "
    "r.group_tag, r.identity, r.serial_number, r.manufacturer, r.model, r.product_key, r.findings, "
    "r.error_code, r.error_detail, r.upstream_code, r.upstream_name, r.upstream_device_id, r.attempt, "
    "r.created_at, r.settled_at, "
    "greatest(r.updated_at, CASE WHEN r.settled_at IS NULL THEN b.updated_at END) AS updated_at "
    # For each row by itself: of a partner's many batches a page needs few.
    "FROM registrations r LEFT JOIN LATERAL ("
    "SELECT state, uncertain, updated_at FROM batches WHERE id = r.batch_id LIMIT 1) b ON true "
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
    serial_contains: str | None = None
    product_key: str | None = None
    line_ref: str | None = None
    since: datetime | None = None
    customer_id: UUID | None = None
    batch_id: UUID | None = None

    @property
    def searches(self) -> bool:
        """Whether no index finds what is asked for, so that many rows are looked through."""
        found = self.batch_id is not None or self.product_key is not None or self.serial_prefix is not None
        return not found and self != Filter()


def _clauses(filter: Filter, *, but: str = "") -> tuple[str, dict[str, Any]]:
    """Only what is asked for, so that the planner sees which index fits."""
    clauses: list[str] = []
    values: dict[str, Any] = {}
    for column in ("error_code", "product_key", "line_ref", "customer_id", "batch_id"):
        value = getattr(filter, column)
        if value is not None and column != but:
            clauses.append(f"r.{column} = :{column}")
            values[column] = value
    if filter.state is not None:
        clauses.append(f"({_STATE}) = :state")
        values["state"] = filter.state
    if filter.serial_prefix is not None and but != "serial_prefix":
        condition, ranges = _with_prefix(filter.serial_prefix)
        clauses.append(condition)
        values |= ranges
    if filter.serial_contains is not None:
        clauses.append("strpos(upper(r.serial_number), upper(:fragment)) > 0")
        values["fragment"] = filter.serial_contains
    if filter.since is not None:
        clauses.append("(r.updated_at >= :since OR r.settled_at IS NULL AND b.updated_at >= :since)")
        values["since"] = filter.since
    return "".join(f"AND {clause} " for clause in clauses), values


def _with_prefix(prefix: str) -> tuple[str, dict[str, str]]:
    ranges: list[str] = []
    values: dict[str, str] = {}
    for n, start in enumerate(_spellings(prefix)):
        ranges.append(f"r.serial_number ~>=~ :serial_{n} AND r.serial_number ~<~ :serial_{n}_end")
        values |= {f"serial_{n}": start, f"serial_{n}_end": start + chr(0x10FFFF)}
    return f"({' OR '.join(ranges)})", values


def _spellings(prefix: str) -> list[str]:
    """As given, and all in capitals or in small letters: a serial number is not written in both. (Ignoring
    case would need a function that row-level security does not let near an index.)"""
    return sorted({prefix, prefix.upper(), prefix.lower()})


async def list_of_order(
    session: AsyncConnection, partner_id: PartnerId, order_id: UUID, page: PageRequest, filter: Filter
) -> Page[Record]:
    """By row number."""
    clauses, values = _clauses(filter)
    last = None
    if clauses:
        last = await _last_row_searched(session, partner_id, order_id, page)
    if filter.state == RegistrationState.INVALID:
        clauses += "AND r.batch_id IS NULL "
    elif filter.state is not None and last is None:
        clauses += f"AND {_BATCHES_WITH.format(state_of('c.state'), ':state')} "
    if page.after is not None:
        clauses += "AND r.row_number > :after "
        values["after"] = int(page.after)
    if last is not None:
        clauses += "AND r.row_number <= :last "
        values["last"] = last
    rows = await fetch_all(
        session,
        f"{_VIEW} WHERE r.partner_id = :partner AND r.order_id = :order {clauses} "
        "ORDER BY r.row_number LIMIT :limit",
        partner=partner_id,
        order=order_id,
        limit=page.size + 1,
        **values,
    )
    found = cut(rows, page, lambda row: row["row_number"])
    if last is None or found.next_token is not None:
        return found
    return Page(found.items, token_after(last, page))


async def _last_row_searched(
    session: AsyncConnection, partner_id: PartnerId, order_id: UUID, page: PageRequest
) -> int | None:
    """The last row of the order that this page looks at; None when the rest is less."""
    last = min(int(page.after or 0) + searching.SEARCHED, LAST_ROW)
    rest = await fetch_one(
        session,
        "SELECT 1 AS one FROM registrations WHERE partner_id = :partner AND order_id = :order "
        "AND row_number > :last ORDER BY row_number LIMIT 1",  # by the index, and not by luck
        partner=partner_id,
        order=order_id,
        last=last,
    )
    return None if rest is None else last


async def list_page(
    session: AsyncConnection, partner_id: PartnerId, page: PageRequest, filter: Filter
) -> Page[Record]:
    """Across orders, newest first.

    A batch and a serial number or product key that few rows have are found by index. Anything else is looked
    for in the partner's next SEARCHED rows only.
    """
    found_by, served = "", ""
    values: dict[str, Any] = {}
    if filter.batch_id is not None:
        found_by, values, served = "batch_id = :batch_id", {"batch_id": filter.batch_id}, "batch_id"
    else:
        for name in ("product_key", "serial_prefix"):
            ids = await _few(session, partner_id, filter, name)
            if ids is not None:
                found_by, values, served = "id = ANY(:found)", {"found": ids}, name
                break
    filters, wanted = _clauses(filter, but=served)
    search = Search(_VIEW, "registrations", "r", found_by, filters, {**values, **wanted})
    return await page_of(session, partner_id, page, search, searched=searching.SEARCHED)


async def _few(
    session: AsyncConnection, partner_id: PartnerId, filter: Filter, name: str
) -> list[UUID] | None:
    """The rows that an index finds; None when it is not asked for them, or they are many."""
    value = getattr(filter, name)
    if value is None:
        return None
    condition, values = (
        _with_prefix(value) if name == "serial_prefix" else ("r.product_key = :key", {"key": value})
    )
    rows = await fetch_all(
        session,
        f"SELECT r.id FROM registrations r WHERE r.partner_id = :partner AND {condition} LIMIT :most",
        partner=partner_id,
        most=searching.FEW + 1,
        **values,
    )
    return None if len(rows) > searching.FEW else [row["id"] for row in rows]


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
