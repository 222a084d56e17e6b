"""Recording a portal's outcomes: matching, codes, corrections, files, races and crashes."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.db import batches as batches_table
from app.db import orders as orders_table
from app.domain.consent import ConsentState
from app.domain.errors import Conflict
from app.domain.order import FINAL
from app.domain.registration import RegistrationState
from app.services.consents import consents
from app.services.orders import orders
from app.services.portal import portal
from app.services.portal.entries import Entry
from app.services.registering import batches
from tests.integration.test_api_bad_input import problem_of
from tests.support.portals import PortalPartner, hash_of, portal_partner, tuple_of
from tests.support.world import World

ROUNDS = 6
SETTLED = {"registered", "already_registered", "conflict", "failed", "cancelled"}


async def one_file(world: World, devices: list[dict[str, Any]]) -> tuple[PortalPartner, Any, str]:
    """A partner, an order with one file, and that file's uploaded batch."""
    partner = await portal_partner(world)
    order = await partner.order(devices)
    (file,) = await partner.files(order)
    await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    return partner, order, str(file["batch_id"])


def report(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


async def states(partner: PortalPartner, order: Any) -> list[str]:
    return [row["state"] for row in await partner.rows(order)]


async def assert_books(world: World, order: Any) -> None:
    """The order has ended: counts match the rows, no batch is claimed, and its end was published once."""
    id = UUID(order["id"])
    rows = await world.select(
        "SELECT state, count(*) AS n FROM registrations WHERE order_id = :id GROUP BY state", id=id
    )
    counts = await world.select(
        "SELECT state, sum(n) AS n FROM registration_counts WHERE order_id = :id AND n <> 0 GROUP BY state",
        id=id,
    )
    assert {row["state"]: int(row["n"]) for row in counts} == {row["state"]: row["n"] for row in rows}
    assert {row["state"] for row in rows} <= SETTLED
    assert {row["owner"] for row in await world.batches(id)} == {None}
    ends = await world.select(
        "SELECT type FROM events WHERE order_id = :id AND type = ANY(:ends)",
        id=id,
        ends=[f"order.{state}" for state in FINAL],
    )
    assert len(ends) == 1
    attempts = await world.select(
        "SELECT outcome FROM batch_attempts a JOIN batches b ON b.id = a.batch_id "
        "WHERE b.order_id = :id AND a.finished_at IS NULL",
        id=id,
    )
    assert attempts == []


# --- device by device -----------------------------------------------------------------------------


async def test_devices_are_named_by_whatever_is_at_hand_and_the_rest_stays_open(world: World) -> None:
    devices = [*(tuple_of(n) for n in range(1, 5)), {"product_key": "9999000000017"}, tuple_of(6)]
    partner, order, batch = await one_file(world, devices)
    ids = [row["id"] for row in await partner.rows(order)]
    said = report(
        await partner.record(
            batch,
            rows=[
                {"row": 1, "outcome": "registered"},
                {"line_ref": "line 2", "outcome": "already_registered"},
                {"serial_number": "SYN00003", "outcome": "conflict"},
                {"registration_id": ids[3], "outcome": "failed", "detail": "The portal showed a red cross."},
                {"product_key": "9999000000017", "outcome": "failed", "code": "812"},
                {"serial_number": "NOBODY", "outcome": "registered"},
            ],
        )
    )
    assert (said["recorded"], said["open"], said["untouched_total"]) == (5, 1, 1)
    assert said["untouched"] == [{"place": 6, "reason": "No device of this batch fits."}]
    rows = await partner.rows(order)
    assert [(row["state"], row["error_code"]) for row in rows] == [
        ("registered", None),
        ("already_registered", "already_registered"),
        ("conflict", "assigned_to_other_tenant"),
        ("failed", "refused_at_portal"),
        ("failed", "device_not_found"),
        ("processing", None),
    ]
    assert rows[3]["error_detail"] == "The portal showed a red cross."
    assert rows[4]["upstream"]["code"] == "812"
    assert (await partner.view(order))["state"] == "in_progress"
    await partner.record(batch, outcome="registered")
    assert (await partner.view(order))["state"] == "completed_with_errors"


@pytest.mark.parametrize(
    ("code", "state", "error"),
    [
        ("808", "conflict", "assigned_to_other_tenant"),
        ("806", "already_registered", "already_registered"),
        ("ZtdDeviceNotFound", "failed", "device_not_found"),
        ("999", "failed", "upstream_other"),
    ],
)
async def test_microsofts_code_decides_what_a_failure_was(
    world: World, code: str, state: str, error: str
) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1)])
    report(await partner.record(batch, rows=[{"row": 1, "outcome": "failed", "code": code}]))
    (row,) = await partner.rows(order)
    assert (row["state"], row["error_code"]) == (state, error)
    assert row["upstream"]["code" if code.isdigit() else "name"] == code


