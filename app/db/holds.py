"""Holds in SQL: the reasons stored with a batch, and the conditions for taking a connection's work.

A batch is `held` exactly while `holds` is not empty; a constraint ensures that. Reasons of a connection are
not copied to its batches. Queries skip such connections by the conditions below.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.db.leases import BATCHES
from app.db.sql import fetch_all
from app.domain.batch import BatchState
from app.domain.hold import HoldReason, first_state
from app.kernel.transactions import PartnerTx

NONE_STORED: Final = "holds = '{}'"


def stored(reasons: Collection[HoldReason]) -> dict[str, Any]:
    """The columns of a batch that is not sent yet: held for these reasons, or queued if there are none."""
    return {"state": first_state(reasons).value, "holds": sorted(reasons)}


def is_portal(connection: str) -> str:
    """SQL: the connection's orders are uploaded by people, so no worker's query finds them (ADR 0016)."""
    return f"{connection}.mode = 'portal'"


def is_called(connection: str) -> str:
    """SQL: the connection's orders are sent by workers, who call its platform."""
    return f"{connection}.mode = 'api'"


def takes_work(connection: str, moment: str = ":now") -> str:
    """SQL: workers may take the connection's work, because the connection has no reason to hold it."""
    not_before = f"{connection}.not_before"
    return f"{is_called(connection)} AND ({not_before} IS NULL OR {not_before} <= {moment})"


async def add(tx: PartnerTx, customer_id: UUID, reason: str, now: datetime) -> list[int]:
    """Holds the customer's batches that no worker has begun to send. Returns the devices of each."""
    rows = await fetch_all(
        tx,
        "UPDATE batches SET state = 'held', "
        f"holds = ARRAY(SELECT unnest(holds || CAST(:reason AS text)) ORDER BY 1), {BATCHES.given_up}, "
        "updated_at = :now WHERE partner_id = :partner AND customer_id = :customer "
        "AND state IN ('held', 'queued') AND CAST(:reason AS text) <> ALL (holds) RETURNING device_count",
        partner=tx.partner_id,
        customer=customer_id,
        reason=reason,
        now=now,
    )
    return [row["device_count"] for row in rows]


async def remove(tx: PartnerTx, customer_id: UUID, reason: str, now: datetime) -> list[int]:
    """Ends the reason for the customer's batches. Returns the devices of each that is no longer held."""
    rows = await fetch_all(
        tx,
        "UPDATE batches SET holds = array_remove(holds, CAST(:reason AS text)), "
        "state = CASE WHEN holds = ARRAY[CAST(:reason AS text)] THEN 'queued' ELSE state END, "
        "due_at = :now, updated_at = :now WHERE partner_id = :partner AND customer_id = :customer "
        "AND state = 'held' AND CAST(:reason AS text) = ANY (holds) RETURNING state, device_count",
        partner=tx.partner_id,
        customer=customer_id,
        reason=reason,
        now=now,
    )
    return [row["device_count"] for row in rows if row["state"] == BatchState.QUEUED]
