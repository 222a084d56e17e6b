"""Imports: the queue entries, and the files they carry. Every write after a claim checks its owner."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.engine import encode_json
from app.db.ids import first_id_of
from app.db.leases import IMPORTS, LostClaim
from app.db.paging import Page, PageRequest
from app.db.searching import Search, equal, page_of
from app.db.sql import (
    columns,
    execute,
    fetch_all_as,
    fetch_one,
    fetch_one_as,
    insert,
    listed,
)
from app.domain.actor import SYSTEM, Actor
from app.domain.ids import PartnerId
from app.domain.imports import IMPORT_TRANSITIONS, OVER, Import, ImportedOrder, ImportState
from app.domain.transitions import require, sources_of
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class NamedOrder:
    id: UUID
    reference: str


_COLUMNS = columns(tables.imports, "i", Import)
_JSON = frozenset({"profile", "dialect", "counts", "summary"})


@dataclass(frozen=True, slots=True)
class ImportClaim:
    """An import that one worker has claimed until `lease_until`; `owner` is the fencing token."""

    partner_id: PartnerId
    id: UUID
    owner: UUID
    state: ImportState
    attempts: int
    """Claims since the import last made progress, including this one."""
    record: Import

    @property
    def actor(self) -> Actor:
        return SYSTEM


def claim_of(found: Import, owner: UUID) -> ImportClaim:
    return ImportClaim(found.partner_id, found.id, owner, found.state, found.attempts, found)


async def count_due(tx: SystemTx, now: datetime, *, limit: int) -> int:
    """The number of imports that could be claimed now, counted up to `limit`."""
    row = await fetch_one(
        tx,
        "SELECT count(*) AS n FROM (SELECT FROM imports WHERE due_at <= :now "
        f"AND {IMPORTS.free()} LIMIT :limit) AS due",
        now=now,
        limit=limit,
    )
    return int(row["n"]) if row else 0


async def update_claimed(tx: PartnerTx, claim: ImportClaim, values: dict[str, Any]) -> bool:
    """Updates the import. False, without a change, if the claim was lost or the import discarded."""
    new = values.get("state", claim.state)
    require("imports", IMPORT_TRANSITIONS, claim.state, ImportState(new))
    assignments, parameters = _assignments(values)
    return bool(
        await execute(
            tx,
            f"UPDATE imports SET {assignments} WHERE partner_id = :partner AND id = :id "
            "AND owner = :owner AND state = :known_state",
            partner=tx.partner_id,
            id=claim.id,
            owner=claim.owner,
            known_state=claim.state,
            **parameters,
        )
    )


async def write_claimed(tx: PartnerTx, claim: ImportClaim, values: dict[str, Any]) -> None:
    """`update_claimed`, but raises LostClaim if the claim has been lost."""
    if not await update_claimed(tx, claim, values):
        raise LostClaim


async def hand_over(tx: PartnerTx, claim: ImportClaim, values: dict[str, Any]) -> None:
    """Updates the import whatever its state, for example to give up the claim."""
    assignments, parameters = _assignments(values)
    await execute(
        tx,
        f"UPDATE imports SET {assignments} WHERE partner_id = :partner AND id = :id AND owner = :owner",
        partner=tx.partner_id,
        id=claim.id,
        owner=claim.owner,
        **parameters,
    )


async def lock_claimed(tx: PartnerTx, claim: ImportClaim) -> bool:
    """Locks the import against other claims until the transaction ends. False if the claim was lost."""
    row = await fetch_one(
        tx,
        "SELECT id FROM imports WHERE partner_id = :partner AND id = :id AND owner = :owner "
        "AND state = :known_state FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=claim.id,
        owner=claim.owner,
        known_state=claim.state,
    )
    return row is not None


async def add(tx: PartnerTx, values: Mapping[str, Any]) -> None:
    await insert(tx, "imports", {"partner_id": tx.partner_id, **_json_encoded(dict(values))})


async def add_options(tx: PartnerTx, import_id: UUID, options: dict[str, Any]) -> None:
    await insert(
        tx,
        "import_options",
        {"partner_id": tx.partner_id, "import_id": import_id, "options": encode_json(options)},
    )


async def options_of(tx: PartnerTx, import_id: UUID) -> dict[str, Any]:
    """The options that were given for reading the file; empty if there were none."""
    row = await fetch_one(
        tx,
        "SELECT options FROM import_options WHERE partner_id = :partner AND import_id = :id",
        partner=tx.partner_id,
        id=import_id,
    )
    return {} if row is None else row["options"]


async def get(tx: PartnerTx, import_id: UUID) -> Import | None:
    return await fetch_one_as(
        tx,
        Import,
        f"SELECT {_COLUMNS} FROM imports i WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=import_id,
    )


async def lock(tx: PartnerTx, import_id: UUID) -> Import | None:
    return await fetch_one_as(
        tx,
        Import,
        f"SELECT {_COLUMNS} FROM imports i WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=import_id,
    )


async def list_page(tx: PartnerTx, page: PageRequest, *, state: str | None) -> Page[Import]:
    """A page of imports, newest first."""
    filters = "" if state is None else "AND i.state = :state "
    search = Search(f"SELECT {_COLUMNS} FROM imports i", "imports", "i", "", filters, equal(state=state))
    return await page_of(tx, Import, page, search)


async def move(
    tx: PartnerTx,
    import_id: UUID,
    new: ImportState,
    values: dict[str, Any],
) -> bool:
    """Moves the import to the new state and ends a worker's claim. False if the move is not legal."""
    assignments, parameters = _assignments(values)
    return bool(
        await execute(
            tx,
            f"UPDATE imports SET state = :new, {IMPORTS.given_up}, attempts = 0, {assignments} "
            "WHERE partner_id = :partner AND id = :id AND state = ANY(:sources)",
            partner=tx.partner_id,
            id=import_id,
            new=new,
            sources=sorted(sources_of(IMPORT_TRANSITIONS, new)),
            **parameters,
        )
    )


