"""A connection that works again: waiting work continues at once, and each trouble is reported once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.budget import Budget, BudgetPolicy
from app.domain.upstream import ConnectionTrouble, Said
from app.services.connections import access, customer_readings
from app.services.connections.access import client_secret_place
from app.services.registering import batches
from tests.support.worker import worker_process
from tests.support.world import Partner, World, tuples

AT_ONCE = timedelta(seconds=8)
"""The time from the answer to the claim. Without the wake-up it is more than ten seconds."""
STARTS_WITHIN = 45.0
"""Seconds; a worker process starts in two on an idle machine."""
NO_SWEEP = {"sweep_interval_s": 60}
"""This worker is woken by wake-ups only."""


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(STARTS_WITHIN):
        while not await condition():  # noqa: ASYNC110 - told by the database
            await asyncio.sleep(0.02)


async def trouble_of(world: World, partner: Partner) -> dict[str, Any]:
    [row] = await world.select(
        "SELECT trouble_code AS code, trouble_since AS since, not_before FROM connections WHERE id = :id",
        id=partner.connection_id,
    )
    return row


async def is_in_trouble(world: World, partner: Partner, code: str) -> bool:
    return bool((await trouble_of(world, partner))["code"] == code)


async def batch_of(world: World, order_id: UUID) -> dict[str, Any]:
    [batch] = await world.batches(order_id)
    return batch


async def claimed_after(world: World, partner: Partner, answered_at: datetime) -> timedelta:
    """How long after the answer a worker claimed one of the partner's batches, according to the claim."""
    turns: list[datetime] = []

    async def is_claimed() -> bool:
        rows = await world.select(
            "SELECT last_turn_at FROM partner_turns WHERE partner_id = :id AND kind = 'batches' "
            "AND last_turn_at > :answered_at",
            id=partner.id,
            answered_at=answered_at,
        )
        turns.extend(row["last_turn_at"] for row in rows)
        return bool(turns)

    await until(is_claimed)
    return turns[0] - answered_at


async def check(world: World, partner: Partner) -> dict[str, Any]:
    path = f"/v1/connections/{partner.connection_id}:check"
    response = await world.client.post(path, headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def good_check(world: World, partner: Partner) -> None:
    answer = await check(world, partner)
    assert answer["ok"] is True, answer


async def patch(world: World, partner: Partner, **fields: str) -> None:
    path = f"/v1/connections/{partner.connection_id}"
    response = await world.client.patch(path, headers=partner.headers, json=fields)
    assert response.status_code == 200, response.text


async def secret_of(world: World, partner: Partner) -> str:
    [row] = await world.select(
        "SELECT client_secret FROM connections WHERE id = :id", id=partner.connection_id
    )
    place = client_secret_place(partner.id, partner.connection_id)
    return world.runtime.secrets.open_text(row["client_secret"], place)


async def told(world: World, partner: Partner) -> list[dict[str, Any]]:
    """Events about the connection, oldest first."""
    return await world.select(
        "SELECT type, data FROM events WHERE partner_id = :id AND type LIKE 'connection.%' "
        "ORDER BY occurred_at, id",
        id=partner.id,
    )


# --- at once after the answer ----------------------------------------------------------------------


async def test_what_waited_for_a_refused_credential_is_claimed_at_once_after_a_good_check(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50173, "count": None})
    await world.order(partner, tuples(2))
    async with worker_process(world, tmp_path / "worker.log", **NO_SWEEP):
        # Either the batch was refused, or an earlier reading of the customers: both wait alike.
        await until(lambda: is_in_trouble(world, partner, "sign_in_revoked"))
        assert (await trouble_of(world, partner))["not_before"] > world.clock.now() + timedelta(seconds=10)
        await world.control("DELETE", "faults")
        await good_check(world, partner)
        assert await claimed_after(world, partner, world.clock.now()) < AT_ONCE


