"""The device deployment operations: batches, their devices, and the status of a job."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson

from simulator.devices import Device, Row, has_empty_policies, read_row
from simulator.jobs import Batch, Job, stamp, status_body
from simulator.state import State
from simulator.tokens import Claims
from simulator.wire import INVALID_INPUT, NOT_FOUND, Answer, Call, folded, json_answer, problem

PAGE = 100
_PACIFIC = timezone(timedelta(hours=-7))
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)


def create(state: State, call: Call, claims: Claims) -> Answer:
    """POST deviceBatches: an object with a batch id and devices."""
    body = _json(call)
    if not isinstance(body, dict):
        return problem(400, INVALID_INPUT, "The request body is not a valid device batch.")
    request = folded(body)
    batch_id, items = request.get("batchid"), request.get("devices")
    if not isinstance(batch_id, str) or not batch_id.strip():
        return problem(400, 3000, "Invalid property: BatchId.")
    refused = _refuse_items(state, call, items)
    if refused is not None:
        return refused
    assert isinstance(items, list)
    customer = call.customer or ""
    batch = state.jobs.batch(claims.partner, customer, batch_id, state.switches)
    if batch is not None:
        match state.switches.create_existing_batch:
            case "conflict":
                return problem(409, 409, "A device batch with this id already exists.")
            case "bad_request":
                return problem(400, INVALID_INPUT, "A device batch with this id already exists.")
            case "append":
                pass
    else:
        batch = state.jobs.open_batch(claims.partner, customer, batch_id, state.clock.now())
    return _accept(state, call, batch, items)


def append(state: State, call: Call, claims: Claims) -> Answer:
    """POST devices of a batch: a bare array."""
    items = _json(call)
    refused = _refuse_items(state, call, items)
    if refused is not None:
        return refused
    assert isinstance(items, list)
    customer, batch_id = call.customer or "", call.path[4]
    batch = state.jobs.batch(claims.partner, customer, batch_id, state.switches)
    if batch is None:
        match state.switches.append_missing_batch:
            case "not_found":
                return problem(404, NOT_FOUND, "Device batch not found.")
            case "bad_request":
                return problem(400, INVALID_INPUT, "Device batch not found.")
            case "create":
                batch = state.jobs.open_batch(claims.partner, customer, batch_id, state.clock.now())
    return _accept(state, call, batch, items)


def _json(call: Call) -> object:
    try:
        return orjson.loads(call.body)
    except orjson.JSONDecodeError:
        return None


def _refuse_items(state: State, call: Call, items: object) -> Answer | None:
    if not isinstance(items, list):
        return problem(400, INVALID_INPUT, "The request body must hold an array of devices.")
    call.device_count = len(items)
    if not items:
        return problem(400, INVALID_INPUT, "The list of devices is empty.")
    if len(items) > state.switches.max_devices_per_call:
        if state.switches.max_devices_refusal == "too_large":
            return Answer(413, b"<html>Request Entity Too Large</html>", {"content-type": "text/html"})
        return problem(
            400, INVALID_INPUT, f"More than {state.switches.max_devices_per_call} devices in one call."
        )
    unwanted = set(state.switches.refuse_calls_with)
    if unwanted and any(unwanted & set(folded(item).values()) for item in items if isinstance(item, dict)):
        return problem(400, INVALID_INPUT, "The request is invalid.")
    if has_empty_policies(items):
        return problem(500, 800003, "Sequence contains no matching element")
    return None


def _accept(state: State, call: Call, batch: Batch, items: list[Any]) -> Answer:
    switches, faults = state.switches, state.faults
    rows = [read_row(item, switches) for item in items]
    _inject_errors(state, call, rows)
    never = bool(faults.take_shaping(call.operation, call.customer, "never_finish"))
    job = state.jobs.accept(batch, rows, call.number, state.clock.now(), switches, never)
    job.shuffled = bool(faults.take_shaping(call.operation, call.customer, "shuffle"))
    state.ledger.rows_accepted += len(rows)
    uri = f"/customers/{call.path[2]}/batchJobStatus/{job.id}"
    style = switches.location_style
    if faults.take_shaping(call.operation, call.customer, "no_location"):
        style = "none"
    match style:
        case "header":
            return Answer(202, b"", {"location": uri})
        case "absolute":
            base = switches.public_url.rstrip("/") or call.base_url
            return Answer(202, b"", {"location": f"{base}/v1{uri}"})
        case "body":
            return json_answer({"uri": uri, "method": "GET", "headers": []})
        case "none":
            return Answer(202)


def _inject_errors(state: State, call: Call, rows: list[Row]) -> None:
    """Mark the rows an armed device_error rule points at."""
    for rule in state.faults.take_shaping(call.operation, call.customer, "device_error"):
        serials, keys, positions = set(rule.serials), set(rule.product_keys), set(rule.positions)
        for position, row in enumerate(rows):
            serial = row.shown_serial or (row.tuple[2] if row.tuple else "")
            if (
                position in positions
                or serial in serials
                or row.product_key in keys
                or (rule.every is not None and (position + 1) % rule.every == 0)
            ):
                row.error, row.register_anyway = rule.code, rule.register_anyway


def list_batches(state: State, call: Call, claims: Claims) -> Answer:
    shown_from = state.clock.now() - state.switches.new_batch_listed_after_s
    items = [
        _batch_view(state, call, batch)
        for batch in state.jobs.batches(claims.partner, call.customer or "")
        if batch.created <= shown_from
    ]
    return json_answer({"totalCount": len(items), "items": items, "attributes": {"objectType": "Collection"}})


def _batch_view(state: State, call: Call, batch: Batch) -> dict[str, Any]:
    now = state.clock.now()
    running = next((job.status(now) for job in batch.jobs if job.results is None), "finished")
    count = {"devicesCount": len(batch.devices), "deviceCount": len(batch.devices)}
    if state.switches.devices_count_field != "both":
        count = {state.switches.devices_count_field: len(batch.devices)}
    return {
        "id": batch.id,
        "status": running,
        "creationDate": stamp(batch.created),
        **count,
        "devicesLink": {
            "uri": f"/customers/{call.path[2]}/deviceBatches/{batch.id}/devices",
            "method": "GET",
            "headers": [],
        },
        "attributes": {"objectType": "DeviceBatch"},
    }


def list_devices(state: State, call: Call, claims: Claims) -> Answer:
    """100 devices a page, the next one by MS-ContinuationToken."""
    batch = state.jobs.batch(claims.partner, call.customer or "", call.path[4], state.switches)
    if batch is None:
        return problem(404, NOT_FOUND, "Device batch not found.")
    start = continue_from(call.headers.get("ms-continuationtoken", ""))
    if start is None:
        return problem(400, 3000, "Invalid continuation token.")
    page = batch.devices[start : start + PAGE]
    body: dict[str, Any] = {
        "totalCount": len(page) if state.switches.total_count_of_page else len(batch.devices),
        "items": [_device_view(device) for device in page],
        "attributes": {"objectType": "Collection"},
    }
    if start + PAGE < len(batch.devices):
        body["continuationToken"] = continuation(start + PAGE)
    return json_answer(body)


def continuation(start: int) -> str:
    return base64.b64encode(f"at:{start}".encode()).decode()


def continue_from(token: str) -> int | None:
    """Where a page begins; None for a token this program did not give."""
    if not token:
        return 0
    try:
        text = base64.b64decode(token, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return int(text[3:]) if text.startswith("at:") and text[3:].isdigit() else None


def _device_view(device: Device) -> dict[str, Any]:
    manufacturer, model, serial = device.tuple or (None, None, None)
    uploaded = (_ORIGIN + timedelta(seconds=device.uploaded)).astimezone(_PACIFIC)
    return {
        "id": device.id,
        "serialNumber": serial,
        "productKey": device.product_key or None,
        "modelName": model,
        "oemManufacturerName": manufacturer,
        "policies": [{"key": "o_o_b_e", "value": None}],
        "uploadedDate": uploaded.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0-07:00",
        "attributes": {"objectType": "Device"},
    }


def delete_device(state: State, call: Call, claims: Claims) -> Answer:
    """Deregisters; the device may then be registered by anyone. 404 the second time."""
    batch = state.jobs.batch(claims.partner, call.customer or "", call.path[4], state.switches)
    device = state.registry.by_id(call.path[6])
    if batch is None or device is None or device not in batch.devices:
        return problem(404, NOT_FOUND, "Device not found.")
    batch.devices.remove(device)
    device.customer = device.partner = device.batch = ""
    return Answer(204)


def status(state: State, call: Call, claims: Claims) -> Answer:
    job: Job | None = state.jobs.get(call.path[4])
    now = state.clock.now()
    keep = state.switches.tracking_retention_s
    if (
        job is None
        or job.batch.partner != claims.partner
        or job.batch.customer != call.customer
        or now < job.accepted + state.switches.status_missing_s
        or (keep and job.results is not None and now > job.finishes + keep)
    ):
        return problem(404, NOT_FOUND, "Batch job not found.")
    body = status_body(job, now, state.switches, state.chance.shuffle)
    if state.faults.take_shaping("status", call.customer, "shuffle"):
        state.chance.shuffle(body["devicesStatus"])
    return json_answer(body)
