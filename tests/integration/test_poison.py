"""Work that always ends in an unexpected exception stops no other work, and its end is shown."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.order import OrderState
from app.services.connections import customer_readings
from app.services.registering import batches
from app.services.registering.batches import MAX_DEFECTS
from app.services.webhooks import deliveries
from tests.support.agreement import assert_agreement
from tests.support.receiver import open_receiver, subscribe
from tests.support.worker import PATIENCE, until_over, worker_process
from tests.support.world import Partner, World, tuples


async def _do_all_due(world: World) -> None:
    while await batches.advance_next(world.runtime) is not None:
        pass


async def _nobody_drives_it(world: World, partner: Partner) -> None:
    """Removes the connection's platform, as a faulty release might: every step ends in a KeyError."""
    await world.select(
        "UPDATE connections SET platform = 'nowhere' WHERE id = :id RETURNING id", id=partner.connection_id
    )


async def _write_identity(world: World, order_id: UUID, identity: str) -> None:
    await world.select(
        "UPDATE registrations SET identity = :identity WHERE order_id = :id RETURNING id",
        identity=identity,
        id=order_id,
    )


@asynccontextmanager
async def _unwritable(world: World, order_id: UUID) -> AsyncIterator[None]:
    """A constraint that makes this order's rows unchangeable, as a faulty release might leave behind."""
    async with world.owner() as owner:
        try:
            async with owner.begin() as session:
                await session.execute(
                    text(
                        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN RAISE EXCEPTION 'row of SYN00001 refused'; END $$"
                    )
                )
                await session.execute(
                    text(
                        "CREATE TRIGGER refuse_change BEFORE UPDATE ON registrations FOR EACH ROW "
                        f"WHEN (OLD.order_id = '{order_id}') EXECUTE FUNCTION refuse_change()"
                    )
                )
            yield
        finally:
            async with owner.begin() as session:
                await session.execute(text("DROP TRIGGER IF EXISTS refuse_change ON registrations"))
                await session.execute(text("DROP FUNCTION IF EXISTS refuse_change"))


async def _batch(world: World, order_id: UUID) -> dict[str, Any]:
    [batch] = await world.batches(order_id)
    return batch


async def test_a_batch_that_nothing_can_be_done_with_holds_up_no_other_and_ends_as_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    poisoned = (await world.order(partner, tuples(2, "POISON"))).view.record.id
    await _nobody_drives_it(world, partner)
    well = [await world.order(neighbour, tuples(2, f"WELL{number}")) for number in range(3)]
    begun = world.clock.now()

    with caplog.at_level(logging.ERROR):
        await _do_all_due(world)
    batch = await _batch(world, poisoned)
    assert (batch["state"], batch["owner"]) == ("queued", None), "it is given back at once"
    assert (batch["failure_code"], batch["failure_said"]) == ("batch_broken", "KeyError")
    assert batch["due_at"] - begun < timedelta(seconds=10)
    assert "step_failed" in caplog.text
    assert "submission.py" in caplog.text, "it says where"
    assert "POISON" not in caplog.text

    await world.work()

    for order in well:
        assert (await world.view(neighbour, order.view.record.id)).state is OrderState.COMPLETED
    assert world.clock.now() - begun > timedelta(hours=1), "a release may be corrected meanwhile"
    assert world.clock.now() - begun < timedelta(hours=4)
    batch = await _batch(world, poisoned)
    assert (batch["state"], batch["failure_code"]) == ("settled", "batch_broken")
    rows = await world.rows(partner, poisoned)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "batch_broken")}
    assert "retry-failed" in rows[0]["remedy"]
    assert not await world.calls("create") or {call["customer"] for call in await world.calls("create")} == {
        str(neighbour.tenant_id)
    }
    await assert_agreement(world, partner, poisoned)


async def test_a_batch_saved_by_a_corrected_release_goes_on_as_if_nothing_had_been(world: World) -> None:
    partner = await world.partner()
    order_id = (await world.order(partner, tuples(2))).view.record.id
    await _nobody_drives_it(world, partner)
    for _ in range(MAX_DEFECTS // 2):
        await _do_all_due(world)
        world.clock.reach((await _batch(world, order_id))["due_at"] + timedelta(milliseconds=1))
    await world.select("UPDATE connections SET platform = 'partner_center' RETURNING id")

    await world.work()

    batch = await _batch(world, order_id)
    assert (batch["state"], batch["failure_code"], batch["troubles"]) == ("settled", None, 0)
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)


async def test_a_failed_order_of_a_broken_batch_is_taken_up_again_by_retry_failed(world: World) -> None:
    partner = await world.partner()
    order_id = (await world.order(partner, tuples(2))).view.record.id
    await _nobody_drives_it(world, partner)
    await world.work()
    await world.select("UPDATE connections SET platform = 'partner_center' RETURNING id")

    answer = await world.client.post(f"/v1/orders/{order_id}:retry-failed", headers=partner.headers)
    assert answer.status_code < 300, answer.text
    await world.work()

    assert {row["state"] for row in await world.rows(partner, order_id)} == {"registered"}
    await assert_agreement(world, partner, order_id, endings=2, settlings=2)


