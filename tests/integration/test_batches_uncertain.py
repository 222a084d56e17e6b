"""Calls with unknown outcome: they are resolved, each device is registered once, and retries end."""

import asyncio
from itertools import groupby
from typing import Any

import pytest

from app.domain.identity import Device
from app.domain.order import OrderState
from app.services.orders import orders
from app.services.registering import batches
from app.services.registering.batches import MAX_UNANSWERED
from simulator.samples import hardware_hash
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples

LOST_AFTER = [
    {"kind": "drop", "phase": "after", "mode": "reset"},
    {"kind": "drop", "phase": "after", "mode": "close"},
    {"kind": "drop", "phase": "after", "mode": "truncate"},
    {"kind": "status", "phase": "after", "status": 500},
    {"kind": "status", "phase": "after", "status": 504},
]
LOST_BEFORE = [
    {"kind": "drop", "phase": "before", "mode": "reset"},
    {"kind": "status", "phase": "before", "status": 500},
    {"kind": "status", "phase": "before", "status": 502},
    {"kind": "status", "phase": "before", "status": 503},
]


def _name(fault: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fault.values())


async def _with_known_tag(world: World) -> Partner:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    return partner


async def _assert_registered(world: World, partner: Partner, order_id: Any, count: int) -> None:
    view = await world.view(partner, order_id)
    assert view.state is OrderState.COMPLETED
    rows = await world.rows(partner, order_id)
    # A device that our own earlier attempt registered does not count as "had it before".
    assert [row["state"] for row in rows] == ["registered"] * count
    await assert_agreement(world, partner, order_id)


@pytest.mark.parametrize("operation", ["create", "append"])
@pytest.mark.parametrize(
    ("fault", "dedup"),
    [(LOST_AFTER[0], True), *((fault, False) for fault in LOST_AFTER)],
    ids=lambda value: _name(value) if isinstance(value, dict) else "remembers" if value else "forgets",
)
async def test_an_answer_lost_after_acceptance_registers_every_device_once(
    world: World, fault: dict[str, Any], operation: str, dedup: bool
) -> None:
    await world.switch(request_id_dedup=dedup)
    partner = await _with_known_tag(world) if operation == "append" else await world.partner()
    await world.arm({"operation": operation, **fault})
    order = await world.order(partner, tuples(3))

    await world.work()

    await _assert_registered(world, partner, order.view.record.id, 3)
    if operation == "append" and fault["kind"] == "drop":
        first, second = await world.calls("append")
        assert first["request_id"] == second["request_id"], "an unanswered call is repeated as it was"
        assert second["replayed"] is dedup


async def test_an_append_after_an_unanswered_create_has_a_request_id_of_its_own(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "drop", "phase": "after"})
    order = await world.order(partner, tuples(3))

    await world.work()

    [create], [append] = await world.calls("create"), await world.calls("append")
    assert create["request_id"] != append["request_id"]
    [batch] = await world.batches(order.view.record.id)
    written = await world.select(
        "SELECT kind, request_id FROM batch_attempts WHERE batch_id = :id AND kind <> 'look_up' ORDER BY id",
        id=batch["id"],
    )
    assert [(call["kind"], str(call["request_id"])) for call in written] == [
        ("create", create["request_id"]),
        ("append", append["request_id"]),
    ]
    await _assert_registered(world, partner, order.view.record.id, 3)


async def test_a_repetition_with_another_body_has_a_request_id_of_its_own(world: World) -> None:
    partner = await _with_known_tag(world)
    await world.arm({"operation": "append", "kind": "drop", "phase": "before"})
    whole = Device(hardware_hash=hardware_hash("SYN00001"))
    order = await world.order(partner, [whole])
    await batches.advance_next(world.runtime)

    async with world.another(send_serial_with_hash=False) as other:
        await other.work()

    first, second = await world.calls("append")
    assert first["request_id"] != second["request_id"]
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED


@pytest.mark.parametrize("operation", ["create", "append"])
@pytest.mark.parametrize("fault", LOST_BEFORE, ids=_name)
async def test_a_call_broken_off_before_it_had_an_effect_is_made_again(
    world: World, fault: dict[str, Any], operation: str
) -> None:
    partner = await _with_known_tag(world) if operation == "append" else await world.partner()
    await world.arm({"operation": operation, **fault, "count": 2})
    order = await world.order(partner, tuples(3))

    await world.work()

    await _assert_registered(world, partner, order.view.record.id, 3)


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_call_that_takes_too_long_is_uncertain_and_found_out(world: World, phase: str) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "hold", "phase": phase})
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id

    async with world.another(upstream_timeout_s=0.3) as hasty:
        await batches.advance_next(hasty.runtime)
        assert [row["state"] for row in await world.rows(partner, order_id)] == ["unknown"] * 3
        assert (await world.view(partner, order_id)).state is OrderState.IN_PROGRESS
        await world.let_go()
        await hasty.work()

    await _assert_registered(world, partner, order_id, 3)


