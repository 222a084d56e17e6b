"""Committing an import: the orders match the preview, for one customer or several."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.identity import IdentityKind
from app.local.synthetic import devices
from tests.integration.test_api_bad_input import problem_of
from tests.support.agreement import assert_agreement
from tests.support.import_scene import (
    HEADER,
    commit,
    committed,
    look,
    preview,
    send,
    sheet,
    tuple_rows,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.world import Partner, World, tuples

TAGGED = (*HEADER, "Group Tag")
FOR_CUSTOMERS = (*HEADER, "Customer")


async def order_of(world: World, partner: Partner, order_id: str) -> Any:
    response = await world.client.get(f"/v1/orders/{order_id}", headers=partner.headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_preview_and_the_order_have_the_same_numbers(world: World) -> None:
    partner = await world.partner()
    rows = [
        *tuple_rows(1005, "AAA", "Kiosk"),
        *tuple_rows(3, "BBB", "Office"),
        ["CCC1", "", "", "Kiosk"],
        ["CCC2", "Contoso", "", "Kiosk"],
        ["CCC3", "", "Book", "Kiosk"],
    ]
    found = await preview(world, partner, sheet(TAGGED, rows), reference="PO-1")
    assert found["counts"] == {"total": 1011, "valid": 1008, "warning": 0, "invalid": 3}
    assert found["preview"]["batches"] == 3

    final = await committed(world, partner, found["id"])
    assert final["state"] == "committed"
    assert final["counts"] == found["counts"]
    [made] = final["orders"]
    assert (made["reference"], made["customer_id"]) == ("PO-1", str(partner.customer_id))
    order = await order_of(world, partner, made["order_id"])
    assert order["counts"]["total"] == 1011
    assert (order["counts"]["queued"], order["counts"]["invalid"]) == (1008, 3)
    batches = await world.batches(UUID(made["order_id"]))
    cut = [(batch["group_tag"], batch["device_count"]) for batch in batches]
    assert cut == [("Kiosk", 1000), ("Kiosk", 5), ("Office", 3)]
    await world.work()
    registered = await world.rows(partner, UUID(made["order_id"]))
    assert [row["row"] for row in registered] == list(range(1, 1001))
    order = await order_of(world, partner, made["order_id"])
    assert (order["state"], order["counts"]["registered"]) == ("completed_with_errors", 1008)
    await assert_agreement(world, partner, UUID(made["order_id"]))


async def test_rows_lie_in_their_batches_in_the_order_of_the_file(world: World) -> None:
    partner = await world.partner()
    rows = [*tuple_rows(1500, "AAA", "Kiosk"), *tuple_rows(700, "BBB", "Kiosk")]
    final = await committed(world, partner, (await preview(world, partner, sheet(TAGGED, rows)))["id"])
    stored = await world.select(
        "SELECT r.batch_position, r.row_number FROM registrations r JOIN batches b ON b.id = r.batch_id "
        "WHERE r.order_id = :id ORDER BY b.id, r.batch_position",
        id=UUID(final["orders"][0]["order_id"]),
    )
    assert [row["row_number"] for row in stored] == list(range(1, 2201))
    assert [row["batch_position"] for row in stored] == [*range(1000), *range(1000), *range(200)]


async def test_a_file_for_several_customers_becomes_an_order_for_each(world: World) -> None:
    partner = await world.partner()
    rows = [
        *tuple_rows(3, "AAA", str(partner.tenant_id)),
        *tuple_rows(2, "BBB", "UNDECIDED ltd"),
        *tuple_rows(1, "CCC", "Nobody Inc."),
        *tuple_rows(1, "DDD", ""),
    ]
    found = await preview(world, partner, sheet(FOR_CUSTOMERS, rows), customer_id=None, reference="PO-7")
    assert found["counts"] == {"total": 7, "valid": 5, "warning": 0, "invalid": 2}
    shown = {c["customer_id"]: c["counts"]["valid"] for c in found["preview"]["customers"]}
    assert shown == {str(partner.customer_id): 3, str(partner.other_customer_id): 2, None: 0}
    assert {p["code"] for p in found["preview"]["problems"]} == {"customer_not_found", "customer_missing"}

    final = await committed(world, partner, found["id"])
    assert {order["reference"][:5] for order in final["orders"]} == {"PO-7/"}
    by_customer = {order["customer_id"]: order for order in final["orders"]}
    consented = await order_of(world, partner, by_customer[str(partner.customer_id)]["order_id"])
    undecided = await order_of(world, partner, by_customer[str(partner.other_customer_id)]["order_id"])
    assert (consented["counts"]["queued"], undecided["counts"]["held"]) == (3, 2)
    assert (consented["state"], undecided["state"]) == ("in_progress", "held")
    await world.work()
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 3
    assert await world.devices_at_microsoft(partner.other_tenant_id) == []


async def test_a_row_for_another_customer_than_the_upload_says_is_not_ordered(world: World) -> None:
    partner = await world.partner()
    rows = [
        *tuple_rows(1, "AAA", "Consented Ltd"),
        *tuple_rows(1, "BBB", "Undecided Ltd"),
        *tuple_rows(1, "CCC", "our own words"),
    ]
    found = await preview(world, partner, sheet(FOR_CUSTOMERS, rows))
    assert found["counts"] == {"total": 3, "valid": 1, "warning": 1, "invalid": 1}
    problems = {p["code"]: p["first_rows"] for p in found["preview"]["problems"]}
    assert problems == {"customer_contradicts": [2], "customer_name_unknown": [3]}


@pytest.mark.parametrize("word", ["reject", "reject_order"])
async def test_reject_makes_no_order_while_a_row_is_invalid(world: World, word: str) -> None:
    partner = await world.partner()
    found = await preview(world, partner, sheet(HEADER, [*tuple_rows(2), ["X", "", ""]]))
    problem_of(await commit(world, partner, found["id"], on_invalid=word), 422, "import_rejected")
    assert (await look(world, partner, found["id"]))["state"] == "ready_with_errors"
    assert await world.count("orders") == 0


async def test_a_file_without_a_valid_row_can_not_be_committed(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, sheet(HEADER, [["X", "", ""]]))
    problem_of(await commit(world, partner, found["id"]), 422, "import_has_no_valid_row")


async def test_the_same_file_twice_is_not_ordered_twice(world: World) -> None:
    partner = await world.partner()
    data = tuple_sheet(2)
    first = await committed(world, partner, (await preview(world, partner, data))["id"])
    second = await preview(world, partner, data)
    found = problem_of(await commit(world, partner, second["id"]), 409, "reference_taken")
    assert found["links"] == {"order_id": first["orders"][0]["order_id"]}
    assert await world.count("orders") == 1


async def test_committing_again_changes_nothing(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(2))
    answers = await asyncio.gather(*(commit(world, partner, found["id"]) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {202}
    await work_imports(world)
    assert (await commit(world, partner, found["id"])).json()["state"] == "committed"
    assert (await world.count("orders"), await world.count("registrations")) == (1, 2)


async def test_committing_again_on_other_terms_is_refused_and_not_taken_for_granted(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, sheet(HEADER, [*tuple_rows(2), ["X", "", ""]]))
    assert (await commit(world, partner, found["id"], on_invalid="accept_valid")).status_code == 202
    for _ in range(2):  # during the commit, and after it
        for terms in ({"on_invalid": "reject"}, {"reference": "another"}):
            response = await commit(world, partner, found["id"], **terms)
            problem_of(response, 409, "invalid_state")
            assert "committed otherwise" in response.json()["detail"]
        await work_imports(world)
    assert await world.count("orders") == 1


async def test_a_reference_taken_between_asking_and_making_is_given_back_and_can_be_changed(
    world: World,
) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(2), reference="PO-9")
    assert (await commit(world, partner, found["id"])).status_code == 202
    await world.order(partner, tuples(1, "OTHER"), reference="PO-9")
    await work_imports(world)
    back = await look(world, partner, found["id"])
    assert (back["state"], back["failure"]["code"], back["orders"]) == ("ready", "reference_taken", [])
    final = await committed(world, partner, found["id"], reference="PO-9b")
    assert [order["reference"] for order in final["orders"]] == ["PO-9b"]
    assert final["failure"] is None


async def learn_tag(world: World, partner: Partner, tag: str) -> None:
    """Creates the tag for the other customer at Partner Center, in this spelling."""
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text(
                "INSERT INTO group_tags (customer_id, tag_key, partner_id, tag, known, updated_at) "
                "VALUES (:c, lower(:tag), :p, :tag, true, now())"
            ),
            {"c": partner.other_customer_id, "p": partner.id, "tag": tag},
        )


async def test_what_changed_since_the_preview_is_told_row_by_row(world: World) -> None:
    """Because Partner Center has the tags in another spelling now."""
    partner = await world.partner()
    rows = [
        [*tuple_rows(1, "AAA")[0], "kiosk"],
        [*tuple_rows(1, "BBB")[0], "desk"],
        [*tuple_rows(1, "CCC")[0], "Office"],
    ]
    found = await preview(world, partner, sheet(TAGGED, rows), customer_id=str(partner.other_customer_id))
    assert found["counts"]["valid"] == 3
    await world.set_consent(partner.other_tenant_id, given=True)
    await learn_tag(world, partner, "KIOSK")
    await learn_tag(world, partner, "Desk")

    final = await committed(world, partner, found["id"])
    assert final["state"] == "committed"
    assert final["preview"]["changed"] == 2
    assert final["counts"] == {"total": 3, "valid": 1, "warning": 0, "invalid": 2}
    changed = [
        (row["row"], row["problems"][-1]["code"])
        for row in (await look(world, partner, found["id"], "/rows"))["items"]
        if row["changed"]
    ]
    assert changed == [(1, "group_tag_case_conflict"), (2, "group_tag_case_conflict")]
    order = await order_of(world, partner, final["orders"][0]["order_id"])
    assert (order["counts"]["total"], order["counts"]["invalid"]) == (3, 2)


async def test_with_reject_a_changed_verdict_makes_no_order_at_all(world: World) -> None:
    partner = await world.partner()
    rows = [[*tuple_rows(1, "AAA")[0], "kiosk"], [*tuple_rows(1, "BBB")[0], "Office"]]
    found = await preview(world, partner, sheet(TAGGED, rows), customer_id=str(partner.other_customer_id))
    await learn_tag(world, partner, "KIOSK")
    final = await committed(world, partner, found["id"], on_invalid="reject")
    assert (final["state"], final["failure"]["code"]) == ("ready_with_errors", "import_rejected")
    assert (final["orders"], final["preview"]["changed"]) == ([], 1)


async def test_an_import_that_is_still_arriving_or_unread_can_not_be_committed(world: World) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(2))
    problem_of(await commit(world, partner, import_id), 409, "invalid_state")


async def test_hashes_of_ordered_rows_are_moved_not_copied(world: World) -> None:
    partner = await world.partner()
    made = [d.fields() for d in devices(5, seed=3, kind=IdentityKind.HARDWARE_HASH)]
    rows = [[d["serial_number"], d["hardware_hash"]] for d in made]
    found = await preview(world, partner, sheet(("Device Serial Number", "Hardware Hash"), rows))
    assert found["counts"]["valid"] == 5
    assert await world.count("import_hashes") == 5
    await committed(world, partner, found["id"])
    assert (await world.count("import_hashes"), await world.count("device_hashes")) == (0, 5)
    await world.work()
    at_microsoft = await world.devices_at_microsoft(partner.tenant_id)
    assert len(at_microsoft) == 5
    assert (await send(world, partner, b"x", customer_id=str(partner.customer_id))).status_code == 201
