"""Networks that one partner's webhooks may call although they are not public."""

from dataclasses import dataclass
from datetime import datetime

from app.db.sql import execute, fetch_all_as
from app.domain.address import Allowance
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class AllowedNetwork:
    network: str
    first_port: int
    last_port: int
    created_at: datetime


async def of_partner(tx: PartnerTx) -> list[AllowedNetwork]:
    return await fetch_all_as(
        tx,
        AllowedNetwork,
        "SELECT network, first_port, last_port, created_at FROM partner_networks "
        "WHERE partner_id = :partner ORDER BY network, first_port, last_port",
        partner=tx.partner_id,
    )


async def add(tx: PartnerTx, allowed: Allowance, now: datetime) -> None:
    await execute(
        tx,
        "INSERT INTO partner_networks (partner_id, network, first_port, last_port, created_at) "
        "VALUES (:partner, :network, :first, :last, :now) ON CONFLICT DO NOTHING",
        partner=tx.partner_id,
        network=str(allowed.network),
        first=allowed.first_port,
        last=allowed.last_port,
        now=now,
    )


async def remove(tx: PartnerTx, allowed: Allowance) -> bool:
    """Removes the network. False if it was not there."""
    return bool(
        await execute(
            tx,
            "DELETE FROM partner_networks WHERE partner_id = :partner AND network = :network "
            "AND first_port = :first AND last_port = :last",
            partner=tx.partner_id,
            network=str(allowed.network),
            first=allowed.first_port,
            last=allowed.last_port,
        )
    )