async def test_an_acceptance_that_names_no_job_is_looked_up_in_the_listing(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "no_location"})
    order = await world.order(partner, tuples(120))

    await world.work()

    await _assert_registered(world, partner, order.view.record.id, 120)
    assert len(await world.calls("create")) == 1
    assert len(await world.calls("list_devices")) == 2, "two pages of 100"
    assert not await world.calls("status")


async def test_a_listing_that_was_not_read_at_all_sends_nothing_again(world: World) -> None:
    """Time went by without a page: that says nothing about the devices."""
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "no_location"})
    await world.arm({"operation": "list_devices", "kind": "hold", "phase": "before", "count": 2})
    order = await world.order(partner, tuples(3))

    async with world.another(upstream_timeout_s=0.8, step_timeout_s=0.9) as hasty:
        await hasty.work()
    await world.let_go()

    await _assert_registered(world, partner, order.view.record.id, 3)
    assert len(await world.calls("list_devices")) == 3
    assert not await world.calls("append"), "nothing is sent again"


async def test_failures_behind_an_acceptance_that_names_no_job_are_told_by_a_second_sending(
    world: World,
) -> None:
    partner = await world.partner()
    await world.switch(oem_unknown=["SYN00002"])
    await world.arm({"operation": "create", "kind": "no_location"})
    order = await world.order(partner, tuples(3))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "failed", "registered"]
    assert [call["device_count"] for call in await world.calls("append")] == [1], "only what was missing"
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_job_that_microsoft_forgets_is_looked_up_in_the_listing(world: World) -> None:
    partner = await world.partner()
    gone = {"operation": "status", "kind": "status", "status": 404, "body": {"code": 404}, "count": None}
    await world.arm(gone)
    order = await world.order(partner, tuples(3))
    started = world.clock.now()

    await world.work()

    assert (world.clock.now() - started).total_seconds() > world.runtime.settings.job_appears_s
    await _assert_registered(world, partner, order.view.record.id, 3)
    assert len(await world.calls("create")) == 1


async def test_a_job_that_does_not_show_yet_is_waited_for_and_keeps_its_tracking_id(world: World) -> None:
    await world.switch(status_missing_s=3600, oem_unknown=["SYN00002"])
    partner = await world.partner()
    order = await world.order(partner, tuples(3))
    for _ in range(12):
        await batches.advance_next(world.runtime)
        world.clock.advance(seconds=15)
    [batch] = await world.batches(order.view.record.id)
    assert (batch["state"], batch["tracking_id"] is not None) == ("submitted", True)
    assert len(await world.calls("status")) >= 5

    await world.switch(status_missing_s=0)
    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["error_code"] for row in rows] == [None, "device_not_found", None], "the job has told it"
    assert not await world.calls("list_devices")
    assert len(await world.calls("create")) == 1
    await assert_agreement(world, partner, order.view.record.id)


HELD = {"serial": "SYN00002", "manufacturer": "Contoso", "model": "Contoso Book 14"}


async def _hold_before(world: World, partner: Partner) -> None:
    """Registers the second device for the customer long before, by another partner."""
    await world.control("POST", "devices", [{**HELD, "customer": str(partner.tenant_id)}])


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop", "phase": "before"},
        {"kind": "drop", "phase": "after"},
        {"kind": "status", "phase": "before", "status": 503},
        {"kind": "status", "phase": "after", "status": 500},
        {"kind": "status", "phase": "after", "status": 302},
    ],
    ids=_name,
)
@pytest.mark.parametrize("operation", ["create", "append"])
async def test_a_device_that_the_customer_had_before_is_told_so_after_any_uncertain_call(
    world: World, operation: str, fault: dict[str, Any]
) -> None:
    await world.switch(request_id_dedup=False)
    partner = await _with_known_tag(world) if operation == "append" else await world.partner()
    await _hold_before(world, partner)
    await world.arm({"operation": operation, **fault})
    order = await world.order(partner, tuples(3))

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "already_registered", "registered"]
    assert rows[1]["error_code"] == "already_registered"
    assert rows[1]["upstream"]["code"] == "806"
    assert rows[1]["error_detail"] is None
    uploads = [*await world.calls("create"), *await world.calls("append")]
    sent = [call for call in uploads if call["device_count"] != 1]
    assert len(sent) == 2, "what Microsoft has told is not sent a third time"
    await assert_agreement(world, partner, order.view.record.id)


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_crash_between_a_call_and_its_record_leaves_it_to_the_listing_whose_work_it_was(
    world: World, phase: str
) -> None:
    await world.switch(request_id_dedup=False)
    partner = await _with_known_tag(world)
    await _hold_before(world, partner)
    await world.arm({"operation": "append", "kind": "hold", "phase": phase})
    order = await world.order(partner, tuples(3))
    crashed = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)

    async with world.another() as other:
        await other.work()
    await world.let_go()
    await crashed

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["registered", "already_registered", "registered"]
    await assert_agreement(world, partner, order.view.record.id)


