"""Earlier webhook secrets, which still sign beside the new one for a while after a rotation."""

from datetime import datetime
from uuid import UUID

from app.db.sql import execute, fetch_all_as, insert
from app.domain.webhook import SigningSecret
from app.kernel.transactions import PartnerTx, SystemTx


async def add(
    tx: PartnerTx,
    endpoint_id: UUID,
    *,
    secret_id: UUID,
    secret: bytes,
    expires_at: datetime,
) -> None:
    await insert(
        tx,
        "webhook_secrets",
        {
            "id": secret_id,
            "partner_id": tx.partner_id,
            "endpoint_id": endpoint_id,
            "secret": secret,
            "expires_at": expires_at,
        },
    )


async def signing(tx: PartnerTx, endpoint_id: UUID, now: datetime) -> list[SigningSecret]:
    """The endpoint's earlier secrets that still sign, newest first."""
    return await fetch_all_as(
        tx,
        SigningSecret,
        "SELECT id, secret FROM webhook_secrets "
        "WHERE partner_id = :partner AND endpoint_id = :endpoint AND expires_at > :now ORDER BY id DESC",
        partner=tx.partner_id,
        endpoint=endpoint_id,
        now=now,
    )


async def end_by(tx: PartnerTx, endpoint_id: UUID, until: datetime) -> None:
    """Shortens the life of the endpoint's earlier secrets to that time."""
    await execute(
        tx,
        "UPDATE webhook_secrets SET expires_at = least(expires_at, :until) "
        "WHERE partner_id = :partner AND endpoint_id = :endpoint",
        partner=tx.partner_id,
        endpoint=endpoint_id,
        until=until,
    )


async def forget(tx: PartnerTx, endpoint_id: UUID) -> None:
    """Deletes all earlier secrets of the endpoint."""
    await execute(
        tx,
        "DELETE FROM webhook_secrets WHERE partner_id = :partner AND endpoint_id = :endpoint",
        partner=tx.partner_id,
        endpoint=endpoint_id,
    )


async def purge(tx: SystemTx, now: datetime) -> int:
    """Deletes expired secrets; returns how many."""
    return await execute(tx, "DELETE FROM webhook_secrets WHERE expires_at <= :now", now=now)
