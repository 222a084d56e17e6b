"""Turns between partners: a partner with many customers gets no more turns than one with a single one."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import text

from app.db import batch_claims, connections, leases
from app.db.batch_claims import WINDOW
from app.db.batches import Claim
from app.domain.actor import ActingFor
from app.domain.ids import PartnerId
from app.kernel.transactions import SystemTx
from tests.support.world import World

FILL = """
WITH p AS (
    INSERT INTO partners (id, name, role, created_at)
    VALUES (:partner, :name, 'direct_bill', :now) RETURNING id
), n AS (
    INSERT INTO connections (id, partner_id, name, platform, entra_tenant_id, client_id, default_group_tag,
        client_secret, customers_due_at, created_at, updated_at)
    SELECT :connection, id, 'Rounds', 'partner_center', gen_random_uuid(), 'x', 'Tag', '', :now, :now, :now
    FROM p RETURNING id, partner_id
), c AS (
    INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, last_turn_at, created_at,
        updated_at)
    SELECT gen_random_uuid(), partner_id, id, gen_random_uuid(), 'c' || k, :now, :now, :now
    FROM n, generate_series(1, :customers) k RETURNING id, partner_id, connection_id
), o AS (
    INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, group_tag,
        device_count, body_digest, created_at, updated_at)
    SELECT gen_random_uuid(), partner_id, id, connection_id, 'partner_center', id::text, 'Tag', 0, '',
        :now, :now FROM c RETURNING id, partner_id, customer_id, connection_id
)
INSERT INTO batches (id, partner_id, order_id, customer_id, connection_id, group_tag, device_count, state,
    due_at, correlation_id, created_at, updated_at)
SELECT gen_random_uuid(), partner_id, id, customer_id, connection_id, 'Tag', 1, 'queued', :now,
    gen_random_uuid(), :now, :now FROM o, generate_series(1, :each)
"""

CONNECTION = """
WITH n AS (
    INSERT INTO connections (id, partner_id, name, platform, entra_tenant_id, client_id, default_group_tag,
        client_secret, customers_due_at, created_at, updated_at)
    VALUES (gen_random_uuid(), :partner, :name, 'partner_center', gen_random_uuid(), 'x', 'Tag', '', :now,
        :now, :now) RETURNING id, partner_id
)
INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, last_turn_at, created_at,
    updated_at)
