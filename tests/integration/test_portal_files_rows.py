"""Rows of uploaded files, uploads that are undone, and files of results, through the API."""

from pathlib import Path
from typing import Any

import pytest

from app.domain.scope import Scope
from app.services.access import identities
from tests.integration.test_api_bad_input import problem_of
from tests.integration.test_portal_outcomes import assert_books, one_file, report, states
from tests.support.portals import hash_of, portal_partner, tuple_of
from tests.support.world import World

SAMPLES = Path(__file__).parents[1] / "samples" / "portal-results"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


# --- rows of the file -----------------------------------------------------------------------------


async def test_a_row_of_the_file_is_not_the_row_of_the_order(world: World) -> None:
    """An invalid row before it, and another group tag in between, change each row's place in the file."""
    partner = await portal_partner(world)
    devices = [
        {"serial_number": "SYN90000"},  # incomplete tuple: not in any file
        tuple_of(1, group_tag="Desk"),
        tuple_of(2, group_tag="Kiosk"),
        tuple_of(3, group_tag="Desk"),
    ]
    order = await partner.order(devices)
    desk, _ = await partner.files(order)
    batch = desk["batch_id"]
    await partner.ok("POST", f"/batches/{batch}:mark-uploaded")
    said = report(await partner.record(batch, rows=[{"file_row": 2, "outcome": "failed", "code": "808"}]))
    assert said["outcomes"] == {"conflict": 1}
    (device,) = said["devices"]
    assert (device["serial_number"], device["row"], device["file_row"]) == ("SYN00003", 4, 2)
    assert (said["order"]["reference"], said["order"]["customer_name"]) == (order["reference"], "Contoso")
    assert await states(partner, order) == ["invalid", "processing", "queued", "conflict"]


async def test_a_row_that_the_file_has_not_is_told(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    said = report(await partner.record(batch, rows=[{"file_row": 3, "outcome": "registered"}]))
    assert said["untouched"] == [{"place": 1, "reason": "No device of this batch fits."}]
    said = report(await partner.result(batch, "CSV row,Error code\n3,808\n"))
    assert said["untouched"] == [{"place": 2, "reason": "The file has 2 rows; there is no row 3."}]
    assert await states(partner, order) == ["processing"] * 2


async def test_a_row_of_the_file_and_a_serial_number_have_to_mean_one_device(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    said = report(await partner.result(batch, "Serial number,CSV row,Status\nSYN00001,2,Success\n"))
    assert "another device" in said["untouched"][0]["reason"]
    assert await states(partner, order) == ["processing"] * 2


async def test_a_portals_words_about_rows_are_recorded_as_they_are_pasted(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(n) for n in range(1, 5)])
    text = "Internal Error code: 806 ZtdDeviceAlreadyAssigned\nRows: 2\n808 - rows 3, 4\n"
    said = report(await partner.result(batch, text, "text/plain"))
    assert said["outcomes"] == {"already_registered": 1, "conflict": 2}
    assert [device["serial_number"] for device in said["devices"]] == ["SYN00002", "SYN00003", "SYN00004"]
    assert await states(partner, order) == ["processing", "already_registered", "conflict", "conflict"]


# --- an upload that is taken back -----------------------------------------------------------------


async def test_an_upload_marked_by_mistake_is_taken_back_and_the_order_can_be_cancelled(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    undone = await partner.ok("POST", f"/batches/{batch}:undo-upload", {})
    assert (undone["state"], undone["submitted_at"], undone["failure_code"]) == ("queued", None, None)
    (file,) = await partner.files(order)
    assert file["href"] is not None
    cancelled = await partner.ok("POST", f"/orders/{order['id']}:cancel")
    assert cancelled["state"] == "cancelled"
    await assert_books(world, order)


async def test_a_row_is_cancelled_with_its_batch_whatever_is_stored_with_it(world: World) -> None:
    """The release before stores a batch's state with its rows too."""
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2), tuple_of(3)])
    for row, state in ((1, "processing"), (2, "unknown")):
        change = "UPDATE registrations SET state = :state WHERE row_number = :row RETURNING id"
        assert len(await world.select(change, state=state, row=row)) == 1
    await partner.ok("POST", f"/batches/{batch}:undo-upload", {})
    cancelled = await partner.ok("POST", f"/orders/{order['id']}:cancel")
    assert cancelled["state"] == "cancelled"
    assert await states(partner, order) == ["cancelled"] * 3
    await assert_books(world, order)


