"""Finding devices by parts of their identifiers, and retrying chosen rows of an order."""

from typing import Any
from uuid import UUID

import pytest

from app.db import searching
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.integration.test_api_orders import all_pages, get, tuple_of
from tests.support.world import Partner, World


async def serials(world: World, partner: Partner, path: str) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = await get(world, partner, f"{path}&page_size=2{token}")
        found += [row["serial_number"] for row in page["items"]]
        if page["next_page_token"] is None:
            return found
        token = f"&page_token={page['next_page_token']}"


@pytest.mark.parametrize("window", [100_000, 3], ids=["one look", "many looks"])
async def test_a_device_is_found_by_any_part_of_its_serial_number(
    world: World, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(searching, "SEARCHED", window)
    partner, rival = await world.partner(), await world.partner()
    names = ["XA-4711-B", "PF4711", "47%11", "a4_711", "ÄÖ-4711", "SYN1"]
    for name in names:
        await world.post_order(partner, [{**TUPLE, "serial_number": name}, tuple_of(900), tuple_of(901)])
    await world.post_order(rival, [{**TUPLE, "serial_number": "RIVAL-4711"}])
    found = await serials(world, partner, "/v1/registrations?serial_contains=4711")
    assert found == ["ÄÖ-4711", "PF4711", "XA-4711-B"]
    assert await serials(world, partner, "/v1/registrations?serial_contains=a-4") == ["XA-4711-B"]
    assert await serials(world, partner, "/v1/registrations?serial_contains=7%2511") == ["47%11"]
    assert await serials(world, partner, "/v1/registrations?serial_contains=4_7") == ["a4_711"]
    assert await serials(world, partner, "/v1/registrations?serial_contains=nothing") == []


async def test_one_page_looks_through_a_bounded_number_of_devices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "SEARCHED", 4)
    partner = await world.partner()
    await world.post_order(partner, [{**TUPLE, "serial_number": "NEEDLE"}, *map(tuple_of, range(9))])
    page = await get(world, partner, "/v1/registrations?serial_contains=NEED")
    assert (page["items"], page["next_page_token"] is None) == ([], False)
    assert await serials(world, partner, "/v1/registrations?serial_contains=NEED") == ["NEEDLE"]


async def test_a_device_is_found_by_its_pkid_and_a_part_needs_three_characters(world: World) -> None:
    partner = await world.partner()
    device = {"product_key": "9999000000017", "line_ref": "L-7"}
    order = (await world.post_order(partner, [tuple_of(1), device])).json()
    for path in ("/v1/registrations", f"/v1/orders/{order['id']}/registrations"):
        (row,) = await all_pages(world, partner, f"{path}?product_key=9999000000017", 50)
        assert row["line_ref"] == "L-7"
        assert await all_pages(world, partner, f"{path}?product_key=9999", 50) == []
        answer = await world.client.get(f"{path}?serial_contains=ab", headers=partner.headers)
        assert problem_of(answer, 422, "invalid_parameter")["errors"][0]["field"] == "serial_contains"


async def failed_order(world: World, partner: Partner) -> UUID:
    """Rows 1 to 4: failed by 802, failed by 802, failed by another code, registered."""
    await world.arm(
        {"operation": "create", "kind": "device_error", "serials": ["SYN0001", "SYN0002"], "code": "802"}
    )
    await world.arm({"operation": "create", "kind": "device_error", "serials": ["SYN0003"], "code": "801"})
    devices = [tuple_of(n, line_ref=f"L{n}") for n in range(1, 5)]
    order_id = UUID((await world.post_order(partner, devices)).json()["id"])
    await world.work()
    return order_id


async def retry(world: World, partner: Partner, order_id: UUID, **chosen: Any) -> Any:
    return await world.client.post(
        f"/v1/orders/{order_id}:retry-failed", headers=partner.headers, json=chosen
    )


@pytest.mark.parametrize(
    ("chosen", "attempts"),
    [
        ({"rows": [2, 4]}, [1, 2, 1, 1]),
        ({"line_refs": ["L1", "L3"]}, [2, 1, 2, 1]),
        ({"rows": [1, 3], "line_refs": ["L3", "L2"]}, [1, 1, 2, 1]),
        ({"states": ["failed"]}, [2, 2, 2, 1]),
        ({}, [2, 2, 2, 1]),
    ],
)
async def test_chosen_rows_are_tried_again_and_the_others_are_left(
    world: World, chosen: dict[str, Any], attempts: list[int]
) -> None:
    partner = await world.partner()
    order_id = await failed_order(world, partner)
    answer = await retry(world, partner, order_id, **chosen)
    assert answer.status_code == 200, answer.text
    assert answer.json()["retried"] == attempts.count(2)
    assert [row["attempt"] for row in await world.rows(partner, order_id)] == attempts


async def test_rows_are_chosen_by_their_code(world: World) -> None:
    partner = await world.partner()
    order_id = await failed_order(world, partner)
    codes = [row["error_code"] for row in await world.rows(partner, order_id)]
    assert len({*codes}) == 3
    answer = await retry(world, partner, order_id, codes=[codes[2]])
    assert answer.json()["retried"] == 1
    assert [row["attempt"] for row in await world.rows(partner, order_id)] == [1, 1, 2, 1]


async def test_a_choice_that_fits_no_failed_row_or_is_none_is_refused(world: World) -> None:
    partner = await world.partner()
    order_id = await failed_order(world, partner)
    for chosen in ({"rows": [4]}, {"rows": [99]}, {"states": ["conflict"]}, {"codes": ["no_such"]}):
        found = problem_of(await retry(world, partner, order_id, **chosen), 409, "invalid_state")
        assert "chosen" in found["detail"]
    wrongs: list[dict[str, Any]] = [{"rows": []}, {"rows": [0]}, {"rows": ["1"]}, {"row": [1]}]
    for wrong in wrongs:
        problem_of(await retry(world, partner, order_id, **wrong), 422, "validation_failed")
    assert [row["attempt"] for row in await world.rows(partner, order_id)] == [1, 1, 1, 1]
