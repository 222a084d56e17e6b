"""Wrong clocks: a machine's own clock has no effect, and a jump of the database's does no lasting harm.

The first tests run whole machines whose clocks are minutes or an hour off. The others let the time itself
jump in the middle of a step, as when the database server's clock is set.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.db import batch_claims as stored
from app.db import connections, customers
from app.db.batches import Claim
from app.db.clock import READ_EVERY, SLOWEST, DatabaseClock
from app.domain.budget import Priority
from app.domain.order import OrderState
from app.kernel.budgets import ConnectionGate
from app.runtime import Runtime
from app.services.access import idempotency
from app.services.connections import customer_readings
from app.services.operations import health, sweep
from app.services.registering import batches
from app.services.webhooks import deliveries
from tests.support.agreement import assert_agreement
from tests.support.receiver import open_receiver, subscribe
from tests.support.world import Clock, World, tuples

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
OFF = [HOUR, -HOUR, timedelta(minutes=5), -timedelta(minutes=5)]


@asynccontextmanager
async def machine(world: World, off: timedelta, **changes: Any) -> AsyncIterator[Runtime]:
    """A process on a machine whose own clock is off by this much; everything else is as in production."""
    settings = world.runtime.settings.model_copy(update=changes)
    runtime = await Runtime.open(settings, process="another")
    runtime.clock.local = lambda: datetime.now(UTC) + off
    try:
        yield runtime
    finally:
        await runtime.close()


async def claim(runtime: Runtime) -> Claim:
    """A claim by a worker that dies at once."""
    async with runtime.system_transaction() as tx:
        found = await stored.claim_one(
            tx,
            owner=uuid4(),
            now=runtime.now(),
            lease=runtime.settings.lease,
            customer_window=4,
            connection_window=32,
        )
    assert found is not None
    return found


async def _uploads(world: World) -> list[dict[str, Any]]:
    return [*await world.calls("create"), *await world.calls("append")]


# --- a machine's own clock ------------------------------------------------------------------------


async def test_the_time_is_the_databases_whatever_happens_to_this_machines_clock(world: World) -> None:
    local, steady = Clock(), 0.0
    clock = DatabaseClock(steady=lambda: steady, local=local.now)
    local.offset = HOUR
    assert abs(clock.now() - datetime.now(UTC) - HOUR) < SECOND, "nobody has been asked yet"
    async with world.runtime.system_transaction() as tx:
        await clock.read(tx.session)
        assert abs(clock.now() - datetime.now(UTC)) < SECOND
        read = clock.now()
        local.offset = -HOUR
        steady = READ_EVERY - 0.001
        assert (clock.now() - read, clock.is_due) == (timedelta(seconds=steady), False)
        steady += 0.002
        assert (clock.now() - read, clock.is_due) == (timedelta(seconds=steady), True)
        steady = READ_EVERY
        await clock.read(tx.session)
        assert clock.is_due is False
        assert abs(clock.now() - datetime.now(UTC)) < SECOND


async def test_a_reading_that_took_long_is_not_believed_where_there_is_a_better_one(world: World) -> None:
    moments = iter([0.0, 0.0, 100.0, 100.0 + SLOWEST * 1.1, 100.0, 200.0, 200.0 + SLOWEST * 0.9, 200.0])
    clock = DatabaseClock(steady=lambda: next(moments))
    async with world.runtime.system_transaction() as tx:
        await clock.read(tx.session)
        await clock.read(tx.session)
        assert abs(clock.now() - datetime.now(UTC) - timedelta(seconds=100)) < SECOND, "carried on"
        await clock.read(tx.session)
        assert abs(clock.now() - datetime.now(UTC)) < SECOND, "read"


@pytest.mark.parametrize("off", OFF, ids=str)
async def test_a_lease_of_a_worker_with_a_wrong_clock_ends_when_it_should(
    world: World, off: timedelta
) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    async with machine(world, off, lease_s=30.0) as wrong:
        claimed = await claim(wrong)
        assert abs(claimed.lease_until - datetime.now(UTC) - 30 * SECOND) < SECOND
        assert await batches.advance_next(world.runtime) is None, "it is not taken away"
        world.clock.advance(seconds=31)
        assert await batches.advance_next(world.runtime) is not None
    await world.work()
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED


async def test_workers_that_disagree_by_minutes_share_work_and_send_nothing_twice(world: World) -> None:
    await world.switch(processing_min_ms=20, processing_max_ms=60)
    partner, neighbour = await world.partner(), await world.partner()
    quick = {"poll_first_s": 0.05, "poll_ceiling_s": 0.1}
    made = [
        (owner, (await world.order(owner, tuples(2, f"{owner.name[-1]}O{number}"))).view.record.id)
        for number in range(4)
        for owner in (partner, neighbour)
    ]

    async def work(runtime: Runtime) -> int:
        steps = 0
        async with asyncio.timeout(45):
            while await _open_batches(world):
                if await batches.advance_next(runtime) is None:
                    await sweep.sweep(runtime)
                    await asyncio.sleep(0.02)
                else:
                    steps += 1
        return steps

    async with (
        machine(world, timedelta(minutes=7), **quick) as ahead,
        machine(world, -timedelta(minutes=9), **quick) as behind,
    ):
        steps = await asyncio.gather(work(ahead), work(behind), work(ahead), work(behind))

    assert steps[0] + steps[2] > 0
    assert steps[1] + steps[3] > 0
    assert len(await _uploads(world)) == len(made), "one call a batch"
    for owner, order_id in made:
        assert (await world.view(owner, order_id)).state is OrderState.COMPLETED
        await assert_agreement(world, owner, order_id)


async def _open_batches(world: World) -> int:
    [row] = await world.select("SELECT count(*) AS n FROM batches WHERE state <> 'settled'")
    return int(row["n"])


@pytest.mark.parametrize("off", OFF, ids=str)
async def test_a_webhook_of_a_machine_with_a_wrong_clock_is_signed_for_the_right_moment(
    world: World, off: timedelta
) -> None:
    partner = await world.partner(consented=False)
    async with open_receiver(world) as receiver, machine(world, off) as wrong:
        endpoint = await subscribe(world, partner, receiver.url(), ["order.held"])
        await world.order(partner, tuples(1), customer_id=partner.other_customer_id)
        assert await deliveries.deliver_next(wrong)
        [message] = receiver.messages
        message.verify(endpoint.secret)
        assert abs(int(message.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 2


@pytest.mark.parametrize("off", OFF, ids=str)
async def test_a_worker_with_a_wrong_clock_counts_as_alive_and_as_gone_like_any_other(
    world: World, off: timedelta
) -> None:
    async with machine(world, off) as wrong:
        await sweep.beat(wrong)
    assert (await health.look(world.runtime)).worker == "alive"
    world.clock.offset += world.runtime.settings.silence + SECOND
    assert (await health.look(world.runtime)).worker.startswith("last seen")


@pytest.mark.parametrize("off", OFF, ids=str)
async def test_a_key_and_a_token_lease_of_a_dead_process_with_a_wrong_clock_come_free_in_time(
    world: World, off: timedelta
) -> None:
    partner = await world.partner(consented=False)
    async with machine(world, off) as wrong:
        await idempotency.begin(wrong, partner, "k", b"order")
        async with wrong.transaction(partner) as tx:
            await connections.claim_token(
                tx, partner.connection_id, owner=uuid4(), now=wrong.now(), lease=30 * SECOND
            )
    world.clock.advance(seconds=31)
    await idempotency.begin(world.runtime, partner, "k", b"order")
    async with world.runtime.transaction(partner) as tx:
        taken = await connections.claim_token(
            tx, partner.connection_id, owner=uuid4(), now=world.runtime.now(), lease=30 * SECOND
        )
    assert taken is not None


# --- the time itself jumps ------------------------------------------------------------------------


@dataclass
class Jumping:
    """Another worker whose time can jump; the world's own time stays right."""

    world: World
    clock: Clock

    @property
    def runtime(self) -> Runtime:
        return replace(self.world.runtime, now=self.clock.now)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
