"""Vendor profiles: stored by name, checked when written, and used when a file names them."""

from uuid import UUID

import pytest

from app.db import vendor_profiles
from app.domain.quota import Quota
from tests.integration.test_api_bad_input import problem_of
from tests.integration.test_quotas import set_quota
from tests.support.import_scene import look, preview, sheet, upload, work_imports
from tests.support.world import Partner, World

DEFINITION = {
    "columns": {"Article": "model", "Unit": "serial_number"},
    "constants": {"manufacturer": "Contoso"},
    "group_tag": {"column": "Floor", "values": {"1": "Ground"}, "otherwise": "Upper"},
}
LARGE = {"group_tag": {"column": "A", "values": {f"{n:0200d}": "T" * 100 for n in range(1000)}}}
"""Each value is within its limit; 300 kB in all."""
DATA = sheet(("Unit", "Article", "Floor"), [["SYN00001", "Book", "1"], ["SYN00002", "Book", "7"]])


async def create(world: World, partner: Partner, name: str = "Supplier", **fields):  # type: ignore[no-untyped-def]
    body = {"name": name, "definition": DEFINITION, **fields}
    return await world.client.post("/v1/vendor-profiles", headers=partner.headers, json=body)


async def test_a_file_is_read_by_the_profile_it_names(world: World) -> None:
    partner = await world.partner()
    assert (await create(world, partner)).status_code == 201
    found = await preview(world, partner, DATA, profile="Supplier")
    assert (found["state"], found["profile"], found["counts"]["valid"]) == ("ready", "Supplier", 2)
    assert {tag["group_tag"]: tag["devices"] for tag in found["preview"]["group_tags"]} == {
        "Ground": 1,
        "Upper": 1,
    }
    without = await preview(world, partner, DATA)
    assert without["state"] != "ready"


async def test_a_file_that_is_waiting_keeps_the_profile_it_was_sent_with(world: World) -> None:
    partner = await world.partner()
    made = (await create(world, partner)).json()
    import_id = await upload(world, partner, DATA, profile="Supplier")
    path = f"/v1/vendor-profiles/{made['id']}"
    changed = await world.client.patch(path, headers=partner.headers, json={"definition": {}})
    assert changed.json()["definition"]["constants"] == {}
    assert (await world.client.delete(path, headers=partner.headers)).status_code == 204
    await work_imports(world)
    assert (await look(world, partner, import_id))["counts"]["valid"] == 2


async def test_profiles_are_shown_listed_renamed_and_deleted(world: World) -> None:
    partner, stranger = await world.partner(), await world.partner()
    made = (await create(world, partner)).json()
    path = f"/v1/vendor-profiles/{made['id']}"
    assert (await world.client.get(path, headers=partner.headers)).json() == made
    listed = (await world.client.get("/v1/vendor-profiles", headers=partner.headers)).json()
    [summary] = listed["items"]
    assert summary.pop("definition_bytes") > 100
    assert summary == {name: value for name, value in made.items() if name != "definition"}
    assert (await world.client.get("/v1/vendor-profiles", headers=stranger.headers)).json()["items"] == []
    renamed = await world.client.patch(path, headers=partner.headers, json={"name": "Other"})
    assert (renamed.json()["name"], renamed.json()["definition"]) == ("Other", made["definition"])
    for method in ("GET", "PATCH", "DELETE"):
        response = await world.client.request(
            method, path, headers=stranger.headers, json={} if method == "PATCH" else None
        )
        problem_of(response, 404, "not_found")
    assert (await world.client.delete(path, headers=partner.headers)).status_code == 204
    problem_of(await world.client.get(path, headers=partner.headers), 404, "not_found")


async def test_a_name_is_taken_once_for_each_partner(world: World) -> None:
    partner, stranger = await world.partner(), await world.partner()
    assert (await create(world, partner)).status_code == 201
    problem_of(await create(world, partner), 409, "already_exists")
    assert (await create(world, stranger)).status_code == 201
    other = (await create(world, partner, "Other")).json()
    path = f"/v1/vendor-profiles/{other['id']}"
    clash = await world.client.patch(path, headers=partner.headers, json={"name": "Supplier"})
    problem_of(clash, 409, "already_exists")


async def test_a_key_gives_the_first_answer_again(world: World) -> None:
    partner = await world.partner()
    headers = {**partner.headers, "Idempotency-Key": "k"}
    body = {"name": "Supplier", "definition": DEFINITION}
    first = await world.client.post("/v1/vendor-profiles", headers=headers, json=body)
    again = await world.client.post("/v1/vendor-profiles", headers=headers, json=body)
    assert (again.status_code, again.json()) == (201, first.json())
    assert await world.count("vendor_profiles") == 1


@pytest.mark.parametrize(
    ("definition", "pointer"),
    [
        ({"columns": {"Unit": "no such field"}}, "/definition/columns/Unit"),
        ({"colums": {}}, "/definition/colums"),
        ({"constants": {"serial_number": "S"}}, "/definition/constants/serial_number"),
        ({"columns": "Unit"}, "/definition/columns"),
        ({"group_tag": {"column": "A", "values": {"x" * 257: "T"}}}, "/definition/group_tag/values"),
        ({"group_tag": {"column": "A", "values": {"x": "T" * 257}}}, "/definition/group_tag/values/x"),
        (LARGE, "/definition"),
    ],
)
async def test_a_mistake_in_a_profile_is_named_where_it_is(
    world: World, definition: dict[str, object], pointer: str
) -> None:
    partner = await world.partner()
    found = problem_of(await create(world, partner, definition=definition), 422, "validation_failed")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert await world.count("vendor_profiles") == 0


async def test_a_large_profile_of_before_is_shown_used_and_not_saved_again(world: World) -> None:
    partner = await world.partner()
    made = (await create(world, partner)).json()
    cells = {"1": "Ground", **{f"{n:0300d}": "T" * 100 for n in range(1000)}}
    definition = {**DEFINITION, "group_tag": {"column": "Floor", "values": cells, "otherwise": "Upper"}}
    async with world.runtime.transaction(partner) as tx:
        await vendor_profiles.update(tx, UUID(made["id"]), {"definition": definition})
    path = f"/v1/vendor-profiles/{made['id']}"
    stored = (await world.client.get(path, headers=partner.headers)).json()
    assert stored["definition"] == definition
    assert (await preview(world, partner, DATA, profile="Supplier"))["counts"]["valid"] == 2
    again = await world.client.patch(path, headers=partner.headers, json={"definition": definition})
    problem_of(again, 422, "validation_failed")


async def test_no_more_profiles_are_made_than_the_quota_allows(world: World) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    await set_quota(world, partner, Quota.VENDOR_PROFILES, 1)
    assert (await create(world, partner)).status_code == 201
    refused = problem_of(await create(world, partner, "Other"), 422, "quota_exceeded")
    assert "1 of 1 vendor profiles" in refused["detail"]
    assert (await create(world, neighbour)).status_code == 201
    assert await world.count("vendor_profiles") == 2
