"""The sweep: finds work whose wake-up was lost, and deletes what is too old and nothing else."""

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.db import batch_claims, events, heartbeats
from app.domain.batch import BatchState
from app.local.synthetic import devices
from app.services.connections import customer_readings
from app.services.operations import sweep
from app.services.registering import batches as batch_steps
from tests.support.receiver import Answer, open_receiver, subscribe
from tests.support.world import Partner, World, tuples


async def scalar(world: World, statement: str, **parameters: Any) -> Any:
    async with world.runtime.system_transaction() as tx:
        return (await tx.session.execute(text(statement), parameters)).scalar()


async def quiet(world: World) -> Partner:
    """A partner whose consents have been read, so that nothing is due."""
    partner = await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    return partner


# --- finding --------------------------------------------------------------------------------------


async def test_nothing_due_wakes_nobody(world: World) -> None:
    await quiet(world)
    assert await sweep.sweep(world.runtime) == {
        "batches": 0,
        "deliveries": 0,
        "connections": 0,
        "imports": 0,
        "stuck": 0,
    }


async def test_due_batches_deliveries_and_readings_are_found(world: World) -> None:
    partner = await quiet(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url())
        await world.order(partner, [*tuples(1), *tuples(1, "KSK", group_tag="Kiosk")])
        world.clock.advance(seconds=world.runtime.settings.consent_interval_s + 1)
        found = await sweep.sweep(world.runtime)
    assert (found["batches"], found["deliveries"], found["connections"]) == (2, 1, 1)


async def test_what_is_held_leased_or_not_yet_due_is_not_found(world: World) -> None:
    partner = await quiet(world)
    await world.order(partner, tuples(1, "HLD"), customer_id=partner.other_customer_id)
    assert (await sweep.sweep(world.runtime))["batches"] == 0
    await world.order(partner, tuples(1))
    async with world.runtime.system_transaction() as tx:
        claim = await batch_claims.claim_one(
            tx,
            owner=partner.customer_id,
            now=world.runtime.now(),
            lease=world.runtime.settings.lease,
            customer_window=4,
            connection_window=32,
        )
    assert claim is not None
    assert (await sweep.sweep(world.runtime))["batches"] == 0, "somebody has it"
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    assert (await sweep.sweep(world.runtime))["batches"] == 1, "the worker that had it has died"