@pytest.mark.parametrize(
    ("operation", "phase"),
    [("list_batches", "before"), ("create", "before"), ("create", "after"), ("status", "after")],
    ids=["claimed", "submitting", "submitted", "polled"],
)
async def test_time_that_jumps_in_the_middle_of_a_step_loses_nothing_and_sends_nothing_twice(
    world: World, jump: timedelta, operation: str, phase: str
) -> None:
    partner = await world.partner()
    order_id = (await world.order(partner, tuples(3))).view.record.id
    jumping = Jumping(world, Clock())
    if operation == "status":
        await batches.advance_next(jumping.runtime)
        jumping.clock.advance(seconds=2)
        world.clock.advance(seconds=2)
    await world.arm({"operation": operation, "kind": "hold", "phase": phase})
    step = asyncio.create_task(batches.advance_next(jumping.runtime))
    await world.until_held_open()
    jumping.clock.offset += jump
    await _nobody_else_takes_it(world)
    await world.let_go()
    await step

    # The worker with the right time finds what was written for an hour later, and both continue in turn.
    begun = world.clock.now()
    await sweep.sweep(world.runtime)
    await batches.advance_next(jumping.runtime)
    await sweep.sweep(world.runtime)
    await world.work()

    assert world.clock.now() - begun < timedelta(minutes=5), "nothing waits for the hour to pass"
    assert len(await _uploads(world)) == 1
    assert {row["state"] for row in await world.rows(partner, order_id)} == {"registered"}
    await assert_agreement(world, partner, order_id)


async def _nobody_else_takes_it(world: World) -> None:
    await sweep.sweep(world.runtime)
    assert await batches.advance_next(world.runtime) is None


