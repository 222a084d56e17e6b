"""Races with real concurrency: several processes' engines on one database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app.db import batch_claims, group_tags
from app.db import customers as customers_table
from app.db import orders as orders_table
from app.db.batches import Claim
from app.domain.consent import Change, ConsentState, Evidence
from app.domain.errors import Conflict
from app.domain.order import OrderState
from app.services.consents import consents
from app.services.orders import orders
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples

ROUNDS = 8


@asynccontextmanager
async def _processes(world: World, count: int, **settings: Any) -> AsyncIterator[list[World]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(world.another(customer_window=9, **settings))
            for _ in range(count)
        ]


async def _claim(world: World) -> Claim | None:
    async with world.runtime.system_transaction() as tx:
        return await batch_claims.claim_one(
            tx,
            owner=uuid4(),
            now=world.clock.now(),
            lease=timedelta(seconds=60),
            customer_window=4,
            connection_window=32,
        )


async def test_of_many_workers_exactly_one_gets_a_batch(world: World) -> None:
    partner = await world.partner()
    async with _processes(world, 4) as processes:
        await asyncio.gather(*(_claim(process) for process in processes))  # opens the connections
        for number in range(ROUNDS):
            await world.order(partner, tuples(1, f"RACE{number}"))
            claims = await asyncio.gather(*(_claim(process) for process in processes * 2))
            assert len([claim for claim in claims if claim is not None]) == 1
            await world.select("UPDATE batches SET state = 'settled' RETURNING id")


async def test_many_workers_get_many_batches_and_none_of_them_twice(world: World) -> None:
    partner = await world.partner()
    for number in range(4):
        await world.order(partner, tuples(1, f"RACE{number}"))
    async with _processes(world, 4) as processes:
        claims = [claim for _ in range(4) for claim in await asyncio.gather(*map(_claim, processes))]

    claimed = [claim.id for claim in claims if claim is not None]
    assert len(claimed) == len(set(claimed)) == 4


async def test_a_worker_whose_lease_has_ended_writes_nothing_after_another_took_over(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "hold", "phase": "after"})
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id
    slow = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    async with world.another() as other:
        await other.work()
    before = await world.dump()

    await world.let_go()
    await slow

    assert await world.dump() == before
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)


async def test_an_answer_to_a_question_for_the_status_comes_too_late_after_a_takeover(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(3))
    await batches.advance_next(world.runtime)
    world.clock.advance(seconds=5)
    await world.arm({"operation": "status", "kind": "hold", "phase": "after"})
    slow = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    async with world.another() as other:
        await other.work()
    before = await world.dump()

    await world.let_go()
    await slow

    assert await world.dump() == before, "both had the outcomes; they are told once"
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_worker_whose_lease_has_ended_does_not_disturb_the_one_that_is_at_it(world: World) -> None:
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "hold", "phase": "before", "then": "drop"},
        {"operation": "create", "kind": "hold", "phase": "after"},
    )
    order = await world.order(partner, tuples(3))
    slow = asyncio.create_task(batches.advance_next(world.runtime))
    [first] = await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    async with world.another() as other:
        second = asyncio.create_task(batches.advance_next(other.runtime))
        await world.until_held_open(2)
        before = await world.batches(order.view.record.id)
        await world.let_go(first["id"])
        await slow
        assert await world.batches(order.view.record.id) == before, "its failure is not written"
        await world.let_go()
        await second
        await other.work()

    await assert_agreement(world, partner, order.view.record.id)


async def test_an_order_is_cancelled_or_sent_but_never_both(world: World) -> None:
    partner = await world.partner()
    ends: set[OrderState] = set()
    async with _processes(world, 3) as processes:
        for number in range(ROUNDS):
            devices = [
                device
                for tag in ("A", "B", "C")
                for device in tuples(2, f"C{number}{tag}", group_tag=f"{tag}{number}")
            ]
            order = await world.order(partner, devices)
            order_id = order.view.record.id

            async def cancel(order_id: UUID = order_id, turns: int = number) -> None:
                for _ in range(turns):
                    await world.select("SELECT 1")
                with suppress(Conflict):  # it was sent completely
                    await orders.cancel(world.runtime, partner, order_id)

            await asyncio.gather(*(batches.advance_next(p.runtime) for p in processes), cancel())
            await world.work()
            ends.add((await world.view(partner, order_id)).state)
            await assert_agreement(world, partner, order_id)
    assert ends <= {OrderState.CANCELLED, OrderState.COMPLETED, OrderState.COMPLETED_WITH_ERRORS}


async def test_whoever_holds_an_order_does_not_stop_a_worker_from_writing_its_intent(world: World) -> None:
    """Otherwise a cancellation and a worker would deadlock: order, then batch, and the reverse."""
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    async with world.runtime.transaction(partner) as tx:
        await orders_table.lock(tx, order.view.record.id)
        async with asyncio.timeout(45):
            await batches.advance_next(world.runtime)

    assert [b["state"] for b in await world.batches(order.view.record.id)] == ["submitted"]


async def test_two_batches_that_find_a_tag_missing_at_the_same_moment_do_not_both_create_it(
    world: World,
) -> None:
    partner = await world.partner()
    first = await world.order(partner, tuples(1, "ONE"))
    await world.order(partner, tuples(1, "TWO"))
    [ours] = await world.batches(first.view.record.id)
    now = world.clock.now()
    await world.select("UPDATE batches SET due_at = :at WHERE id = :id RETURNING id", at=now, id=ours["id"])
    async with world.runtime.transaction(partner) as tx:  # an earlier look-up made the tag's row
        await group_tags.lock(tx, partner.customer_id, "Standard", now)
    async with world.runtime.transaction(partner) as tx:
        await group_tags.lock(tx, partner.customer_id, "Standard", now)
        claim = await _claim(world)  # the first is deciding, and holds the tag
        assert claim is not None
        second = asyncio.create_task(batches.advance_next(world.runtime))
        await world.until_locked_out()
        await group_tags.set_creating(tx, partner.customer_id, "Standard", claim.id, now)
    await second

    assert not await world.calls("create"), "the other one waits for the creator"


async def _change(world: World, partner: Partner, state: ConsentState) -> None:
    async with world.runtime.transaction(partner) as tx:
        await consents.apply_change(
            world.runtime, tx, partner.customer_id, Change(state, Evidence.CUSTOMERS_LIST)
        )


async def test_a_batch_is_held_or_sent_when_consent_is_revoked_at_that_moment(world: World) -> None:
    partner = await world.partner()
    async with _processes(world, 3) as processes:
        for number in range(ROUNDS):
            made = [await world.order(partner, tuples(1, f"V{number}{n}")) for n in range(3)]

            async def revoke(turns: int = number) -> None:
                for _ in range(turns):
                    await world.select("SELECT 1")
                await _change(world, partner, ConsentState.REVOKED)

            await asyncio.gather(*(batches.advance_next(p.runtime) for p in processes), revoke())
            sent = {device["serial"] for device in await world.devices_at_microsoft(partner.tenant_id)}
            for order in made:
                [batch] = await world.batches(order.view.record.id)
                [row] = await world.rows(partner, order.view.record.id)
                assert (batch["state"] == "held") == (row["state"] == "held")
                assert (batch["state"] == "held") == (row["serial_number"] not in sent), batch["state"]
            await _change(world, partner, ConsentState.GRANTED)
            await world.work()
            for order in made:
                assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
                await assert_agreement(world, partner, order.view.record.id)


async def test_two_who_try_again_at_once_make_one_set_of_batches(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "every": 1, "code": "812"})
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id
    await world.work()

    async with _processes(world, 2) as processes:
        ends = await asyncio.gather(
            *(orders.retry_failed(p.runtime, partner, order_id) for p in processes * 2),
            return_exceptions=True,
        )

    assert sorted(type(end).__name__ for end in ends) == ["Conflict", "Conflict", "Conflict", "Retry"]
    assert [b["device_count"] for b in await world.batches(order_id)] == [3, 3]
    await world.work()
    await assert_agreement(world, partner, order_id, endings=2, settlings=2)


async def test_trying_again_and_a_change_of_consent_do_not_wait_for_each_other(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "every": 1, "code": "812"})
    made = await world.order(partner, [*tuples(1, "BAD"), *tuples(1, "LATER", group_tag="Other")])
    order_id = made.view.record.id
    await batches.advance_next(world.runtime)
    world.clock.advance(seconds=5)
    failed, waiting = await world.batches(order_id)
    while failed["state"] != "settled":
        assert await batches.advance_next(world.runtime) is not None
        failed, waiting = await world.batches(order_id)

    # The change of consent has locked it, and wants the order next.
    async with asyncio.TaskGroup() as tasks, world.runtime.transaction(partner) as tx:
        await customers_table.consent_for_update(tx, partner.customer_id)
        trying = tasks.create_task(orders.retry_failed(world.runtime, partner, order_id))
        await world.until_locked_out()
        await tx.session.execute(text("SET LOCAL lock_timeout = '200ms'"))
        assert await orders_table.lock(tx, order_id), "nobody who waits has it"
    assert trying.result().retried == 1
    assert waiting["state"] == "queued"


async def test_batches_that_finish_together_announce_the_orders_end_once(world: World) -> None:
    partner = await world.partner()
    tags = [f"T{number}" for number in range(8)]
    devices = [device for tag in tags for device in tuples(3, tag, group_tag=tag)]
    order = await world.order(partner, devices)
    order_id = order.view.record.id
    # No job is polled before all are sent, however slow the machine is.
    async with _processes(world, 4, poll_first_s=60) as processes:
        while {b["state"] for b in await world.batches(order_id)} != {"submitted"}:
            await batches.advance_next(processes[0].runtime)
        world.clock.advance(seconds=61)
        await asyncio.gather(*(batches.advance_next(p.runtime) for p in processes * 2))

    assert {b["state"] for b in await world.batches(order_id)} == {"settled"}
    await assert_agreement(world, partner, order_id)
