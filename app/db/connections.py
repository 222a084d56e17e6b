"""Connections: a partner's enrolments at Microsoft, their sealed credentials and current trouble."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.holds import is_called
from app.db.leases import READINGS, TOKENS
from app.db.paging import Page, PageRequest, cut
from app.db.sql import (
    columns,
    execute,
    fetch_all_as,
    fetch_one,
    fetch_one_as,
    insert,
    listed,
)
from app.domain.batch import OPEN_BATCH
from app.domain.connection import (
    ClaimedToken,
    Connection,
    ConnectionIdentity,
    EndedTrouble,
    HeldTrouble,
    ReadingClaim,
)
from app.domain.upstream import NOT_UNDERSTOOD
from app.kernel.transactions import PartnerTx, SystemTx

_CONNECTION = (
    f"SELECT {columns(tables.connections, 'c', Connection)}, p.role AS partner_role "
    "FROM connections c JOIN partners p ON p.id = c.partner_id"
)


async def add(tx: PartnerTx, values: Mapping[str, Any]) -> None:
    await insert(tx, "connections", {"partner_id": tx.partner_id, **values})


async def get(tx: PartnerTx, connection_id: UUID) -> Connection | None:
    return await fetch_one_as(
        tx,
        Connection,
        f"{_CONNECTION} WHERE c.partner_id = :partner AND c.id = :id",
        partner=tx.partner_id,
        id=connection_id,
    )


async def get_by_name(tx: PartnerTx, name: str) -> Connection | None:
    return await fetch_one_as(
        tx,
        Connection,
        f"{_CONNECTION} WHERE c.partner_id = :partner AND c.name = :name",
        partner=tx.partner_id,
        name=name,
    )


async def list_page(tx: PartnerTx, page: PageRequest) -> Page[Connection]:
    rows = await fetch_all_as(
        tx,
        Connection,
        f"{_CONNECTION} WHERE c.partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR c.id > CAST(:after AS uuid)) ORDER BY c.id LIMIT :limit",
        partner=tx.partner_id,
        after=page.after,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row.id)


async def update(tx: PartnerTx, connection_id: UUID, values: dict[str, Any]) -> bool:
    """Sets columns; False if there is no such connection. Column names must be our own, never a caller's."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    return bool(
        await execute(
            tx,
            f"UPDATE connections SET {assignments} WHERE partner_id = :partner AND id = :row",
            partner=tx.partner_id,
            row=connection_id,
            **values,
        )
    )


async def hold_identity(
    tx: PartnerTx, connection_id: UUID, *, for_change: bool = False
) -> ConnectionIdentity | None:
    """Locks the connection's tenant and app, until the transaction ends. `for_change`: to change them."""
    lock = "FOR NO KEY UPDATE" if for_change else "FOR SHARE"
    return await fetch_one_as(
        tx,
        ConnectionIdentity,
        "SELECT entra_tenant_id, client_id, refresh_token IS NOT NULL AS has_refresh_token "
        f"FROM connections WHERE partner_id = :partner AND id = :id {lock}",
        partner=tx.partner_id,
        id=connection_id,
    )


async def claim_token(
    tx: PartnerTx,
    connection_id: UUID,
    *,
    owner: UUID,
    worker_id: str | None = None,
    now: datetime,
    lease: timedelta,
) -> ClaimedToken | None:
    """Claims the right to redeem the refresh token; None while another process has it.

    Only one process at a time, because Microsoft may revoke the old token as soon as it is redeemed.
    """
    return await fetch_one_as(
        tx,
        ClaimedToken,
        f"UPDATE connections SET {TOKENS.claimed} "
        "WHERE partner_id = :partner AND id = :id "
        f"AND {TOKENS.free()} "
        "RETURNING refresh_token, entra_tenant_id, client_id",
        partner=tx.partner_id,
        id=connection_id,
        owner=owner,
        worker=worker_id,
        until=now + lease,
        now=now,
    )


async def store_token(
    tx: PartnerTx,
    connection_id: UUID,
    *,
    owner: UUID,
    redeemed: bytes,
    rotated: bytes,
    now: datetime,
) -> bool:
    """Stores the rotated refresh token, and ends the claim if the caller still has it.

    Even if the claim was lost, the new token is stored as long as the redeemed one is still there. Returns
    False if a person or another process has stored another token meanwhile.
    """
    return bool(
        await execute(
            tx,
            "UPDATE connections SET refresh_token = :rotated, refresh_token_at = :now, "
            f"{TOKENS.given_up_by_owner} "
            "WHERE partner_id = :partner AND id = :id "
            "AND (token_owner = :owner OR refresh_token = :redeemed)",
            partner=tx.partner_id,
            id=connection_id,
            owner=owner,
            redeemed=redeemed,
            rotated=rotated,
            now=now,
        )
    )


async def lock_trouble(tx: PartnerTx, connection_id: UUID) -> HeldTrouble | None:
    """The connection's trouble and the time of its last repair. Locks the row until the transaction ends."""
    return await fetch_one_as(
        tx,
        HeldTrouble,
        "SELECT id, name, trouble_code, trouble_since, greatest(checked_at, updated_at) AS mended_at "
        "FROM connections WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=connection_id,
    )


async def set_trouble(
    tx: PartnerTx,
    connection_id: UUID,
    *,
    code: str,
    said: str,
    since: datetime,
    not_before: datetime | None,
) -> None:
    """Records the connection's trouble, and until when no calls are made."""
    await execute(
        tx,
        "UPDATE connections SET trouble_code = :code, trouble_said = :said, trouble_since = :since, "
        "not_before = greatest(not_before, CAST(:not_before AS timestamptz)) "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=connection_id,
        code=code,
        said=said,
        since=since,
        not_before=not_before,
    )