async def test_a_code_that_contradicts_the_outcome_is_told_and_nothing_is_recorded(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1)])
    said = report(await partner.record(batch, rows=[{"row": 1, "outcome": "registered", "code": "808"}]))
    assert said["untouched"] == [{"place": 1, "reason": "Microsoft's 808 does not mean registered."}]
    assert await states(partner, order) == ["processing"]


async def test_a_name_that_fits_two_devices_and_a_second_word_on_one_are_told(world: World) -> None:
    devices = [tuple_of(1, line_ref="same"), tuple_of(2, line_ref="same"), tuple_of(3)]
    partner, order, batch = await one_file(world, devices)
    said = report(
        await partner.record(
            batch,
            rows=[
                {"line_ref": "same", "outcome": "registered"},
                {"line_ref": "same", "serial_number": "SYN00002", "outcome": "registered"},
                {"row": 3, "outcome": "registered"},
                {"line_ref": "line 3", "outcome": "failed"},
                {"row": 1, "serial_number": "SYN00002", "outcome": "failed"},
            ],
        )
    )
    assert [(u["place"], u["reason"]) for u in said["untouched"]] == [
        (1, "More than one device of this batch fits."),
        (4, "The same device was named before."),
        (5, "No device of this batch fits."),
    ]
    assert await states(partner, order) == ["processing", "registered", "registered"]


async def test_an_outcome_that_is_there_is_not_overwritten(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    await partner.record(batch, rows=[{"row": 1, "outcome": "registered"}])
    said = report(await partner.record(batch, rows=[{"row": 1, "outcome": "failed"}]))
    assert (said["recorded"], said["open"]) == (0, 1)
    assert "has its outcome already (registered)" in said["untouched"][0]["reason"]
    report(await partner.record(batch, outcome="failed"))
    assert await states(partner, order) == ["registered", "failed"]
    again = problem_of(await partner.record(batch, outcome="registered"), 409, "invalid_state")
    assert "nothing was changed" in again["detail"]
    assert await states(partner, order) == ["registered", "failed"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome": "registered", "rows": [{"row": 1, "outcome": "registered"}]},
        {"rows": []},
        {"rows": [{"outcome": "registered"}]},
        {"rows": [{"row": 1, "outcome": "queued"}]},
        {"outcome": "unknown"},
        {"rows": [{"row": 1, "outcome": "failed", "code": "8 0 8"}]},
        {"rows": [{"row": 1, "outcome": "failed", "surplus": 1}]},
    ],
)
async def test_a_body_of_another_shape_is_refused_whole(world: World, body: dict[str, Any]) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1)])
    problem_of(await partner.record(batch, **body), 422, "validation_failed")
    assert await states(partner, order) == ["processing"]