async def test_leases_written_an_hour_ahead_are_cut_to_one_lease_and_not_to_less(world: World) -> None:
    """A working worker keeps its batch; a dead one holds it no longer than any other."""
    partner = await world.partner()
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.accepted"])
        for number in range(3):
            await world.order(partner, tuples(1, f"L{number}"))
        world.clock.offset = HOUR
        for _ in range(2):
            await claim(world.runtime)
        async with world.runtime.transaction(partner) as tx:
            await connections.claim_token(
                tx, partner.connection_id, owner=uuid4(), now=world.runtime.now(), lease=HOUR
            )
        receiver.usual = replace(receiver.usual, hold=asyncio.Event())
        delivering = asyncio.create_task(deliveries.deliver_next(world.runtime))
        async with asyncio.timeout(45):
            while not receiver.messages:  # noqa: ASYNC110 - a plain list
                await asyncio.sleep(0.01)
        world.clock.offset = timedelta()
        now, lease = world.clock.now(), world.runtime.settings.lease

        await sweep.sweep(world.runtime)
        await sweep.tidy(world.runtime)

        for statement in (
            "SELECT lease_until FROM batches WHERE lease_until IS NOT NULL",
            "SELECT lease_until FROM deliveries WHERE lease_until IS NOT NULL",
            "SELECT token_lease_until AS lease_until FROM connections WHERE token_lease_until IS NOT NULL",
        ):
            found = [row["lease_until"] for row in await world.select(statement)]
            assert found
            assert all(now + lease / 4 < until <= now + lease + 5 * SECOND for until in found), statement
        assert receiver.usual.hold is not None
        receiver.usual.hold.set()
        await delivering
    await world.work()
    [row] = await world.select("SELECT count(*) AS n FROM batches WHERE state = 'settled'")
    assert row["n"] == 3


async def test_a_clock_that_is_right_is_never_corrected(world: World) -> None:
    await world.switch(never_finish_rate=1.0)
    partner = await world.partner()
    await world.order(partner, tuples(1))
    await world.order(partner, tuples(1, "Q"), customer_id=partner.customer_id)
    await batches.advance_next(world.runtime)
    await claim(world.runtime)
    before = await world.select("SELECT id, due_at, lease_until, updated_at FROM batches ORDER BY id")
    await sweep.sweep(world.runtime)
    await sweep.tidy(world.runtime)
    assert await world.select("SELECT id, due_at, lease_until, updated_at FROM batches ORDER BY id") == before


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_access_tokens_are_renewed_when_needed_though_the_time_has_jumped(
    world: World, jump: timedelta
) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    jumping = Jumping(world, Clock())
    order_id = (await world.order(partner, tuples(2))).view.record.id
    await world.control("POST", f"partners/{partner.entra_tenant_id}:expire")
    jumping.clock.offset = jump
    if jump < timedelta():
        await world.select("UPDATE batches SET due_at = due_at - interval '2 hours' RETURNING id")

    assert await batches.advance_next(jumping.runtime) is not None
    await sweep.sweep(world.runtime)
    await world.work()

    [batch] = await world.batches(order_id)
    assert (batch["submissions"], batch["uncertain"]) == (1, False)
    await assert_agreement(world, partner, order_id)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_no_consent_and_no_hash_and_no_key_ends_by_a_jump_of_an_hour(
    world: World, jump: timedelta
) -> None:
    partner = await world.partner()
    body = {"serial_number": "SYN1", "manufacturer": "Contoso", "model": "Book"}
    first = await world.post_order(partner, [body], headers={"Idempotency-Key": "k"}, reference="PO-1")
    assert first.status_code == 201
    world.clock.offset = jump
    await sweep.tidy(world.runtime)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    world.clock.offset = timedelta()
    await sweep.tidy(world.runtime)

    async with world.runtime.transaction(partner) as tx:
        assert await customers.consent_for_share(tx, partner.customer_id) == "granted"
    again = await world.post_order(partner, [body], headers={"Idempotency-Key": "k"}, reference="PO-1")
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    await world.work()
    await assert_agreement(world, partner, UUID(first.json()["id"]))


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_throttle_budget_written_at_another_time_holds_nobody_back_for_long(
    world: World, jump: timedelta
) -> None:
    connection_id = uuid4()
    jumping = Jumping(world, Clock(jump))

    def gate(runtime: Runtime) -> ConnectionGate:
        return runtime.budgets.gate(connection_id, runtime.now)

    begun = time.monotonic()
    for runtime in (jumping.runtime, world.runtime) * 3:
        permit = await gate(runtime).enter(Priority.FIRST)
        await gate(runtime).leave(permit, None)
    assert time.monotonic() - begun < 5, "no call waits, and none is refused"
    seen = await world.runtime.budgets.look([connection_id], world.runtime.now)
    policy = world.runtime.budgets.policy
    assert seen.shared
    assert seen.budgets[connection_id].tokens <= policy.ceiling * policy.reserve