async def test_whose_work_it_was_is_said_in_words_where_the_listing_is_too_long(world: World) -> None:
    await world.switch(request_id_dedup=False)
    partner = await world.partner()
    await world.order(partner, tuples(150, "OLD"))
    await world.work()
    await world.arm({"operation": "append", "kind": "drop", "phase": "after"})
    order = await world.order(partner, tuples(2))

    async with world.another(lookup_pages=1) as hurried:
        await hurried.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {
        ("already_registered", "already_registered")
    }
    assert "'Standard' holds more devices than the 100" in rows[0]["error_detail"]
    assert len(await world.calls("append")) == 2
    await assert_agreement(world, partner, order.view.record.id)


async def test_whose_work_it_was_is_said_in_words_where_the_listing_is_never_read(world: World) -> None:
    await world.switch(request_id_dedup=False)
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "drop", "phase": "after"},
        {"operation": "list_devices", "kind": "status", "status": 500, "count": None},
    )
    order = await world.order(partner, tuples(2))
    for _ in range(12):
        if await batches.advance_next(world.runtime) is None:
            world.clock.advance(minutes=1)
    await world.select("UPDATE batches SET troubles = :n RETURNING id", n=MAX_UNANSWERED)

    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert [row["state"] for row in rows] == ["already_registered"] * 2
    assert "could not be read" in rows[0]["error_detail"]


async def test_a_device_that_ended_unknown_and_is_tried_again_by_a_person_is_looked_up(world: World) -> None:
    partner = await world.partner()
    await _hold_before(world, partner)
    await world.arm({"operation": "create", "kind": "never_finish"})
    await world.arm({"operation": "append", "kind": "never_finish"})
    order = await world.order(partner, tuples(2))
    order_id = order.view.record.id
    async with world.another(poll_deadline_s=300) as patient:
        await patient.work()
    assert {row["state"] for row in await world.rows(partner, order_id)} == {"unknown"}
    await world.control("POST", "jobs:finish")

    await orders.retry_failed(world.runtime, partner, order_id)
    await world.work()

    rows = await world.rows(partner, order_id)
    assert [row["state"] for row in rows] == ["registered", "already_registered"]


async def test_a_job_that_never_finishes_is_given_up_at_its_deadline_and_sent_again(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "never_finish"})
    order = await world.order(partner, tuples(3))
    started = world.clock.now()

    async with world.another(poll_deadline_s=300) as patient:
        await patient.work()

    assert (world.clock.now() - started).total_seconds() > 300
    await _assert_registered(world, partner, order.view.record.id, 3)


async def test_jobs_that_never_finish_end_as_unknown_and_visible(world: World) -> None:
    await world.switch(never_finish_rate=1.0)
    partner = await world.partner()
    order = await world.order(partner, tuples(2))

    async with world.another(poll_deadline_s=300) as patient:
        await patient.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("unknown", "outcome_unknown")}
    assert rows[0]["remedy"]
    assert (await world.view(partner, order.view.record.id)).state is OrderState.FAILED
    assert len(await world.calls("create")) + len(await world.calls("append")) == 2
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_status_that_is_never_answered_is_looked_up_at_the_deadline(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "status", "kind": "status", "status": 500, "count": None})
    order = await world.order(partner, tuples(3))

    async with world.another(poll_deadline_s=300) as patient:
        await patient.work()

    await _assert_registered(world, partner, order.view.record.id, 3)


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 500}, {"kind": "drop", "phase": "before"}], ids=_name
)
async def test_a_batch_that_is_never_answered_ends_visibly_and_holds_up_nobody(
    world: World, fault: dict[str, Any]
) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    poisoned = {**fault, "customer": str(partner.tenant_id), "count": None}
    await world.arm({"operation": "create", **poisoned}, {"operation": "append", **poisoned})
    sick = await world.order(partner, tuples(2, "SICK"))
    well = [await world.order(neighbour, tuples(2, f"WELL{number}")) for number in range(3)]

    started = world.clock.now()
    while (await world.view(neighbour, well[-1].view.record.id)).state is OrderState.IN_PROGRESS:
        if await batches.advance_next(world.runtime) is None:
            world.clock.advance(seconds=0.5)
    assert (world.clock.now() - started).total_seconds() < 10, "others wait for nothing"
    await world.work()

    rows = await world.rows(partner, sick.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("unknown", "outcome_unknown")}
    settings = world.runtime.settings
    calls = [c for c in await world.calls("create") if c["customer"] == str(partner.tenant_id)]
    assert len(calls) <= settings.max_submissions + settings.lookup_attempts
    await assert_agreement(world, partner, sick.view.record.id)
    await assert_agreement(world, neighbour, *(order.view.record.id for order in well))


