"""Keeps the backlogs of webhook endpoints within bounds of size and age."""

from typing import Final

from app.db import backlogs
from app.domain.actor import ActingFor, Principal
from app.domain.endpoint_health import DEGRADED_AFTER
from app.domain.quota import Quota
from app.domain.schedule import WEBHOOK_LADDER
from app.kernel.telemetry import logger
from app.runtime import Runtime
from app.services.access import quotas

log = logger("webhooks")

CHUNK: Final = 5000
"""Deliveries given up in one transaction."""
CHUNKS: Final = 100


async def look_after(runtime: Runtime) -> int:
    """Marks endpoints with a full backlog, and gives up deliveries that have waited as long as the whole
    ladder lasts without an attempt. Returns how many it gave up."""
    async with runtime.system_transaction() as tx:
        partners = await backlogs.partners_waiting(tx)
    for partner_id in partners:
        await _look(runtime, ActingFor(partner_id))
    return await _give_up(runtime)


async def _look(runtime: Runtime, principal: Principal) -> None:
    """Marks the partner's endpoints. The quota of waiting deliveries is divided equally among them."""
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        whole = await quotas.limit_of(tx, Quota.WAITING_EVENTS)
        bound = max(1, whole // await quotas.limit_of(tx, Quota.WEBHOOK_ENDPOINTS))
        found = await backlogs.of_partner(tx)
        full = [row.endpoint_id for row in found if row.full_since is None and row.waiting >= bound]
        # Unmark at half of the bound: otherwise an endpoint at its bound would be marked and unmarked with
        # every delivery.
        over = [row.endpoint_id for row in found if row.full_since and 2 * row.waiting < bound]
        await backlogs.mark(tx, full, now)
        await backlogs.mark(tx, over, None)
    for endpoint_id in full:
        log.warning("webhook_backlog_full", endpoint_id=str(endpoint_id), bound=bound)


async def _give_up(runtime: Runtime) -> int:
    now = runtime.now()
    before, given_up = now - sum(WEBHOOK_LADDER, start=WEBHOOK_LADDER[0]), 0
    for _ in range(CHUNKS):
        async with runtime.system_transaction() as tx:
            ended = await backlogs.give_up(
                tx, due_before=before, failures=DEGRADED_AFTER, now=now, limit=CHUNK
            )
        given_up += ended
        if ended < CHUNK:
            break
    if given_up:
        log.warning("deliveries_given_up", deliveries=given_up)
    return given_up
