"""The number of devices in one call: limited by a setting, and halved if Microsoft refuses a whole batch."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.domain.order import OrderState
from app.services.orders import orders
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.import_scene import committed, preview, tuple_sheet
from tests.support.worker import PATIENCE, worker_process
from tests.support.world import Partner, World, tuples


async def _uploads(world: World) -> list[dict[str, Any]]:
    return [c for c in (await world.ledger())["calls"] if c["operation"] in ("create", "append")]


async def _states(world: World, partner: Partner, order_id: UUID) -> Counter[tuple[str, str | None]]:
    return Counter((row["state"], row["error_code"]) for row in await world.rows(partner, order_id))


@pytest.mark.parametrize("refusal", ["bad_request", "too_large"])
async def test_a_call_that_is_too_large_is_halved_until_it_is_taken(world: World, refusal: str) -> None:
    await world.switch(max_devices_per_call=100, max_devices_refusal=refusal)
    partner = await world.partner()
    order = await world.order(partner, tuples(350))
    order_id = order.view.record.id

    await world.work()

    assert await _states(world, partner, order_id) == {("registered", None): 350}
    uploads = await _uploads(world)
    assert sorted(c["device_count"] for c in uploads if c["status"] == 202) == [87, 87, 88, 88]
    assert len({call["request_id"] for call in uploads}) == len(uploads)
    whole, *parts = await world.batches(order_id)
    assert (whole["state"], whole["failure_code"]) == ("settled", "batch_split")
    assert sorted(part["device_count"] for part in parts) == [87, 87, 88, 88, 175, 175]
    calls = await world.select("SELECT outcome FROM batch_attempts WHERE batch_id = :id", id=whole["id"])
    assert [call["outcome"] for call in calls] == ["batch_refused"]
    await assert_agreement(world, partner, order_id)


async def test_one_device_that_spoils_its_call_takes_no_more_than_a_hundred_with_it(world: World) -> None:
    await world.switch(refuse_calls_with=["SYN00333"])
    partner = await world.partner()
    order = await world.order(partner, tuples(1000))
    order_id = order.view.record.id

    await world.work()

    states = await _states(world, partner, order_id)
    assert states == {("registered", None): 938, ("failed", "batch_refused"): 62}
    assert len(await _uploads(world)) == 9
    await assert_agreement(world, partner, order_id)


async def test_a_call_of_a_hundred_devices_is_not_halved(world: World) -> None:
    await world.switch(max_devices_per_call=99)
    partner = await world.partner()
    order = await world.order(partner, tuples(100))

    await world.work()

    assert await _states(world, partner, order.view.record.id) == {("failed", "batch_refused"): 100}
    assert len(await _uploads(world)) == 1


async def test_a_refusal_whose_meaning_is_known_is_not_halved(world: World) -> None:
    partner = await world.partner()
    body = {"code": 900118, "description": "Invalid customer id."}
    await world.arm({"operation": "create", "kind": "status", "status": 400, "body": body})
    order = await world.order(partner, tuples(101))

    await world.work()

    assert await _states(world, partner, order.view.record.id) == {("failed", "batch_refused"): 101}
    assert len(await _uploads(world)) == 1


@pytest.mark.parametrize(
    "manner", [{"create_existing_batch": "bad_request"}, {"append_missing_batch": "bad_request"}]
)
async def test_a_400_about_the_group_tag_is_understood_and_not_halved(
    world: World, manner: dict[str, str]
) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    await world.switch(**manner)
    if "create_existing_batch" in manner:
        await world.switch(new_batch_listed_after_s=3600)
        await world.select("UPDATE group_tags SET known = false RETURNING tag")
    else:
        await world.select("UPDATE group_tags SET known = true RETURNING tag")
        await world.select("UPDATE group_tags SET tag = 'Other', tag_key = 'other' RETURNING tag")
    order = await world.order(
        partner, tuples(101), group_tag=None if "create_existing_batch" in manner else "Other"
    )

    await world.work()

    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
    uploads = [(c["operation"], c["status"]) for c in await _uploads(world)][1:]
    expected = {
        "create_existing_batch": [("create", 400), ("append", 202)],
        "append_missing_batch": [("append", 400), ("create", 202)],
    }
    assert uploads == expected[next(iter(manner))]


async def test_halves_of_a_batch_in_doubt_keep_the_doubt(world: World) -> None:
    partner = await world.partner()
    await world.switch(request_id_dedup=False)
    held = {"serial": "SYN00002", "manufacturer": "Contoso", "model": "Contoso Book 14"}
    await world.control("POST", "devices", [{**held, "customer": str(partner.tenant_id)}])
    await world.arm({"operation": "create", "kind": "drop", "phase": "after"})
    order = await world.order(partner, tuples(150))
    order_id = order.view.record.id
    await batches.advance_next(world.runtime)
    await world.switch(max_devices_per_call=100)

    await world.work()

    parts = await world.batches(order_id)
    assert [(part["device_count"], part["uncertain"]) for part in parts] == [
        (150, True),
        (75, True),
        (75, True),
    ]
    assert await _states(world, partner, order_id) == {
        ("registered", None): 149,
        ("already_registered", "already_registered"): 1,
    }
    await assert_agreement(world, partner, order_id)


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_worker_killed_before_it_has_halved_a_batch_loses_and_doubles_nothing(
    world: World, tmp_path: Path, phase: str
) -> None:
    await world.switch(max_devices_per_call=100)
    partner = await world.partner()
    order = await world.order(partner, tuples(150))
    order_id = order.view.record.id
    await world.arm({"operation": "create", "kind": "hold", "phase": phase})
    async with worker_process(world, tmp_path / "worker.log") as process:
        await world.until_held_open(within=PATIENCE)
        process.kill()
        await process.wait()
    await world.let_go()

    await world.work()

    assert await _states(world, partner, order_id) == {("registered", None): 150}
    assert [part["device_count"] for part in await world.batches(order_id)] == [150, 75, 75]
    await assert_agreement(world, partner, order_id)


async def test_a_worker_that_comes_too_late_does_not_halve_a_second_time(world: World) -> None:
    await world.switch(max_devices_per_call=100)
    partner = await world.partner()
    order = await world.order(partner, tuples(150))
    order_id = order.view.record.id
    await world.arm({"operation": "create", "kind": "hold", "phase": "after"})
    late = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    async with world.another() as other:
        await other.work()
    await world.let_go()
    await late

    assert len(await world.batches(order_id)) == 3
    assert await _states(world, partner, order_id) == {("registered", None): 150}
    await assert_agreement(world, partner, order_id)


async def test_orders_and_retries_are_cut_as_the_setting_says(world: World) -> None:
    partner = await world.partner()
    async with world.another(max_batch_devices=3) as narrow:
        every = {"kind": "device_error", "every": 1, "code": "812", "count": None}
        await world.arm({"operation": "create", **every}, {"operation": "append", **every})
        order = await narrow.order(partner, tuples(7))
        order_id = order.view.record.id
        await narrow.work()
        await world.control("DELETE", "faults")
        await orders.retry_failed(narrow.runtime, partner, order_id)
        await narrow.work()

    assert sorted(part["device_count"] for part in await world.batches(order_id)) == [1, 1, 3, 3, 3, 3]
    assert await _states(world, partner, order_id) == {("registered", None): 7}


async def test_imports_are_cut_as_the_setting_says(world: World) -> None:
    partner = await world.partner()
    async with world.another(max_batch_devices=2) as narrow:
        found = await preview(narrow, partner, tuple_sheet(5), reference="PO-1")
        assert found["preview"]["batches"] == 3
        final = await committed(narrow, partner, found["id"])

    made = await world.batches(UUID(final["orders"][0]["order_id"]))
    assert [part["device_count"] for part in made] == [2, 2, 1]


async def test_devices_tried_again_by_themselves_are_cut_as_the_setting_says(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "every": 1, "code": "StorageError"})
    order = await world.order(partner, tuples(5))
    async with world.another(max_batch_devices=2) as narrow:
        await narrow.work()

    sizes = sorted(part["device_count"] for part in await world.batches(order.view.record.id))
    assert sizes == [1, 2, 2, 5]