async def test_an_unanswered_listing_is_given_up_after_most_of_a_day(world: World) -> None:
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "no_location"},
        {"operation": "list_devices", "kind": "status", "status": 500, "count": None},
    )
    order = await world.order(partner, tuples(2))
    for _ in range(12):
        if await batches.advance_next(world.runtime) is None:
            world.clock.advance(minutes=6)
    [batch] = await world.batches(order.view.record.id)
    assert batch["state"] == "unknown"
    assert 3 < batch["troubles"] < MAX_UNANSWERED, "an outage of some minutes gives nothing up"

    await world.select("UPDATE batches SET troubles = :n RETURNING id", n=MAX_UNANSWERED)
    await world.work()

    rows = await world.rows(partner, order.view.record.id)
    assert {(row["state"], row["error_code"]) for row in rows} == {("unknown", "outcome_unknown")}
    await assert_agreement(world, partner, order.view.record.id)


async def test_a_refusal_after_an_uncertain_call_is_not_believed_before_the_listing_agrees(
    world: World,
) -> None:
    partner = await _with_known_tag(world)
    await world.switch(request_id_dedup=False)
    await world.arm(
        {"operation": "append", "kind": "drop", "phase": "after"},
        {"operation": "append", "kind": "status", "status": 400, "body": {"code": 2000}},
    )
    order = await world.order(partner, tuples(3))

    await world.work()

    await _assert_registered(world, partner, order.view.record.id, 3)


async def test_rows_of_a_call_cut_off_by_a_crash_survive_a_refusal_of_its_repetition(world: World) -> None:
    partner = await _with_known_tag(world)
    await world.arm(
        {"operation": "append", "kind": "hold", "phase": "before"},
        {"operation": "append", "kind": "status", "status": 400, "body": {"code": 2000}},
    )
    order = await world.order(partner, tuples(3))
    crashed = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)

    async with world.another() as other:
        await other.work()
    await world.let_go()
    await crashed

    await _assert_registered(world, partner, order.view.record.id, 3)


@pytest.mark.parametrize("seed", [7, 8])
async def test_every_kind_of_fault_at_once_ends_with_the_truth(world: World, seed: int) -> None:
    partner = await world.partner()
    await world.control("PUT", "chance", {"seed": seed})
    await world.control("POST", "presets/hostile")
    await world.switch(processing_min_ms=0, processing_max_ms=20)
    made = [await world.order(partner, tuples(20, f"H{number}")) for number in range(4)]

    await world.work(limit=2000)

    for order in made:
        await assert_agreement(world, partner, order.view.record.id)
        states = {row["state"] for row in await world.rows(partner, order.view.record.id)}
        assert states <= {"registered", "failed"}


async def test_a_listing_too_long_to_read_leads_to_the_repetition_at_once(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(150, "OLD"))
    await world.work()
    async with world.another(lookup_pages=1) as hurried:
        order = await world.order(partner, tuples(3))
        await world.arm({"operation": "append", "kind": "no_location", "count": 1})

        await hurried.work()

    view = await world.view(partner, order.view.record.id)
    assert view.state.value == "completed"
    assert len(await world.calls("list_devices")) == 2, "one look before the repetition and one after it"
    rows = await world.rows(partner, order.view.record.id)
    assert {row["state"] for row in rows} == {"already_registered"}
    assert "may have registered it" in rows[0]["error_detail"]


async def test_rows_that_are_looked_up_move_with_their_batch_and_are_not_called_settled(world: World) -> None:
    partner = await world.partner()
    # Neither call registers anything: not found, sent once more, not found again.
    await world.switch(never_finish_rate=1.0)
    order = await world.order(partner, tuples(2))
    url = f"/v1/orders/{order.view.record.id}/registrations"
    seen: list[tuple[str, bool]] = []
    async with world.another(poll_deadline_s=300) as patient:
        while not seen or seen[-1] != ("unknown", True):
            before = world.clock.now()
            if await batches.advance_next(patient.runtime) is None:
                world.clock.advance(seconds=30)
                continue
            asked = {"since": before.isoformat()}
            changed = (await world.client.get(url, params=asked, headers=partner.headers)).json()["items"]
            assert changed == await world.rows(partner, order.view.record.id), "what moved is told"
            now = [(row["state"], row["settled_at"] is not None) for row in changed]
            assert now[0] == now[1]
            seen += now[:1]

    assert [stage for stage, _ in groupby(seen)] == [
        ("processing", False),
        ("unknown", False),
        ("processing", False),
        ("unknown", False),
        ("unknown", True),
    ]
