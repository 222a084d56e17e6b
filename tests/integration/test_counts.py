"""Counts of an order's devices: triggers keep them equal to counting the rows."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db import batches, orders, registrations, tables
from app.db.batches import NewBatch
from app.db.engine import load
from app.db.ids import new_row_id, new_row_ids
from app.db.registrations import Outcome, state_of
from app.domain.actor import SYSTEM, Actor
from app.domain.batch import BatchState
from app.domain.connection import ConnectionMode
from app.domain.ids import PartnerId
from app.domain.order import Order
from app.domain.registration import CORRECTIONS, MOVING_WITH_BATCH, TRANSITIONS, RegistrationState
from app.domain.transitions import sources_of
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from tests.support import rows
from tests.support.statements import sent_by
from tests.support.world import World

STATES = sorted(RegistrationState)

KEPT = "SELECT order_id, bucket, state, n FROM registration_counts WHERE n <> 0"
COUNTED = (
    "SELECT order_id, coalesce(batch_id, order_id) AS bucket, state, count(*) AS n "
    "FROM registrations GROUP BY 1, 2, 3"
)


async def truth(world: World, statement: str) -> dict[tuple[UUID, UUID, str], int]:
    return {(r["order_id"], r["bucket"], r["state"]): r["n"] for r in await world.select(statement)}


@dataclass
class Scene:
    """One partner's orders with batches, and random changes of their rows."""

    runtime: Runtime
    partner_id: PartnerId
    customer_id: UUID
    connection_id: UUID
    orders: dict[UUID, list[UUID]]
    next_row: int = 1
    actor: Actor = SYSTEM

    async def add_rows(
        self, tx: PartnerTx, order_id: UUID, batch_id: UUID | None, states: Sequence[str]
    ) -> list[UUID]:
        now, ids = self.runtime.now(), new_row_ids(len(states))
        columns = ("id", "state", "row_number", "partner_id", "order_id", "customer_id", "batch_id")
        numbers = range(self.next_row, self.next_row + len(states))
        of_order = (self.partner_id, order_id, self.customer_id, batch_id, now, now)
        made = [(*row, *of_order) for row in zip(ids, states, numbers, strict=True)]
        await load(tx, tables.registrations, (*columns, "created_at", "updated_at"), made)
        self.next_row += len(states)
        return ids


@pytest.fixture
async def scene(world: World) -> Scene:
    """Three orders of three empty batches each."""
    async with world.runtime.system_transaction() as tx:
        partner_id, example = await rows.fill(tx.session)
        await tx.session.execute(text("DELETE FROM registrations"))
        await tx.session.execute(text("DELETE FROM registration_counts"))
        scene = Scene(
            world.runtime, PartnerId(partner_id), example["customers"]["id"], example["connections"]["id"], {}
        )
    async with world.runtime.transaction(scene) as mine:
        for number in range(3):
            order = {**example["orders"], "id": new_row_id(), "reference": f"R-{number}"}
            await orders.add(mine, Order(**order, has_open_batches=False, mode=ConnectionMode.API))
            owners = (order["id"], scene.customer_id, scene.connection_id)
            now = world.runtime.now()
            new = NewBatch(*owners, "Standard", 1, BatchState.QUEUED, due_at=now)
            scene.orders[order["id"]] = await batches.add(mine, [new] * 3, now)
    return scene


