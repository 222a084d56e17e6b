"""Device batches in the simulator: the wire of the documents, and what each device is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.hardware_hash import open_hash
from simulator.samples import hardware_hash
from tests.unit.simulator_scene import Scene, fresh_scene, new_id, tuple_of

FIXTURES = Path(__file__).parent.parent / "fixtures" / "hardware-hashes.jsonl"


@pytest.fixture
async def scene() -> Scene:
    return await fresh_scene()


async def test_an_upload_is_accepted_with_an_empty_body_and_a_relative_location(scene: Scene) -> None:
    accepted = await scene.create([tuple_of("S1")], MS_RequestId="r-1", MS_CorrelationId="c-1")
    assert (accepted.status_code, accepted.content) == (202, b"")
    assert accepted.headers["content-length"] == "0"
    assert accepted.headers["location"].split("/")[:4] == ["", "customers", scene.customer, "batchJobStatus"]
    assert (accepted.headers["ms-requestid"], accepted.headers["ms-correlationid"]) == ("r-1", "c-1")
    assert accepted.headers["ms-cv"]
    assert accepted.headers["ms-serverid"]


@pytest.mark.parametrize(
    ("marked", "partner_center", "entra"),
    [("partner_center", True, False), ("everywhere", True, True), ("never", False, False)],
)
async def test_json_answers_and_errors_begin_with_a_byte_order_mark(
    scene: Scene, marked: str, partner_center: bool, entra: bool
) -> None:
    if marked != "partner_center":  # the default
        await scene.switch(byte_order_mark=marked)
    await scene.arm({"operation": "customer", "kind": "status", "status": 400, "body": {"code": 1}})
    bodies = [
        (await scene.get("/v1/customers")).content,
        (await scene.get("/v1/nothing")).content,
        (await scene.get(scene.base)).content,
    ]
    assert {body.startswith(b"\xef\xbb\xbf") for body in bodies} == {partner_center}
    assert (await scene.redeem()).content.startswith(b"\xef\xbb\xbf") is entra
    assert (await scene.redeem(refresh_token="bad")).content.startswith(b"\xef\xbb\xbf") is entra
    assert (await scene.create([tuple_of("S1")])).content == b""


@pytest.mark.parametrize(
    "path", ["/v1//customers/{0}/batchjobstatus/{1}", "//v1/CUSTOMERS/{0}/batchJobStatus/{1}"]
)
async def test_paths_match_in_any_case_and_with_doubled_slashes(scene: Scene, path: str) -> None:
    accepted = await scene.create([tuple_of("S1")])
    job = accepted.headers["location"].split("/")[4]
    assert (await scene.get("http://simulator" + path.format(scene.customer.upper(), job))).status_code == 200


async def test_bodies_match_in_camel_case_with_unknown_properties(scene: Scene) -> None:
    body = {"batchId": "T", "devices": [{"hardwareHash": hardware_hash("S1"), "deviceBatchId": "T"}]}
    accepted = await scene.client.post(f"{scene.base}/deviceBatches", json=body, headers=scene.headers())
    assert await scene.errors(accepted) == [""]


async def test_a_job_goes_from_queued_over_processing_to_finished(scene: Scene) -> None:
    await scene.switch(processing_min_ms=10_000, processing_max_ms=10_000, queued_share=0.5)
    location = "/v1" + (await scene.create([tuple_of("S1")])).headers["location"]
    queued = (await scene.get(location)).json()
    await scene.control("POST", "clock", {"advance_s": 6})
    processing = (await scene.get(location)).json()
    devices = await scene.get(f"{scene.base}/deviceBatches/Sales/devices")
    await scene.control("POST", "clock", {"advance_s": 6})
    finished = (await scene.get(location)).json()
    assert [b["status"] for b in (queued, processing, finished)] == ["queued", "processing", "finished"]
    assert ["completedTime" in b for b in (queued, processing, finished)] == [False, False, True]
    assert processing["devicesStatus"][0]["status"] == "in-progress"
    assert devices.json()["items"] == []


async def test_a_status_may_go_back_to_queued(scene: Scene) -> None:
    await scene.switch(
        processing_min_ms=10_000, processing_max_ms=10_000, queued_share=0.1, status_regress_rate=1
    )
    location = "/v1" + (await scene.create([tuple_of("S1")])).headers["location"]
    seen = []
    for _ in range(5):
        seen.append((await scene.get(location)).json()["status"])
        await scene.control("POST", "clock", {"advance_s": 2.6})
    assert seen == ["queued", "processing", "queued", "processing", "finished"]


async def test_the_batch_is_finished_although_a_device_failed_unless_switched(scene: Scene) -> None:
    accepted = await scene.create([tuple_of("S1"), {"serialNumber": "alone"}])
    assert (await scene.outcome(accepted))["status"] == "finished"
    await scene.switch(batch_status_hides_errors=False)
    assert (await scene.outcome(accepted))["status"] == "finished_with_errors"


async def test_a_row_of_a_hash_alone_comes_back_without_any_key_in_request_order(scene: Scene) -> None:
    devices = [{"hardwareHash": hardware_hash("S1")}, tuple_of("S2"), {"hardwareHash": "T0Gbroken"}]
    first, second, third = (await scene.outcome(await scene.create(devices)))["devicesStatus"]
    assert first == {"status": "finished", "attributes": {"objectType": "DeviceUploadDetails"}}
    assert (second["serialNumber"], "deviceId" in second) == ("S2", True)
    assert (third["errorCode"], third["errorDescription"]) == ("802", "InvalidZtdHardwareHash")


@pytest.mark.parametrize("again", ["tuple", "pkid", "hash"])
async def test_one_device_is_the_same_however_it_is_named(scene: Scene, again: str) -> None:
    whole = hardware_hash("S1", product_key="1234567890123")
    named: dict[str, Any] = {
        "tuple": tuple_of("S1"),
        "pkid": {"productKey": "1234567890123"},
        "hash": {"hardwareHash": whole},
    }
    assert await scene.errors(await scene.create([{"hardwareHash": whole}])) == [""]
    assert await scene.errors(await scene.append([named[again]])) == ["806"]
    scene.customer = scene.customers[1]
    assert await scene.errors(await scene.create([named[again]])) == ["808"]


async def test_a_device_twice_in_one_request_is_registered_once(scene: Scene) -> None:
    twice = [tuple_of("S1"), {"hardwareHash": hardware_hash("S1")}]
    assert await scene.errors(await scene.create(twice)) == ["", "ZtdDeviceDuplicated"]
    ledger = await scene.control("GET", "ledger")
    assert [(d["serial"], d["submissions"], d["group_tag"]) for d in ledger["devices"]] == [
        ("S1", 2, "Sales")
    ]


async def test_oem_data_decides_which_tuples_and_keys_are_known(scene: Scene) -> None:
    await scene.switch(oem_unknown_suffix="-X", oem_ambiguous=["TWIN"])
    devices = [tuple_of("S-X"), {"productKey": "123-X"}, tuple_of("TWIN"), tuple_of("S1")]
    assert await scene.errors(await scene.create(devices)) == ["812", "812", "813", ""]
    assert await scene.errors(await scene.append([tuple_of("S1", manufacturer="CONTOSO")])) == ["812"]
    await scene.switch(oem_knows_all=False)
    await scene.control("POST", "oem", [tuple_of_record("S5", "555")])
    assert await scene.errors(
        await scene.append([tuple_of("S6"), tuple_of("S5"), {"productKey": "555"}])
    ) == [
        "812",
        "",
        "ZtdDeviceDuplicated",
    ]


def tuple_of_record(serial: str, key: str) -> dict[str, str]:
    return {"serial": serial, "manufacturer": "Contoso", "model": "Sample 14", "product_key": key}


async def test_two_hashes_of_other_uuid_are_two_devices_and_their_tuple_is_ambiguous(scene: Scene) -> None:
    hashes = [{"hardwareHash": hardware_hash("0", uuid=bytes([n]) * 16)} for n in (1, 2)]
    assert await scene.errors(await scene.create([*hashes, tuple_of("0")])) == ["", "", "813"]


async def test_combinations_outside_the_documented_six_are_refused(scene: Scene) -> None:
    devices: list[Any] = [
        {"serialNumber": "S1"},
        {"serialNumber": "S1", "modelName": "M", "hardwareHash": "", "productKey": ""},
        {"serialNumber": "S1", "productKey": "1"},
        {"serialNumber": 7},
        "text",
        {},
    ]
    assert await scene.errors(await scene.create(devices)) == ["803", "803", "801", "801", "801", "803"]


async def test_a_device_held_elsewhere_beforehand_is_answered_808(scene: Scene) -> None:
    staged = {"customer": scene.customers[1], "serial": "S1", "manufacturer": "Contoso", "model": "Sample 14"}
    await scene.control("POST", "devices", [staged])
    await scene.switch(name_808="ZtdDeviceAssignedToAnotherTenant")
    details = (await scene.outcome(await scene.create([tuple_of("S1")])))["devicesStatus"][0]
    assert (details["errorCode"], details["errorDescription"]) == ("808", "ZtdDeviceAssignedToAnotherTenant")


async def test_whole_requests_are_refused_for_their_form(scene: Scene) -> None:
    await scene.create([tuple_of("S1")])
    many = [tuple_of(f"S{n}") for n in range(1001)]
    assert (await scene.append(many)).status_code == 400
    assert (await scene.append({"devices": [tuple_of("S2")]})).status_code == 400
    assert (await scene.append([])).status_code == 400
    failed = await scene.append([tuple_of("S2") | {"Policies": []}])
    assert (failed.status_code, failed.json()["description"]) == (
        500,
        "Sequence contains no matching element",
    )


async def test_an_existing_batch_and_a_missing_one_are_answered_as_switched(scene: Scene) -> None:
    assert (await scene.append([tuple_of("S1")])).status_code == 404
    await scene.create([tuple_of("S1")])
    assert (await scene.create([tuple_of("S2")], tag="SALES")).status_code == 409
    await scene.switch(create_existing_batch="append", append_missing_batch="create")
    assert (await scene.create([tuple_of("S2")], tag="SALES")).status_code == 202
    assert (await scene.append([tuple_of("S3")], tag="New")).status_code == 202
    await scene.switch(batch_ids_ignore_case=False, create_existing_batch="conflict")
    assert (await scene.create([tuple_of("S4")], tag="SALES")).status_code == 202


async def test_the_same_request_id_gives_the_first_result_and_no_second_job(scene: Scene) -> None:
    request = new_id()
    first = await scene.create([tuple_of("S1")], MS_RequestId=request)
    second = await scene.create([tuple_of("S1")], MS_RequestId=request.upper())
    assert first.headers["location"] == second.headers["location"]
    assert [call["replayed"] for call in await scene.calls("create")] == [False, True]
    assert (await scene.control("GET", "totals"))["jobs"] == 1
    await scene.control("POST", "clock", {"advance_s": 601})
    assert (await scene.create([tuple_of("S1")], MS_RequestId=request)).status_code == 409
    await scene.switch(request_id_dedup=False)
    accepted = await scene.append([tuple_of("S1")], MS_RequestId=request)
    again = await scene.append([tuple_of("S1")], MS_RequestId=request)
    assert accepted.headers["location"] != again.headers["location"]


async def test_app_only_may_append_and_read_but_not_create(scene: Scene) -> None:
    await scene.create([tuple_of("S1")])
    scene.token = await scene.app_only_token()
    refused = await scene.create([tuple_of("S2")], tag="Other")
    assert (refused.status_code, refused.json()["code"]) == (403, "900329")
    assert (await scene.get("/v1/customers/relationshiprequests")).status_code == 403
    assert (await scene.append([tuple_of("S2")])).status_code == 202
    await scene.switch(app_only_create=True)
    assert (await scene.create([tuple_of("S3")], tag="Other")).status_code == 202


async def test_batches_are_listed_with_their_counts_and_unencoded_links(scene: Scene) -> None:
    await scene.create([tuple_of("S1"), tuple_of("S2")], tag="Test batch")
    body = (await scene.get(f"{scene.base}/deviceBatches")).json()
    (batch,) = body["items"]
    assert (batch["id"], batch["devicesCount"], batch["status"]) == ("Test batch", 2, "finished")
    assert batch["devicesLink"]["uri"] == f"/customers/{scene.customer}/deviceBatches/Test batch/devices"
    await scene.switch(devices_count_field="deviceCount")
    (batch,) = (await scene.get(f"{scene.base}/deviceBatches")).json()["items"]
    assert (batch["deviceCount"], "devicesCount" in batch) == (2, False)
    listed = await scene.get(f"{scene.base}/deviceBatches/test%20batch/devices")
    assert len(listed.json()["items"]) == 2


async def test_devices_are_read_in_pages_of_a_hundred(scene: Scene) -> None:
    await scene.create([tuple_of(f"S{n}") for n in range(250)])
    path = f"{scene.base}/deviceBatches/Sales/devices"
    headers: dict[str, str] = {}
    serials: list[str] = []
    sizes = []
    while True:
        body = (await scene.get(path, **headers)).json()
        sizes.append(len(body["items"]))
        serials += [item["serialNumber"] for item in body["items"]]
        if "continuationToken" not in body:
            break
        headers = {"MS_ContinuationToken": body["continuationToken"]}
    assert sizes == [100, 100, 50]
    assert serials == [f"S{n}" for n in range(250)]
    item = body["items"][0]
    assert item["policies"] == [{"key": "o_o_b_e", "value": None}]
    assert item["uploadedDate"].endswith("-07:00")
    assert "hardwareHash" not in item
    assert (await scene.get(path, MS_ContinuationToken="nonsense")).status_code == 400


async def test_a_deleted_device_may_be_registered_elsewhere(scene: Scene) -> None:
    await scene.create([tuple_of("S1")])
    path = f"{scene.base}/deviceBatches/Sales/devices"
    device = (await scene.get(path)).json()["items"][0]["id"]
    deleted = await scene.client.delete(f"{path}/{device}", headers=scene.headers())
    again = await scene.client.delete(f"{path}/{device}", headers=scene.headers())
    assert (deleted.status_code, again.status_code) == (204, 404)
    scene.customer = scene.customers[1]
    assert await scene.errors(await scene.create([tuple_of("S1")])) == [""]


@pytest.mark.parametrize("style", ["absolute", "body", "none"])
async def test_the_tracking_resource_is_named_as_switched(scene: Scene, style: str) -> None:
    await scene.switch(location_style=style)
    accepted = await scene.create([tuple_of("S1")])
    location = accepted.headers.get("location")
    match style:
        case "absolute":
            assert location is not None
            assert (await scene.get(location)).status_code == 200
        case "body":
            assert (accepted.status_code, location) == (200, None)
            assert (await scene.get("/v1" + accepted.json()["uri"])).status_code == 200
        case _:
            assert (accepted.status_code, location, accepted.content) == (202, None, b"")


async def test_another_customers_tracking_id_is_not_found(scene: Scene) -> None:
    job = (await scene.create([tuple_of("S1")])).headers["location"].split("/")[4]
    scene.customer = scene.customers[1]
    assert (await scene.get(f"{scene.base}/batchJobStatus/{job}")).status_code == 404


@pytest.mark.parametrize(
    "row", [json.loads(line) for line in FIXTURES.read_text().splitlines()], ids=lambda r: r["id"]
)
def test_only_whole_hashes_open(row: dict[str, str]) -> None:
    assert (open_hash(row["hash"]) is not None) == (row["expect"] == "valid")


def test_a_sample_opens_to_its_own_identity_and_no_changed_character_passes() -> None:
    whole = hardware_hash("S1", "Contoso", "Sample 14", "1234567890123")
    opened = open_hash(whole)
    assert opened is not None
    assert (opened.serial, opened.manufacturer, opened.model) == ("S1", "Contoso", "Sample 14")
    assert (opened.product_key, len(whole)) == ("1234567890123", 4000)
    for at in range(0, 700, 7):
        assert open_hash(whole[:at] + ("B" if whole[at] != "B" else "C") + whole[at + 1 :]) is None
