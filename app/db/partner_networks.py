"""Networks that one partner's webhooks may go to, although they are not public."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.sql import Record, execute, fetch_all
from app.domain.address import Allowance
from app.domain.ids import PartnerId


async def of_partner(session: AsyncConnection, partner_id: PartnerId) -> list[Record]:
    return await fetch_all(
        session,
        "SELECT network, first_port, last_port, created_at FROM partner_networks "
        "WHERE partner_id = :partner ORDER BY network, first_port, last_port",
        partner=partner_id,
    )


async def add(session: AsyncConnection, partner_id: PartnerId, allowed: Allowance, now: datetime) -> None:
    await execute(
        session,
        "INSERT INTO partner_networks (partner_id, network, first_port, last_port, created_at) "
        "VALUES (:partner, :network, :first, :last, :now) ON CONFLICT DO NOTHING",
        partner=partner_id,
        network=str(allowed.network),
        first=allowed.first_port,
        last=allowed.last_port,
        now=now,
    )


async def remove(session: AsyncConnection, partner_id: PartnerId, allowed: Allowance) -> bool:
    """False: it was not there."""
    return bool(
        await execute(
            session,
            "DELETE FROM partner_networks WHERE partner_id = :partner AND network = :network "
            "AND first_port = :first AND last_port = :last",
            partner=partner_id,
            network=str(allowed.network),
            first=allowed.first_port,
            last=allowed.last_port,
        )
    )
