"""Answers from Microsoft that cannot be read: shown as the connection's trouble, which ends by itself."""

from typing import Any

import pytest

from app.domain.order import OrderState
from app.domain.upstream import NotUnderstood
from app.services.connections import connections, customer_readings
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples

PAGE = {"kind": "status", "status": 200, "body": "<html>Sign in to the network</html>", "count": None}
SHAPE = {"kind": "status", "status": 200, "body": {"value": []}, "count": None}
REDIRECT = {"kind": "status", "status": 302, "headers": {"location": "https://proxy.test/"}, "count": None}
NO_JOB = {"kind": "status", "status": 200, "body": {"batchTrackingId": "x"}, "count": None}


async def _trouble(world: World, partner: Partner) -> dict[str, Any] | None:
    response = await world.client.get(f"/v1/connections/{partner.connection_id}", headers=partner.headers)
    assert response.status_code == 200, response.text
    trouble: dict[str, Any] | None = response.json()["trouble"]
    return trouble


async def _read_due(world: World, **later: float) -> None:
    world.clock.advance(**later)
    assert await customer_readings.read_due(world.runtime)


@pytest.mark.parametrize("fault", [PAGE, SHAPE, REDIRECT], ids=["page", "shape", "redirect"])
async def test_a_customers_list_that_cannot_be_read_is_the_connections_trouble_until_it_can(
    world: World, fault: dict[str, Any]
) -> None:
    partner = await world.partner(consented=False)
    order = await world.order(partner, tuples(2))
    await world.arm({"operation": "customers", **fault})

    await _read_due(world, seconds=1)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "upstream_not_understood"
    assert f"HTTP {fault['status']}" in trouble["said"]
    assert "proxy" in trouble["remedy"]
    checked = await connections.check(world.runtime, partner, partner.connection_id)
    assert (checked.ok, checked.code) == (False, "upstream_not_understood")

    readings = len(await world.calls("customers"))
    for _ in range(40):
        world.clock.advance(seconds=15)
        await customer_readings.read_due(world.runtime)
    again = len(await world.calls("customers")) - readings
    assert 4 <= again <= 12, "within ten minutes soon, then with growing pauses"

    await world.control("DELETE", "faults")
    await _read_due(world, minutes=6)
    assert await _trouble(world, partner) is None
    await world.work()
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED


@pytest.mark.parametrize(("status", "code"), [(400, "customers_not_read"), (403, "access_denied")])
async def test_a_refused_customers_list_is_the_connections_trouble(
    world: World, status: int, code: str
) -> None:
    partner = await world.partner(consented=False)
    await world.arm({"operation": "customers", "kind": "status", "status": status, "count": None})

    await _read_due(world, seconds=1)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == code
    await world.control("DELETE", "faults")
    await _read_due(world, minutes=6)
    assert await _trouble(world, partner) is None


async def test_an_outage_of_the_customers_list_is_trouble_when_it_lasts(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "customers", "kind": "status", "status": 500, "count": None})
    await _read_due(world, minutes=6)
    assert await _trouble(world, partner) is None, "Microsoft has outages of some minutes"

    await _read_due(world, minutes=12)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "customers_not_read"


@pytest.mark.parametrize(
    ("operation", "fault"),
    [("list_batches", SHAPE), ("list_batches", PAGE), ("status", PAGE), ("status", NO_JOB)],
)
async def test_a_batch_whose_answer_cannot_be_read_says_so_and_goes_on_by_itself(
    world: World, operation: str, fault: dict[str, Any]
) -> None:
    partner = await world.partner()
    await world.arm({"operation": operation, **fault})
    order = await world.order(partner, tuples(2))
    for _ in range(3):
        await batches.advance_next(world.runtime)
        world.clock.advance(seconds=3)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "upstream_not_understood"
    [batch] = await world.batches(order.view.record.id)
    assert batch["failure_code"] == "upstream_not_understood"
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    assert await _trouble(world, partner), "a readable customers list says nothing of the batch's answer"

    await world.control("DELETE", "faults")
    await world.work()
    assert await customer_readings.read_due(world.runtime), "the customers list is read at once"
    assert await _trouble(world, partner) is None
    assert [row["state"] for row in await world.rows(partner, order.view.record.id)] == ["registered"] * 2
    assert len(await world.calls("create")) == 1
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_finished_job_with_a_word_that_is_not_known_is_looked_up_and_told(world: World) -> None:
    partner = await world.partner()
    body = {"status": "finished", "devicesStatus": [{"serialNumber": "SYN00001", "status": "done"}]}
    await world.arm({"operation": "status", "kind": "status", "status": 200, "body": body})
    order = await world.order(partner, tuples(1))

    await world.work()

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert "'done'" in trouble["said"]
    assert [row["state"] for row in await world.rows(partner, order.view.record.id)] == ["registered"]


async def test_a_page_in_the_place_of_an_acceptance_is_told_and_the_devices_are_sent_again(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", **PAGE, "count": 1})
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "upstream_not_understood"
    await world.work()
    assert [row["state"] for row in await world.rows(partner, order.view.record.id)] == ["registered"] * 2
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_consent_link_that_cannot_be_read_is_trouble(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "relationship_request", **PAGE})

    with pytest.raises(NotUnderstood):
        await customer_readings.request(world.runtime, partner, partner.other_customer_id)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "upstream_not_understood"


@pytest.mark.parametrize("marked", ["everywhere", "never"])
async def test_an_order_goes_through_with_and_without_byte_order_marks(world: World, marked: str) -> None:
    await world.switch(byte_order_mark=marked, oem_unknown=["SYN00002"])
    partner = await world.partner()
    world.runtime.token_cache.tokens.clear()
    order = await world.order(partner, tuples(2))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["error_code"] for row in rows] == [None, "device_not_found"]
    assert await _trouble(world, partner) is None


@pytest.mark.parametrize("operation", ["token", "openid"])
async def test_a_token_service_that_cannot_be_understood_is_trouble_and_makes_nothing_uncertain(
    world: World, operation: str
) -> None:
    partner = await world.partner()
    world.runtime.token_cache.tokens.clear()
    await world.arm({"operation": operation, **PAGE})
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)

    trouble = await _trouble(world, partner)
    assert trouble is not None
    assert trouble["code"] == "upstream_not_understood"
    [batch] = await world.batches(order.view.record.id)
    assert (batch["state"], batch["uncertain"]) == ("queued", False)
    await world.control("DELETE", "faults")
    await world.work()
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
