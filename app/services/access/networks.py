"""Private networks that one partner's webhooks may reach, besides those allowed to every partner."""

from collections.abc import Sequence
from ipaddress import ip_network

from app.db import partner_networks
from app.domain.actor import Principal
from app.domain.address import Allowance
from app.domain.errors import Unprocessable
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

log = logger("networks")


async def allowed_to(tx: PartnerTx) -> tuple[Allowance, ...]:
    return tuple(
        Allowance(ip_network(row.network), row.first_port, row.last_port)
        for row in await partner_networks.of_partner(tx)
    )


async def look_at(runtime: Runtime, principal: Principal) -> tuple[Allowance, ...]:
    async with runtime.reading(principal) as tx:
        return await allowed_to(tx)


async def change(
    runtime: Runtime, principal: Principal, *, allow: Sequence[Allowance], forbid: Sequence[Allowance]
) -> tuple[Allowance, ...]:
    """Changes the partner's networks from the next connection on, and returns them. Raises Unprocessable."""
    async with runtime.transaction(principal) as tx:
        for allowed in forbid:
            if not await partner_networks.remove(tx, allowed):
                raise Unprocessable(
                    "invalid_parameter",
                    f"{allowed} is not allowed for this partner alone. Nothing was changed. Without options "
                    "the command shows what is allowed.",
                )
        for allowed in allow:
            await partner_networks.add(tx, allowed, runtime.now())
        found = await allowed_to(tx)
    if allow or forbid:
        log.info(
            "partner_networks_changed",
            partner_id=str(principal.partner_id),
            networks=[str(each) for each in found],
        )
    return found