async def test_a_file_that_the_portal_refuses_fails_no_device(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1)])
    refused = await partner.ok("POST", f"/batches/{batch}:undo-upload", {"refused": "Header not valid"})
    assert (refused["failure_code"], refused["failure_said"]) == (
        "file_refused_at_portal",
        "Header not valid",
    )
    assert await states(partner, order) == ["queued"]
    types = [row["type"] for row in await world.select("SELECT type FROM events")]
    assert "order.failed" not in types
    await partner.ok("POST", f"/batches/{batch}:mark-uploaded")
    detail = await partner.ok("GET", f"/batches/{batch}")
    assert (detail["state"], detail["failure_code"]) == ("submitted", None)
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["uploaded", "refused", "uploaded"]


async def test_an_upload_with_an_outcome_is_not_taken_back(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    report(await partner.record(batch, rows=[{"row": 1, "outcome": "registered"}]))
    problem = problem_of(
        await partner.call("POST", f"/batches/{batch}:undo-upload", {}), 409, "invalid_state"
    )
    assert "correct" in problem["detail"]
    assert await states(partner, order) == ["registered", "processing"]


async def test_an_upload_whose_device_is_in_a_new_file_is_not_taken_back(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    said = report(await partner.record(batch, rows=[{"row": 1, "outcome": "failed", "code": "640"}]))
    assert said["again"] == 1
    problem_of(await partner.call("POST", f"/batches/{batch}:undo-upload", {}), 409, "invalid_state")
    assert await states(partner, order) == ["queued", "processing"]


async def test_an_upload_that_was_not_marked_is_not_taken_back(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    (file,) = await partner.files(order)
    path = f"/batches/{file['batch_id']}:undo-upload"
    problem_of(await partner.call("POST", path, {}), 409, "invalid_state")
    other = await portal_partner(world)
    problem_of(await other.call("POST", path, {}), 404, "not_found")


# --- all alike ------------------------------------------------------------------------------------


async def test_one_code_of_microsofts_is_recorded_for_every_device(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    said = report(await partner.record(batch, outcome="failed", code="808", detail="All of them."))
    assert said["outcomes"] == {"conflict": 2}
    rows = await partner.rows(order)
    assert [(row["state"], row["upstream"]["code"], row["error_detail"]) for row in rows] == [
        ("conflict", "808", "All of them.")
    ] * 2
    contradiction = await partner.record(batch, outcome="registered", code="808", correct=True)
    problem_of(contradiction, 422, "validation_failed")


# --- lists of results -----------------------------------------------------------------------------


async def of_serials(world: World, *serials: str) -> tuple[Any, Any, str]:
    return await one_file(world, [tuple_of(0, serial_number=serial) for serial in serials])


async def test_a_sentence_with_a_number_ends_no_hash_and_makes_no_success(world: World) -> None:
    content = (SAMPLES / "P13-serial-in-message-number.csv").read_bytes()
    partner, order, batch = await of_serials(world, "S08583142", "S08583143", "S08583144", "S08583145")
    said = report(await partner.result(batch, content))
    assert said["outcomes"] == {"failed": 3, "registered": 1}
    rows = await partner.rows(order)
    assert [row["error_code"] for row in rows] == [
        "refused_at_portal", "refused_at_portal", "device_not_found", None,
    ]  # fmt: skip
    assert rows[0]["error_detail"] == "Line 806 of the file: the device could not be found"


async def test_columns_that_disagree_leave_the_device_open(world: World) -> None:
    content = (SAMPLES / "P35-status-finished-result-error.csv").read_bytes()
    partner, order, batch = await of_serials(world, "S08587156", "S08587157", "S08587158")
    said = report(await partner.result(batch, content))
    assert (said["outcomes"], said["open"]) == ({"registered": 1}, 2)
    assert '"Finished" and "Error"' in said["untouched"][0]["reason"]
    assert await states(partner, order) == ["processing", "processing", "registered"]


async def test_a_device_named_twice_counts_once_where_the_lines_agree(world: World) -> None:
    content = (SAMPLES / "P18-same-device-twice-same.csv").read_bytes()
    serials = ("S08583162", "S08583163", "S08583164", "S08583165")
    partner, order, batch = await of_serials(world, *serials)
    said = report(await partner.result(batch, content))
    assert await states(partner, order) == ["registered", "processing", "registered", "processing"]
    reasons = {entry["place"]: entry["reason"] for entry in said["untouched"]}
    assert reasons[4] == reasons[5] == "The file names this device on lines 4, 5 with different outcomes."
    assert set(reasons) == {4, 5, 7}


async def test_lines_that_fit_no_device_say_why(world: World) -> None:
    content = (SAMPLES / "P17-unknown-rows-totals.csv").read_bytes()
    partner, order, batch = await of_serials(world, "S08583158", "S08583159")
    said = report(await partner.result(batch, content))
    reasons = {entry["place"]: entry["reason"] for entry in said["untouched"]}
    assert "different outcomes" in reasons[2]
    assert reasons[3] == "No device of this batch has this serial number or PKID."
    assert await states(partner, order) == ["processing", "registered"]


async def test_a_workbook_is_taken_with_its_own_content_type(world: World) -> None:
    partner, order, batch = await of_serials(world, "S08584121", "S08584122", "S08584123")
    said = report(await partner.result(batch, (SAMPLES / "P31-result.xlsx").read_bytes(), XLSX))
    assert said["recorded"] == 3
    assert await states(partner, order) == ["registered", "conflict", "already_registered"]


async def test_two_words_for_two_devices_of_one_serial_number_are_told_apart(world: World) -> None:
    devices = [
        {"serial_number": "SAME", "manufacturer": "Contoso", "model": "A"},
        {"serial_number": "SAME", "manufacturer": "Contoso", "model": "B"},
    ]
    partner, order, batch = await one_file(world, devices)
    said = report(await partner.result(batch, "Serial number,Status\nSAME,Success\nSAME,Failed\n"))
    assert (said["recorded"], said["untouched_total"]) == (0, 2)
    said = report(await partner.result(batch, "Serial number,Status\nSAME,Success\nSAME,Success\n"))
    assert await states(partner, order) == ["registered"] * 2
    assert said["untouched"] == []


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["P-2", "P/1"])
async def test_files_of_two_orders_for_one_customer_and_tag_have_two_names(world: World, other: str) -> None:
    partner = await portal_partner(world)
    names = set()
    for number, reference in enumerate(("P-1", other)):
        order = await partner.order([tuple_of(number)], reference=reference)
        (file,) = await partner.files(order)
        header = (await partner.call("GET", f"/batches/{file['batch_id']}/portal-file.csv")).headers
        assert f'filename="{file["name"]}"' in header["Content-Disposition"]
        names.add(file["name"])
    assert len(names) == 2


# --- words ----------------------------------------------------------------------------------------


async def test_a_dry_run_says_that_its_batches_are_files(world: World) -> None:
    partner = await portal_partner(world)
    body = {"customer_id": str(partner.customer_id), "reference": "DRY", "devices": [tuple_of(1)]}
    found = await partner.ok("POST", "/orders", {**body, "validate_only": True})
    assert found["portal"] is True
    api = await world.partner()
    dry = {**body, "customer_id": str(api.customer_id), "validate_only": True}
    response = await world.client.post("/v1/orders", headers=api.headers, json=dry)
    assert response.json()["portal"] is False


# --- who may have the file ------------------------------------------------------------------------


async def test_a_file_with_hashes_is_made_only_for_who_may_read_them(world: World) -> None:
    partner, _, batch = await one_file(world, [tuple_of(1), hash_of(2)])
    other, _, plain = await one_file(world, [tuple_of(3)])
    for scopes, with_hashes in (
        ([Scope.ORDERS_WRITE], False),
        ([Scope.ORDERS_WRITE, Scope.HASHES_READ], True),
    ):
        answers = []
        for holder, file in ((partner, batch), (other, plain)):
            key = await identities.create_key(world.runtime, holder, name="clerk", scopes=scopes)
            path = f"/v1/batches/{file}/portal-file.csv"
            headers = {"Authorization": f"Bearer {key.secret}"}
            answers.append(await world.client.get(path, headers=headers))
        assert answers[1].status_code == 200, "no device of this file has a hash"
        if with_hashes:
            assert answers[0].status_code == 200
            assert "SYN" in answers[0].text
        else:
            assert "hashes:read" in problem_of(answers[0], 403, "scope_missing")["detail"]
