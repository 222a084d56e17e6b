"""Group tags: created once, appended to afterwards, and never created in two spellings."""

import asyncio
from uuid import UUID

import pytest

from app.domain.order import OrderState
from app.services.orders import orders
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples

ONE_CALL = 1000


async def _at_microsoft(world: World, partner: Partner, tag: str) -> None:
    """Creates this group tag at the simulator with one device, as somebody might in the portal."""
    token = await world.control(
        "POST", "tokens", {"partner": str(partner.entra_tenant_id), "delegated": True, "mfa": True}
    )
    response = await world.simulator.post(
        f"/v1/customers/{partner.tenant_id}/deviceBatches",
        headers={"Authorization": f"Bearer {token['access_token']}"},
        json={"batchId": tag, "devices": [{"productKey": "9999900000001"}]},
    )
    assert response.status_code == 202, response.text


async def _uploads(world: World, tenant_id: UUID) -> list[tuple[str, int | None]]:
    """(operation, status) of the calls that sent devices, in order."""
    return [
        (call["operation"], call["status"])
        for call in (await world.ledger())["calls"]
        if call["operation"] in ("create", "append") and call["customer"] == str(tenant_id)
    ]


async def test_the_first_batch_creates_its_group_tag_and_later_orders_append_to_it(world: World) -> None:
    partner = await world.partner()
    first = await world.order(partner, tuples(2, "ONE"))
    await world.work()
    second = await world.order(partner, tuples(2, "TWO"))
    await world.work()

    assert await _uploads(world, partner.tenant_id) == [("create", 202), ("append", 202)]
    # A known tag is not looked up again.
    assert len(await world.calls("list_batches")) == 1
    await assert_agreement(world, partner, first.view.record.id, second.view.record.id)


async def test_a_group_tag_that_microsoft_has_already_is_appended_to(world: World) -> None:
    partner = await world.partner()
    await _at_microsoft(world, partner, "Standard")
    order = await world.order(partner, tuples(2))

    await world.work()

    assert await _uploads(world, partner.tenant_id) == [("create", 202), ("append", 202)]
    await assert_agreement(world, partner, order.view.record.id)


async def test_another_spelling_at_microsoft_is_a_visible_refusal_and_nothing_is_sent(world: World) -> None:
    partner = await world.partner()
    await _at_microsoft(world, partner, "STANDARD")
    order = await world.order(partner, tuples(2))
    order_id = order.view.record.id

    await world.work()

    assert await _uploads(world, partner.tenant_id) == [("create", 202)]
    rows = await world.rows(partner, order_id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "group_tag_case_conflict")}
    assert "STANDARD" in rows[0]["error_detail"]
    assert (await world.view(partner, order_id)).state is OrderState.FAILED
    await assert_agreement(world, partner, order_id)


@pytest.mark.parametrize(
    ("known", "ordered"), [("GROSSKUNDEN", "Großkunden"), ("Café", "CAFE\u0301"), ("ΟΔΟΣ", "οδός")]
)
async def test_another_spelling_of_a_customers_tag_is_refused_before_anything_is_sent(
    world: World, known: str, ordered: str
) -> None:
    partner = await world.partner()
    first = await world.order(partner, tuples(1, "ONE"), group_tag=known)
    await world.work()
    second = await world.order(partner, tuples(1, "TWO"), group_tag=ordered)
    await world.work()

    alike = known != "ΟΔΟΣ"  # with the accent it is another tag
    rows = await world.rows(partner, second.view.record.id)
    assert [(row["state"], row["error_code"]) for row in rows] == [
        ("invalid", "group_tag_case_conflict") if alike else ("registered", None)
    ]
    assert len(await _uploads(world, partner.tenant_id)) == (1 if alike else 2)
    await assert_agreement(world, partner, first.view.record.id, second.view.record.id)


async def test_of_many_batches_of_a_new_tag_one_creates_it_and_the_others_append(world: World) -> None:
    partner = await world.partner()
    made = [await world.order(partner, tuples(2, f"N{number}")) for number in range(6)]
    await world.arm({"operation": "create", "kind": "slow", "delay_ms": 150})

    async with world.another() as other:
        lanes = [batches.advance_next(world.runtime) for _ in range(4)]
        lanes += [batches.advance_next(other.runtime) for _ in range(4)]
        await asyncio.gather(*lanes)
    await world.work()

    uploads = await _uploads(world, partner.tenant_id)
    assert uploads == [("create", 202)] + 5 * [("append", 202)]
    await assert_agreement(world, partner, *(order.view.record.id for order in made))


async def test_when_the_creator_is_refused_another_batch_creates_the_tag(world: World) -> None:
    partner = await world.partner()
    first = await world.order(partner, tuples(2, "ONE"))
    second = await world.order(partner, tuples(2, "TWO"))
    await world.arm({"operation": "create", "kind": "status", "status": 400, "body": {"code": 2000}})

    await world.work()

    assert await _uploads(world, partner.tenant_id) == [("create", 400), ("create", 202)]
    states = {(await world.view(partner, o.view.record.id)).state for o in (first, second)}
    assert states == {OrderState.FAILED, OrderState.COMPLETED}
    await assert_agreement(world, partner, first.view.record.id, second.view.record.id)