async def test_new_credentials_pull_forward_what_waited_without_a_check(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    good = await secret_of(world, partner)
    await patch(world, partner, client_secret="a-secret-that-is-wrong")
    await world.order(partner, tuples(2))
    async with worker_process(world, tmp_path / "worker.log", **NO_SWEEP):
        await until(lambda: is_in_trouble(world, partner, "credential_refused"))
        await patch(world, partner, client_secret=good)
        assert await claimed_after(world, partner, world.clock.now()) < AT_ONCE


async def test_credentials_that_come_while_a_refusal_is_written_down_are_not_missed(world: World) -> None:
    """The trouble is stored first, and the batch given back afterwards; the repair happens in between."""
    partner = await world.partner()
    good = await secret_of(world, partner)
    await patch(world, partner, client_secret="a-secret-that-is-wrong")
    order = await world.order(partner, tuples(2))
    await world.arm({"operation": "token", "kind": "hold", "phase": "before"})
    step = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()

    async with world.runtime.system_transaction() as tx:  # The batch can be given back when this one ends.
        await tx.session.execute(text("SELECT id FROM batches FOR UPDATE"))
        await world.let_go()
        await until(lambda: is_in_trouble(world, partner, "credential_refused"))
        await world.until_locked_out()
        repair = asyncio.create_task(patch(world, partner, client_secret=good))

        async def repaired_or_waiting() -> bool:
            return repair.done() or await world.lock_waiters() > 1

        await until(repaired_or_waiting)
    await asyncio.gather(step, repair)

    assert (await batch_of(world, order.view.record.id))["due_at"] <= world.clock.now()


async def test_a_check_asks_although_the_breaker_is_open_and_lets_the_work_through(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()

    def opened(known: Budget, now: datetime, _: BudgetPolicy) -> tuple[Budget, None]:
        return replace(known, failures=9, opened=5, open_until=now + timedelta(seconds=55)), None

    await world.runtime.budgets.change(partner.connection_id, world.clock.now, opened)
    order_id = (await world.order(partner, tuples(2))).view.record.id
    async with worker_process(world, tmp_path / "worker.log", **NO_SWEEP):

        async def held_back() -> bool:
            due_at: datetime = (await batch_of(world, order_id))["due_at"]
            return due_at > world.clock.now() + timedelta(seconds=30)

        await until(held_back)
        await good_check(world, partner)
        assert await claimed_after(world, partner, world.clock.now()) < AT_ONCE


async def test_a_check_does_not_wait_for_another_call_that_probes(world: World) -> None:
    partner = await world.partner()

    def probing(known: Budget, now: datetime, policy: BudgetPolicy) -> tuple[Budget, None]:
        opened = replace(known, failures=9, opened=5, open_until=now - timedelta(seconds=1))
        return replace(opened, probing_until=now + policy.probe_timeout), None

    await world.runtime.budgets.change(partner.connection_id, world.clock.now, probing)
    await good_check(world, partner)


async def test_a_consent_that_could_not_be_read_is_read_at_once_after_a_good_check(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner(consented=False)
    await world.order(partner, tuples(2))
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50173, "count": None})
    world.runtime.token_cache.tokens.clear()
    assert await customer_readings.read_due(world.runtime)
    assert (await trouble_of(world, partner))["code"] == "sign_in_revoked"
    await world.control("DELETE", "faults")
    log = tmp_path / "worker.log"
    async with worker_process(world, log, **NO_SWEEP):

        async def listens() -> bool:
            return "worker_started" in log.read_text()

        await until(listens)
        await good_check(world, partner)
        answered_at = world.clock.now()
        await claimed_after(world, partner, answered_at)
    [row] = await world.select(
        "SELECT customers_read_at AS began FROM connections WHERE id = :id", id=partner.connection_id
    )
    assert row["began"] - answered_at < AT_ONCE


# --- and no later trouble of an earlier call --------------------------------------------------------


async def test_a_call_that_began_before_the_connection_was_mended_proves_nothing(world: World) -> None:
    partner = await world.partner()
    began = world.clock.now()
    trouble = ConnectionTrouble("credential_refused", Said(401))
    world.clock.advance(seconds=1)
    await good_check(world, partner)
    again_at = await access.note_trouble(world.runtime, partner, partner.connection_id, trouble, began=began)
    assert again_at <= world.clock.now(), "it is tried again at once"
    assert (await trouble_of(world, partner))["code"] is None
    assert await told(world, partner) == []


async def test_a_check_that_fails_ends_no_pause(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50173, "count": None})
    world.runtime.token_cache.tokens.clear()
    order_id = (await world.order(partner, tuples(2))).view.record.id
    await batches.advance_next(world.runtime)
    before = (await batch_of(world, order_id))["due_at"]
    assert (await check(world, partner))["ok"] is False
    assert (await batch_of(world, order_id))["due_at"] == before
    assert (await trouble_of(world, partner))["not_before"] is not None


# --- told once per change -------------------------------------------------------------------------