async def test_recording_without_having_marked_marks_the_upload_too(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1), tuple_of(2)])
    (file,) = await partner.files(order)
    report(await partner.record(file["batch_id"], rows=[{"row": 2, "outcome": "registered"}]))
    assert await states(partner, order) == ["processing", "registered"]
    detail = await partner.ok("GET", f"/batches/{file['batch_id']}")
    assert [attempt["kind"] for attempt in detail["attempts"]].count("upload") == 1
    response = await partner.call("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    assert "marked as uploaded already" in problem_of(response, 409, "invalid_state")["detail"]


async def test_all_at_once_is_not_taken_for_a_file_that_nobody_has_uploaded(world: World) -> None:
    """It may be the wrong batch, and its hashes would be deleted."""
    partner = await portal_partner(world)
    order = await partner.order([hash_of(1)])
    (file,) = await partner.files(order)
    for more in ({}, {"correct": True}):
        response = await partner.record(file["batch_id"], outcome="registered", **more)
        assert "mark it as uploaded" in problem_of(response, 409, "invalid_state")["detail"]
    assert await states(partner, order) == ["queued"]
    assert await world.count("device_hashes") == 1
    await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    report(await partner.record(file["batch_id"], outcome="registered"))
    assert await states(partner, order) == ["registered"]


async def test_recording_what_fits_no_device_does_not_mark_the_upload(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    (file,) = await partner.files(order)
    said = report(await partner.record(file["batch_id"], rows=[{"row": 7, "outcome": "registered"}]))
    assert said["batch"]["state"] == "queued"
    assert await states(partner, order) == ["queued"]


# --- taken back -----------------------------------------------------------------------------------


async def told(world: World, order: Any) -> list[tuple[str, Any]]:
    """The order's events, with the relevant part of each."""
    events = await world.select(
        "SELECT type, data FROM events WHERE order_id = :id ORDER BY sequence", id=UUID(order["id"])
    )
    return [
        (event["type"], event["data"].get("registrations") or event["data"]["counts"]) for event in events
    ]


async def test_a_wrong_outcome_is_replaced_and_whoever_heard_of_it_hears_again(world: World) -> None:
    partner, order, batch = await one_file(world, [hash_of(1), hash_of(2), hash_of(3)])
    report(await partner.record(batch, outcome="registered"))
    before = await told(world, order)
    rows = [
        {"row": 1, "outcome": "failed", "code": "808", "detail": "Read again."},
        {"row": 2, "outcome": "registered"},
    ]
    said = report(await partner.record(batch, rows=rows, correct=True))
    assert (said["recorded"], said["corrected"], said["open"], said["untouched"]) == (1, 1, 0, [])
    (row, *_) = await partner.rows(order)
    assert (row["state"], row["error_code"], row["error_detail"]) == (
        "conflict", "assigned_to_other_tenant", "Read again.",
    )  # fmt: skip
    view = await partner.view(order)
    assert (view["state"], view["counts"]["registered"]) == ("completed_with_errors", 2)
    settled, ended = (await told(world, order))[len(before) :]
    assert settled[0] == "registration.settled"
    [heard] = settled[1]
    assert (heard["row"], heard["state"], heard["corrects"]) == (1, "conflict", "registered")
    assert ended == ("order.completed_with_errors", {"conflict": 1, "registered": 2})
    assert {
        heard["corrects"] for type, rows in before if type == "registration.settled" for heard in rows
    } == {None}
    detail = await partner.ok("GET", f"/batches/{batch}")
    assert detail["attempts"][0]["said"] == "registered corrected to conflict: 1"
    assert (detail["state"], detail["settled_at"]) == ("settled", said["batch"]["settled_at"])


async def test_an_end_whose_counts_were_wrong_is_told_again_though_its_name_is_the_same(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2), tuple_of(3)])
    report(await partner.record(batch, rows=[{"row": 1, "outcome": "registered"}]))
    report(await partner.record(batch, outcome="failed"))
    report(await partner.record(batch, rows=[{"row": 2, "outcome": "registered"}], correct=True))
    ends = [event for event in await told(world, order) if event[0] == "order.completed_with_errors"]
    assert [counts for _, counts in ends] == [{"failed": 2, "registered": 1}, {"failed": 1, "registered": 2}]
    heard = len(await told(world, order))
    again = report(await partner.record(batch, rows=[{"row": 2, "outcome": "registered"}], correct=True))
    assert (again["recorded"], again["untouched"]) == (0, [])
    assert len(await told(world, order)) == heard