async def change(scene: Scene, tx: PartnerTx, chance: Random) -> str:
    """Makes one statement: of kinds that the product uses, and some that it does not."""
    order_id = chance.choice(list(scene.orders))
    batch_id = chance.choice(scene.orders[order_id])
    now = scene.runtime.now()
    found = await tx.session.execute(
        text("SELECT id FROM registrations WHERE order_id = :o"), {"o": order_id}
    )
    ids = sorted(found.scalars())
    some = chance.sample(ids, min(len(ids), chance.randint(0, 7)))
    match chance.choice(("add", "add", "move", "settle", "rebatch", "anything", "delete", "leave")):
        case "add":
            states = chance.choices(STATES, k=chance.randint(1, 9))
            await scene.add_rows(tx, order_id, chance.choice((batch_id, None)), states)
            return "add"
        case "move":
            await registrations.cancel_batches(tx, scene.orders[order_id][:2], now)
            return "move"
        case "settle":
            outcomes = [Outcome(id, chance.choice(list(RegistrationState))) for id in some]
            await registrations.settle(tx, batch_id, outcomes, now)
            return "settle"
        case "rebatch":
            await registrations.rebatch(tx, batch_id, some, now)
            return "rebatch"
        case "delete":
            gone = some[:2]
            await tx.session.execute(text("DELETE FROM registrations WHERE id = ANY(:ids)"), {"ids": gone})
            return "delete"
        case "leave":
            await tx.session.execute(
                # Its batch is queued; the row's own state must be one that can follow.
                text(
                    "UPDATE registrations SET batch_id = NULL WHERE id = ANY(:ids) "
                    "AND state NOT IN ('processing', 'unknown')"
                ),
                {"ids": some},
            )
            return "leave"
        case other:
            state = chance.choice(STATES)
            sources = sources_of(TRANSITIONS, state) | {old for old, new in CORRECTIONS if new is state}
            await tx.session.execute(
                text(
                    "UPDATE registrations r SET state = :state "
                    "FROM registrations o LEFT JOIN batches b ON b.id = o.batch_id "
                    f"WHERE o.id = r.id AND r.id = ANY(:ids) AND ({state_of('o.state')}) = ANY(:sources)"
                ),
                {"ids": some, "state": state, "sources": sorted(sources)},
            )
            return other


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_to_rows_their_counts_are_what_counting_says(
    world: World, scene: Scene, seed: int
) -> None:
    chance, done = Random(seed), []
    for _ in range(12):
        async with scene.runtime.transaction(scene) as tx:
            done += [await change(scene, tx, chance) for _ in range(5)]
        counted = await truth(world, COUNTED)
        assert await truth(world, KEPT) == counted, done
        async with scene.runtime.transaction(scene) as tx:
            for order_id, kept in (await orders.counts(tx, list(scene.orders))).items():
                # All of the scene's batches are queued, and so are their rows without an outcome.
                of_order = [
                    ("queued" if s in MOVING_WITH_BATCH and bucket != order_id else s, n)
                    for (o, bucket, s), n in counted.items()
                    if o == order_id
                ]
                assert {s: n for s, n in kept.items() if n} == {
                    state: sum(n for s, n in of_order if s == state) for state, _ in of_order
                }
    assert len(set(done)) >= 6
    assert sum(counted.values()) > 10, "the last state of the scene is not a trivial one"