def _assignments(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    encoded = _json_encoded(values)
    return ", ".join(f"{name} = :new_{name}" for name in encoded), {
        f"new_{name}": value for name, value in encoded.items()
    }


def _json_encoded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: encode_json(value) if name in _JSON and value is not None else value
        for name, value in values.items()
    }


async def purge(tx: SystemTx, *, ended_before: datetime, limit: int) -> int:
    """Deletes up to `limit` of the oldest imports that ended before `ended_before` and whose rows and file
    are deleted; returns how many. Their orders stay."""
    return await execute(
        tx,
        # The array is built once. PostgreSQL may run a subquery in IN (...) again for each row. Locked or
        # deleted rows are skipped, so each run would find other rows, and more than `limit` would be deleted.
        "DELETE FROM imports WHERE id = ANY(ARRAY("
        # Ids sort by age, so this needs no index of its own.
        "  SELECT id FROM imports WHERE id < :first_kept AND due_at IS NULL AND updated_at < :before "
        f"  AND state IN ({listed(OVER)}) ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))",
        first_kept=first_id_of(ended_before),
        before=ended_before,
        limit=limit,
    )


# --- the file ---------------------------------------------------------------------------------


async def add_piece(
    tx: PartnerTx,
    import_id: UUID,
    number: int,
    data: bytes,
    *,
    size: int,
    now: datetime,
    due_at: datetime,
) -> bool:
    """Stores a piece. `size`: the file's size so far. False if the import is no longer being uploaded."""
    alive = await execute(
        tx,
        "UPDATE imports SET size_bytes = :size, updated_at = :now, due_at = :due "
        "WHERE partner_id = :partner AND id = :id AND state = 'uploading'",
        partner=tx.partner_id,
        id=import_id,
        size=size,
        now=now,
        due=due_at,
    )
    if alive:
        await insert(
            tx,
            "import_pieces",
            {"partner_id": tx.partner_id, "import_id": import_id, "number": number, "data": data},
        )
    return bool(alive)


async def piece(tx: PartnerTx, claim: ImportClaim, number: int) -> bytes | None:
    """One piece as it is stored; None after the last."""
    row = await fetch_one(
        tx,
        "SELECT data FROM import_pieces WHERE partner_id = :partner AND import_id = :id AND number = :number",
        partner=tx.partner_id,
        id=claim.id,
        number=number,
    )
    return None if row is None else bytes(row["data"])


async def delete_pieces(tx: PartnerTx, import_id: UUID, *, limit: int) -> int:
    return await execute(
        tx,
        "DELETE FROM import_pieces WHERE partner_id = :partner AND import_id = :id AND number IN ("
        "SELECT number FROM import_pieces WHERE partner_id = :partner AND import_id = :id LIMIT :limit)",
        partner=tx.partner_id,
        id=import_id,
        limit=limit,
    )


async def delete_uploading(tx: PartnerTx, import_id: UUID) -> None:
    """Deletes an upload that failed, with its pieces."""
    await execute(
        tx,
        "DELETE FROM imports WHERE partner_id = :partner AND id = :id AND state = 'uploading'",
        partner=tx.partner_id,
        id=import_id,
    )


# --- the orders -------------------------------------------------------------------------------


async def add_order(
    tx: PartnerTx,
    import_id: UUID,
    *,
    suffix: str,
    customer_id: UUID,
    order_id: UUID,
    now: datetime,
) -> None:
    await insert(
        tx,
        "import_orders",
        {
            "partner_id": tx.partner_id,
            "import_id": import_id,
            "suffix": suffix,
            "customer_id": customer_id,
            "order_id": order_id,
            "created_at": now,
        },
    )


async def orders_of(tx: PartnerTx, import_ids: list[UUID]) -> list[ImportedOrder]:
    """The orders made from these imports, in the order in which they were made."""
    return await fetch_all_as(
        tx,
        ImportedOrder,
        "SELECT m.import_id, m.customer_id, m.order_id, o.reference FROM import_orders m "
        "JOIN orders o ON o.id = m.order_id WHERE m.partner_id = :partner AND m.import_id = ANY(:ids) "
        "ORDER BY m.order_id",
        partner=tx.partner_id,
        ids=import_ids,
    )


async def of_order(tx: PartnerTx, order_id: UUID) -> Import | None:
    """The import that an order was made from, while its rows are still there."""
    return await fetch_one_as(
        tx,
        Import,
        f"SELECT {_COLUMNS} FROM import_orders m JOIN imports i ON i.id = m.import_id "
        "WHERE m.partner_id = :partner AND m.order_id = :order AND i.due_at IS NOT NULL",
        partner=tx.partner_id,
        order=order_id,
    )


async def references_taken(tx: PartnerTx, references: list[str]) -> list[NamedOrder]:
    return await fetch_all_as(
        tx,
        NamedOrder,
        "SELECT id, reference FROM orders WHERE partner_id = :partner AND reference = ANY(:references) "
        "ORDER BY reference",
        partner=tx.partner_id,
        references=references,
    )