async def clear_trouble(
    tx: PartnerTx, connection_id: UUID, *, unless_code: str | None = None
) -> EndedTrouble | None:
    """Ends the connection's trouble and returns it; None if there was none, or if it may still exist: another
    good answer does not prove that an unreadable one can be read now, while an open batch still waits for it.
    """
    return await fetch_one_as(
        tx,
        EndedTrouble,
        "WITH before AS (SELECT id, trouble_code, trouble_since FROM connections "
        "  WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE) "
        "UPDATE connections c SET trouble_code = NULL, trouble_said = NULL, trouble_since = NULL, "
        "not_before = NULL FROM before WHERE c.id = before.id AND before.trouble_code IS NOT NULL "
        "AND before.trouble_code IS DISTINCT FROM CAST(:unless AS text) "
        "AND NOT (before.trouble_code = :unread "
        "AND EXISTS (SELECT FROM batches b WHERE b.partner_id = :partner "
        "AND b.connection_id = c.id AND b.failure_code = :unread "
        f"AND b.state IN ({listed(OPEN_BATCH)}))) "
        "RETURNING c.id, c.name, before.trouble_code, before.trouble_since",
        partner=tx.partner_id,
        id=connection_id,
        unless=unless_code,
        unread=NOT_UNDERSTOOD,
    )


async def end_pause(tx: PartnerTx, connection_id: UUID) -> None:
    """Lets the connection make calls again at once."""
    await execute(
        tx,
        "UPDATE connections SET not_before = NULL "
        "WHERE partner_id = :partner AND id = :id AND not_before IS NOT NULL",
        partner=tx.partner_id,
        id=connection_id,
    )


async def note_reading(tx: PartnerTx, connection_id: UUID, started_at: datetime) -> bool:
    """Notes a reading of the customers list by its start; False if a later one was noted already."""
    return bool(
        await execute(
            tx,
            "UPDATE connections SET customers_read_at = :started WHERE partner_id = :partner AND id = :id "
            "AND (customers_read_at IS NULL OR customers_read_at <= :started)",
            partner=tx.partner_id,
            id=connection_id,
            started=started_at,
        )
    )


async def postpone(tx: PartnerTx, connection_id: UUID, not_before: datetime) -> None:
    """Delays the whole connection until then, because Microsoft asked it to slow down."""
    await execute(
        tx,
        "UPDATE connections SET not_before = greatest(not_before, :not_before) "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=connection_id,
        not_before=not_before,
    )


async def hasten_customers(tx: PartnerTx, connection_id: UUID, now: datetime) -> None:
    """Makes the customers list due now."""
    await execute(
        tx,
        "UPDATE connections SET customers_due_at = least(customers_due_at, :now) "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=connection_id,
        now=now,
    )


# A claim sets the time of the next reading at once, so that requests made during the reading are not lost. A
# claim whose lease has ended without being given up is a reading that did not finish.
_TO_BE_READ = (
    f"{is_called('n')} AND n.id IN (SELECT id FROM connections WHERE customers_due_at <= :now "
    "UNION ALL SELECT id FROM connections WHERE reading_owner IS NOT NULL) "
    f"AND {READINGS.free('n')} AND EXISTS (SELECT FROM customers c WHERE c.connection_id = n.id)"
)


async def claim_customers_reading(
    tx: SystemTx,
    *,
    owner: UUID,
    worker_id: str | None = None,
    now: datetime,
    lease: timedelta,
    interval: timedelta,
) -> ReadingClaim | None:
    """Claims one connection whose customers list is due, and sets the time of the next reading.

    Partners take turns, so many connections of one partner do not delay another partner's only one.
    """
    return await fetch_one_as(
        tx,
        ReadingClaim,
        # A CTE, because inside IN (...) it may run, and lock another row, for each row.
        "WITH chosen AS MATERIALIZED ("
        "  SELECT n.id FROM connections n "
        "  LEFT JOIN partner_turns t ON t.partner_id = n.partner_id AND t.kind = 'readings' "
        f"  WHERE {_TO_BE_READ} "
        "  ORDER BY t.last_turn_at NULLS FIRST, n.customers_due_at LIMIT 1 "
        "  FOR NO KEY UPDATE OF n SKIP LOCKED), "
        f"claimed AS (UPDATE connections SET customers_due_at = :next, {READINGS.claimed} FROM chosen "
        f"  WHERE connections.id = chosen.id AND {READINGS.free()} "
        "  AND (customers_due_at <= :now OR reading_owner IS NOT NULL) "
        "  RETURNING connections.id, connections.partner_id, connections.reading_owner AS owner), "
        "turn AS (INSERT INTO partner_turns (partner_id, kind, last_turn_at, after_id) "
        "  SELECT partner_id, 'readings', :now, id FROM claimed "
        "  ON CONFLICT (partner_id, kind) DO UPDATE SET last_turn_at = :now, after_id = excluded.after_id) "
        "SELECT id, partner_id, owner FROM claimed",
        owner=owner,
        worker=worker_id,
        until=now + lease,
        now=now,
        next=now + interval,
    )


async def count_customers_due(tx: SystemTx, now: datetime) -> int:
    """The number of connections whose customers lists are due now."""
    row = await fetch_one(
        tx,
        f"SELECT count(*) AS n FROM connections n WHERE {_TO_BE_READ}",
        now=now,
    )
    return int(row["n"]) if row else 0
