"""A claim reads as much among twenty thousand rows as among a few, whatever PostgreSQL believes about them.

Rows and pages are counted, not times; in the transaction and with the role that the workers have.
"""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.services import batches, import_work, webhooks
from tests.integration.test_rounds import Rounds
from tests.integration.test_webhook_shares import waiting
from tests.plans import Reading, readings, vacuum
from tests.world import World

LOOKED_AT = (
    "batches",
    "connections",
    "customers",
    "deliveries",
    "imports",
    "partner_turns",
    "webhook_endpoints",
    "webhook_pauses",
)
MANY = 20_000
OTHERS = 20
"""Partners with a little of everything."""
MOST_ROWS = 600
MOST_PAGES = 2400
"""Of one claim. Of twenty thousand rows there are 400 pages and more, and a claim comes back to a page."""

IMPORTS = """
WITH p AS (
    INSERT INTO partners (id, name, role, created_at)
    VALUES (:partner, :name, 'direct_bill', :now) RETURNING id
)
INSERT INTO imports (id, partner_id, state, reference, counts, due_at, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), id, CASE WHEN k % 2 = 0 THEN 'uploaded' ELSE 'ready' END, 'I', '{}',
    CAST(:now AS timestamptz) + CASE WHEN k % 2 = 0 THEN interval '0' ELSE interval '1 day' END,
    :now, :now, CAST(:now AS timestamptz) + interval '1 day'
FROM p, generate_series(1, :each) k
"""


async def stage(world: World, name: str, each: int) -> None:
    """Imports of a new partner, every second of them due."""
    values = {"partner": uuid4(), "name": name, "each": each, "now": world.clock.now()}
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text(IMPORTS), values)


async def fill(world: World, kind: str, name: str, each: int) -> None:
    """So much work of one more partner: 25 endpoints, or 50 batches for each customer, or imports."""
    match kind:
        case "deliveries":
            await waiting(world, name, endpoints=min(each, 25), each=max(each // 25, 1))
        case "batches":
            await Rounds(world).partner(name, customers=max(each // 50, 2), each=min(each, 50))
        case _:
            await stage(world, name, each)


CLAIMS: dict[str, Callable[[World], Awaitable[object]]] = {
    "deliveries": lambda world: webhooks.claim_next(world.runtime),
    "batches": lambda world: batches.advance_next(world.runtime),
    "imports": lambda world: import_work.advance_next(world.runtime),
}
ENDED = {
    "deliveries": "UPDATE deliveries SET state = 'succeeded', owner = NULL, lease_until = NULL",
    "batches": "UPDATE batches SET state = 'settled', owner = NULL, lease_until = NULL",
    "imports": "UPDATE imports SET state = 'expired', due_at = NULL, owner = NULL, lease_until = NULL",
}


async def read(world: World, kind: str) -> list[Reading]:
    async with readings(world, "claimed AS") as found:
        for _ in range(2):
            world.clock.advance(seconds=0.001)
            assert await CLAIMS[kind](world)
    return found


@pytest.mark.parametrize("kind", CLAIMS)
async def test_claim_reads_few_rows_with_statistics_of_any_age(world: World, kind: str) -> None:
    await vacuum(world, *LOOKED_AT)
    await fill(world, kind, "large", MANY)
    for number in range(OTHERS):
        await fill(world, kind, f"small {number}", 4)
    of_empty_tables = await read(world, kind)

    await vacuum(world, *LOOKED_AT)
    fresh = await read(world, kind)

    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text(ENDED[kind]))
    await vacuum(world, *LOOKED_AT, analyze=False)
    await fill(world, kind, "next", MANY // 10)
    of_what_was_there_before = await read(world, kind)

    for found in (*of_empty_tables, *fresh, *of_what_was_there_before):
        assert found.rows < MOST_ROWS, str(found)
        assert found.pages < MOST_PAGES, str(found)