async def test_a_whole_file_is_taken_back_and_what_is_left_of_it_is_tried_again(world: World) -> None:
    """Hashes of devices recorded as registered are deleted: such a device needs a new order."""
    partner, order, batch = await one_file(world, [hash_of(1), tuple_of(2)])
    report(await partner.record(batch, outcome="registered"))
    said = report(await partner.record(batch, outcome="failed", correct=True))
    assert (said["recorded"], said["corrected"]) == (2, 2)
    retried = await partner.ok("POST", f"/orders/{order['id']}:retry-failed")
    assert (retried["retried"], retried["without_hash"]) == (1, 1)
    new = (await partner.files(order))[-1]
    # It belongs to its new file now, and the old file has no row for it.
    said = report(await partner.record(batch, rows=[{"row": 2, "outcome": "registered"}], correct=True))
    assert said["untouched"] == [{"place": 1, "reason": "No device of this batch fits."}]
    report(await partner.record(new["batch_id"], rows=[{"row": 2, "outcome": "registered"}]))
    assert await states(partner, order) == ["failed", "registered"]


async def test_a_failure_that_was_none_ends_the_hash(world: World) -> None:
    partner, order, batch = await one_file(world, [hash_of(1)])
    report(await partner.record(batch, outcome="failed"))
    assert await world.count("device_hashes") == 1
    report(await partner.record(batch, outcome="already_registered", correct=True))
    assert await states(partner, order) == ["already_registered"]
    assert await world.count("device_hashes") == 0


async def test_the_right_file_of_results_replaces_the_wrong_one_and_fills_in_the_rest(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2), tuple_of(3)])
    lines = "Serial number,Status,Error code\r\nSYN00001,Success,\r\nSYN00002,{}\r\n"
    report(await partner.result(batch, lines.format("Success,")))
    right = lines.format("Error,808") + "SYN00003,Success,\r\n"
    path = f"/batches/{batch}/portal-result?correct=true"
    response = await partner.call("POST", path, content=right.encode(), headers={"Content-Type": "text/csv"})
    said = report(response)
    assert (said["recorded"], said["corrected"], said["open"], said["untouched"]) == (2, 1, 0, [])
    assert await states(partner, order) == ["registered", "conflict", "registered"]


async def test_of_corrections_and_a_retry_at_once_each_is_whole_or_told_off(world: World) -> None:
    partner = await portal_partner(world)
    for number in range(ROUNDS):
        order = await partner.order([tuple_of(n + 10 * number) for n in range(3)])
        (file,) = await partner.files(order)
        batch = file["batch_id"]
        await partner.ok("POST", f"/batches/{batch}:mark-uploaded")
        report(await partner.record(batch, outcome="failed"))
        one, other, retry = await asyncio.gather(
            partner.record(batch, outcome="registered", correct=True),
            partner.record(batch, outcome="already_registered", correct=True),
            partner.call("POST", f"/orders/{order['id']}:retry-failed"),
        )
        found = set(await states(partner, order))
        assert len(found) == 1, found
        assert {answer.status_code for answer in (one, other, retry)} <= {200, 409}
        if found == {"queued"}:
            assert retry.status_code == 200
        events = await told(world, order)
        last = [heard for type, heard in events if type == "registration.settled"][-1]
        if found != {"queued"}:
            assert {row["state"] for row in last} == found
        (stored, *_) = await world.batches(UUID(order["id"]))
        assert stored["owner"] is None


# --- another attempt is another file --------------------------------------------------------------


async def test_a_passing_trouble_comes_back_as_a_new_file(world: World) -> None:
    partner, order, batch = await one_file(world, [hash_of(1), hash_of(2)])
    said = report(
        await partner.record(
            batch,
            rows=[{"row": 1, "outcome": "failed", "code": "640"}, {"row": 2, "outcome": "registered"}],
        )
    )
    assert (said["recorded"], said["again"]) == (2, 1)
    first, second = await partner.files(order)
    assert (first["state"], second["state"], second["rows"]) == ("settled", "queued", 1)
    assert said["corrected"] == 0
    assert second["name"] == "Standard - P-1 (2).csv"
    content = (await partner.call("GET", f"/batches/{second['batch_id']}/portal-file.csv")).content
    assert b"SYN00001" in content
    assert b"SYN00002" not in content
    report(await partner.record(second["batch_id"], rows=[{"row": 1, "outcome": "registered"}]))
    assert (await partner.view(order))["state"] == "completed"