async def test_those_that_wait_for_a_creator_are_due_at_once_when_it_is_refused(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(2, "ONE"))
    await world.arm({"operation": "create", "kind": "hold", "phase": "before"})
    creator = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    second = await world.order(partner, tuples(1, "TWO"))
    await batches.advance_next(world.runtime)
    [waiting] = await world.batches(second.view.record.id)
    assert waiting["due_at"] > world.clock.now(), "it waits for the creator"

    await world.switch(max_devices_per_call=1)  # so the creation is refused
    await world.let_go()
    await creator

    [waiting] = await world.batches(second.view.record.id)
    assert waiting["due_at"] <= world.clock.now()
    await world.work()
    await assert_agreement(world, partner, second.view.record.id)


async def test_when_the_creator_is_cancelled_another_batch_creates_the_tag(world: World) -> None:
    partner = await world.partner()
    first = await world.order(partner, tuples(2, "ONE"))
    second = await world.order(partner, tuples(2, "TWO"))
    await world.arm({"operation": "create", "kind": "throttle", "retry_after": 5})
    await batches.advance_next(world.runtime)
    creator = await world.select("SELECT creating_batch_id FROM group_tags")
    assert creator[0]["creating_batch_id"] == (await world.batches(first.view.record.id))[0]["id"]

    await orders.cancel(world.runtime, partner, first.view.record.id)
    await world.work()

    assert await _uploads(world, partner.tenant_id) == [("create", 429), ("create", 202)]
    assert (await world.view(partner, first.view.record.id)).state is OrderState.CANCELLED
    assert (await world.view(partner, second.view.record.id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, first.view.record.id, second.view.record.id)


async def test_those_that_wait_for_a_creator_in_trouble_do_not_look_every_second(world: World) -> None:
    partner = await world.partner()
    made = [await world.order(partner, tuples(1, f"W{number}")) for number in range(3)]
    await world.arm({"operation": "create", "kind": "status", "status": 503, "count": 5})

    steps = await world.work()

    # 3 batches: 5 failed creations, 3 successful calls, 3 polls, and a limited number of look-ups.
    assert steps < 60
    await assert_agreement(world, partner, *(order.view.record.id for order in made))


async def test_a_tag_created_between_our_look_and_our_creation_is_appended_to(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    await world.arm({"operation": "create", "kind": "hold", "phase": "before"})
    step = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    await _at_microsoft(world, partner, "Standard")
    await world.let_go()
    await step

    await world.work()

    statuses = [upload[1] for upload in await _uploads(world, partner.tenant_id)]
    assert sorted(status or 0 for status in statuses) == [202, 202, 409]
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_tag_that_microsoft_has_lost_is_created_again(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1, "ONE"))
    await world.work()
    await world.arm({"operation": "append", "kind": "status", "status": 404, "body": {"code": 404}})
    order = await world.order(partner, tuples(2, "TWO"))

    await world.work()

    # Our record of the tag was in doubt; the tag was looked up and found.
    assert await _uploads(world, partner.tenant_id) == [("create", 202), ("append", 404), ("append", 202)]
    assert len(await world.calls("list_batches")) == 2
    await assert_agreement(world, partner, order.view.record.id)


async def test_many_refusals_to_take_calls_do_not_use_up_the_patience_with_a_tag(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    conflict = {"operation": "create", "kind": "status", "status": 409, "body": {"code": 409}}
    await world.arm({"operation": "create", "kind": "throttle", "count": 12}, conflict)

    await world.work()

    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_tag_that_can_neither_be_created_nor_found_ends_as_a_visible_failure(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    body = {"code": 409, "description": "taken"}
    await world.arm({"operation": "create", "kind": "status", "status": 409, "body": body, "count": None})

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "batch_refused")}
    limit = world.runtime.settings.max_submissions
    uploads = await _uploads(world, partner.tenant_id)
    assert uploads == [("create", 409), ("append", 404), *[("create", 409)] * (limit - 2)]
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_tag_that_exists_and_is_not_listed_is_appended_to(world: World) -> None:
    partner = await world.partner()
    await _at_microsoft(world, partner, "Standard")
    await world.switch(new_batch_listed_after_s=3600)
    order = await world.order(partner, tuples(2, "ONE"))
    behind = await world.order(partner, tuples(2, "TWO"))

    await world.work()

    uploads = await _uploads(world, partner.tenant_id)
    assert uploads == [("create", 202), ("create", 409), ("append", 202), ("append", 202)]
    ids = [call["request_id"] for call in (await world.calls("create") + await world.calls("append"))]
    assert len(set(ids)) == 4
    for made in (order, behind):
        assert (await world.view(partner, made.view.record.id)).state is OrderState.COMPLETED
        await assert_agreement(world, partner, made.view.record.id)


async def test_a_full_call_and_the_rest_of_it_go_to_one_tag(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(ONE_CALL + 1))

    await world.work()

    assert [b["device_count"] for b in await world.batches(order.view.record.id)] == [ONE_CALL, 1]
    assert await _uploads(world, partner.tenant_id) == [("create", 202), ("append", 202)]
    await assert_agreement(world, partner, order.view.record.id)