async def test_a_transaction_that_is_rolled_back_leaves_the_counts_as_they_were(
    world: World, scene: Scene
) -> None:
    (order_id, (batch_id, *_)), *_ = scene.orders.items()
    async with scene.runtime.transaction(scene) as tx:
        await scene.add_rows(tx, order_id, batch_id, ["queued"] * 5)
    before = await truth(world, KEPT)

    async def fail() -> None:
        async with scene.runtime.transaction(scene) as tx:
            await scene.add_rows(tx, order_id, batch_id, ["queued"] * 5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await truth(world, KEPT) == before == {(order_id, batch_id, "queued"): 5}


async def test_transactions_at_the_same_time_lose_no_count(world: World, scene: Scene) -> None:
    """Changes of several batches of one order at once, and several changes of one batch at once."""
    mine: list[list[UUID]] = []
    async with scene.runtime.transaction(scene) as tx:
        for order_id, batch_ids in scene.orders.items():
            for batch_id in batch_ids:
                for _ in range(3):
                    ids = await scene.add_rows(tx, order_id, batch_id, ["queued"] * 4)
                    mine.append(ids)
        await tx.session.execute(text("UPDATE batches SET state = 'submitted'"))

    async def work(number: int) -> None:
        ids = mine[number]
        for state in ("submitting", "processing", "registered", "failed"):
            async with scene.runtime.transaction(scene) as tx:
                await tx.session.execute(
                    text("UPDATE registrations SET state = :state WHERE id = ANY(:ids)"),
                    {"state": state, "ids": ids[: 1 + number % 4]},
                )

    await asyncio.gather(*(work(number) for number in range(len(mine))))

    kept = await truth(world, KEPT)
    assert kept == await truth(world, COUNTED)
    assert sum(kept.values()) == 4 * len(mine)
    assert {state for _, _, state in kept} == {"queued", "failed"}


async def test_the_second_of_two_open_transactions_counts_on_top_of_the_first(
    world: World, scene: Scene
) -> None:
    (order_id, (batch_id, *_)), *_ = scene.orders.items()
    async with scene.runtime.transaction(scene) as tx:
        await scene.add_rows(tx, order_id, batch_id, ["queued"] * 2)

    async def add_more() -> None:
        async with scene.runtime.transaction(scene) as other:
            await scene.add_rows(other, order_id, batch_id, ["queued"] * 30)

    async with scene.runtime.transaction(scene) as tx:
        await scene.add_rows(tx, order_id, batch_id, ["queued"] * 400)
        second = asyncio.create_task(add_more())
        await world.until_locked_out()
    await second
    assert await truth(world, KEPT) == {(order_id, batch_id, "queued"): 432}


async def test_an_order_is_deleted_with_its_counts(world: World, scene: Scene) -> None:
    first, second, _ = scene.orders
    async with scene.runtime.transaction(scene) as tx:
        for order_id in (first, second):
            await scene.add_rows(tx, order_id, scene.orders[order_id][0], ["queued", "held"])
            await scene.add_rows(tx, order_id, None, ["invalid"])
        await tx.session.execute(text("DELETE FROM orders WHERE id = :id"), {"id": first})
    assert {order_id for order_id, _, _ in await truth(world, KEPT)} == {second}
    assert await truth(world, KEPT) == await truth(world, COUNTED)


async def plan_of(world: World, scene: Scene, read: Callable[[PartnerTx], Any]) -> list[dict[str, Any]]:
    """The nodes of PostgreSQL's plan for the statement that `read` sends."""
    async with world.runtime.transaction(scene) as tx:
        # The tables are small here: plan as for large ones.
        await tx.session.execute(text("SET LOCAL enable_seqscan = off"))
        async with sent_by(world.runtime.engine, tx.session) as sent:
            await read(tx)
        (statement, parameters), *more = sent.trips
        assert not more, "one statement"
        driver = (await tx.session.get_raw_connection()).driver_connection
        assert driver is not None
        found = await driver.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters)
    return nodes(found[0]["Plan"])


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


async def test_reading_an_orders_counts_looks_at_count_rows_only_and_by_index(
    world: World, scene: Scene
) -> None:
    ids = list(scene.orders)
    plan = await plan_of(world, scene, lambda s: orders.counts(s, ids))
    relations = {node["Relation Name"] for node in plan if "Relation Name" in node}
    assert relations == {"registration_counts", "batches"}
    assert "pk_registration_counts" in {node["Index Name"] for node in plan if "Index Name" in node}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


async def test_reading_batches_counts_never_looks_at_registrations(world: World, scene: Scene) -> None:
    ids = [id for batch_ids in scene.orders.values() for id in batch_ids]
    plan = await plan_of(world, scene, lambda s: batches.counts(s, ids))
    relations = {node["Relation Name"] for node in plan if "Relation Name" in node}
    assert relations == {"registration_counts", "batches"}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


async def test_counts_of_an_unknown_order_are_none(world: World, scene: Scene) -> None:
    unknown = uuid4()
    async with scene.runtime.transaction(scene) as tx:
        assert await orders.counts(tx, [unknown]) == {unknown: {}}
