"""An endpoint's backlog is limited, but loses nothing: ended deliveries are listed and can be redelivered."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from sqlalchemy import text

from app.domain.endpoint_health import DEGRADED_AFTER
from app.domain.quota import Quota
from app.services.access import quotas
from app.services.operations import backlogs, sweep
from tests.support.receiver import Receiver, open_receiver, subscribe
from tests.support.world import Partner, World, tuples


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


async def bound(world: World, partner: Partner, each: int) -> None:
    """Limits how many deliveries may wait for each endpoint."""
    await quotas.change(world.runtime, partner.id, Quota.WAITING_EVENTS, each)
    await quotas.change(world.runtime, partner.id, Quota.WEBHOOK_ENDPOINTS, 1)


async def endpoint(world: World, partner: Partner, id: object) -> dict[str, Any]:
    response = await world.client.get(f"/v1/webhook-endpoints/{id}", headers=partner.headers)
    found: dict[str, Any] = response.json()
    return found


async def test_endpoint_with_a_full_backlog_is_told_so_and_loses_nothing(
    world: World, receiver: Receiver
) -> None:
    partner, other = await world.partner(), await world.partner()
    mine = await subscribe(world, partner, receiver.url("/mine"), ["order.accepted"])
    await subscribe(world, other, receiver.url("/other"), ["order.accepted"])
    await bound(world, partner, 3)
    for number in range(3):
        await world.order(partner, tuples(1, f"A{number}"))
    await sweep.tidy(world.runtime)
    assert (await endpoint(world, partner, mine.id))["backlog_full_since"] is not None

    await world.order(partner, tuples(1, "LATE"))
    await world.order(other, tuples(1))
    listed = await world.client.get("/v1/webhook-deliveries", headers=partner.headers)
    newest, *waiting = listed.json()["items"]
    assert (newest["state"], newest["last_kind"]) == ("exhausted", "backlog_full")
    assert {each["state"] for each in waiting} == {"pending"}
    await world.deliver()
    assert (len(receiver.of_path("/mine")), len(receiver.of_path("/other"))) == (3, 1)

    await backlogs.look_after(world.runtime)
    assert (await endpoint(world, partner, mine.id))["backlog_full_since"] is None
    again = await world.client.post(
        f"/v1/webhook-deliveries/{newest['id']}:redeliver", headers=partner.headers
    )
    assert again.status_code == 202
    await world.order(partner, tuples(1, "AFTER"))
    await world.deliver()
    assert len(receiver.of_path("/mine")) == 5


async def test_what_waits_for_a_failing_endpoint_as_long_as_the_ladder_is_given_up(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    failing = await subscribe(world, partner, receiver.url("/failing"), ["order.accepted"])
    await world.order(partner, tuples(1))
    world.clock.advance(hours=80)
    assert await backlogs.look_after(world.runtime) == 0, "an outage of all workers gives nothing up"
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE webhook_endpoints SET consecutive_failures = :n WHERE id = :id"),
            {"n": DEGRADED_AFTER, "id": failing.id},
        )
    await world.order(partner, tuples(1, "YOUNG"))
    assert await backlogs.look_after(world.runtime) == 1
    states = await world.select("SELECT state FROM deliveries ORDER BY id")
    assert [row["state"] for row in states] == ["exhausted", "pending"]