async def test_what_failed_is_tried_again_in_a_new_file(world: World) -> None:
    partner, order, batch = await one_file(world, [hash_of(1), hash_of(2)])
    rows = [{"row": 1, "outcome": "registered"}, {"row": 2, "outcome": "conflict", "code": "808"}]
    report(await partner.record(batch, rows=rows))
    retried = await partner.ok("POST", f"/orders/{order['id']}:retry-failed")
    assert (retried["retried"], retried["state"]) == (1, "in_progress")
    new = (await partner.files(order))[-1]
    assert (new["state"], new["rows"]) == ("queued", 1)
    await partner.ok("POST", f"/batches/{new['batch_id']}:mark-uploaded")
    report(await partner.record(new["batch_id"], outcome="registered"))
    assert (await partner.view(order))["state"] == "completed"
    assert await world.count("device_hashes") == 0


async def test_a_group_tag_that_a_person_has_uploaded_is_known_by_its_spelling(world: World) -> None:
    partner, _, _ = await one_file(world, [tuple_of(1, group_tag="Kiosk")])
    order = await partner.order([tuple_of(2, group_tag="KIOSK")])
    assert [row["error_code"] for row in await partner.rows(order)] == ["group_tag_case_conflict"]


# --- the portal's own file ------------------------------------------------------------------------

