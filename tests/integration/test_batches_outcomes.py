"""Microsoft's answers settle the rows that they belong to, and no other row."""

from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from app.domain.identity import Device, IdentityKind
from app.domain.order import OrderState
from app.local import synthetic
from app.services.orders import orders
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.world import World, tuples


def _made(count: int, seed: int, kind: IdentityKind | None = None, **fields: Any) -> list[Device]:
    return [Device(**device.fields(), **fields) for device in synthetic.devices(count, seed, kind)]


def _held(device: Device, tenant_id: UUID) -> dict[str, str | None]:
    """A device that this customer already has, for the simulator."""
    return {
        "customer": str(tenant_id),
        "serial": device.serial_number,
        "manufacturer": device.manufacturer,
        "model": device.model,
    }


def _hash(serial: str, number: int) -> str:
    mac = bytes((2, 0, 0, 0, 0, number))
    return synthetic.hardware_hash(serial, "Contoso", "Contoso Book 14", uuid=UUID(int=number), mac=mac)


async def test_a_device_the_customer_had_before_is_a_success(world: World) -> None:
    partner = await world.partner()
    devices = tuples(3)
    await world.control("POST", "devices", [_held(devices[1], partner.tenant_id)])
    order = await world.order(partner, devices)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "already_registered", "registered"]
    assert rows[1]["upstream"]["code"] == "806"
    assert rows[1]["upstream"]["name"] == "ZtdDeviceAlreadyAssigned"
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_device_of_another_organisation_is_a_conflict_for_people(world: World) -> None:
    partner = await world.partner()
    devices = tuples(3)
    await world.control("POST", "devices", [_held(devices[0], partner.other_tenant_id)])
    order = await world.order(partner, devices)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["conflict", "registered", "registered"]
    assert rows[0]["error_code"] == "assigned_to_other_tenant"
    assert rows[0]["remedy"]
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED_WITH_ERRORS
    await assert_agreement(world, partner, order.view.record.id)


REFUSALS = [
    ("801", "upstream_bad_request", "801"),
    ("802", "upstream_invalid_hash", "802"),
    ("803", "upstream_missing_identity", "803"),
    ("812", "device_not_found", "812"),
    ("813", "device_not_unique", "813"),
    ("814", "already_entra_registered", "814"),
    ("ZtdDeviceDuplicated", "upstream_duplicate", None),
    ("899", "upstream_other", "899"),
    ("ZtdNeverHeardOf", "upstream_other", None),
]


async def test_every_refusal_of_a_device_keeps_microsofts_words_and_is_named(world: World) -> None:
    partner = await world.partner()
    devices = tuples(len(REFUSALS) + 1)
    await world.arm(
        *(
            {"operation": "create", "kind": "device_error", "serials": [device.serial_number], "code": code}
            for device, (code, _, _) in zip(devices[1:], REFUSALS, strict=True)
        )
    )
    order = await world.order(partner, devices)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert rows[0]["state"] == "registered"
    said = [(row["state"], row["error_code"], row["upstream"]["code"]) for row in rows[1:]]
    assert said == [("failed", code, number) for _, code, number in REFUSALS]
    assert all(row["upstream"]["name"] or row["upstream"]["code"] == "899" for row in rows[1:])
    assert rows[-1]["upstream"]["name"] == "ZtdNeverHeardOf"
    assert len(await world.calls("create")) == 1, "a definite refusal is not tried again by itself"
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_passing_trouble_of_one_device_is_tried_again_by_itself(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "positions": [1], "code": "StorageError"})
    order = await world.order(partner, tuples(3))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [(row["state"], row["attempt"]) for row in rows] == [
        ("registered", 1),
        ("registered", 2),
        ("registered", 1),
    ]
    assert [b["device_count"] for b in await world.batches(order.view.record.id)] == [3, 1]
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_trouble_that_does_not_pass_ends_after_three_attempts(world: World) -> None:
    partner = await world.partner()
    always = {"kind": "device_error", "serials": ["SYN00002"], "code": "StorageError", "count": None}
    await world.arm({"operation": "create", **always}, {"operation": "append", **always})
    order = await world.order(partner, tuples(3))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "failed", "registered"]
    assert (rows[1]["error_code"], rows[1]["attempt"]) == ("upstream_busy", 3)
    assert [call["device_count"] for call in await world.calls("append")] == [1, 1]
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_person_tries_failed_devices_again_and_the_second_end_is_told_too(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "positions": [0, 2], "code": "812"})
    order = await world.order(partner, tuples(3))
    await world.work()
    order_id = order.view.record.id
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED_WITH_ERRORS

    retry = await orders.retry_failed(world.runtime, partner, order_id)
    assert (retry.retried, retry.without_hash) == (2, 0)
    await world.work()

    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id, endings=2, settlings=2)


@pytest.mark.parametrize(
    ("style", "hides", "fields"),
    [("in-progress", True, "omit"), ("enum", True, "null"), ("enum", False, "empty")],
)
async def test_outcomes_are_read_per_device_however_microsoft_words_the_job(
    world: World, style: str, hides: bool, fields: str
) -> None:
    await world.switch(
        device_status_style=style,
        batch_status_hides_errors=hides,
        success_error_fields=fields,
        processing_min_ms=60_000,
        processing_max_ms=60_000,
        status_regress_rate=1.0,
    )
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "positions": [1], "code": "812"})
    order = await world.order(partner, tuples(3))
    await batches.advance_next(world.runtime)

    for seconds in (1, 24, 15, 10):  # queued, processing, queued again, processing again
        await world.control("POST", "clock", {"advance_s": seconds})
        world.clock.advance(seconds=seconds)
        while await batches.advance_next(world.runtime) is not None:
            pass
        assert {row["state"] for row in await world.rows(partner, order.view.record.id)} == {"processing"}
    await world.control("POST", "clock", {"advance_s": 15})
    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "failed", "registered"]
    assert len(await world.calls("status")) > 3, "the job was seen while it was running"
    await assert_agreement(world, partner, order.view.record.id)


