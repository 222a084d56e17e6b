"""The cost of a claim does not grow with the number of rows, whatever PostgreSQL's statistics say.

Rows and pages are counted, not times, in a transaction with the workers' role.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db.batch_claims import WINDOW
from app.domain.ids import PartnerId
from app.services.imports import work
from app.services.registering import batches
from app.services.webhooks import deliveries
from tests.integration.test_rounds import Rounds
from tests.integration.test_webhook_shares import waiting
from tests.support.plans import Reading, readings, vacuum
from tests.support.world import World

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
"""Partners with less work."""
MOST_ROWS = 600
MOST_PAGES = 2400
"""Pages that one claim may read. Twenty thousand rows fill 400 and more; a claim reads some repeatedly."""

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
    """Stages imports of a new partner, of which every second one is due."""
    values = {"partner": uuid4(), "name": name, "each": each, "now": world.clock.now()}
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text(IMPORTS), values)


async def fill(world: World, kind: str, name: str, each: int) -> None:
    """Creates work for one more partner: 25 endpoints, 50 batches per customer, or imports."""
    match kind:
        case "deliveries":
            await waiting(world, name, endpoints=min(each, 25), each=max(each // 25, 1))
        case "batches":
            await Rounds(world).partner(name, customers=max(each // 50, 2), each=min(each, 50))
        case _:
            await stage(world, name, each)


ONE_BATCH = """
WITH o AS (
    INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, group_tag,
        device_count, body_digest, created_at, updated_at)
    SELECT gen_random_uuid(), c.partner_id, c.id, c.connection_id, 'partner_center', c.id::text, 'Tag', 0, '',
        :now, :now FROM customers c JOIN connections n ON n.id = c.connection_id
    WHERE c.partner_id = :partner AND n.name = :connection
    RETURNING id, partner_id, customer_id, connection_id
)
INSERT INTO batches (id, partner_id, order_id, customer_id, connection_id, group_tag, device_count, state,
    due_at, correlation_id, created_at, updated_at)
SELECT gen_random_uuid(), partner_id, id, customer_id, connection_id, 'Tag', 1, 'queued', :now,
    gen_random_uuid(), :now, :now FROM o RETURNING id
"""
PORTAL = (
    "UPDATE connections SET mode = 'portal', client_id = NULL, client_secret = NULL WHERE partner_id = :it"
)
LATER = "UPDATE batches SET due_at = due_at + interval '1 hour' WHERE partner_id = :it"
PAUSED = "UPDATE connections SET not_before = created_at + interval '1 hour' WHERE partner_id = :it"
UPLOADED = """
UPDATE batches SET state = 'submitted' WHERE partner_id = :it AND id IN (
    SELECT id FROM batches WHERE partner_id = :it LIMIT (SELECT count(*) / 2 FROM batches))
"""


async def one_batch(world: World, partner: PartnerId, connection: str) -> UUID:
    """A due batch of another connection of the partner."""
    await Rounds(world).connection(partner, connection)
    values = {"partner": partner, "connection": connection, "now": world.clock.now()}
    async with world.runtime.system_transaction() as tx:
        found: UUID = (await tx.session.execute(text(ONE_BATCH), values)).scalar_one()
    return found


CLAIMS: dict[str, Callable[[World], Awaitable[object]]] = {
    "deliveries": lambda world: deliveries.claim_next(world.runtime),
    "batches": lambda world: batches.advance_next(world.runtime),
    "imports": lambda world: work.advance_next(world.runtime),
}
ENDED = {
    "deliveries": "UPDATE deliveries SET state = 'succeeded', owner = NULL, lease_until = NULL",
    "batches": "UPDATE batches SET state = CASE state WHEN 'held' THEN 'cancelled' ELSE 'settled' END, "
    "owner = NULL, lease_until = NULL",
    "imports": "UPDATE imports SET state = 'discarded', due_at = NULL, owner = NULL, lease_until = NULL",
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
        await fill(world, kind, f"other {number}", MANY // 100)
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


async def bounded_claim(world: World) -> UUID:
    """Makes a worker's next claim, and checks that its cost is as usual."""
    async with readings(world, "claimed AS") as found:
        claim = await Rounds(world).claim()
    for each in found:
        assert each.rows < MOST_ROWS, str(each)
        assert each.pages < MOST_PAGES, str(each)
    return claim.id


async def test_batches_of_a_portal_cost_a_claim_nothing(world: World) -> None:
    """They wait for a person for weeks, queued or uploaded, and are due before all others."""
    rounds = Rounds(world)
    await vacuum(world, *LOOKED_AT)
    partner = await rounds.partner("portal", customers=2 * WINDOW, each=20)
    await rounds.change(PORTAL, partner)
    await rounds.change(UPLOADED, partner)
    world.clock.advance(seconds=1)
    due = await one_batch(world, partner, "an API")
    await vacuum(world, "batches", analyze=False)

    assert await bounded_claim(world) == due


async def test_batches_that_are_not_due_yet_are_stepped_over_in_a_bounded_number(world: World) -> None:
    rounds = Rounds(world)
    await vacuum(world, *LOOKED_AT)
    idle = [await rounds.partner(f"idle {number}", customers=WINDOW, each=4) for number in range(4)]
    for partner in idle:
        await rounds.change(LATER, partner)
    patient = await rounds.partner("patient", customers=10 * WINDOW, each=2)
    await rounds.change(LATER, patient)
    due = await one_batch(world, patient, "another one")
    await vacuum(world, "batches", analyze=False)

    assert await bounded_claim(world) == due


async def test_work_behind_more_closed_connections_than_a_claim_looks_at_is_found_by_the_next_claims(
    world: World,
) -> None:
    """The next claim does not examine again what one claim examined without success."""
    rounds = Rounds(world)
    partner = await rounds.partner("many connections", customers=0, each=0)
    names = [f"closed {number:03}" for number in range(2 * WINDOW + WINDOW // 2)]
    for name in names:
        await one_batch(world, partner, name)
    await rounds.change(PAUSED, partner)
    world.clock.advance(seconds=1)
    due = await one_batch(world, partner, "open")
    neighbour = await rounds.partner("neighbour", customers=1, each=8)

    claims = [await rounds.claim() for _ in range(8)]

    assert [claim.id for claim in claims if claim.partner_id == partner] == [due]
    assert {claim.partner_id for claim in claims} == {partner, neighbour}
