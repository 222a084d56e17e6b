"""Current limits: the connections' budgets and breakers, and the work that waits for them.

For people who ask why nothing moves. Reads the database once and the budgets once; changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.db import connections, serial_search, waiting
from app.db.paging import MAX_PAGE_SIZE, PageRequest
from app.db.waiting import OpenOfConnection, OpenOfCustomer
from app.domain import budget
from app.domain.actor import Principal
from app.domain.budget import Breaker, Budget
from app.domain.connection import Connection
from app.domain.devices import SerialNumberSearch
from app.domain.quota import Use
from app.runtime import Runtime
from app.services.access import quotas

SHOWN_CUSTOMERS = 50
"""The most connections listed: those with the most waiting devices."""
SHOWN_CONNECTIONS = MAX_PAGE_SIZE


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    record: Connection
    budget: Budget
    breaker: Breaker
    blocked_until: datetime | None
    """No call is made before then: Retry-After, an open breaker, or a trouble that someone has to fix."""
    work: OpenOfConnection | None
    """Counts of its open batches; None if it has none."""


@dataclass(frozen=True, slots=True)
class Limits:
    now: datetime
    shared: bool
    connections: Sequence[ConnectionLimits]
    customers: Sequence[OpenOfCustomer]
    quotas: Sequence[Use]
    serial_number_search: SerialNumberSearch


async def look(runtime: Runtime, principal: Principal) -> Limits:
    async with runtime.reading(principal) as tx:
        page = await connections.list_page(tx, PageRequest(SHOWN_CONNECTIONS))
        work = {row.connection_id: row for row in await waiting.by_connection(tx)}
        customers = await waiting.by_customer(tx, limit=SHOWN_CUSTOMERS)
        uses = await quotas.look(tx)
        search = await serial_search.mode(tx.session)
    now = runtime.now()
    seen = await runtime.budgets.look([row.id for row in page.items], runtime.now)
    return Limits(
        now=now,
        shared=seen.shared,
        connections=[
            ConnectionLimits(
                record=row,
                budget=seen.budgets[row.id],
                breaker=budget.breaker(seen.budgets[row.id], seen.now),
                blocked_until=_blocked_until(seen.budgets[row.id], row.not_before, now),
                work=work.get(row.id),
            )
            for row in page.items
        ],
        customers=customers,
        quotas=uses,
        serial_number_search=search,
    )


def _blocked_until(known: Budget, not_before: datetime | None, now: datetime) -> datetime | None:
    moments = (known.blocked_until, known.open_until, not_before)
    return max((moment for moment in moments if moment is not None and moment > now), default=None)