async def test_a_broken_creator_of_a_group_tag_leaves_the_tag_to_those_that_wait_for_it(
    world: World,
) -> None:
    partner = await world.partner()
    poisoned = (await world.order(partner, tuples(2, "POISON"))).view.record.id
    await world.arm({"operation": "list_batches", "kind": "hold", "phase": "before"})
    step = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    behind = (await world.order(partner, tuples(2, "BEHIND"))).view.record.id
    await _write_identity(world, poisoned, "nonsense")
    await world.let_go()
    await step

    await world.work(limit=3000)

    await _write_identity(world, poisoned, "tuple")
    assert (await world.view(partner, behind)).state is OrderState.COMPLETED
    rows = await world.rows(partner, poisoned)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "batch_broken")}
    await assert_agreement(world, partner, poisoned, behind)


async def test_a_corrupt_row_among_rows_to_be_sent_ends_as_failed_with_its_event_and_its_step(
    world: World,
) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    order_id = (await world.order(partner, tuples(3))).view.record.id
    await _write_identity(world, order_id, "nonsense")

    await world.work()

    await _write_identity(world, order_id, "tuple")
    # The call's content is made before the intent is written, so nothing can have been sent.
    rows = await world.rows(partner, order_id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "batch_broken")}
    assert "nothing was sent" in rows[0]["remedy"]
    batch = await _batch(world, order_id)
    assert (batch["state"], batch["failure_code"]) == ("settled", "batch_broken")
    told = await world.select(
        "SELECT data FROM events WHERE order_id = :id AND type = 'registration.settled'", id=order_id
    )
    assert [item["state"] for event in told for item in event["data"]["registrations"]] == ["failed"] * 3
    await assert_agreement(world, partner, order_id)


async def test_a_batch_whose_end_can_not_be_written_stays_visible_and_is_never_dropped(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    order_id = (await world.order(partner, tuples(2))).view.record.id
    other = (await world.order(neighbour, tuples(2, "WELL"))).view.record.id
    with caplog.at_level(logging.ERROR):
        async with _unwritable(world, order_id):
            for _ in range(MAX_DEFECTS + 3):
                await _do_all_due(world)
                world.clock.reach((await _batch(world, order_id))["due_at"] + timedelta(milliseconds=1))
            assert (await world.view(neighbour, other)).state is OrderState.COMPLETED
            batch = await _batch(world, order_id)
            assert batch["state"] not in ("settled", "cancelled")
            assert batch["failure_code"] == "batch_broken"
            assert (batch["owner"], batch["lease_until"]) == (None, None)
            # The cause has gone before its next turn.
        await world.select("UPDATE batches SET failure_code = NULL, troubles = 0 RETURNING id")
        await world.work()
    assert "batch_not_ended" in caplog.text
    assert "SYN00001" not in caplog.text
    assert {row["state"] for row in await world.rows(partner, order_id)} == {"registered"}
    await assert_agreement(world, partner, order_id)


async def test_worker_processes_go_on_beside_a_poisoned_batch(world: World, tmp_path: Path) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    poisoned = (await world.order(partner, tuples(2, "POISON"))).view.record.id
    await _nobody_drives_it(world, partner)
    well = [(await world.order(neighbour, tuples(2, f"W{n}"))).view.record.id for n in range(4)]
    async with worker_process(world, tmp_path / "worker.log", poll_first_s=0.1, worker_lanes=1):
        for order_id in well:
            await until_over(world, neighbour, order_id)
        async with asyncio.timeout(PATIENCE):
            while (await _batch(world, poisoned))["troubles"] < 2:  # noqa: ASYNC110 - told by the database
                await asyncio.sleep(0.05)
    batch = await _batch(world, poisoned)
    assert (batch["state"], batch["failure_code"]) == ("queued", "batch_broken")
    await assert_agreement(world, neighbour, *well)


async def test_a_webhook_that_can_not_be_written_goes_the_way_of_all_failed_ones(world: World) -> None:
    partner = await world.partner(consented=False)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.held"])
        await world.order(partner, tuples(1, "A"), customer_id=partner.other_customer_id)
        await world.select("UPDATE events SET data = '[1]' WHERE type = 'order.held' RETURNING id")
        await world.order(partner, tuples(1, "B"), customer_id=partner.other_customer_id)

        await world.deliver()

        assert len(receiver.messages) == 1, "the one behind it has been delivered"
        for _ in range(10):
            world.clock.advance(hours=30)
            await world.deliver()
    ends = await world.select("SELECT state, last_kind FROM deliveries ORDER BY id")
    assert [(end["state"], end["last_kind"]) for end in ends] == [
        ("exhausted", "internal"),
        ("succeeded", "succeeded"),
    ]
    assert not await deliveries.deliver_next(world.runtime)
    # Every event that a test leaves behind is checked against its published shape.
    await world.select("DELETE FROM events WHERE data = '[1]' RETURNING id")


async def test_a_connection_whose_list_can_not_be_read_holds_up_no_other_one(world: World) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    await _nobody_drives_it(world, partner)
    accepting = {"partner": str(neighbour.entra_tenant_id)}
    await world.control("POST", f"customers/{neighbour.other_tenant_id}:accept", accepting)
    held = await world.order(neighbour, tuples(1), customer_id=neighbour.other_customer_id)
    world.clock.advance(seconds=world.runtime.settings.consent_interval_s + 1)
    await world.select(
        "UPDATE connections SET customers_due_at = customers_due_at - interval '1 s' WHERE id = :id "
        "RETURNING id",
        id=partner.connection_id,
    )

    while await customer_readings.read_due(world.runtime):
        pass

    assert (await world.view(neighbour, held.view.record.id)).state is OrderState.IN_PROGRESS