SELECT gen_random_uuid(), partner_id, id, gen_random_uuid(), 'c', :now, :now, :now FROM n
"""


LOOKS = """
SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_xact_user_tables
WHERE relname IN ('customers', 'batches')
"""


@dataclass(frozen=True)
class Rounds:
    world: World

    async def partner(self, name: str, *, customers: int, each: int) -> PartnerId:
        partner = PartnerId(uuid4())
        values = {"partner": partner, "name": name, "connection": uuid4(), "now": self.world.clock.now()}
        async with self.world.runtime.system_transaction() as tx:
            await tx.session.execute(text(FILL), {**values, "customers": customers, "each": each})
        return partner

    async def _claim(self, tx: SystemTx, lanes: int = 1) -> Claim | None:
        return await batch_claims.claim_one(
            tx,
            owner=uuid4(),
            now=self.world.clock.now(),
            lease=timedelta(hours=1),
            customer_window=1000,
            connection_window=1000,
            lanes=lanes,
        )

    async def claim(self, *, lanes: int = 1000) -> Claim:
        self.world.clock.advance(seconds=0.001)
        async with self.world.runtime.system_transaction() as tx:
            found = await self._claim(tx, lanes)
        assert found is not None
        return found

    async def connection(self, partner: PartnerId, name: str) -> None:
        """Adds a connection with a customer, whose list is due later than the existing ones."""
        values = {"partner": partner, "name": name, "now": self.world.clock.now()}
        async with self.world.runtime.system_transaction() as tx:
            await tx.session.execute(text(CONNECTION), values)

    async def reading(self) -> PartnerId:
        """The partner whose customers list is read next."""
        self.world.clock.advance(seconds=0.001)
        async with self.world.runtime.system_transaction() as tx:
            found = await connections.claim_customers_reading(
                tx,
                owner=uuid4(),
                now=self.world.clock.now(),
                lease=timedelta(hours=1),
                interval=timedelta(hours=1),
            )
        assert found is not None
        async with self.world.runtime.transaction(found) as mine:
            assert await leases.give_up(mine, leases.READINGS, found)
        return PartnerId(found.partner_id)

    async def looks(self) -> int:
        """How often a claim that finds nothing reads the tables of customers and batches."""
        async with self.world.runtime.system_transaction() as tx:
            before = (await tx.session.execute(text(LOOKS))).scalar_one()
            found = await self._claim(tx)
            assert found is None
            return int((await tx.session.execute(text(LOOKS))).scalar_one() - before)

    async def end(self, claim: Claim) -> None:
        """Ends the step, and with it the batch."""
        await self.change("UPDATE batches SET state = 'settled', lease_until = NULL WHERE id = :it", claim.id)

    async def change(self, statement: str, it: UUID) -> None:
        async with self.world.runtime.system_transaction() as tx:
            await tx.session.execute(text(statement), {"it": it})


async def test_partners_take_turns_however_many_customers_each_has(world: World) -> None:
    rounds = Rounds(world)
    large = await rounds.partner("large", customers=60, each=2)
    small = await rounds.partner("small", customers=1, each=20)

    claims = [await rounds.claim() for _ in range(40)]

    assert Counter(claim.partner_id for claim in claims) == {large: 20, small: 20}
    for first, second in zip(claims[::2], claims[1::2], strict=True):
        assert {first.partner_id, second.partner_id} == {large, small}


async def test_customers_of_a_partner_take_turns_though_there_are_more_than_one_claim_compares(
    world: World,
) -> None:
    rounds = Rounds(world)
    customers = WINDOW + 30
    await rounds.partner("distributor", customers=customers, each=2)

    first = [(await rounds.claim()).customer_id for _ in range(customers)]
    second = [(await rounds.claim()).customer_id for _ in range(customers)]

    assert len(set(first)) == len(set(second)) == customers


async def test_customer_with_work_is_found_behind_many_whose_work_is_not_due(world: World) -> None:
    rounds = Rounds(world)
    partner = await rounds.partner("patient", customers=WINDOW + 30, each=1)
    last = await world.select("SELECT id FROM customers ORDER BY id DESC LIMIT 1")
    await rounds.change(
        "UPDATE batches SET due_at = due_at + interval '1 day' WHERE partner_id = :it", partner
    )
    await rounds.change("UPDATE batches SET due_at = created_at WHERE customer_id = :it", last[0]["id"])

    assert (await rounds.claim()).customer_id == last[0]["id"]


async def test_customers_whose_connection_takes_no_more_cost_a_claim_nothing(world: World) -> None:
    rounds = Rounds(world)
    paused = await rounds.partner("paused", customers=WINDOW + 30, each=1)
    await rounds.change(
        "UPDATE connections SET not_before = created_at + interval '1 day' WHERE partner_id = :it", paused
    )
    assert await rounds.looks() < 10
    await rounds.connection(paused, "another one, with no work")
    assert await rounds.looks() < 10
    small = await rounds.partner("small", customers=1, each=1)
    assert (await rounds.claim()).partner_id == small


async def test_claim_waits_for_nobody_who_holds_the_customer(world: World) -> None:
    """For example removals hold it, and any number of them may follow each other."""
    rounds = Rounds(world)
    held = await rounds.partner("held", customers=1, each=2)
    async with world.runtime.transaction(ActingFor(held)) as tx:
        await tx.session.execute(
            text("SELECT FROM customers WHERE partner_id = :it FOR UPDATE"), {"it": held}
        )
        async with asyncio.timeout(45):
            claims = [await rounds.claim() for _ in range(2)]
    assert {claim.partner_id for claim in claims} == {held}


async def test_partner_over_its_share_of_the_lanes_lets_the_others_go_first(world: World) -> None:
    rounds = Rounds(world)
    slow = await rounds.partner("slow", customers=8, each=4)
    quick = await rounds.partner("quick", customers=1, each=5)

    taken = []
    for _ in range(7):
        claim = await rounds.claim(lanes=4)
        taken.append(claim.partner_id)
        if claim.partner_id == quick:
            await rounds.end(claim)
    assert Counter(taken) == {slow: 2, quick: 5}, "two of four lanes are the share of each of two"

    assert [(await rounds.claim(lanes=4)).partner_id for _ in range(2)] == [slow, slow], "no lane idles"


async def test_what_is_under_way_of_one_partner_does_not_keep_another_from_its_turn(world: World) -> None:
    rounds = Rounds(world)
    polling = await rounds.partner("polling", customers=10, each=1)
    fresh = await rounds.partner("fresh", customers=1, each=3)
    await rounds.change("UPDATE batches SET state = 'submitted' WHERE partner_id = :it", polling)

    taken = [(await rounds.claim()).partner_id for _ in range(6)]

    assert Counter(taken) == {polling: 3, fresh: 3}


async def test_lists_of_customers_are_read_in_rounds_over_partners(world: World) -> None:
    rounds = Rounds(world)
    many = await rounds.partner("many", customers=1, each=0)
    for number in range(5):
        await rounds.connection(many, f"more {number}")
    world.clock.advance(seconds=1)
    one = await rounds.partner("one", customers=1, each=0)

    read = [await rounds.reading() for _ in range(7)]

    assert read[:2] == [many, one]
    assert read[2:] == [many] * 5