RESULT = """\
Device serial number,Windows product ID,Status,Error code,Error description
SYN00001,,Success,,
SYN00002,,Error,808,ZtdDeviceAssignedToOtherTenant
,9999000000017,finished,0,
SYN00004,,Processing,,
SYN00005,,Wondrous,,
STRANGER,,Success,,
,,Success,,
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8-sig", "utf-16"])
async def test_the_portals_result_file_is_read_and_what_it_does_not_tell_is_told(
    world: World, encoding: str
) -> None:
    key = {"product_key": "9999000000017"}
    devices = [tuple_of(1), tuple_of(2), key, tuple_of(4), tuple_of(5), tuple_of(6)]
    partner, order, batch = await one_file(world, devices)
    said = report(await partner.result(batch, RESULT.replace("\n", "\r\n").encode(encoding)))
    assert await states(partner, order) == [
        "registered", "conflict", "registered", "processing", "processing", "processing",
    ]  # fmt: skip
    assert (said["recorded"], said["open"], said["untouched_total"]) == (3, 3, 4)
    assert [u["place"] for u in said["untouched"]] == [5, 6, 7, 8]
    words = [u["reason"] for u in said["untouched"]]
    assert "still working" in words[0]
    assert '"Wondrous" is not a word that is read.' in words[1]
    assert all("o device" in reason for reason in words[2:])
    (conflict,) = await partner.rows(order, state="conflict")
    assert conflict["upstream"] == {
        "code": "808", "name": "ZtdDeviceAssignedToOtherTenant", "device_id": None,
    }  # fmt: skip
    again = report(await partner.result(batch, RESULT))
    assert again["recorded"] == 0
    assert "has its outcome already (registered)" in again["untouched"][0]["reason"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\x02\xff",
        b"Colour,Weight\r\nred,7\r\n",
        b"PK\x03\x04 a workbook",
        b"Serial number,Manufacturer\r\nSYN00001,Contoso\r\n",
    ],
)
async def test_a_file_that_tells_no_outcome_is_refused_and_changes_nothing(
    world: World, content: bytes
) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    (file,) = await partner.files(order)
    problem_of(await partner.result(file["batch_id"], content), 422, "result_not_readable")
    assert await states(partner, order) == ["queued"]
    (stored,) = await world.batches(UUID(order["id"]))
    assert (stored["owner"], stored["lease_until"]) == (None, None)


async def test_the_uploaded_file_given_back_as_the_result_registers_nothing(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1), tuple_of(2)])
    content = (await partner.call("GET", f"/batches/{batch}/portal-file.csv")).content
    problem_of(await partner.result(batch, content), 422, "result_not_readable")
    assert await states(partner, order) == ["processing"] * 2


async def test_a_result_of_another_content_type_or_size_is_refused(world: World) -> None:
    partner, _, batch = await one_file(world, [tuple_of(1)])
    for kind in ("application/json", "multipart/form-data; boundary=x"):
        problem_of(await partner.result(batch, RESULT, kind), 415, "unsupported_media_type")
    problem_of(await partner.result(batch, b"x" * (16 * 1024 * 1024 + 1)), 413, "body_too_large")


async def test_two_devices_of_one_serial_number_are_not_told_apart_by_their_place(world: World) -> None:
    devices = [
        {"serial_number": "SAME", "manufacturer": "Contoso", "model": "A"},
        {"serial_number": "SAME", "manufacturer": "Contoso", "model": "B"},
    ]
    partner, order, batch = await one_file(world, devices)
    text = "Serial number,Status,Error code\r\nSAME,Success,\r\nSAME,Error,808\r\n"
    said = report(await partner.result(batch, text))
    assert (said["recorded"], said["untouched_total"]) == (0, 2)
    assert await states(partner, order) == ["processing"] * 2


async def test_hashes_and_serial_numbers_reach_no_log_and_no_event(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    device = hash_of(77)
    partner, order, batch = await one_file(world, [device])
    await partner.call("GET", f"/batches/{batch}/portal-file.csv")
    await partner.result(batch, "Serial number,Status\r\nSYN00077,Success\r\n")
    assert (await partner.view(order))["state"] == "completed"
    written = "".join(capfd.readouterr())
    events = "\n".join(str(row["data"]) for row in await world.select("SELECT data FROM events"))
    for secret in (device["hardware_hash"][:200], "SYN00077"):
        assert secret not in written
        assert secret not in events


# --- races and crashes ----------------------------------------------------------------------------


async def test_of_two_people_who_record_at_once_one_wins_and_the_other_is_told(world: World) -> None:
    partner = await portal_partner(world)
    outcomes = ("registered", "failed", "conflict", "already_registered")
    for number in range(ROUNDS):
        order = await partner.order([tuple_of(n + 10 * number) for n in range(3)])
        (file,) = await partner.files(order)
        batch = file["batch_id"]
        await partner.ok("POST", f"/batches/{batch}:mark-uploaded")
        answers = await asyncio.gather(*(partner.record(batch, outcome=word) for word in outcomes))
        won = [a for a in answers if a.status_code == 200]
        assert len(won) == 1, [a.text for a in answers]
        for lost in answers:
            if lost is not won[0]:
                assert problem_of(lost, 409, "invalid_state")["detail"]
        word = outcomes[answers.index(won[0])]
        assert await states(partner, order) == [word] * 3
        assert [type for type, _ in await told(world, order)].count("registration.settled") == 1
        await assert_books(world, order)


async def test_of_two_people_who_mark_at_once_one_wins(world: World) -> None:
    partner = await portal_partner(world)
    for number in range(ROUNDS):
        order = await partner.order([tuple_of(number)])
        (file,) = await partner.files(order)
        path = f"/batches/{file['batch_id']}:mark-uploaded"
        answers = await asyncio.gather(*(partner.call("POST", path) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
        uploads = await world.select(
            "SELECT count(*) AS n FROM batch_attempts WHERE batch_id = :id", id=UUID(file["batch_id"])
        )
        assert uploads[0]["n"] == 1


async def test_recording_cancelling_revoking_and_workers_at_once_end_in_one_truth(world: World) -> None:
    partner = await portal_partner(world)
    entries = [Entry(RegistrationState.REGISTERED, row=row) for row in range(1, 5)]
    for number in range(ROUNDS):
        order = await partner.order([tuple_of(n + 10 * number, group_tag=f"t{n % 2}") for n in range(4)])
        order_id = UUID(order["id"])
        ids = [UUID(file["batch_id"]) for file in await partner.files(order)]
        async with world.another() as other:
            done = await asyncio.gather(
                *(portal.record_rows(world.runtime, partner.caller, id, entries) for id in ids),
                orders.cancel(other.runtime, partner, order_id),
                consents.record(
                    other.runtime, partner.caller, partner.customer_id, ConsentState.REVOKED, "gone"
                ),
                batches.advance_next(other.runtime),
                batches.advance_next(world.runtime),
                return_exceptions=True,
            )
        assert all(not isinstance(one, BaseException) or isinstance(one, Conflict) for one in done), done
        assert done[-2:] == [None, None]
        await partner.consent()
        for file in await partner.files(order):
            rows = [{"row": row, "outcome": "registered"} for row in range(1, 5)]
            await partner.record(file["batch_id"], rows=rows)
        found = await partner.view(order)
        assert found["counts"]["registered"] + found["counts"]["cancelled"] == 4
        await assert_books(world, order)


async def taken_by_somebody(
    world: World, partner: PortalPartner, batch: str, *, settled: bool = False
) -> None:
    """Another claim of the batch, for 60 s."""
    async with world.runtime.transaction(partner) as tx:
        claim = await batches_table.claim_by_hand(
            tx,
            UUID(batch),
            owner=uuid4(),
            now=world.clock.now(),
            lease=timedelta(seconds=60),
            settled=settled,
        )
    assert claim is not None


async def test_a_recording_that_died_is_free_again_when_its_lease_ends(world: World) -> None:
    """Only the claim is left by a process killed in the middle: no outcome is partly stored."""
    partner, order, batch = await one_file(world, [tuple_of(1)])
    await taken_by_somebody(world, partner, batch)
    found = problem_of(await partner.record(batch, outcome="registered"), 409, "invalid_state")
    assert "Somebody else" in found["detail"]
    assert await states(partner, order) == ["processing"]
    world.clock.advance(seconds=61)
    report(await partner.record(batch, outcome="registered"))
    assert await states(partner, order) == ["registered"]


async def test_who_corrects_while_somebody_else_does_is_not_told_to_say_so(world: World) -> None:
    partner, order, batch = await one_file(world, [tuple_of(1)])
    report(await partner.record(batch, outcome="registered"))
    await taken_by_somebody(world, partner, batch, settled=True)
    found = problem_of(await partner.record(batch, outcome="failed", correct=True), 409, "invalid_state")
    assert "Somebody else" in found["detail"]
    found = problem_of(await partner.record(batch, outcome="failed"), 409, "invalid_state")
    assert "say so with `correct`" in found["detail"]
    assert await states(partner, order) == ["registered"]


RECORD = """
import asyncio, sys
from uuid import UUID
from app.domain.registration import RegistrationState
from app.runtime import Runtime
from app.kernel.settings import Settings
from app.services.access import identities
from app.services.portal import portal

