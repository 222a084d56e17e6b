"""A later release can add columns to the tables while this one runs: callers do not notice."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from sqlalchemy import text

from app.db.tables import metadata
from app.services.imports import work
from tests.support.document import openapi
from tests.support.world import Partner, World

FILE = b"Device Serial Number,Manufacturer name,Device model\r\n%s,Contoso,Book\r\n"


@asynccontextmanager
async def added_to_every_table(world: World) -> AsyncIterator[None]:
    async def change(what: str) -> None:
        async with world.owner() as owner, owner.begin() as session:
            for table in metadata.sorted_tables:
                await session.execute(text(f"ALTER TABLE {table.name} {what}"))

    await change("ADD COLUMN of_a_later_release integer")
    try:
        yield
    finally:
        await change("DROP COLUMN of_a_later_release")


async def one_of_everything(world: World, partner: Partner, tag: str) -> dict[str, str]:
    """Creates a registered order, a read import, and an endpoint that has received an event."""
    key = {"Idempotency-Key": str(uuid4())}
    device = {"serial_number": f"SYN{tag}", "manufacturer": "Contoso", "model": "Book"}
    endpoint = await world.client.post(
        "/v1/webhook-endpoints", headers=partner.headers, json={"url": "https://hooks.example/in"}
    )
    profile = await world.client.post(
        "/v1/vendor-profiles",
        headers=partner.headers,
        json={"name": tag, "definition": {"group_tag": {"column": "Tag"}}},
    )
    order = await world.post_order(partner, [device], headers=key)
    file = await world.client.post(
        f"/v1/imports?customer_id={partner.customer_id}&profile={tag}",
        headers=partner.headers,
        content=FILE % f"IMP{tag}".encode(),
    )
    answers = (endpoint, profile, order, file)
    assert [answer.status_code for answer in answers] == [201] * 4, [answer.text for answer in answers]
    await world.work()
    while await work.advance_next(world.runtime):
        pass
    await world.deliver()
    names = ("endpoint_id", "profile_id", "order_id", "import_id")
    found = {name: answer.json()["id"] for name, answer in zip(names, answers, strict=True)}
    deliveries = await world.client.get("/v1/webhook-deliveries", headers=partner.headers)
    batches = await world.client.get(f"/v1/orders/{found['order_id']}/batches", headers=partner.headers)
    return found | {
        "delivery_id": deliveries.json()["items"][0]["id"],
        "batch_id": batches.json()["items"][0]["id"],
        "customer_id": str(partner.customer_id),
        "connection_id": str(partner.connection_id),
    }


async def everything_read(world: World, partner: Partner, ids: dict[str, str]) -> dict[str, int]:
    """The status of each GET of the API."""
    found = {}
    for path, operations in openapi()["paths"].items():
        if "get" in operations and path.startswith("/v1/"):
            whole = re.sub(r"{(\w+)}", lambda named: ids.get(named[1], str(uuid4())), path)
            found[path] = (await world.client.get(whole, headers=partner.headers)).status_code
    return found


async def test_columns_that_a_later_release_adds_cost_this_one_no_error(world: World) -> None:
    partner = await world.partner()
    async with world.served(database_pool_size=2) as other:  # few, so statements are prepared
        ids = await one_of_everything(other, partner, "BEFORE")
        before = await everything_read(other, partner, ids)
        assert list(before.values()).count(200) > 25
        async with added_to_every_table(other):
            ids = await one_of_everything(other, partner, "AFTER")
            assert await everything_read(other, partner, ids) == before
