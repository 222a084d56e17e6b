"""Changing a connection's app or tenant: secrets must be given again, and old tokens are not used."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.domain.order import OrderState
from app.domain.upstream import Unreachable
from app.platforms.partner_center.driver import delegated_token
from app.services.connections import customer_readings
from app.services.connections.access import open_access
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples


async def _patch(world: World, partner: Partner, **fields: Any) -> httpx.Response:
    return await world.client.patch(
        f"/v1/connections/{partner.connection_id}", headers=partner.headers, json=fields
    )


async def _new_app(world: World, tenant_id: UUID) -> dict[str, str]:
    made: dict[str, str] = await world.control("POST", "partners", {"tenant_id": str(tenant_id)})
    return {name: made[name] for name in ("client_id", "client_secret", "refresh_token")}


async def _other_tenant(world: World, *agreed: UUID) -> dict[str, str]:
    """Another tenant of the partner, with these customers' consent; returns the body of a PATCH to it."""
    made = (await world.control("POST", "seed", {"customers": 0}))["partner"]
    for customer in agreed:
        await world.control("POST", f"customers/{customer}:accept", {"partner": made["tenant_id"]})
    credentials = {name: made[name] for name in ("client_id", "client_secret", "refresh_token")}
    return {"entra_tenant_id": made["tenant_id"], **credentials}


async def _consent(world: World, partner: Partner) -> tuple[str, str]:
    response = await world.client.get(f"/v1/customers/{partner.customer_id}", headers=partner.headers)
    consent = response.json()["consent"]
    return consent["state"], consent["evidence"]


@pytest.mark.parametrize("changed", ["client_id", "entra_tenant_id"])
@pytest.mark.parametrize(
    ("delegated", "sent", "missing"),
    [
        (True, (), ["/client_secret", "/refresh_token"]),
        (True, ("client_secret",), ["/refresh_token"]),
        (True, ("refresh_token",), ["/client_secret"]),
        (False, (), ["/client_secret"]),
    ],
)
async def test_another_app_or_tenant_is_refused_without_its_secrets(
    world: World, changed: str, delegated: bool, sent: tuple[str, ...], missing: list[str]
) -> None:
    partner = await world.partner(delegated=delegated)
    other = await _other_tenant(world)
    before = await world.select("SELECT * FROM connections")

    answer = await _patch(world, partner, name="renamed", **{n: other[n] for n in (changed, *sent)})

    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert [error["pointer"] for error in problem["errors"]] == missing
    assert changed in problem["detail"]
    assert await world.select("SELECT * FROM connections") == before, "nothing was changed"


async def test_the_same_app_and_tenant_may_be_named_without_secrets(world: World) -> None:
    partner = await world.partner()
    [row] = await world.select("SELECT client_id FROM connections")

    answer = await _patch(
        world, partner, client_id=row["client_id"], entra_tenant_id=str(partner.entra_tenant_id), name="new"
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == "new"
    assert await _consent(world, partner) == ("granted", "customers_list")


async def test_a_portal_connection_has_no_app_to_change(world: World) -> None:
    partner = await world.partner()
    await world.select(
        "UPDATE connections SET mode = 'portal', client_id = NULL, client_secret = NULL, "
        "refresh_token = NULL RETURNING id"
    )

    answer = await _patch(world, partner, client_id="app")

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/client_id"]


async def test_tokens_of_the_old_app_are_not_used_by_any_process(world: World) -> None:
    partner = await world.partner()
    async with world.another() as other:
        await other.order(partner, tuples(1, "FIRST"))
        await other.work()
        asked = len(await world.calls("token"))

        answer = await _patch(world, partner, **await _new_app(world, partner.entra_tenant_id))
        assert answer.status_code == 200, answer.text
        order = await other.order(partner, tuples(2))
        await other.work()

    assert len(await world.calls("token")) == asked + 1, "the other process has asked for a token again"
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
    assert await _consent(world, partner) == ("granted", "customers_list"), "the tenant is the same"


async def test_a_step_that_began_before_the_change_does_not_send_the_new_token_to_the_old_tenant(
    world: World,
) -> None:
    partner = await world.partner()
    begun = await open_access(world.runtime, partner, partner.connection_id)
    await _patch(world, partner, **await _other_tenant(world))
    asked = len(await world.calls("token"))

    with pytest.raises(Unreachable):
        await begun.token(delegated_token(begun))

    assert len(await world.calls("token")) == asked
    [row] = await world.select("SELECT token_owner FROM connections")
    assert row["token_owner"] is None
    assert not begun.runtime.token_cache.tokens


async def test_another_tenant_holds_orders_until_its_own_customers_list_has_been_read(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    waiting = await world.order(partner, tuples(2))
    order_id = waiting.view.record.id

    answer = await _patch(world, partner, **await _other_tenant(world, partner.tenant_id))

    assert answer.status_code == 200, answer.text
    assert answer.json()["customers_read_at"] is None
    assert await _consent(world, partner) == ("unknown", "tenant_changed")
    assert (await world.view(partner, order_id)).state is OrderState.HELD
    assert await world.work() == 0

    assert await customer_readings.read_due(world.runtime), "at once"
    assert await _consent(world, partner) == ("granted", "customers_list")
    await world.work()
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    created = [call["status"] for call in await world.calls("create")]
    assert created == [202, 202], "the new tenant has no such group tag yet"
    await assert_agreement(world, partner, order_id)


async def test_a_customer_of_the_old_tenant_only_stays_held(world: World) -> None:
    partner = await world.partner()
    await _patch(world, partner, **await _other_tenant(world))
    await customer_readings.read_due(world.runtime)

    order = await world.order(partner, tuples(1))
    await world.work()

    assert await _consent(world, partner) == ("unknown", "tenant_changed")
    assert (await world.view(partner, order.view.record.id)).state is OrderState.HELD
    assert not await world.calls("create")


async def test_a_list_of_the_old_tenant_that_arrives_late_proves_nothing(world: World) -> None:
    partner = await world.partner()
    other = await _other_tenant(world)
    await world.arm({"operation": "customers", "kind": "hold", "phase": "after"})
    reading = asyncio.create_task(
        customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    )
    await world.until_held_open()

    await _patch(world, partner, **other)
    await world.let_go()
    await reading

    assert await _consent(world, partner) == ("unknown", "tenant_changed")


async def test_a_batch_under_way_through_the_old_tenant_is_found_out_through_the_new_one(
    world: World,
) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)
    await _patch(world, partner, **await _other_tenant(world, partner.tenant_id))
    await customer_readings.read_due(world.runtime)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["already_registered"] * 2, "not listed under the new tenant"
    await assert_agreement(world, partner, order.view.record.id)