async def main():
    runtime = await Runtime.open(Settings(), process="killed")
    caller = await identities.authenticate(runtime, sys.argv[1])
    await portal.record_all(runtime, caller, UUID(sys.argv[2]), RegistrationState.REGISTERED)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_records_has_recorded_nothing(world: World) -> None:
    """It has its claim and waits for the order, which the test has locked, when it gets a SIGKILL."""
    partner, order, batch = await one_file(world, [hash_of(1), hash_of(2)])
    known = world.runtime.settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")},
        "REGISTRAR_DATABASE_URL": str(known.database_url),
        "REGISTRAR_REDIS_URL": str(known.redis_url),
        "REGISTRAR_SECRET_KEYS": ",".join(key.get_secret_value() for key in known.secret_keys),
    }
    async with world.runtime.transaction(partner) as tx:
        await orders_table.lock(tx, UUID(order["id"]))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RECORD, partner.key, batch, env=environment
        )
        async with asyncio.timeout(45):
            while (await world.batches(UUID(order["id"])))[0]["owner"] is None:
                assert process.returncode is None
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await states(partner, order) == ["processing"] * 2
    problem_of(await partner.record(batch, outcome="failed"), 409, "invalid_state")
    world.clock.advance(seconds=known.lease_s + 1)
    report(await partner.record(batch, outcome="registered"))
    assert await states(partner, order) == ["registered"] * 2
    await assert_books(world, order)
    attempts = (await partner.ok("GET", f"/batches/{batch}"))["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["recorded", "interrupted", "uploaded"]
