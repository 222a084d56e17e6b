"""Faults that the chaos run (docs/chaos.md) found, each reproduced in its smallest form."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.domain.errors import Conflict
from app.services.access import idempotency
from app.services.access.idempotency import Once
from app.services.connections import access
from app.services.registering import batches
from tests.support.world import Partner, World, tuples

BODY = b"the order"


async def _begin(world: World, partner: Partner) -> Once:
    found = await idempotency.begin(world.runtime, partner, "k-1", BODY)
    assert isinstance(found, Once)
    return found


# --- A killed API: its callers repeat the call with the same key ----------------------------------------


async def test_an_order_whose_api_was_killed_is_taken_again_within_seconds(world: World) -> None:
    partner = await world.partner(consented=False)
    await _begin(world, partner)  # and never ends
    with pytest.raises(Conflict):
        await idempotency.begin(world.runtime, partner, "k-1", BODY)
    world.clock.advance(seconds=16)
    await _begin(world, partner)


async def test_a_request_that_runs_long_keeps_its_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "RENEWAL", timedelta(milliseconds=10))
    partner = await world.partner(consented=False)
    once = await _begin(world, partner)
    async with once.kept():
        for _ in range(3):
            world.clock.advance(seconds=10)
            await _renewed(world)
            with pytest.raises(Conflict):
                await idempotency.begin(world.runtime, partner, "k-1", BODY)
    world.clock.advance(seconds=16)
    await _begin(world, partner)


async def _renewed(world: World) -> None:
    """Waits until the key's lease is renewed beyond the time by which the clock was moved."""
    deadline = time.monotonic() + 45
    wanted = world.clock.now() + idempotency.PATIENCE - timedelta(seconds=5)
    while time.monotonic() < deadline:
        async with world.runtime.system_transaction() as tx:
            until = (
                await tx.session.execute(text("SELECT running_until FROM idempotency_keys"))
            ).scalar_one()
        if until > wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the key was not renewed")


async def test_a_request_that_was_taken_for_dead_can_not_answer_beside_its_repetition(world: World) -> None:
    partner = await world.partner(consented=False)
    first = await _begin(world, partner)
    world.clock.advance(seconds=16)
    second = await _begin(world, partner)
    await first.give_up()  # must not free the key, which now belongs to the second request
    with pytest.raises(Conflict):
        async with world.runtime.transaction(partner) as tx:
            await first.complete(tx, 201, None, b"first")
    async with world.runtime.transaction(partner) as tx:
        await second.complete(tx, 201, None, b"second")
    found = await idempotency.begin(world.runtime, partner, "k-1", BODY)
    assert isinstance(found, idempotency.Replay)
    assert found.body == b"second"


# --- A worker killed while it redeems a refresh token ---------------------------------------------------


async def test_a_batch_that_waited_for_a_token_in_vain_is_not_in_doubt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formerly, a step that ended while waiting left an unknown outcome, although nothing was sent."""
    partner = await world.partner()
    await world.order(partner, tuples(1, "ONE"))
    await world.work()  # creates the group tag, so the batch's next call is its upload
    before = len(await world.calls("append"))
    short = {"upstream_timeout_s": 0.2, "step_timeout_s": 0.9, "lease_s": 3.0, "webhook_timeout_s": 1.0}
    monkeypatch.setattr(world.runtime, "settings", world.runtime.settings.model_copy(update=short))
    world.runtime.token_cache.tokens.clear()
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE connections SET token_owner = :owner, token_lease_until = :until"),
            {"owner": uuid4(), "until": world.runtime.now() + timedelta(seconds=20)},
        )
    accepted = await world.order(partner, tuples(2))
    assert await batches.advance_next(world.runtime) is not None
    async with world.runtime.system_transaction() as tx:
        batch = (
            await tx.session.execute(text("SELECT state, uncertain FROM batches WHERE settled_at IS NULL"))
        ).one()
    assert tuple(batch) == ("queued", False)
    assert [row["state"] for row in await world.rows(partner, accepted.view.record.id)] == ["queued"] * 2
    assert len(await world.calls("append")) == before


async def test_the_lease_of_a_token_outlasts_the_login_and_the_storing(world: World) -> None:
    for upstream in (1.0, 3.0, 60.0):
        settings = world.runtime.settings.model_copy(update={"upstream_timeout_s": upstream})
        login = min(upstream, 30.0)
        storing = access.STORE_ATTEMPTS * access.STORE_PAUSE
        lease = access.token_lease(settings).total_seconds()
        assert 2 * login + storing < lease <= 2 * login + storing + 10


# --- A worker killed while it records that Microsoft's answer has no outcome ----------------------------


async def _overdue(world: World, partner: Partner) -> UUID:
    """An order whose job never finishes, at the time when it must be looked up instead."""
    await world.arm({"operation": "create", "kind": "never_finish"})
    accepted = await world.order(partner, tuples(3))
    assert await batches.advance_next(world.runtime) is not None
    world.clock.advance(seconds=world.runtime.settings.poll_deadline_s + 1)
    return UUID(str(accepted.view.record.id))


async def test_rows_become_unknown_with_their_batch_or_not_at_all(world: World) -> None:
    partner = await world.partner()
    order_id = await _overdue(world, partner)
    async with world.runtime.transaction(partner) as tx:
        await tx.session.execute(text("SELECT id FROM orders FOR NO KEY UPDATE"))
        step = asyncio.create_task(batches.advance_next(world.runtime))
        await world.until_locked_out()
        assert [row["state"] for row in await world.rows(partner, order_id)] == ["processing"] * 3
    await step
    assert [row["state"] for row in await world.rows(partner, order_id)] == ["unknown"] * 3


async def test_an_unknown_row_of_a_submitted_batch_is_never_left_behind(world: World) -> None:
    """A crash between writing the rows and the batch could leave this state. The next poll then settled the
    batch without these rows, and they stayed unknown forever, without a look-up or an event."""
    partner = await world.partner()
    await world.order(partner, tuples(3))
    assert await batches.advance_next(world.runtime) is not None
    async with world.runtime.transaction(partner) as tx:
        await tx.session.execute(text("UPDATE registrations SET state = 'unknown'"))
    await world.work()
    async with world.runtime.system_transaction() as tx:
        states = (await tx.session.execute(text("SELECT state FROM registrations"))).scalars().all()
        told = await tx.session.execute(
            text("SELECT jsonb_array_length(data -> 'registrations') FROM events WHERE type = :type"),
            {"type": "registration.settled"},
        )
    assert states == ["registered"] * 3
    assert sum(told.scalars()) == 3
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 3