async def test_a_delivery_due_later_is_found_when_its_time_has_come(world: World) -> None:
    partner = await quiet(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.accepted"])
        receiver.usual = Answer(500)
        await world.order(partner, tuples(1))
        await world.deliver()
        assert (await sweep.sweep(world.runtime))["deliveries"] == 0
        world.clock.advance(seconds=10)
        assert (await sweep.sweep(world.runtime))["deliveries"] == 1


async def test_a_batch_under_way_that_nobody_follows_is_reported_and_a_waiting_one_is_not(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await quiet(world)
    await world.order(partner, tuples(1, "HLD"), customer_id=partner.other_customer_id)
    await world.order(partner, tuples(1))
    assert await batch_steps.advance_next(world.runtime) is not None, "it is submitted"
    await world.order(partner, tuples(1, "QUE"))
    world.clock.advance(seconds=world.runtime.settings.sweep_patience_s - 10)
    assert (await sweep.sweep(world.runtime))["stuck"] == 0
    world.clock.advance(seconds=20)
    with caplog.at_level(logging.ERROR):
        assert (await sweep.sweep(world.runtime))["stuck"] == 1
    assert "batch_stuck" in caplog.text
    assert "SYN00001" not in caplog.text


# --- forgetting -----------------------------------------------------------------------------------


async def order_with_key(world: World, partner: Partner, key: str, serial: str) -> Any:
    return await world.client.post(
        "/v1/orders",
        headers={**partner.headers, "Idempotency-Key": key},
        json={
            "customer_id": str(partner.customer_id),
            "reference": serial,
            "devices": [{"serial_number": serial, "manufacturer": "Contoso", "model": "Book"}],
        },
    )


async def test_idempotency_keys_are_forgotten_after_their_time_and_not_before(world: World) -> None:
    partner = await quiet(world)
    first = await order_with_key(world, partner, "key-of-friday", "FRI1")
    assert first.status_code == 201
    hours = world.runtime.settings.idempotency_hours
    world.clock.advance(hours=hours - 1)
    await sweep.tidy(world.runtime)
    again = await order_with_key(world, partner, "key-of-friday", "FRI1")
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert (await order_with_key(world, partner, "key-of-friday", "OTHER")).status_code == 422

    assert (await order_with_key(world, partner, "key-of-monday", "MON1")).status_code == 201
    world.clock.advance(hours=2)
    await sweep.tidy(world.runtime)
    async with world.runtime.system_transaction() as tx:
        left = (await tx.session.execute(text("SELECT key FROM idempotency_keys"))).scalars().all()
    assert left == ["key-of-monday"]


async def test_hashes_go_at_once_with_success_and_after_the_retention_with_failure(world: World) -> None:
    partner = await quiet(world)
    hashed = [d for d in devices(40) if d.fields().get("hardware_hash")][:3]
    assert len(hashed) == 3
    await world.arm(
        {"operation": "create", "kind": "device_error", "positions": [0], "code": "812"},
    )
    response = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.customer_id),
            "reference": "hashed",
            "devices": [device.fields() for device in hashed],
        },
    )
    assert response.status_code == 201, response.text
    held = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.other_customer_id),
            "reference": "held",
            "devices": [device.fields() for device in hashed[:1]],
        },
    )
    assert await scalar(world, "SELECT count(*) FROM device_hashes") == 4
    await world.work()
    states = [row["state"] for row in await world.rows(partner, response.json()["id"])]
    assert states.count("failed") == 1
    assert await scalar(world, "SELECT count(*) FROM device_hashes") == 2

    days = world.runtime.settings.hash_retention_days
    world.clock.advance(days=days - 1)
    await sweep.tidy(world.runtime)
    assert await scalar(world, "SELECT count(*) FROM device_hashes") == 2
    world.clock.advance(days=2)
    await sweep.tidy(world.runtime)
    left = (
        "SELECT b.state FROM device_hashes h JOIN registrations r ON r.id = h.registration_id "
        "JOIN batches b ON b.id = r.batch_id"
    )
    assert await scalar(world, left) == BatchState.HELD, "what is still to be sent stays"
    assert await scalar(world, "SELECT count(*) FROM device_hashes") == 1
    await world.set_consent(partner.other_tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    await world.work()
    (row,) = await world.rows(partner, held.json()["id"])
    assert row["state"] == "registered"


async def untold(world: World) -> Partner:
    """A partner without any events yet."""
    partner = await quiet(world)
    await world.select("DELETE FROM events RETURNING id")
    return partner


async def told(world: World) -> dict[str, Any]:
    """The numbers of events, deliveries and attempts."""
    tables = ("events", "deliveries", "delivery_attempts")
    return {table: await scalar(world, f"SELECT count(*) FROM {table}") for table in tables}


async def test_events_go_after_their_time_with_their_deliveries_and_what_is_newer_stays(world: World) -> None:
    partner = await untold(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url())
        receiver.script.append(Answer(500))
        await world.order(partner, tuples(1))
        await world.work()
        await world.deliver()
        world.clock.advance(seconds=10)
        await world.deliver()
        before = await told(world)
        assert before["deliveries"] == before["events"] > 0
        assert before["delivery_attempts"] == before["deliveries"] + 1
        days = world.runtime.settings.event_retention_days
        world.clock.advance(days=days - 1)
        await sweep.tidy(world.runtime)
        assert await told(world) == before
        await world.order(partner, tuples(1, "NEW"))
        await world.deliver()
        world.clock.advance(days=2)
        await sweep.tidy(world.runtime)
    assert await told(world) == {"events": 1, "deliveries": 1, "delivery_attempts": 1}
    assert await scalar(world, "SELECT type FROM events") == "order.accepted"
    assert await scalar(world, "SELECT count(*) FROM orders") == 2


async def test_an_event_that_one_receiver_still_waits_for_is_kept_whole_however_old(world: World) -> None:
    partner = await untold(world)
    async with open_receiver(world) as prompt, open_receiver(world) as slow:
        await subscribe(world, partner, prompt.url("/prompt"), ["order.accepted"])
        await subscribe(world, partner, slow.url("/slow"), ["order.accepted"])
        slow.usual = Answer(500)
        await world.order(partner, tuples(1))
        await world.deliver()
        world.clock.advance(days=world.runtime.settings.event_retention_days + 1)
        await sweep.tidy(world.runtime)
        assert await told(world) == {"events": 1, "deliveries": 2, "delivery_attempts": 2}
        slow.usual = Answer(200)
        await world.deliver()
        await sweep.tidy(world.runtime)
        assert await told(world) == {"events": 0, "deliveries": 0, "delivery_attempts": 0}
    assert len(slow.messages) == 2


async def test_what_was_told_in_vain_goes_too(world: World) -> None:
    partner = await untold(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.accepted"])
        receiver.usual = Answer(410)
        await world.order(partner, tuples(1))
        await world.deliver()
    assert await scalar(world, "SELECT state FROM deliveries") == "exhausted"
    world.clock.advance(days=world.runtime.settings.event_retention_days + 1)
    assert await sweep.forget_events(world.runtime) == 1
    assert await told(world) == {"events": 0, "deliveries": 0, "delivery_attempts": 0}


async def test_an_event_that_is_being_sent_again_is_not_taken_away_from_under_it(world: World) -> None:
    partner = await untold(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.accepted"])
        await world.order(partner, tuples(1))
        await world.deliver()
        world.clock.advance(days=world.runtime.settings.event_retention_days + 1)
        delivery = await scalar(world, "SELECT id FROM deliveries")
        async with world.runtime.transaction(partner) as tx:
            assert await events.redeliver(tx, delivery, world.clock.now())
            assert await sweep.forget_events(world.runtime) == 0, "neither taken nor waited for"
        assert await sweep.forget_events(world.runtime) == 0
        await world.deliver()
        assert len(receiver.messages) == 2
    assert await sweep.forget_events(world.runtime) == 1


async def test_a_long_backlog_of_events_goes_in_pieces(world: World) -> None:
    partner = await untold(world)
    for number in range(5):
        await world.order(partner, tuples(1, f"N{number}"))
    world.clock.advance(days=world.runtime.settings.event_retention_days + 1)
    assert await sweep.forget_events(world.runtime, chunk=2, chunks=2) == 4
    assert await sweep.forget_events(world.runtime, chunk=2) == 1
    assert await sweep.forget_events(world.runtime) == 0


async def test_tidying_calls_old_proofs_stale(world: World) -> None:
    await quiet(world)
    world.clock.advance(days=world.runtime.settings.consent_valid_days + 1)
    await sweep.tidy(world.runtime)
    assert await scalar(world, "SELECT count(*) FROM consents WHERE state = 'stale'") == 1


# --- heartbeats ----------------------------------------------------------------------------------


async def last_beat(world: World) -> datetime | None:
    async with world.runtime.system_transaction() as tx:
        return await heartbeats.last(tx)


async def test_workers_sign_of_life_is_their_last_one_and_ends_with_them(world: World) -> None:
    assert await last_beat(world) is None
    await sweep.beat(world.runtime)
    world.clock.advance(seconds=5)
    await sweep.beat(world.runtime)
    async with world.another() as two:
        await sweep.beat(two.runtime)
        beat = await last_beat(world)
        assert beat is not None
        assert abs(world.runtime.now() - beat) < timedelta(seconds=1)
        assert await scalar(world, "SELECT count(*) FROM worker_heartbeats") == 2
        await sweep.end_beat(two.runtime)
        await sweep.end_beat(two.runtime)
    left = await scalar(world, "SELECT worker_id FROM worker_heartbeats")
    assert left == world.runtime.presence.worker_id


async def test_a_worker_that_died_is_forgotten_after_an_hour(world: World) -> None:
    async with world.another() as dead:
        await sweep.beat(dead.runtime)
    world.clock.advance(minutes=30)
    await sweep.beat(world.runtime)
    world.clock.advance(minutes=31)
    await sweep.tidy(world.runtime)
    left = await scalar(world, "SELECT string_agg(worker_id, ',') FROM worker_heartbeats")
    assert left == world.runtime.presence.worker_id
