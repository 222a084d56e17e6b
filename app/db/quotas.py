"""Quotas: limits that the operator has set for a partner, and how much of each quota is used.

Counting is cheap at any size. Triggers count devices, customers and stored answers as they change
(`partner_uses`); imports store how many rows and bytes they have; the rest is counted over an index of the
partner's rows.
"""

from collections.abc import Collection
from datetime import datetime

from app.db.events import LIVE
from app.db.sql import execute, fetch_all, fetch_one, listed
from app.domain.attempt import OPEN_DELIVERY
from app.domain.ids import PartnerId
from app.domain.imports import WITH_WORKERS, ImportState
from app.domain.quota import Quota
from app.kernel.transactions import PartnerTx, SystemTx, Tx


def _kept(quota: Quota) -> str:
    return f"SELECT sum(used) FROM partner_uses WHERE partner_id = :partner AND quota = '{quota.value}'"


def _imports(what: str, states: Collection[ImportState] = ()) -> str:
    """SQL over the imports that have something staged or to do: others have no due time."""
    chosen = f" AND state IN ({listed(states)})" if states else ""
    return f"SELECT {what} FROM imports WHERE partner_id = :partner AND due_at IS NOT NULL{chosen}"


USED = {
    Quota.DEVICES: _kept(Quota.DEVICES),
    Quota.CUSTOMERS: _kept(Quota.CUSTOMERS),
    Quota.CONNECTIONS: "SELECT count(*) FROM connections WHERE partner_id = :partner",
    Quota.WEBHOOK_ENDPOINTS: f"SELECT count(*) FROM webhook_endpoints WHERE partner_id = :partner AND {LIVE}",
    Quota.WAITING_EVENTS: "SELECT count(*) FROM deliveries WHERE partner_id = :partner "
    f"AND state IN ({listed(OPEN_DELIVERY)})",
    Quota.VENDOR_PROFILES: "SELECT count(*) FROM vendor_profiles WHERE partner_id = :partner",
    Quota.API_KEYS: "SELECT count(*) FROM api_keys WHERE partner_id = :partner AND revoked_at IS NULL "
    "AND (expires_at IS NULL OR expires_at > :now)",
    Quota.UPLOADS: _imports("count(*)", (ImportState.UPLOADING,)),
    Quota.WAITING_IMPORTS: _imports("count(*)", WITH_WORKERS),
    Quota.STAGED_ROWS: _imports("sum(rows_read)"),
    Quota.STAGED_BYTES: _imports("sum(size_bytes)"),
    Quota.IDEMPOTENCY_ANSWERS: _kept(Quota.IDEMPOTENCY_ANSWERS),
}
"""SQL for one partner's use of each quota, as one number; null if there is nothing."""


async def lock(tx: PartnerTx, quota: Quota) -> None:
    """Prevents others from using this quota of this partner until the transaction ends."""
    await execute(
        tx,
        "SELECT pg_advisory_xact_lock(hashtextextended("
        "'registrar.quota:' || CAST(:partner AS text) || ':' || CAST(:quota AS text), 0))",
        partner=str(tx.partner_id),
        quota=quota.value,
    )


async def amount(tx: Tx, partner_id: PartnerId, quota: Quota) -> int | None:
    """The limit that the operator has set; None if there is none."""
    row = await fetch_one(
        tx,
        "SELECT amount FROM partner_quotas WHERE partner_id = :partner AND quota = :quota",
        partner=partner_id,
        quota=quota.value,
    )
    return None if row is None else int(row["amount"])


async def amount_and_used(tx: PartnerTx, quota: Quota, now: datetime) -> tuple[int | None, int]:
    """Both in one statement, because most calls that create something need both."""
    row = await fetch_one(
        tx,
        "SELECT (SELECT amount FROM partner_quotas "
        "WHERE partner_id = :partner AND quota = :quota) AS amount, "
        f"CAST(coalesce(({USED[quota]}), 0) AS bigint) AS used, CAST(:now AS timestamptz) AS at",
        partner=tx.partner_id,
        quota=quota.value,
        now=now,
    )
    assert row is not None
    return row["amount"], row["used"]


async def amounts(tx: PartnerTx) -> dict[str, int]:
    """All limits that the operator has set for the partner, by the quota's name."""
    rows = await fetch_all(
        tx, "SELECT quota, amount FROM partner_quotas WHERE partner_id = :partner", partner=tx.partner_id
    )
    return {row["quota"]: int(row["amount"]) for row in rows}


async def all_used(tx: PartnerTx, now: datetime) -> dict[Quota, int]:
    counts = ", ".join(
        f"CAST(coalesce(({sql}), 0) AS bigint) AS {quota.value}" for quota, sql in USED.items()
    )
    row = await fetch_one(
        tx, f"SELECT {counts}, CAST(:now AS timestamptz) AS at", partner=tx.partner_id, now=now
    )
    assert row is not None
    return {quota: row[quota.value] for quota in Quota}


async def set_amount(tx: SystemTx, partner_id: PartnerId, quota: Quota, amount: int, now: datetime) -> None:
    await execute(
        tx,
        "INSERT INTO partner_quotas (partner_id, quota, amount, set_at) "
        "VALUES (:partner, :quota, :amount, :now) "
        "ON CONFLICT (partner_id, quota) DO UPDATE SET amount = excluded.amount, set_at = excluded.set_at",
        partner=partner_id,
        quota=quota.value,
        amount=amount,
        now=now,
    )


async def forget_amount(tx: SystemTx, partner_id: PartnerId, quota: Quota) -> bool:
    """Restores the default. False if it applied already."""
    return bool(
        await execute(
            tx,
            "DELETE FROM partner_quotas WHERE partner_id = :partner AND quota = :quota",
            partner=partner_id,
            quota=quota.value,
        )
    )
