"""Trouble beyond single devices: throttling, tokens, MFA, lost consent; and which work it delays."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.domain.order import OrderState
from app.services.connections import connections, customer_readings
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples


async def _connection(world: World, partner: Partner) -> dict[str, Any]:
    response = await world.client.get(f"/v1/connections/{partner.connection_id}", headers=partner.headers)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def _until_idle(world: World) -> int:
    """Does all work that is due now, without moving the clock."""
    steps = 0
    while await batches.advance_next(world.runtime) is not None:
        steps += 1
    return steps


async def test_an_access_token_that_ends_in_the_middle_is_renewed_and_nobody_notices(world: World) -> None:
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "expired_token"}, {"operation": "status", "kind": "expired_token"}
    )
    order = await world.order(partner, tuples(3))

    await world.work()

    [batch] = await world.batches(order.view.record.id)
    assert (batch["submissions"], batch["uncertain"]) == (1, False)
    assert [call["status"] for call in await world.calls("create")] == [401, 202]
    await assert_agreement(world, partner, order.view.record.id)


async def test_throttling_is_waited_out_to_the_second_and_holds_up_no_other_connection(world: World) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    await world.arm(
        {"operation": "create", "kind": "throttle", "retry_after": 90, "customer": str(partner.tenant_id)}
    )
    order = await world.order(partner, tuples(2, "SLOW"))
    await batches.advance_next(world.runtime)
    asked_at = world.clock.now()
    queued = await world.order(partner, tuples(2, "BEHIND"))
    other = await world.order(neighbour, tuples(2, "OTHER"))

    await _until_idle(world)
    world.clock.advance(seconds=2)
    await _until_idle(world)

    assert (await world.view(neighbour, other.view.record.id)).state is OrderState.COMPLETED
    throttled = await world.batches(order.view.record.id)
    assert throttled[0]["failure_code"] == "upstream_throttled"
    assert throttled[0]["due_at"] >= asked_at + timedelta(seconds=90) - timedelta(seconds=1)
    calls = len((await world.ledger())["calls"])
    world.clock.reach(asked_at + timedelta(seconds=85))
    assert await _until_idle(world) == 0, "the whole connection keeps quiet"
    assert len((await world.ledger())["calls"]) == calls
    await world.work()
    await assert_agreement(world, partner, order.view.record.id, queued.view.record.id)
    [batch] = await world.batches(order.view.record.id)
    assert (batch["uncertain"], batch["failure_code"]) == (False, None)


async def test_a_token_service_that_is_down_makes_nothing_uncertain(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    world.runtime.token_cache.tokens.clear()
    await world.arm(
        {"operation": "token", "kind": "status", "status": 503, "count": 2},
        {"operation": "token", "kind": "drop", "count": 2},
    )

    await world.work()

    [batch] = await world.batches(order.view.record.id)
    assert (batch["uncertain"], batch["submissions"]) == (False, 1)
    assert [row["state"] for row in await world.rows(partner, order.view.record.id)] == ["registered"] * 2
    await assert_agreement(world, partner, order.view.record.id)


async def test_refused_mfa_is_shown_on_the_connection_hurts_no_other_and_ends_with_a_check(
    world: World,
) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    world.runtime.token_cache.tokens.clear()
    # The simulator's rules apply to all partners: the neighbour gets its token first.
    other = await world.order(neighbour, tuples(2, "OTHER"))
    await batches.advance_next(world.runtime)
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50076, "count": None})
    order = await world.order(partner, tuples(2))
    await _until_idle(world)
    world.clock.advance(seconds=2)
    await _until_idle(world)

    assert (await world.view(neighbour, other.view.record.id)).state is OrderState.COMPLETED
    shown = await _connection(world, partner)
    assert shown["trouble"]["code"] == "mfa_required"
    assert (await _connection(world, neighbour))["trouble"] is None
    [batch] = await world.batches(order.view.record.id)
    assert (batch["state"], batch["failure_code"], batch["uncertain"]) == ("queued", "mfa_required", False)
    assert (await world.view(partner, order.view.record.id)).state is OrderState.IN_PROGRESS
    assert not (await connections.check(world.runtime, partner, partner.connection_id)).ok

    await world.control("DELETE", "faults")
    assert (await connections.check(world.runtime, partner, partner.connection_id)).ok

    assert (await _connection(world, partner))["trouble"] is None
    await world.work()
    await assert_agreement(world, partner, order.view.record.id)


async def test_lost_consent_is_doubted_read_again_and_holds_the_order_until_it_is_given(
    world: World,
) -> None:
    partner = await world.partner()
    await world.set_consent(partner.tenant_id, given=False)
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id

    await batches.advance_next(world.runtime)
    [consent] = await world.select(
        "SELECT state FROM consents WHERE customer_id = :id", id=partner.customer_id
    )
    assert consent["state"] == "stale"
    assert await customer_readings.read_due(world.runtime), "the customers list is read at once"

    assert (await world.view(partner, order_id)).state is OrderState.HELD
    assert {row["state"] for row in await world.rows(partner, order_id)} == {"held"}
    assert await world.work() == 0
    held = await world.select("SELECT type FROM events WHERE order_id = :id ORDER BY sequence", id=order_id)
    assert [event["type"] for event in held] == ["order.accepted", "order.held"]

    await world.set_consent(partner.tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    await world.work()
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)


async def test_consent_lost_while_a_worker_looks_for_the_tag_holds_the_batch_and_stops_no_lane(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "list_batches", "kind": "hold", "phase": "before"})
    order = await world.order(partner, tuples(2))
    step = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    await world.set_consent(partner.tenant_id, given=False)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    await world.let_go()

    assert await step is not None, "the lane goes on"

    assert (await world.view(partner, order.view.record.id)).state is OrderState.HELD
    assert not await world.devices_at_microsoft()
    await assert_agreement(world, partner, order.view.record.id, endings=0)


async def test_a_device_to_be_tried_again_by_itself_is_held_when_consent_has_gone_meanwhile(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "positions": [0], "code": "StorageError"})
    order = await world.order(partner, tuples(2))
    order_id = order.view.record.id
    await batches.advance_next(world.runtime)
    await world.set_consent(partner.tenant_id, given=False)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    await world.set_consent(partner.tenant_id, given=True)  # the simulator would accept the second call

    await world.work()

    assert [row["state"] for row in await world.rows(partner, order_id)] == ["held", "registered"]
    assert (await world.view(partner, order_id)).state is OrderState.HELD
    assert not await world.calls("append"), "what Registrar knows to be revoked is not sent"
    told = await world.select("SELECT type FROM events WHERE order_id = :id ORDER BY sequence", id=order_id)
    assert [event["type"] for event in told] == ["order.accepted", "registration.settled", "order.held"]
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    await world.work()
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)


async def test_a_customer_whose_list_says_yes_and_whose_calls_say_no_ends_as_a_visible_failure(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm(
        {"kind": "status", "operation": "create", "status": 403, "body": {"code": 20002}, "count": None}
    )
    order = await world.order(partner, tuples(2))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("failed", "consent_missing")}
    await assert_agreement(world, partner, order.view.record.id)


async def test_consent_lost_after_an_uncertain_call_does_not_leave_the_order_open_for_ever(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "drop", "phase": "after"})
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)
    await world.set_consent(partner.tenant_id, given=False)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("unknown", "outcome_unknown")}
    await assert_agreement(world, partner, order.view.record.id)


async def test_without_a_refresh_token_known_tags_are_appended_to_and_new_ones_show_what_is_missing(
    world: World,
) -> None:
    partner = await world.partner(delegated=False)
    await _make_tag(world, partner, "Standard")
    new_tag = await world.order(partner, tuples(2, "NEW", group_tag="Kiosk"))
    await _until_idle(world)
    assert (await _connection(world, partner))["trouble"]["code"] == "credential_missing"

    known_tag = await world.order(partner, tuples(2, "OLD"))
    await _until_idle(world)
    world.clock.advance(seconds=2)
    await _until_idle(world)

    assert (await world.view(partner, known_tag.view.record.id)).state is OrderState.COMPLETED
    assert (await world.view(partner, new_tag.view.record.id)).state is OrderState.IN_PROGRESS
    [batch] = await world.batches(new_tag.view.record.id)
    assert (batch["state"], batch["failure_code"]) == ("queued", "credential_missing")
    await assert_agreement(world, partner, known_tag.view.record.id)


async def _make_tag(world: World, partner: Partner, tag: str) -> None:
    token = await world.control(
        "POST", "tokens", {"partner": str(partner.entra_tenant_id), "delegated": True, "mfa": True}
    )
    response = await world.simulator.post(
        f"/v1/customers/{partner.tenant_id}/deviceBatches",
        headers={"Authorization": f"Bearer {token['access_token']}"},
        json={"batchId": tag, "devices": [{"productKey": "9999900000001"}]},
    )
    assert response.status_code == 202, response.text


# --- whose turn it is -----------------------------------------------------------------------------


async def _customer_of(world: World, order_id: UUID) -> UUID:
    [order] = await world.select("SELECT customer_id FROM orders WHERE id = :id", id=order_id)
    found: UUID = order["customer_id"]
    return found


async def test_one_batch_behind_fifty_of_another_customer_is_claimed_in_the_second_turn(world: World) -> None:
    big, small = await world.partner(), await world.partner()
    for number in range(50):
        await world.order(big, tuples(1, f"BIG{number}"))
    late = await world.order(small, tuples(1, "SMALL"))

    turns = []
    for _ in range(2):
        step = await batches.advance_next(world.runtime)
        assert step is not None
        [batch] = await world.select("SELECT order_id FROM batches WHERE id = :id", id=UUID(step.batch_id))
        turns.append(batch["order_id"])

    assert await _customer_of(world, turns[0]) == big.customer_id
    assert turns[1] == late.view.record.id


async def test_a_customer_has_only_so_many_batches_under_way(world: World) -> None:
    await world.switch(never_finish_rate=1.0)
    partner, neighbour = await world.partner(), await world.partner()
    for number in range(8):
        await world.order(partner, tuples(1, f"MANY{number}"))
    other = await world.order(neighbour, tuples(1, "OTHER"))

    async with world.another(customer_window=3, connection_window=5) as narrow:
        await _until_idle(narrow)

    states = await world.select(
        "SELECT state, count(*) AS n FROM batches WHERE customer_id = :id GROUP BY state",
        id=partner.customer_id,
    )
    assert {row["state"]: row["n"] for row in states} == {"submitted": 3, "queued": 5}
    assert [b["state"] for b in await world.batches(other.view.record.id)] == ["submitted"]


async def test_a_connection_has_only_so_many_batches_under_way(world: World) -> None:
    await world.switch(never_finish_rate=1.0)
    partner = await world.partner()
    for number in range(6):
        await world.order(partner, tuples(1, f"MANY{number}"))

    async with world.another(customer_window=9, connection_window=4) as narrow:
        await _until_idle(narrow)

    assert len(await world.calls("create")) + len(await world.calls("append")) == 4


async def test_what_a_batch_had_met_is_forgotten_once_its_job_is_answered(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=60_000, processing_max_ms=60_000)
    order_id = (await world.order(partner, tuples(2))).view.record.id
    await batches.advance_next(world.runtime)
    await world.arm({"kind": "status", "operation": "status", "status": 500, "count": 1})
    seen = []
    for _ in range(2):
        [batch] = await world.batches(order_id)
        world.clock.reach(batch["due_at"] + timedelta(milliseconds=1))
        await batches.advance_next(world.runtime)
        seen += [(batch["state"], batch["failure_code"]) for batch in await world.batches(order_id)]
    assert seen == [("submitted", "upstream_unavailable"), ("submitted", None)]


async def test_a_job_whose_customer_is_in_doubt_is_asked_for_until_it_is_answered(world: World) -> None:
    """A 403 says nothing about devices that were accepted: they are not unknown, and not sent again."""
    partner = await world.partner()
    order_id = (await world.order(partner, tuples(2))).view.record.id
    refusals = world.runtime.settings.max_submissions + 3
    await world.arm(
        {
            "kind": "status", "operation": "status", "status": 403, "body": {"code": 20002},
            "count": refusals,
        }
    )  # fmt: skip
    await world.work()
    rows = await world.rows(partner, order_id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("registered", None)}
    await assert_agreement(world, partner, order_id)
