"""Consent: what grants it, what ends it, and what that does to waiting work."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.db import connections
from app.domain.order import OrderState
from app.domain.upstream import UpstreamFailure
from app.services.connections import customer_readings
from app.services.consents import consents
from app.services.operations import sweep
from app.services.orders import acceptance
from app.services.orders.acceptance import NewOrder
from app.services.registering import batches
from tests.support.receiver import open_receiver, subscribe
from tests.support.world import Partner, World, tuples


async def read(world: World, partner: Partner) -> customer_readings.Reading:
    return await customer_readings.read_customers(world.runtime, partner, partner.connection_id)


async def consent(world: World, partner: Partner, customer_id: UUID) -> dict[str, Any]:
    response = await world.client.get(f"/v1/customers/{customer_id}/consent", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def state(world: World, partner: Partner, customer_id: UUID | None = None) -> str:
    return str((await consent(world, partner, customer_id or partner.customer_id))["state"])


async def order_state(world: World, partner: Partner, order: Any) -> OrderState:
    return (await world.view(partner, order.view.record.id)).state


# --- held work continues by itself ----------------------------------------------------------------


async def test_a_held_order_goes_on_by_itself_once_the_sweep_has_seen_the_consent(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(3), customer_id=partner.other_customer_id)
    assert await order_state(world, partner, order) is OrderState.HELD
    await world.work()
    assert await world.calls("create") == []

    await world.set_consent(partner.other_tenant_id, given=True)
    world.clock.advance(seconds=world.runtime.settings.consent_interval_s + 1)
    assert (await sweep.sweep(world.runtime))["connections"] == 1
    while await customer_readings.read_due(world.runtime):
        pass
    await world.work()

    assert await order_state(world, partner, order) is OrderState.COMPLETED
    assert len(await world.devices_at_microsoft(partner.other_tenant_id)) == 3
    assert len(await world.calls("create")) == 1


async def test_a_new_customer_is_looked_up_without_waiting_for_the_interval(world: World) -> None:
    partner = await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    made = await world.control("POST", "customers", {"partner": str(partner.entra_tenant_id),
                                                     "relationship": "reseller"})  # fmt: skip
    response = await world.client.post(
        "/v1/customers",
        headers=partner.headers,
        json={
            "connection_id": str(partner.connection_id),
            "entra_tenant_id": made["tenant_id"],
            "name": "New Ltd",
        },
    )
    assert response.json()["consent"]["state"] == "unknown"
    assert await customer_readings.read_due(world.runtime)
    assert await state(world, partner, UUID(response.json()["id"])) == "granted"


async def test_a_reading_begins_while_an_order_of_the_connection_is_being_stored(world: World) -> None:
    """A large one takes half a second, and one may always be under way: the wake-up must still work."""
    partner = await world.partner()
    await world.select("UPDATE connections SET customers_due_at = :now RETURNING id", now=world.clock.now())
    now, interval = world.clock.now(), timedelta(minutes=5)
    new = NewOrder(partner.customer_id, "BEING-STORED", tuples(3), b"test")
    async with acceptance.accept(world.runtime, partner, new), world.runtime.system_transaction() as tx:
        claimed = await connections.claim_customers_reading(
            tx, owner=uuid4(), now=now, lease=interval, interval=interval
        )

    assert claimed is not None
    assert claimed.id == partner.connection_id


async def test_recheck_releases_a_held_order_at_once(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2), customer_id=partner.other_customer_id)
    recheck = f"/v1/customers/{partner.other_customer_id}/consent:recheck"
    before = await world.client.post(recheck, headers=partner.headers)
    assert (before.json()["state"], before.json()["lets_pass"]) == ("unknown", False)

    await world.set_consent(partner.other_tenant_id, given=True)
    after = await world.client.post(recheck, headers=partner.headers)
    assert (after.json()["state"], after.json()["lets_pass"]) == ("granted", True)
    assert after.json()["evidence"] == "customers_list"
    assert after.json()["proved_at"] is not None
    await world.work()
    assert await order_state(world, partner, order) is OrderState.COMPLETED


# --- consent that ends ----------------------------------------------------------------------------


async def test_ended_consent_holds_what_is_not_sent_and_leaves_what_is_under_way(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "never_finish"})
    sent = await world.order(partner, tuples(2, "SENT"))
    assert await batches.advance_next(world.runtime) is not None
    waiting = await world.order(partner, tuples(2, "WAIT"))

    await world.set_consent(partner.tenant_id, given=False)
    await read(world, partner)
    assert await state(world, partner) == "revoked"
    assert {row["state"] for row in await world.rows(partner, waiting.view.record.id)} == {"held"}
    assert {row["state"] for row in await world.rows(partner, sent.view.record.id)} == {"processing"}
    await world.control("POST", "jobs:finish")
    await world.set_consent(partner.tenant_id, given=True)  # otherwise the simulator answers no poll
    while await batches.advance_next(world.runtime) is not None:
        pass
    assert await order_state(world, partner, waiting) is OrderState.HELD
    assert await world.calls("append") == []
    held_now = await world.order(partner, tuples(1, "LATE"))
    assert await order_state(world, partner, held_now) is OrderState.HELD

    await read(world, partner)
    await world.work()
    for order in (sent, waiting, held_now):
        assert await order_state(world, partner, order) is OrderState.COMPLETED
    serials = [d["serial"] for d in await world.devices_at_microsoft(partner.tenant_id)]
    assert len(serials) == len(set(serials)) == 5


async def test_granting_and_ending_are_told_once_with_the_number_of_devices(world: World) -> None:
    partner = await world.partner()
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["consent.granted", "consent.revoked"])
        await world.order(partner, tuples(3), customer_id=partner.other_customer_id)
        await world.set_consent(partner.other_tenant_id, given=True)
        await asyncio.gather(*(read(world, partner) for _ in range(5)))
        await world.set_consent(partner.other_tenant_id, given=False)
        await asyncio.gather(*(read(world, partner) for _ in range(5)))
        await world.deliver()

        told = [(m.type, m.data["customer_id"], m.data["devices"]) for m in receiver.messages]
        other = str(partner.other_customer_id)
        assert told == [("consent.granted", other, 3), ("consent.revoked", other, 3)]
    changes = (await consent(world, partner, partner.other_customer_id))["history"]
    assert [(c["from_state"], c["to_state"]) for c in changes] == [
        ("granted", "revoked"),
        ("unknown", "granted"),
    ]


async def test_a_customer_that_was_never_listed_is_not_called_revoked(world: World) -> None:
    partner = await world.partner()
    for _ in range(2):
        await read(world, partner)
    found = await consent(world, partner, partner.other_customer_id)
    assert (found["state"], found["history"], found["proved_at"]) == ("unknown", [], None)
    assert found["checked_at"] is not None


@pytest.mark.parametrize("relationship", ["advisor", "none"])
async def test_only_a_reseller_relationship_is_consent(world: World, relationship: str) -> None:
    partner = await world.partner()
    await world.control(
        "POST",
        "customers",
        {
            "tenant_id": str(partner.other_tenant_id),
            "partner": str(partner.entra_tenant_id),
            "relationship": relationship,
        },
    )
    await read(world, partner)
    assert await state(world, partner, partner.other_customer_id) == "unknown"


# --- the listing ----------------------------------------------------------------------------------


async def test_a_customer_on_the_third_page_is_found(world: World) -> None:
    partner = await world.partner()
    await world.control(
        "POST", "seed", {"partner": {"tenant_id": str(partner.entra_tenant_id)}, "customers": 1100}
    )
    last = await world.control(
        "POST",
        "customers",
        {"partner": str(partner.entra_tenant_id), "relationship": "reseller", "name": "Last Ltd"},
    )
    made = await world.client.post(
        "/v1/customers",
        headers=partner.headers,
        json={
            "connection_id": str(partner.connection_id),
            "entra_tenant_id": last["tenant_id"],
            "name": "Last Ltd",
        },
    )
    before = len(await world.calls("customers"))
    assert (await read(world, partner)).changes == 1
    assert len(await world.calls("customers")) - before == 3
    assert await state(world, partner, UUID(made.json()["id"])) == "granted"
    assert await state(world, partner) == "granted"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 200, "body": {"items": None}},
        {"kind": "status", "status": 200, "body": "<html>Sign in</html>"},
        {"kind": "status", "status": 200, "body": {}},
        {"kind": "drop"},
        {"kind": "drop", "phase": "after", "mode": "truncate"},
        {"kind": "throttle", "retry_after": 30},
    ],
    ids=["500", "no items", "html", "empty object", "dropped", "truncated", "throttled"],
)
async def test_a_listing_that_breaks_off_changes_nothing(world: World, fault: dict[str, Any]) -> None:
    partner = await world.partner()
    await world.set_consent(partner.other_tenant_id, given=True)
    await world.set_consent(partner.tenant_id, given=False)
    before = await consent(world, partner, partner.customer_id)
    await world.arm({"operation": "customers", **fault})
    with pytest.raises(UpstreamFailure):
        await read(world, partner)

    assert await consent(world, partner, partner.customer_id) == before
    assert await state(world, partner, partner.other_customer_id) == "unknown"
    world.clock.advance(minutes=1)
    await read(world, partner)
    assert await state(world, partner) == "revoked"
    assert await state(world, partner, partner.other_customer_id) == "granted"


async def test_a_second_page_that_fails_revokes_nobody(world: World) -> None:
    partner = await world.partner()
    await world.control(
        "POST", "seed", {"partner": {"tenant_id": str(partner.entra_tenant_id)}, "customers": 600}
    )
    order = await world.order(partner, tuples(1))
    await world.arm({"operation": "customers", "kind": "status", "status": 503, "skip": 1})
    with pytest.raises(UpstreamFailure):
        await read(world, partner)
    assert await state(world, partner) == "granted"
    assert await order_state(world, partner, order) is OrderState.IN_PROGRESS


async def test_of_two_readings_at_once_the_one_that_began_later_counts(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "customers", "kind": "hold", "phase": "after"})
    older = asyncio.create_task(read(world, partner))  # reads the consent, and is slow
    await world.until_held_open()
    await world.set_consent(partner.tenant_id, given=False)
    await read(world, partner)
    assert await state(world, partner) == "revoked"
    await world.let_go()
    assert (await older).changes == 0
    assert await state(world, partner) == "revoked"


async def test_a_reading_that_fails_is_tried_again_at_the_next_interval(world: World) -> None:
    partner = await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    await world.set_consent(partner.other_tenant_id, given=True)
    interval = world.runtime.settings.consent_interval_s + 1
    world.clock.advance(seconds=interval)
    await world.arm({"operation": "customers", "kind": "status", "status": 500})
    assert await customer_readings.read_due(world.runtime)
    assert not await customer_readings.read_due(world.runtime), "not in a circle"
    world.clock.advance(seconds=interval)
    assert await customer_readings.read_due(world.runtime)
    assert await state(world, partner, partner.other_customer_id) == "granted"


async def test_each_due_connection_is_read_once_by_however_many_workers(world: World) -> None:
    partners = [await world.partner(consented=False) for _ in range(3)]

    async def worker() -> int:
        done = 0
        while await customer_readings.read_due(world.runtime):
            done += 1
        return done

    assert sum(await asyncio.gather(*(worker() for _ in range(6)))) == 3
    assert len(await world.calls("customers")) == 3
    for partner in partners:
        assert await state(world, partner) == "granted"


async def test_a_list_that_is_being_read_is_read_by_no_other_worker(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "customers", "kind": "hold", "phase": "after"})
    before = len(await world.calls("customers"))
    reading = asyncio.create_task(customer_readings.read_due(world.runtime))
    await world.until_held_open()
    async with world.runtime.transaction(partner) as tx:
        await connections.hasten_customers(tx, partner.connection_id, world.clock.now())
    assert not await customer_readings.read_due(world.runtime)
    assert (await sweep.sweep(world.runtime))["connections"] == 0

    await world.let_go()
    assert await reading
    assert len(await world.calls("customers")) == before + 1
    assert await customer_readings.read_due(world.runtime), "what was asked for meanwhile"
    assert not await customer_readings.read_due(world.runtime)


async def test_a_reading_that_takes_longer_than_a_lease_keeps_its_claim(world: World) -> None:
    partner = await world.partner()
    await world.control(
        "POST", "seed", {"partner": {"tenant_id": str(partner.entra_tenant_id)}, "customers": 1100}
    )
    while await customer_readings.read_due(world.runtime):
        pass
    world.clock.advance(seconds=world.runtime.settings.consent_interval_s + 1)
    most = world.runtime.settings.lease * 0.9
    await world.arm({"operation": "customers", "kind": "hold", "phase": "before", "skip": 1, "count": 2})
    reading = asyncio.create_task(customer_readings.read_due(world.runtime))
    for _page in (2, 3):
        await world.until_held_open()
        world.clock.offset += most
        assert not await customer_readings.read_due(world.runtime)
        await world.let_go()
    assert await reading
    assert await world.select("SELECT id FROM connections WHERE reading_owner IS NOT NULL") == []


async def test_who_has_lost_a_reading_writes_nothing_of_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "customers", "kind": "hold", "phase": "after"})
    slow = asyncio.create_task(customer_readings.read_due(world.runtime))  # reads the consent
    await world.until_held_open()
    world.clock.offset += world.runtime.settings.lease + timedelta(seconds=1)
    await world.set_consent(partner.tenant_id, given=False)
    assert await customer_readings.read_due(world.runtime)
    read_at = await world.select("SELECT customers_read_at FROM connections")
    await world.let_go()
    assert await slow
    assert caplog.text.count("reading_lost") == 1
    assert await state(world, partner) == "revoked"
    assert await world.select("SELECT customers_read_at FROM connections") == read_at


async def test_a_worker_that_stops_while_it_reads_leaves_the_reading_to_another_one(world: World) -> None:
    await world.partner()
    await world.arm({"operation": "customers", "kind": "hold", "phase": "before"})
    reading = asyncio.create_task(customer_readings.read_due(world.runtime))
    await world.until_held_open()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await world.let_go()
    assert await customer_readings.read_due(world.runtime)


# --- doubt ----------------------------------------------------------------------------------------


async def test_a_proof_that_has_aged_is_stale_still_lets_work_pass_and_is_renewed(world: World) -> None:
    partner = await world.partner()
    world.clock.advance(days=world.runtime.settings.consent_valid_days - 1)
    assert await consents.age(world.runtime) == 0
    world.clock.advance(days=2)
    assert await consents.age(world.runtime) == 1
    assert await consents.age(world.runtime) == 0
    found = await consent(world, partner, partner.customer_id)
    assert (found["state"], found["evidence"], found["lets_pass"]) == ("stale", "age", True)

    order = await world.order(partner, tuples(1))
    await world.work()
    assert await order_state(world, partner, order) is OrderState.COMPLETED
    await read(world, partner)
    assert await state(world, partner) == "granted"


async def test_a_403_puts_the_proof_in_doubt_and_the_list_decides(world: World) -> None:
    partner = await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    order = await world.order(partner, tuples(1))
    await world.set_consent(partner.tenant_id, given=False)
    assert await batches.advance_next(world.runtime) is not None
    found = await consent(world, partner, partner.customer_id)
    assert (found["state"], found["evidence"]) == ("stale", "upstream_403")

    assert await customer_readings.read_due(world.runtime), "the list is due at once"
    assert await state(world, partner) == "revoked"
    assert await order_state(world, partner, order) is OrderState.HELD
    await world.work()
    assert await world.devices_at_microsoft(partner.tenant_id) == []

    await world.set_consent(partner.tenant_id, given=True)
    await read(world, partner)
    await world.work()
    assert await order_state(world, partner, order) is OrderState.COMPLETED
    trail = [c["to_state"] for c in (await consent(world, partner, partner.customer_id))["history"]]
    assert trail == ["granted", "revoked", "stale", "granted"], "newest first"


# --- asking for it --------------------------------------------------------------------------------


async def test_the_link_is_microsofts_and_asking_is_noted(world: World) -> None:
    partner = await world.partner()
    path = f"/v1/customers/{partner.other_customer_id}/consent:request"
    for _ in range(2):
        response = await world.client.post(path, headers=partner.headers)
        assert response.status_code == 200, response.text
        assert response.json()["url"].startswith("https://admin.microsoft.com/")
        assert str(partner.entra_tenant_id) in response.json()["url"]
    found = await consent(world, partner, partner.other_customer_id)
    assert (found["state"], found["lets_pass"]) == ("requested", False)
    assert [(c["from_state"], c["to_state"], c["evidence"]) for c in found["history"]] == [
        ("unknown", "requested", "link_issued")
    ]
    asked_of_granted = await world.client.post(
        f"/v1/customers/{partner.customer_id}/consent:request", headers=partner.headers
    )
    assert asked_of_granted.status_code == 200
    assert await state(world, partner) == "granted", "asking again takes nothing away"
    await world.set_consent(partner.other_tenant_id, given=True)
    await read(world, partner)
    assert await state(world, partner, partner.other_customer_id) == "granted"


async def test_another_partners_customer_is_as_unknown_as_one_that_does_not_exist(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    for method, suffix in (
        ("GET", ""),
        ("PATCH", ""),
        ("GET", "/consent"),
        ("POST", "/consent:request"),
        ("POST", "/consent:recheck"),
    ):
        answers = [
            await world.client.request(
                method,
                f"/v1/customers/{id}{suffix}",
                headers=theirs.headers,
                json={"name": "Stolen"} if method == "PATCH" else None,
            )
            for id in (mine.customer_id, uuid4())
        ]
        assert [a.status_code for a in answers] == [404, 404], (method, suffix)
        assert answers[0].json()["code"] == answers[1].json()["code"] == "unknown_customer"
    assert (await consent(world, mine, mine.customer_id))["state"] == "granted"
    own = await world.client.get("/v1/customers?page_size=1000", headers=theirs.headers)
    assert str(mine.customer_id) not in own.text
    borrowed = await world.client.post(
        "/v1/customers",
        headers=theirs.headers,
        json={"connection_id": str(mine.connection_id), "entra_tenant_id": str(uuid4()), "name": "X"},
    )
    assert (borrowed.status_code, borrowed.json()["code"]) == (404, "unknown_connection")


async def test_ageing_does_not_overtake_a_reading(world: World) -> None:
    partner = await world.partner()
    world.clock.advance(days=world.runtime.settings.consent_valid_days + 1)
    await asyncio.gather(read(world, partner), consents.age(world.runtime))
    await read(world, partner)
    assert await state(world, partner) == "granted"
    world.clock.advance(minutes=1)
    assert await consents.age(world.runtime) == 0


async def test_a_batch_at_microsoft_goes_on_when_consent_comes_back(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=3_600_000, processing_max_ms=3_600_000)
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)  # submitted; Microsoft is processing it
    await world.set_consent(partner.tenant_id, given=False)
    world.clock.advance(seconds=5)
    await batches.advance_next(world.runtime)  # the poll is refused: no relationship
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    (batch,) = await world.batches(order.view.record.id)
    assert batch["state"] == "submitted", "the refusal says nothing of the job"
    assert batch["tracking_id"] is not None

    await world.set_consent(partner.tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    (batch,) = await world.batches(order.view.record.id)
    assert batch["due_at"] <= world.clock.now(), "it does not wait out its pause"
    await world.control("POST", "jobs:finish")
    await world.work()

    view = await world.view(partner, order.view.record.id)
    assert view.state.value == "completed"
    assert not await world.calls("list_devices"), "one poll told everything"
