"""Registrations and their hashes: bulk updates, each limited to rows whose move is legal.

A row is written when it is created and when its outcome is known. In between, its state is that of its batch,
with which all of its rows move at once: see `state_of`, and ADR 0015.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from app.db.chosen import EVERY_ROW, Choice, chosen_rows
from app.db.sql import execute, fetch_all, fetch_all_as, fetch_rows, listed
from app.domain.batch import OPEN_BATCH, BatchState
from app.domain.identity import OutgoingDevice, outgoing
from app.domain.registration import (
    CORRECTIONS,
    MOVING_WITH_BATCH,
    OUTCOME_MOVES,
    TRANSITIONS,
    RegistrationState,
)
from app.domain.transitions import sources_of
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class Settled:
    """A registration whose outcome has been stored."""

    id: UUID
    row_number: int
    line_ref: str | None
    state: RegistrationState
    error_code: str | None


@dataclass(frozen=True, slots=True)
class RetryableRow:
    id: UUID
    group_tag: str
    identity: str
    hashed: bool


_UNSETTLED = listed(MOVING_WITH_BATCH)


def state_of(stored: str, batch: str = "b") -> str:
    """SQL for a row's state: its batch's state while the batch is open and the row has no outcome, otherwise
    `stored`. Both arguments are our own names of columns and joined tables; `batch` may be null."""
    submitted, submitting = BatchState.SUBMITTED.value, BatchState.SUBMITTING.value
    return (
        f"CASE WHEN {stored} NOT IN ({_UNSETTLED}) OR {batch}.state IS NULL "
        f"OR {batch}.state NOT IN ({listed(OPEN_BATCH)}) THEN {stored} "
        f"WHEN {batch}.state = '{submitted}' THEN '{RegistrationState.PROCESSING.value}' "
        f"WHEN {batch}.state = '{submitting}' AND {batch}.uncertain THEN '{RegistrationState.UNKNOWN.value}' "
        f"ELSE {batch}.state END"
    )


class SendableRow(NamedTuple):
    """What a call needs to know about one registration. Rows are in the order of the batch."""

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

    def outgoing(self, *, with_serial: bool) -> OutgoingDevice:
        """The fields that are sent."""
        return outgoing(*self[4:], with_serial=with_serial)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one registration."""

    id: UUID
    state: RegistrationState
    error_code: str | None = None
    error_detail: str | None = None
    upstream_code: str | None = None
    upstream_name: str | None = None
    upstream_device_id: str | None = None


async def of_batch(
    tx: PartnerTx, batch_id: UUID, *, with_hashes: bool
) -> list[tuple[SendableRow, RegistrationState]]:
    """All rows of a batch with their states, by position; `hash_data` has no zero fill."""
    columns, join = _sendable(with_hashes)
    rows = await fetch_rows(
        tx,
        f"SELECT {columns}, {state_of('r.state')} FROM registrations r "
        f"JOIN batches b ON b.id = r.batch_id {join} "
        "WHERE r.partner_id = :partner AND r.batch_id = :batch ORDER BY r.batch_position",
        partner=tx.partner_id,
        batch=batch_id,
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


async def open_of_batch(tx: PartnerTx, batch_id: UUID, *, with_hashes: bool) -> list[SendableRow]:
    """The rows of an open batch that have no outcome yet, by position; `hash_data` has no zero fill."""
    columns, join = _sendable(with_hashes)
    rows = await fetch_rows(
        tx,
        f"SELECT {columns} FROM registrations r {join} "
        f"WHERE r.partner_id = :partner AND r.batch_id = :batch AND r.state IN ({_UNSETTLED}) "
        "ORDER BY r.batch_position",
        partner=tx.partner_id,
        batch=batch_id,
    )
    return [SendableRow(*row) for row in rows]


async def said_of_batch(tx: PartnerTx, batch_id: UUID) -> dict[UUID, tuple[str | None, str | None]]:
    """Microsoft's code and name for each row that is being looked up, if it gave any."""
    rows = await fetch_all(
        tx,
        "SELECT id, upstream_code, upstream_name FROM registrations WHERE partner_id = :partner "
        f"AND batch_id = :batch AND state IN ({_UNSETTLED}) "
        "AND (upstream_code IS NOT NULL OR upstream_name IS NOT NULL)",
        partner=tx.partner_id,
        batch=batch_id,
    )
    return {row["id"]: (row["upstream_code"], row["upstream_name"]) for row in rows}


async def note_device_ids(
    tx: PartnerTx, batch_id: UUID, ids: Sequence[UUID], device_ids: Sequence[str | None]
) -> None:
    """Stores the platform's ids of devices that are under way."""
    await execute(
        tx,
        "UPDATE registrations r SET upstream_device_id = u.device_id "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:device_ids AS text[])) AS u(id, device_id) "
        "WHERE r.partner_id = :partner AND r.batch_id = :batch AND r.id = u.id",
        partner=tx.partner_id,
        batch=batch_id,
        ids=list(ids),
        device_ids=[_storable(device_id) for device_id in device_ids],
    )