async def test_a_trouble_and_its_end_are_told_once_each_however_many_attempts_there_are(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50076, "count": None})
    world.runtime.token_cache.tokens.clear()
    await world.order(partner, tuples(2))
    for _ in range(3):
        while await batches.advance_next(world.runtime) is not None:
            pass
        await check(world, partner)
        world.clock.advance(seconds=61)
    [event] = await told(world, partner)
    assert event["type"] == "connection.trouble"
    since = event["data"].pop("since")
    assert datetime.fromisoformat(since) <= world.clock.now() - timedelta(seconds=180)
    detail = event["data"].pop("detail")
    assert "50076" in detail
    remedy = event["data"].pop("remedy")
    assert "MFA" in remedy
    assert event["data"] == {
        "connection_id": str(partner.connection_id),
        "name": "main",
        "code": "mfa_required",
    }

    await world.control("DELETE", "faults")
    await good_check(world, partner)
    await good_check(world, partner)
    [_, recovered] = await told(world, partner)
    assert recovered["type"] == "connection.recovered"
    assert (recovered["data"]["code"], recovered["data"]["since"]) == ("mfa_required", since)


async def test_another_trouble_than_before_is_told_with_its_own_beginning(world: World) -> None:
    partner = await world.partner()

    async def meet(code: str) -> None:
        world.clock.advance(seconds=5)
        now = world.clock.now()
        await access.note_trouble(
            world.runtime, partner, partner.connection_id, ConnectionTrouble(code), began=now
        )

    await meet("credential_missing")
    first = await trouble_of(world, partner)
    await meet("access_denied")
    second = await trouble_of(world, partner)
    await meet("credential_missing")
    assert [event["data"]["code"] for event in await told(world, partner)] == [
        "credential_missing",
        "access_denied",
    ]
    assert second["since"] > first["since"]
    assert await trouble_of(world, partner) == second, "what stops some calls hides nothing that stops all"


@pytest.mark.parametrize("way", ["reading", "credentials"])
async def test_every_way_out_of_a_trouble_is_told(world: World, way: str) -> None:
    partner = await world.partner()
    now = world.clock.now()
    trouble = ConnectionTrouble("access_denied", Said(403))
    await access.note_trouble(world.runtime, partner, partner.connection_id, trouble, began=now)
    if way == "reading":
        await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    else:
        await patch(world, partner, refresh_token="another-refresh-token")
    assert [event["type"] for event in await told(world, partner)] == [
        "connection.trouble",
        "connection.recovered",
    ]


async def test_a_batch_that_goes_through_ends_the_trouble_that_it_had_met_and_pulls_the_others_forward(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "status", "status": 401, "count": None})
    first = (await world.order(partner, tuples(1))).view.record.id
    while await batches.advance_next(world.runtime) is not None:
        pass
    assert (await batch_of(world, first))["failure_code"] == "credential_refused"
    second = (await world.order(partner, tuples(1, "LATER", group_tag="Other"))).view.record.id
    await world.select(
        "UPDATE batches SET due_at = :later WHERE order_id = :id RETURNING id",
        id=second,
        later=world.clock.now() + timedelta(minutes=10),
    )
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    assert (await trouble_of(world, partner))["code"] == "credential_refused", (
        "the list says nothing of batches"
    )

    await world.control("DELETE", "faults")
    world.clock.advance(seconds=61)
    assert await batches.advance_next(world.runtime) is not None
    assert (await trouble_of(world, partner))["code"] is None
    assert (await batch_of(world, second))["due_at"] <= world.clock.now()
    assert [event["type"] for event in await told(world, partner)] == [
        "connection.trouble",
        "connection.recovered",
    ]
    await world.work()
    assert (await batch_of(world, second))["state"] == "settled"


async def test_a_step_without_a_call_proves_nothing(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "status", "status": 401, "count": None})
    order_id = (await world.order(partner, tuples(1))).view.record.id
    while await batches.advance_next(world.runtime) is not None:
        pass
    await world.set_consent(partner.tenant_id, given=False)
    world.clock.advance(seconds=61)
    await world.select(
        "UPDATE consents SET state = 'revoked' WHERE customer_id = :id RETURNING state",
        id=partner.customer_id,
    )
    assert await batches.advance_next(world.runtime) is not None
    assert (await batch_of(world, order_id))["state"] == "held"
    assert (await trouble_of(world, partner))["code"] == "credential_refused"
    assert [event["type"] for event in await told(world, partner)] == ["connection.trouble"]
