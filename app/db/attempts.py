"""Attempts: calls to Microsoft about a batch, each stored before it is made."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.batches import Claim
from app.db.sql import execute, fetch_all, fetch_all_as, insert
from app.domain.quota import KEPT_BY_HAND
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call, or an outcome that a person has recorded."""

    kind: str
    request_id: UUID | None
    correlation_id: UUID | None
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    said: str | None
    made_by: UUID | None


async def begin(
    tx: PartnerTx,
    claim: Claim,
    *,
    id: UUID,
    kind: str,
    values: dict[str, Any],
    now: datetime,
) -> bool:
    """Stores the call that is about to be made, with the batch's new `values`, and uses the customer's turn:
    customers that were claimed meanwhile and could not send come before it.

    `values` include the request id. Returns False, and changes nothing, if the claim has been lost.
    """
    assignments = ", ".join(f"{name} = :set_{name}" for name in values)
    return bool(
        await execute(
            tx,
            f"WITH held AS (UPDATE batches SET {assignments} "
            "WHERE partner_id = :partner AND id = :batch AND owner = :owner RETURNING id, customer_id), "
            "turn AS (UPDATE customers SET last_turn_at = :now FROM held "
            "WHERE customers.partner_id = :partner AND customers.id = held.customer_id) "
            "INSERT INTO batch_attempts "
            "(id, partner_id, batch_id, kind, request_id, correlation_id, started_at) "
            "SELECT :id, :partner, id, :kind, :set_request_id, :correlation, :now FROM held",
            partner=tx.partner_id,
            batch=claim.id,
            owner=claim.owner,
            id=id,
            kind=kind,
            correlation=claim.correlation_id,
            now=now,
            **{f"set_{name}": value for name, value in values.items()},
        )
    )


async def add(
    tx: PartnerTx,
    claim: Claim,
    *,
    id: UUID,
    kind: str,
    request_id: UUID | None,
    correlation_id: UUID,
    now: datetime,
    made_by: UUID | None = None,
) -> None:
    """Adds an attempt. `made_by`: the API key of the person who records it; None for a worker's call.

    Only the newest KEPT_BY_HAND of a batch's attempts that people recorded are kept.
    """
    await insert(
        tx,
        "batch_attempts",
        {
            "id": id,
            "partner_id": tx.partner_id,
            "batch_id": claim.id,
            "kind": kind,
            "request_id": request_id,
            "correlation_id": correlation_id,
            "started_at": now,
            "made_by": made_by,
        },
    )
    if made_by is not None:
        await forget_by_hand(tx, claim, keep=KEPT_BY_HAND)


async def forget_by_hand(tx: PartnerTx, claim: Claim, *, keep: int) -> int:
    """Deletes all but the newest of the batch's attempts that people recorded; returns how many."""
    return await execute(
        tx,
        "DELETE FROM batch_attempts WHERE partner_id = :partner AND batch_id = :batch "
        "AND made_by IS NOT NULL AND id IN ("
        "  SELECT id FROM batch_attempts WHERE partner_id = :partner AND batch_id = :batch "
        "  AND made_by IS NOT NULL ORDER BY started_at DESC, id DESC OFFSET :keep)",
        partner=tx.partner_id,
        batch=claim.id,
        keep=keep,
    )


async def finish(tx: PartnerTx, attempt_id: UUID, *, outcome: str, said: str, now: datetime) -> None:
    await execute(
        tx,
        "UPDATE batch_attempts SET finished_at = :now, outcome = :outcome, said = :said "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=attempt_id,
        outcome=outcome,
        said=said or None,
        now=now,
    )


async def close_open(tx: PartnerTx, claim: Claim, now: datetime) -> int:
    """Ends open attempts of a worker that died: their outcome is not known."""
    return await execute(
        tx,
        "UPDATE batch_attempts SET finished_at = :now, outcome = 'interrupted' "
        "WHERE partner_id = :partner AND batch_id = :batch AND finished_at IS NULL",
        partner=tx.partner_id,
        batch=claim.id,
        now=now,
    )


async def upload_outcomes(tx: PartnerTx, claim: Claim) -> list[str | None]:
    """The outcomes of the batch's calls that sent devices, oldest first."""
    rows = await fetch_all(
        tx,
        "SELECT outcome FROM batch_attempts WHERE partner_id = :partner AND batch_id = :batch "
        "AND kind IN ('create', 'append') ORDER BY started_at, id",
        partner=tx.partner_id,
        batch=claim.id,
    )
    return [row["outcome"] for row in rows]


async def list_of_batch(tx: PartnerTx, batch_id: UUID, *, limit: int = 200) -> list[Attempt]:
    return await fetch_all_as(
        tx,
        Attempt,
        "SELECT kind, request_id, correlation_id, started_at, finished_at, outcome, said, made_by "
        "FROM batch_attempts WHERE partner_id = :partner AND batch_id = :batch "
        "ORDER BY started_at DESC LIMIT :limit",
        partner=tx.partner_id,
        batch=batch_id,
        limit=limit,
    )
