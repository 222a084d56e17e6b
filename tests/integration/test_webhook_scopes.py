"""Webhooks tell a key's owner only what the key itself may read, whichever way they are set up."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from app.domain.event import EVENTS, EventType
from app.domain.quota import Quota
from app.domain.scope import Scope
from app.domain.subscription import EVERY_SCOPE, SUBSCRIBABLE
from app.services.access import identities
from tests.support.receiver import Receiver, open_receiver, subscribe
from tests.support.world import Partner, World, tuples


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


async def key(world: World, partner: Partner, *scopes: Scope) -> dict[str, str]:
    made = await identities.create_key(world.runtime, partner, name="few", scopes=scopes)
    return {"Authorization": f"Bearer {made.secret}"}


async def ask(world: World, headers: dict[str, str], types: list[str]) -> httpx.Response:
    body = {"url": "https://hooks.example.com/", "event_types": types}
    return await world.client.post("/v1/webhook-endpoints", headers=headers, json=body)


def refused(response: httpx.Response, *words: str) -> bool:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (403, "scope_missing"), problem
    assert all(word in problem["detail"] for word in words), problem
    return True


def test_each_type_of_event_has_the_scope_that_reads_it() -> None:
    told = {type: EVENTS[type].scope for type in SUBSCRIBABLE}
    assert all(scope.value.endswith(":read") for scope in told.values())
    assert set(told.values()) <= EVERY_SCOPE


@pytest.mark.parametrize(
    "scope, readable, other",
    [
        (Scope.ORDERS_READ, "order.completed", "consent.granted"),
        (Scope.ORDERS_READ, "import.ready", "connection.trouble"),
        (Scope.CUSTOMERS_READ, "consent.revoked", "registration.settled"),
        (Scope.CONNECTIONS_READ, "connection.recovered", "import.committed"),
    ],
)
async def test_key_subscribes_to_what_it_may_read_and_to_nothing_else(
    world: World, scope: Scope, readable: str, other: str
) -> None:
    partner = await world.partner(consented=False)
    headers = await key(world, partner, Scope.WEBHOOKS_WRITE, scope)
    missing = EVENTS[EventType(other)].scope.value
    made = await ask(world, headers, [readable])
    assert made.status_code == 201, made.text
    assert refused(await ask(world, headers, [readable, other]), missing, other)
    assert refused(await ask(world, headers, []), "also those that come later", missing)
    path = f"/v1/webhook-endpoints/{made.json()['id']}"
    for types in ([other], []):
        changed = await world.client.patch(path, headers=headers, json={"event_types": types})
        assert refused(changed, missing)
    kept = await world.client.get(path, headers=partner.headers)
    assert kept.json()["event_types"] == [readable]


async def test_endpoint_for_every_type_is_for_keys_that_may_read_everything(world: World) -> None:
    partner = await world.partner(consented=False)
    assert (
        await ask(world, await key(world, partner, Scope.WEBHOOKS_WRITE, *EVERY_SCOPE), [])
    ).status_code == 201
    for missing in EVERY_SCOPE:
        headers = await key(world, partner, Scope.WEBHOOKS_WRITE, *(EVERY_SCOPE - {missing}))
        assert refused(await ask(world, headers, []), f"lacks {missing.value}.")


async def test_key_turns_nobodys_endpoint_towards_itself(world: World, receiver: Receiver) -> None:
    """Endpoints that another key created keep working, and cannot be redirected."""
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url("/theirs"))
    weak = await key(world, partner, Scope.WEBHOOKS_WRITE, Scope.WEBHOOKS_READ)
    path = f"/v1/webhook-endpoints/{endpoint.id}"
    moved = await world.client.patch(path, headers=weak, json={"url": receiver.url("/mine")})
    assert refused(moved, "orders:read")
    assert refused(await world.client.patch(path, headers=weak, json={"state": "enabled"}), "orders:read")
    renamed = await world.client.patch(path, headers=weak, json={"description": "Kept"})
    assert renamed.status_code == 200

    await world.order(partner, tuples(1))
    await world.work()
    await world.deliver()
    assert receiver.of_path("/mine") == []
    assert len(receiver.of_path("/theirs")) == 3

    listed = await world.client.get("/v1/webhook-deliveries", headers=weak)
    id = listed.json()["items"][0]["id"]
    shown = await world.client.get(f"/v1/webhook-deliveries/{id}", headers=weak)
    assert (shown.status_code, shown.json()["payload"]) == (200, None)
    mine = await world.client.get(f"/v1/webhook-deliveries/{id}", headers=partner.headers)
    assert "order_id" in mine.json()["payload"]
    again = await world.client.post(f"/v1/webhook-deliveries/{id}:redeliver", headers=weak)
    assert refused(again, "orders:read")


async def test_test_event_tells_nothing_and_needs_no_other_scope(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    weak = await key(world, partner, Scope.WEBHOOKS_WRITE, Scope.WEBHOOKS_READ)
    sent = await world.client.post(f"/v1/webhook-endpoints/{endpoint.id}:test", headers=weak)
    assert sent.status_code == 202
    shown = await world.client.get(f"/v1/webhook-deliveries/{sent.json()['id']}", headers=weak)
    assert "This is a test." in shown.json()["payload"]


async def test_partner_has_as_many_endpoints_as_its_quota_says(
    world: World,
) -> None:
    partner = await world.partner(consented=False)
    other = await world.partner(consented=False)
    async with world.runtime.transaction(partner) as tx:
        limit = tx.quotas[Quota.WEBHOOK_ENDPOINTS]
    assert limit == 25
    made = [await ask(world, partner.headers, []) for _ in range(limit)]
    assert {response.status_code for response in made} == {201}
    full = await ask(world, partner.headers, [])
    assert (full.status_code, full.json()["code"]) == (422, "quota_exceeded")
    assert "webhook_endpoints" in full.json()["detail"]
    assert (await ask(world, other.headers, [])).status_code == 201
    gone = await world.client.delete(f"/v1/webhook-endpoints/{made[0].json()['id']}", headers=partner.headers)
    assert gone.status_code == 204
    assert (await ask(world, partner.headers, [])).status_code == 201


async def test_deliveries_of_types_that_a_later_release_publishes_are_shown(
    world: World, receiver: Receiver
) -> None:
    """During an upgrade, workers of the next release run beside this API."""
    partner = await world.partner()
    await subscribe(world, partner, receiver.url())
    await world.order(partner, tuples(1))
    await world.select("UPDATE events SET type = 'order.renamed' WHERE type = 'order.accepted' RETURNING id")
    await world.deliver()
    listed = await world.client.get("/v1/webhook-deliveries", headers=partner.headers)
    assert listed.status_code == 200, listed.text
    (delivery,) = listed.json()["items"]
    assert (delivery["event_type"], delivery["state"]) == ("order.renamed", "succeeded")

    path = f"/v1/webhook-deliveries/{delivery['id']}"
    mine = await world.client.get(path, headers=partner.headers)
    assert orjson.loads(mine.json()["payload"])["type"] == "order.renamed"
    again = await world.client.post(f"{path}:redeliver", headers=partner.headers)
    assert (again.status_code, again.json()["event_type"]) == (202, "order.renamed")
    few = await key(world, partner, Scope.WEBHOOKS_WRITE, Scope.WEBHOOKS_READ, Scope.ORDERS_READ)
    shown = await world.client.get(path, headers=few)
    assert (shown.status_code, shown.json()["payload"]) == (200, None), "nobody knows what it tells of"
    assert refused(
        await world.client.post(f"{path}:redeliver", headers=few), "connections:read", "customers:read"
    )
    await world.select("DELETE FROM deliveries RETURNING id")
    await world.select("DELETE FROM events RETURNING id")