@pytest.mark.parametrize("with_serial", [True, False])
async def test_answers_in_another_order_never_become_another_devices_outcome(
    world: World, with_serial: bool
) -> None:
    await world.switch(shuffle_device_status=True)
    partner = await world.partner()
    devices = _made(60, seed=3)
    taken = [_made(60, seed=3)[index] for index in range(0, 60, 6)]
    await world.control(
        "POST", "devices", [_held(d, partner.other_tenant_id) for d in taken if d.manufacturer is not None]
    )
    broken = {"kind": "device_error", "every": 5, "code": "812"}
    await world.arm({"operation": "create", **broken})
    order = await world.order(partner, devices)

    async with world.another(send_serial_with_hash=with_serial) as other:
        await other.work()

    view = await world.view(partner, order.view.record.id)
    assert view.state is OrderState.COMPLETED_WITH_ERRORS
    await assert_agreement(world, partner, order.view.record.id)


@pytest.mark.parametrize("with_serial", [True, False])
async def test_a_setting_that_changes_while_a_job_runs_costs_no_look_up(
    world: World, with_serial: bool
) -> None:
    """Devices sent by hash are matched by what was sent with it: the serial number, the PKID, or both."""
    await world.switch(shuffle_device_status=True)
    partner = await world.partner()
    hashes = [_hash(f"SYN{number:05d}", number) for number in range(8)]
    keyed = [
        Device(hardware_hash=text, product_key=f"99990000000{n}") for n, text in enumerate(hashes[:6], 10)
    ]
    devices = [*keyed, *(Device(hardware_hash=text) for text in hashes[6:])] if with_serial else keyed
    await world.arm({"operation": "create", "kind": "device_error", "positions": [1, 4], "code": "812"})
    order = await world.order(partner, devices)

    async with world.another(send_serial_with_hash=with_serial) as before:
        await batches.advance_next(before.runtime)
    async with world.another(send_serial_with_hash=not with_serial) as after:
        await after.work()

    order_id = order.view.record.id
    states = [row["state"] for row in await world.rows(partner, order_id)]
    assert states == ["failed" if place in (1, 4) else "registered" for place in range(len(devices))]
    kinds = await world.select("SELECT kind FROM batch_attempts a JOIN batches b ON b.id = a.batch_id")
    assert [row["kind"] for row in kinds] == ["create"]
    await assert_agreement(world, partner, order_id)


async def test_hashes_without_any_key_are_matched_by_their_place(world: World) -> None:
    partner = await world.partner()
    hashes = [_hash("To be filled by O.E.M.", number) for number in range(1, 5)]
    await world.arm({"operation": "create", "kind": "device_error", "positions": [1], "code": "802"})
    order = await world.order(partner, [Device(hardware_hash=text) for text in hashes])

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "failed", "registered", "registered"]
    held = {device["hash_sha256"] for device in await world.devices_at_microsoft(partner.tenant_id)}
    assert held == {sha256(text.encode()).hexdigest() for number, text in enumerate(hashes) if number != 1}


async def test_two_makers_with_one_serial_number_keep_their_own_outcomes(world: World) -> None:
    await world.switch(shuffle_device_status=True)
    partner = await world.partner()
    pairs = [
        Device(serial_number=f"SAME{number}", manufacturer=maker, model="Book")
        for number in range(8)
        for maker in ("Contoso", "Fabrikam")
    ]
    await world.control("POST", "devices", [_held(device, partner.other_tenant_id) for device in pairs[1::2]])
    order = await world.order(partner, pairs)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {row["state"] for row in rows if row["manufacturer"] == "Contoso"} <= {"registered"}
    assert not {row["state"] for row in rows if row["manufacturer"] == "Fabrikam"} & {"registered"}
    await assert_agreement(world, partner, order.view.record.id)


async def test_hashes_of_registered_devices_are_deleted_and_those_of_failed_ones_kept(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "device_error", "positions": [0], "code": "802"})
    order = await world.order(partner, _made(3, 5, IdentityKind.HARDWARE_HASH))
    assert await world.count("device_hashes") == 3

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    kept = await world.select("SELECT registration_id FROM device_hashes")
    assert [str(row["registration_id"]) for row in kept] == [rows[0]["id"]]
    retry = await orders.retry_failed(world.runtime, partner, order.view.record.id)
    assert retry.retried == 1
    await world.work()
    assert await world.count("device_hashes") == 0
    await assert_agreement(world, partner, order.view.record.id, endings=2, settlings=2)


async def test_a_word_that_the_database_can_not_hold_does_not_hang_the_batch(world: World) -> None:
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "device_error", "positions": [0], "code": "Ztd\x00Broken"}
    )
    order = await world.order(partner, tuples(2))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["failed", "registered"]
    assert rows[0]["upstream"]["name"] == "Ztd\ufffdBroken"
    assert await batches.advance_next(world.runtime) is None
