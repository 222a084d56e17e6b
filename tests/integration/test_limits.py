"""`GET /v1/limits`: each connection's call rate and the waiting work, for the caller's partner only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.budget import Priority
from app.domain.quota import QUOTAS, Quota
from app.domain.scope import Scope
from app.domain.upstream import OutcomeUnknown, Throttled
from app.services.access import identities, quotas
from app.services.registering import batches
from tests.support.world import Partner, World, tuples


async def limits(world: World, partner: Partner) -> dict[str, Any]:
    response = await world.client.get("/v1/limits", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def one_call(world: World, partner: Partner, failure: Throttled | OutcomeUnknown) -> None:
    gate = world.runtime.budgets.gate(partner.connection_id, world.runtime.now)
    await gate.leave(await gate.enter(Priority.FIRST), failure)


async def test_a_quiet_connection_shows_its_rate_and_a_closed_breaker(world: World) -> None:
    partner = await world.partner()
    found = await limits(world, partner)
    assert found["shared"] is True
    [connection] = found["connections"]
    assert (connection["connection_id"], connection["name"]) == (str(partner.connection_id), "main")
    settings = world.runtime.settings
    assert connection["rate_per_second"] == settings.budget_start
    assert connection["ceiling_per_second"] == settings.budget_ceiling
    assert connection["floor_per_second"] == settings.budget_floor
    assert connection["breaker"] == {"state": "closed", "failures": 0, "retry_at": None}
    assert connection["blocked_until"] is connection["last_throttled_at"] is connection["trouble"] is None
    assert connection["work"]["queued_batches"] == connection["work"]["in_flight_devices"] == 0
    assert found["customers"] == []
    own = found["registrar"]
    assert own["max_body_bytes"] == settings.max_body_bytes
    assert own["max_devices_per_order"] == 10_000
    assert (own["default_page_size"], own["max_page_size"]) == (50, 1000)
    assert (own["customer_window"], own["connection_window"]) == (4, 32)


async def test_a_throttled_connection_shows_since_when_until_when_and_how_slow(world: World) -> None:
    partner = await world.partner()
    before = datetime.now(UTC)
    await one_call(world, partner, Throttled(timedelta(seconds=90)))
    [connection] = (await limits(world, partner))["connections"]
    assert connection["rate_per_second"] == world.runtime.settings.budget_start / 2
    throttled_at = datetime.fromisoformat(connection["last_throttled_at"])
    assert before - timedelta(seconds=1) <= throttled_at <= before + timedelta(seconds=10)
    assert datetime.fromisoformat(connection["blocked_until"]) - throttled_at == timedelta(seconds=90)
    world.clock.advance(seconds=91)
    [connection] = (await limits(world, partner))["connections"]
    assert connection["blocked_until"] is None
    assert connection["last_throttled_at"] is not None


async def test_an_open_breaker_shows_when_it_tries_again(world: World) -> None:
    partner = await world.partner()
    for _ in range(world.runtime.settings.breaker_failures):
        await one_call(world, partner, OutcomeUnknown(answered=False))
    [connection] = (await limits(world, partner))["connections"]
    assert connection["breaker"]["state"] == "open"
    assert connection["breaker"]["failures"] == world.runtime.settings.breaker_failures
    assert connection["breaker"]["retry_at"] == connection["blocked_until"] is not None
    world.clock.advance(seconds=world.runtime.settings.breaker_pause_s + 1)
    [connection] = (await limits(world, partner))["connections"]
    assert (connection["breaker"]["state"], connection["breaker"]["retry_at"]) == ("half_open", None)


async def test_a_connection_in_trouble_shows_its_code_and_when_it_is_tried_again(world: World) -> None:
    partner = await world.partner()
    world.runtime.token_cache.tokens.clear()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50076})
    await world.order(partner, tuples(1))
    await batches.advance_next(world.runtime)
    [connection] = (await limits(world, partner))["connections"]
    assert connection["trouble"] == "mfa_required"
    assert connection["blocked_until"] is not None
    assert connection["breaker"]["state"] == "closed"


async def test_waiting_work_is_counted_by_customer_and_state(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=60_000, processing_max_ms=60_000)
    await world.order(partner, tuples(3, "SENT"))
    await batches.advance_next(world.runtime)
    await world.order(partner, tuples(5, "WAIT"))
    await world.order(partner, tuples(2, "HELD"), customer_id=partner.other_customer_id)
    found = await limits(world, partner)
    by_customer = {row["customer_id"]: row for row in found["customers"]}
    mine = by_customer[str(partner.customer_id)]
    theirs = by_customer[str(partner.other_customer_id)]
    assert list(by_customer) == [str(partner.customer_id), str(partner.other_customer_id)]
    assert (mine["queued_batches"], mine["queued_devices"]) == (1, 5)
    assert (mine["in_flight_batches"], mine["in_flight_devices"]) == (1, 3)
    assert (mine["held_batches"], mine["held_devices"]) == (0, 0)
    assert mine["oldest_due_at"] is not None
    assert (theirs["held_batches"], theirs["held_devices"], theirs["oldest_due_at"]) == (1, 2, None)
    [connection] = found["connections"]
    assert connection["work"]["queued_devices"] == 5
    assert connection["work"]["in_flight_devices"] == 3
    assert connection["work"]["held_devices"] == 2

    await world.control("POST", "jobs:finish")
    await world.work()
    after = await limits(world, partner)
    assert [row["customer_id"] for row in after["customers"]] == [str(partner.other_customer_id)]


async def test_a_partner_sees_nothing_of_another_ones(world: World) -> None:
    one, two = await world.partner(), await world.partner()
    await world.order(two, tuples(4))
    await one_call(world, two, Throttled(timedelta(seconds=90)))
    found = await limits(world, one)
    assert [row["connection_id"] for row in found["connections"]] == [str(one.connection_id)]
    assert found["connections"][0]["last_throttled_at"] is None
    assert found["customers"] == []
    for id_ in (two.connection_id, two.customer_id, two.id):
        assert str(id_) not in str(found)


async def test_it_takes_the_right_to_read_orders(world: World) -> None:
    partner = await world.partner()
    key = await identities.create_key(world.runtime, partner, name="narrow", scopes=[Scope.WEBHOOKS_READ])
    refused = await limits_with(world, replace(partner, key=key.secret))
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert (await world.client.get("/v1/limits")).status_code == 401


async def limits_with(world: World, partner: Partner) -> Any:
    return await world.client.get("/v1/limits", headers=partner.headers)


async def test_the_description_documents_every_field_of_the_answer(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert document["paths"]["/v1/limits"]["get"]["description"]
    shapes = document["components"]["schemas"]
    partner = await world.partner()
    found = await limits(world, partner)
    assert set(shapes["LimitsOut"]["properties"]) == set(found)
    assert set(shapes["ConnectionLimitsOut"]["properties"]) == set(found["connections"][0])
    assert set(shapes["QuotaOut"]["properties"]) == set(found["quotas"][0])
    assert set(shapes["OwnLimits"]["properties"]) == set(found["registrar"])


async def test_every_quota_is_shown_with_its_use_and_whether_it_is_the_default(world: World) -> None:
    partner, other = await world.partner(), await world.partner()
    await quotas.change(world.runtime, partner.id, Quota.CUSTOMERS, 7)
    found = {each["quota"]: each for each in (await limits(world, partner))["quotas"]}
    assert set(found) == set(Quota)
    assert found["customers"] == {
        "quota": "customers",
        "limit": 7,
        "used": 2,
        "is_default": False,
        "counts": QUOTAS[Quota.CUSTOMERS].counts,
    }
    assert [found[name]["used"] for name in ("connections", "api_keys", "webhook_endpoints")] == [1, 1, 0]
    theirs = {each["quota"]: each for each in (await limits(world, other))["quotas"]}
    assert (theirs["customers"]["limit"], theirs["customers"]["is_default"]) == (100_000, True)
