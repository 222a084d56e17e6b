"""Backlogs of webhook endpoints: how many deliveries wait for each, and ending those that wait too long."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db.leases import DELIVERIES
from app.db.sql import execute, fetch_all, fetch_all_as, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.ids import PartnerId
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class Backlog:
    """The waiting deliveries of one endpoint."""

    endpoint_id: UUID
    waiting: int
    full_since: datetime | None


_OPEN = listed(OPEN_DELIVERY)


async def partners_waiting(tx: SystemTx) -> list[PartnerId]:
    """The partners with waiting deliveries, or with a backlog that is noted as full."""
    rows = await fetch_all(
        tx,
        "WITH RECURSIVE waiting(partner_id) AS ("
        f"(SELECT partner_id FROM deliveries WHERE state IN ({_OPEN}) ORDER BY partner_id LIMIT 1) UNION ALL "
        f"SELECT (SELECT d.partner_id FROM deliveries d WHERE d.state IN ({_OPEN}) "
        "AND d.partner_id > w.partner_id ORDER BY d.partner_id LIMIT 1) "
        "FROM waiting w WHERE w.partner_id IS NOT NULL) "
        "SELECT partner_id FROM waiting WHERE partner_id IS NOT NULL "
        "UNION SELECT partner_id FROM webhook_pauses WHERE full_since IS NOT NULL",
    )
    return [PartnerId(row["partner_id"]) for row in rows]


async def of_partner(tx: PartnerTx) -> list[Backlog]:
    """The backlog of each endpoint of the partner with waiting deliveries, or noted as full."""
    return await fetch_all_as(
        tx,
        Backlog,
        "SELECT e.id AS endpoint_id, coalesce(w.n, 0) AS waiting, p.full_since FROM webhook_endpoints e "
        "LEFT JOIN (SELECT endpoint_id, count(*) AS n FROM deliveries "
        f"WHERE partner_id = :partner AND state IN ({_OPEN}) GROUP BY endpoint_id) w ON w.endpoint_id = e.id "
        "LEFT JOIN webhook_pauses p ON p.endpoint_id = e.id "
        "WHERE e.partner_id = :partner AND (w.n > 0 OR p.full_since IS NOT NULL) ORDER BY e.id",
        partner=tx.partner_id,
    )


async def mark(tx: PartnerTx, endpoint_ids: Sequence[UUID], full_since: datetime | None) -> None:
    """Notes since when these endpoints' backlogs have been full; None: they are no longer full."""
    await execute(
        tx,
        "INSERT INTO webhook_pauses (partner_id, endpoint_id, full_since) "
        "SELECT :partner, u.id, CAST(:since AS timestamptz) FROM unnest(CAST(:ids AS uuid[])) AS u(id) "
        "ON CONFLICT (endpoint_id) DO UPDATE SET full_since = excluded.full_since",
        partner=tx.partner_id,
        ids=list(endpoint_ids),
        since=full_since,
    )


async def give_up(tx: SystemTx, *, due_before: datetime, failures: int, now: datetime, limit: int) -> int:
    """Ends deliveries that waited too long for a failing endpoint; returns how many."""
    return await execute(
        tx,
        f"UPDATE deliveries SET state = 'exhausted', settled_at = :now, {DELIVERIES.given_up} "
        # An array: inside IN (...) the subquery may run once per row, see imports.purge.
        "WHERE id = ANY(ARRAY(SELECT d.id FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id "
        f"WHERE d.state IN ({_OPEN}) AND d.due_at < :before AND e.consecutive_failures >= :failures "
        f"AND {DELIVERIES.free('d')} ORDER BY d.due_at LIMIT :limit "
        "FOR NO KEY UPDATE OF d SKIP LOCKED))",
        now=now,
        before=due_before,
        failures=failures,
        limit=limit,
    )
