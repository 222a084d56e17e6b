"""Page tokens belong to a partner, a list and its filters: elsewhere they would silently skip rows."""

from typing import Any

import pytest

from app.db.paging import PageRequest, bind, cut
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.world import Partner, World


async def page(world: World, partner: Partner, path: str) -> dict[str, Any]:
    response = await world.client.get(f"/v1{path}", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def orders(world: World, partner: Partner, count: int) -> list[str]:
    made = [await world.post_order(partner, [TUPLE, TUPLE | {"serial_number": "SYN2"}]) for _ in range(count)]
    return [response.json()["id"] for response in made]


@pytest.mark.parametrize(
    ("begun", "continued"),
    [
        ("/orders?page_size=1", "/customers?page_size=1"),
        ("/orders?page_size=1", "/batches?page_size=1"),
        ("/orders?page_size=1", "/webhook-deliveries"),
        ("/orders?page_size=1", "/orders?page_size=1&state=in_progress"),
        ("/orders?page_size=1&state=in_progress", "/orders?page_size=1"),
        ("/orders?page_size=1&state=in_progress", "/orders?page_size=1&state=held"),
        ("/orders?page_size=1&since=2020-01-01T00:00:00Z", "/orders?page_size=1&since=2021-01-01T00:00:00Z"),
        ("/customers?page_size=1", "/customers?page_size=1&domain=contoso.example"),
        ("/registrations?page_size=1", "/registrations?page_size=1&serial_prefix=SYN"),
        ("/orders/{0}/registrations?page_size=1", "/orders/{1}/registrations?page_size=1"),
        ("/orders/{0}/registrations?page_size=1", "/registrations?page_size=1"),
    ],
)
async def test_a_token_of_another_list_or_of_other_filters_is_refused(
    world: World, begun: str, continued: str
) -> None:
    partner = await world.partner()
    ids = await orders(world, partner, 2)
    first = await page(world, partner, begun.format(*ids))
    token = first["next_page_token"]
    assert token is not None
    separator = "&" if "?" in continued else "?"
    other = f"/v1{continued.format(*ids)}{separator}page_token={token}"
    found = problem_of(await world.client.get(other, headers=partner.headers), 422, "invalid_page_token")
    assert found["errors"][0]["field"] == "page_token"
    assert "filters" in found["errors"][0]["detail"]


async def test_a_token_of_another_partner_is_refused(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    await orders(world, mine, 2)
    token = (await page(world, mine, "/orders?page_size=1"))["next_page_token"]
    response = await world.client.get(f"/v1/orders?page_token={token}", headers=theirs.headers)
    problem_of(response, 422, "invalid_page_token")


async def test_the_pages_size_and_the_order_of_the_filters_may_change_on_the_way(world: World) -> None:
    partner = await world.partner()
    made = await orders(world, partner, 4)
    customer = str(partner.customer_id)
    path = f"/orders?state=in_progress&customer_id={customer}&page_size=1"
    first = await page(world, partner, path)
    rest = await page(
        world,
        partner,
        f"/orders?page_size=10&page_token={first['next_page_token']}&customer_id={customer}&state=in_progress",
    )
    assert [order["id"] for order in first["items"] + rest["items"]] == made[::-1]


async def test_token_behind_every_row_that_there_can_be_leads_to_an_empty_page(world: World) -> None:
    """Such a token can only be made by hand."""
    partner = await world.partner()
    [order_id] = await orders(world, partner, 1)
    path = f"/orders/{order_id}/registrations"
    binding = bind(str(partner.id), f"/v1{path}", [("state", "queued")])
    token = cut([], PageRequest(binding=binding), str, searched_to=2**31 - 1).next_token
    assert await page(world, partner, f"{path}?state=queued&page_token={token}") == {
        "items": [],
        "next_page_token": None,
    }