async def device_ids_of_batch(tx: PartnerTx, batch_id: UUID) -> dict[UUID, str]:
    """The platform's ids of the batch's rows without an outcome, where it has given them."""
    rows = await fetch_all(
        tx,
        "SELECT id, upstream_device_id FROM registrations WHERE partner_id = :partner "
        f"AND batch_id = :batch AND state IN ({_UNSETTLED}) AND upstream_device_id IS NOT NULL",
        partner=tx.partner_id,
        batch=batch_id,
    )
    return {row["id"]: row["upstream_device_id"] for row in rows}


async def cancel_batches(tx: PartnerTx, batch_ids: list[UUID], now: datetime) -> int:
    """Cancels the rows of batches that are about to be cancelled, whatever state is stored with them. Returns
    how many."""
    return await execute(
        tx,
        "UPDATE registrations SET state = 'cancelled', updated_at = :now, settled_at = :now "
        f"WHERE partner_id = :partner AND batch_id = ANY(:batches) AND state IN ({_UNSETTLED})",
        partner=tx.partner_id,
        batches=batch_ids,
        now=now,
    )


async def settle(
    tx: PartnerTx,
    batch_id: UUID,
    outcomes: Sequence[Outcome],
    now: datetime,
    *,
    settled: bool = True,
    moves: frozenset[tuple[RegistrationState, RegistrationState]] = OUTCOME_MOVES,
) -> list[Settled]:
    """Stores outcomes of rows if their moves are legal. Returns the changed rows, for the events.

    The batch must still be in the state in which the outcomes came, because its rows move from that state.
    `settled=False`: the outcomes are not final, and the rows still move with their batch.
    """
    if not outcomes:
        return []
    return await fetch_all_as(
        tx,
        Settled,
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
        partner=tx.partner_id,
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


async def recorded_of_batch(tx: PartnerTx, batch_id: UUID) -> dict[UUID, Outcome]:
    """The outcomes that a correction may replace, without Microsoft's own ids."""
    rows = await fetch_all(
        tx,
        "SELECT id, state, error_code, error_detail, upstream_code, upstream_name FROM registrations "
        f"WHERE partner_id = :partner AND batch_id = :batch AND state IN ({_CORRECTABLE})",
        partner=tx.partner_id,
        batch=batch_id,
    )
    return {row["id"]: Outcome(**{**row, "state": RegistrationState(row["state"])}) for row in rows}


@cache
def _spelt(moves: frozenset[tuple[RegistrationState, RegistrationState]]) -> list[str]:
    return [f"{old}>{new}" for old, new in sorted(moves)]


_CORRECTABLE = listed({old for old, _ in CORRECTIONS})


def _storable(theirs: str | None) -> str | None:
    """Microsoft's text, without the one character that PostgreSQL cannot store."""
    return None if theirs is None else theirs.replace("\x00", "\ufffd")


async def delete_hashes(tx: PartnerTx, registration_ids: list[UUID]) -> None:
    await execute(
        tx,
        "DELETE FROM device_hashes WHERE partner_id = :partner AND registration_id = ANY(:ids)",
        partner=tx.partner_id,
        ids=registration_ids,
    )


BATCHES_WITH = (
    "r.batch_id = ANY(ARRAY(SELECT c.bucket FROM registration_counts c "
    "LEFT JOIN batches b ON b.id = c.bucket "
    "WHERE c.partner_id = :partner AND c.order_id = :order AND c.n > 0 AND ({}) = {}))"
)
"""SQL for rows in batches that have rows of a state, by the counts: other batches are not read."""


async def retryable_of_order(
    tx: PartnerTx,
    order_id: UUID,
    states: frozenset[RegistrationState],
    choice: Choice = EVERY_ROW,
    *,
    chunk: int,
) -> AsyncIterator[list[RetryableRow]]:
    """Yields the order's rows that may be tried again, from finished batches: by tag and row number, in
    chunks of at most `chunk`, because there may be a million. The rows of a chunk are locked, and can be
    moved at once."""
    chosen, values = chosen_rows(choice)
    result = await tx.session.stream(
        text(
            "SELECT r.id, r.group_tag, r.identity, h.registration_id IS NOT NULL AS hashed "
            "FROM registrations r JOIN batches b ON b.id = r.batch_id "
            "LEFT JOIN device_hashes h ON h.registration_id = r.id "
            "WHERE r.partner_id = :partner AND r.order_id = :order AND r.state = ANY(:states) "
            f"AND {BATCHES_WITH.format('c.state', 'ANY(:states)')} {chosen}"
            "AND b.state = 'settled' ORDER BY r.group_tag COLLATE \"C\", r.row_number FOR UPDATE OF r"
        ),
        {"partner": tx.partner_id, "order": order_id, "states": sorted(states), **values},
    )
    async for rows in result.mappings().partitions(chunk):
        yield [RetryableRow(**row) for row in rows]


async def rebatch(
    tx: PartnerTx,
    batch_id: UUID,
    registration_ids: Sequence[UUID],
    now: datetime,
    *,
    another_attempt: bool = True,
) -> int:
    """Moves rows from their batches into a new one, in the given order, usually for another attempt.

    Only rows whose present state allows the move are moved.
    """
    return await execute(
        tx,
        "UPDATE registrations r SET batch_id = :batch, batch_position = u.position, state = 'queued', "
        "attempt = r.attempt + :one, error_code = NULL, error_detail = NULL, upstream_code = NULL, "
        "upstream_name = NULL, settled_at = NULL, updated_at = :now "
        "FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS u(id, position), batches b "
        # `ids` twice: otherwise a planner without statistics reads all of the partner's rows.
        "WHERE r.partner_id = :partner AND r.id = ANY(CAST(:ids AS uuid[])) AND r.id = u.id "
        "AND b.id = r.batch_id "
        f"AND ({state_of('r.state')}) = ANY(:sources)",
        partner=tx.partner_id,
        batch=batch_id,
        ids=list(registration_ids),
        sources=sorted(sources_of(TRANSITIONS, RegistrationState.QUEUED)),
        one=int(another_attempt),
        now=now,
    )


async def purge_hashes(tx: SystemTx, *, settled_before: datetime, limit: int = 5000) -> int:
    """Deletes hashes of rows that settled before `settled_before` and will not be sent; returns how many."""
    return await execute(
        tx,
        "DELETE FROM device_hashes WHERE registration_id IN ("
        "  SELECT h.registration_id FROM device_hashes h JOIN registrations r ON r.id = h.registration_id "
        "  WHERE r.settled_at < :before AND r.state NOT IN "
        "  ('held', 'queued', 'submitting', 'processing') LIMIT :limit)",
        before=settled_before,
        limit=limit,
    )
