"""Dead workers' claims are ended by living workers, long before their leases; living workers' never are.

Real processes are killed and frozen. The worker that takes over runs in the test, whose clock can be moved;
in one test everything is as in production.
"""

import asyncio
import json
import signal
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db import batch_claims as stored
from app.db.engine import OUTAGES
from app.domain.order import OrderState
from app.kernel.settings import Settings
from app.services.connections import customer_readings
from app.services.consents import consents
from app.services.operations import sweep
from app.services.registering import batches
from app.services.webhooks import deliveries
from tests.support import rows
from tests.support.agreement import assert_agreement
from tests.support.line import line_to_postgres
from tests.support.receiver import Answer, open_receiver, subscribe
from tests.support.worker import PATIENCE, until_over, worker_process
from tests.support.world import Partner, World, tuples

SECOND = timedelta(seconds=1)
SILENCE = Settings().silence
FAR = timedelta(seconds=60)
"""The least that remains of a lease of 120 s when another worker takes over."""


async def order_behind_a_tag(world: World) -> tuple[Partner, UUID]:
    """An order whose first call is its upload, because the tag exists."""
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    order = await world.order(partner, tuples(3))
    return partner, order.view.record.id


async def claims(world: World, table: str = "batches") -> list[tuple[UUID, datetime | None]]:
    found = await world.select(f"SELECT owner, lease_until FROM {table} WHERE owner IS NOT NULL ORDER BY id")
    return [(row["owner"], row["lease_until"]) for row in found]


async def until_logged(log: Path, words: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while words not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)


async def freeze(world: World, process: asyncio.subprocess.Process) -> None:
    """Freezes a worker between two transactions: the locks of one would delay the next worker until
    PostgreSQL notices that the first is gone. That loses nothing, and is not tested here."""
    its = "a.datname = current_database() AND a.application_name = 'registrar-worker'"
    in_transaction = (
        f"SELECT 1 FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE locktype = 'virtualxid' AND {its}"
    )
    assert await world.select(f"SELECT 1 FROM pg_stat_activity a WHERE {its}"), "it is seen at all"
    async with asyncio.timeout(PATIENCE):
        process.send_signal(signal.SIGSTOP)
        while await world.select(in_transaction):
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0)
            process.send_signal(signal.SIGSTOP)


# --- killed ---------------------------------------------------------------------------------------


async def kill_in_a_call(world: World, log: Path) -> None:
    """Kills a worker in the call that is held open."""
    async with worker_process(world, log) as process:
        await world.until_held_open(within=PATIENCE)
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_only_dead_workers_that_had_claimed_something_are_named(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await order_behind_a_tag(world)
    async with world.another() as idle:
        await sweep.beat(idle.runtime)
        unnamed = idle.runtime.presence.worker_id
    await world.arm({"operation": "append", "kind": "hold", "phase": "before"})
    await kill_in_a_call(world, tmp_path / "worker.log")
    silent = {row["worker_id"] for row in await world.select("SELECT worker_id FROM worker_heartbeats")}
    assert unnamed in silent
    [killed] = silent - {unnamed}

    await world.watch(SILENCE + SECOND)
    await world.let_go()

    [told] = [line for line in caplog.text.splitlines() if "claims_of_dead_worker_ended" in line]
    assert killed in told
    assert unnamed not in told


async def test_a_worker_killed_while_it_redeems_a_refresh_token_costs_its_connection_its_silence(
    world: World, tmp_path: Path
) -> None:
    """Not the lease of the token, which must be longer than a login and a restart of the database."""
    partner = await world.partner()
    order = await world.order(partner, tuples(2))
    await world.arm({"operation": "token", "kind": "hold", "phase": "before"})
    await kill_in_a_call(world, tmp_path / "worker.log")
    held = "SELECT token_lease_until FROM connections WHERE token_owner IS NOT NULL"
    [killed] = await world.select(held)
    assert killed["token_lease_until"] - world.clock.now() > 2 * SILENCE
    await world.let_go()

    await world.watch(SILENCE + SECOND)

    [freed] = await world.select(held)
    assert freed["token_lease_until"] is None
    assert killed["token_lease_until"] > world.clock.now(), "the lease would still hold"
    await world.work()
    assert {row["state"] for row in await world.rows(partner, order.view.record.id)} == {"registered"}


async def test_a_customers_list_whose_reader_was_killed_is_read_by_another_one(
    world: World, tmp_path: Path
) -> None:
    """Long before the next regular reading, and before the lease has expired."""
    partner = await world.partner()
    await world.set_consent(partner.other_tenant_id, given=True)
    await world.arm({"operation": "customers", "kind": "hold", "phase": "before"})
    await kill_in_a_call(world, tmp_path / "worker.log")
    claimed = "SELECT reading_lease_until, customers_due_at FROM connections WHERE reading_owner IS NOT NULL"
    [killed] = await world.select(claimed)
    assert not await customer_readings.read_due(world.runtime), "somebody reads it"
    await world.let_go()

    await world.watch(SILENCE + SECOND)

    [freed] = await world.select(claimed)
    assert freed["reading_lease_until"] is None
    assert killed["reading_lease_until"] - world.clock.now() > FAR
    assert freed["customers_due_at"] - world.clock.now() > FAR
    assert await customer_readings.read_due(world.runtime)
    assert not await customer_readings.read_due(world.runtime)
    assert await world.select(claimed) == []
    customer = await consents.get_customer(world.runtime, partner, partner.other_customer_id)
    assert customer.consent_state == "granted"


@pytest.mark.parametrize(("phase", "dedup"), [("before", True), ("after", False)])
async def test_a_killed_workers_batch_is_taken_up_while_its_lease_is_far_from_over(
    world: World, tmp_path: Path, phase: str, dedup: bool
) -> None:
    await world.switch(request_id_dedup=dedup)
    partner, order_id = await order_behind_a_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": phase})
    await kill_in_a_call(world, tmp_path / "worker.log")
    [(owner, lease_until)] = await claims(world)
    assert lease_until is not None

    await world.watch(SILENCE - SECOND)
    assert await claims(world) == [(owner, lease_until)], "not before it has been silent for long enough"
    await world.watch(2 * SECOND)

    assert await claims(world) == [(owner, None)]
    assert lease_until - world.clock.now() > FAR
    assert await batches.advance_next(world.runtime) is not None
    [batch] = await world.batches(order_id)
    assert batch["state"] == "submitted"
    await world.let_go()
    await world.work()

    first, second = await world.calls("append")
    assert first["request_id"] == second["request_id"], "the same call again, as after a lease"
    attempts = await world.select(
        "SELECT outcome FROM batch_attempts WHERE batch_id = :id AND kind <> 'look_up' ORDER BY id",
        id=batch["id"],
    )
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "accepted"]
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)


async def test_two_real_workers_one_is_killed_and_the_other_finishes_its_order_within_the_lease(
    world: World, tmp_path: Path
) -> None:
    partner, order_id = await order_behind_a_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    await kill_in_a_call(world, tmp_path / "killed.log")
    [(_, lease_until)] = await claims(world)
    assert lease_until is not None
    # Its heartbeats are more frequent, and so its timeout is shorter, for a quick test.
    quick = {"heartbeat_s": 0.25, "sweep_interval_s": 1, "poll_first_s": 0.1}
    log = tmp_path / "heir.log"
    async with worker_process(world, log, **quick):
        await until_over(world, partner, order_id)

    [batch] = await world.batches(order_id)
    assert batch["settled_at"] < lease_until - FAR
    assert log.read_text().count("claims_of_dead_worker_ended") == 1
    await assert_agreement(world, partner, order_id)


async def test_a_killed_workers_delivery_is_made_by_another_one_while_its_lease_is_far_from_over(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    never = asyncio.Event()
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url(), ["order.held"])
        receiver.script.append(Answer(hold=never))
        await world.order(partner, tuples(1), customer_id=partner.other_customer_id)
        here = {"webhook_allow_http": True, "webhook_allowed_networks": "127.0.0.0/8"}
        async with worker_process(world, tmp_path / "worker.log", **here) as process:
            async with asyncio.timeout(PATIENCE):
                while not receiver.messages:  # noqa: ASYNC110 - another process sends
                    await asyncio.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        never.set()
        [(owner, lease_until)] = await claims(world, "deliveries")
        assert lease_until is not None

        assert not await deliveries.deliver_next(world.runtime), "somebody has it"
        await world.watch(SILENCE + SECOND)

        assert await claims(world, "deliveries") == [(owner, None)]
        assert lease_until - world.clock.now() > FAR
        assert await deliveries.deliver_next(world.runtime)
        first, second = receiver.messages
        assert (first.id, first.body) == (second.id, second.body)
    [delivery] = await world.select("SELECT state, attempts FROM deliveries")
    assert (delivery["state"], delivery["attempts"]) == ("succeeded", 1)


async def test_a_worker_of_the_release_before_keeps_its_claim_to_the_end_of_its_lease(world: World) -> None:
    await order_behind_a_tag(world)
    async with world.another() as old:
        async with old.runtime.system_transaction() as tx:
            claim = await stored.claim_one(
                tx,
                owner=uuid4(),
                now=old.runtime.now(),
                lease=old.runtime.settings.lease,
                customer_window=4,
                connection_window=32,
            )
        await sweep.beat(old.runtime)
    assert claim is not None

    await world.watch(SILENCE * 2)
    assert await claims(world) == [(claim.owner, claim.lease_until)]
    await world.watch(world.runtime.settings.lease - SILENCE * 2 + SECOND)
    assert await batches.advance_next(world.runtime) is not None


@pytest.mark.parametrize("prefix_of_table", [("batches", ""), ("deliveries", ""), ("connections", "token_")])
async def test_a_claim_of_the_release_before_does_not_bear_the_name_that_an_earlier_one_left(
    world: World, prefix_of_table: tuple[str, str]
) -> None:
    table, prefix = prefix_of_table
    claimed = f"UPDATE {table} SET {prefix}owner = gen_random_uuid() RETURNING {prefix}worker_id AS name"
    async with world.runtime.system_transaction() as tx:
        await rows.fill(tx.session)
        ours = (await tx.session.execute(text(claimed))).scalar_one()
        names = text(f"SELECT {prefix}worker_id FROM {table}")
        assert ours is not None
        assert (await tx.session.execute(names)).scalar_one() == ours, "ours stays"

        await tx.session.execute(text("SET LOCAL registrar.row_states = ''"))
        await tx.session.execute(text(claimed))
        assert (await tx.session.execute(names)).scalar_one() is None


# --- not dead -------------------------------------------------------------------------------------


async def test_a_frozen_worker_that_comes_back_finds_its_batch_lost_and_records_nothing_twice(
    world: World, tmp_path: Path
) -> None:
    partner, order_id = await order_behind_a_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    log = tmp_path / "worker.log"
    async with worker_process(world, log) as process:
        await world.until_held_open(within=PATIENCE)
        await freeze(world, process)
        [(_, lease_until)] = await claims(world)
        assert lease_until is not None
        await world.watch(SILENCE + SECOND)
        assert await batches.advance_next(world.runtime) is not None, "taken from the frozen one"
        assert lease_until - world.clock.now() > FAR
        await world.work()
        assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
        before = await everything_of(world, order_id)
        await world.let_go()
        process.send_signal(signal.SIGCONT)
        await until_logged(log, "claim_lost")

        assert await everything_of(world, order_id) == before
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    assert len(await world.calls("append")) == 2
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 4
    await assert_agreement(world, partner, order_id)


async def everything_of(world: World, order_id: UUID) -> list[list[dict[str, object]]]:
    """Everything recorded of an order: its batches, their attempts, its rows and its events."""
    return [
        await world.select(statement, id=order_id)
        for statement in (
            "SELECT * FROM batches WHERE order_id = :id ORDER BY id",
            "SELECT a.* FROM batch_attempts a JOIN batches b ON b.id = a.batch_id "
            "WHERE b.order_id = :id ORDER BY a.id",
            "SELECT * FROM registrations WHERE order_id = :id ORDER BY id",
            "SELECT * FROM events WHERE order_id = :id ORDER BY id",
        )
    ]


async def test_a_worker_that_comes_back_before_anybody_took_its_batch_records_its_answer(
    world: World,
) -> None:
    partner, order_id = await order_behind_a_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    async with world.another() as frozen:
        await sweep.beat(frozen.runtime)
        step = asyncio.create_task(batches.advance_next(frozen.runtime))
        await world.until_held_open()
        await world.watch(SILENCE + SECOND)
        [(_, lease_until)] = await claims(world)
        assert lease_until is None, "free, and not taken yet"
        await world.let_go()
        await step
    await world.work()
    assert len(await world.calls("append")) == 1
    [batch] = await world.batches(order_id)
    assert batch["uncertain"] is False
    await assert_agreement(world, partner, order_id)


async def test_nobody_loses_a_claim_because_the_database_was_away_from_all(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    partner, order_id = await order_behind_a_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    async with (
        line_to_postgres(str(world.runtime.settings.database_url)) as line,
        world.another(database_url=line.url) as busy,
        world.another(database_url=line.url) as idle,
    ):
        step = asyncio.create_task(batches.advance_next(busy.runtime))
        await world.until_held_open()
        await sweep.beat(busy.runtime)
        await idle.watch(SILENCE - SECOND)
        await sweep.beat(busy.runtime)
        [before] = await claims(world)

        line.cut()
        for worker in (busy, idle):
            with pytest.raises(OUTAGES):
                await sweep.beat(worker.runtime)
        world.clock.offset += SILENCE * 2
        line.mend()
        # This one comes back first, and has the others' last heartbeats from before the outage.
        await idle.watch(SILENCE - SECOND)
        assert await claims(world) == [before], "it has not been heard long enough to judge"
        await sweep.beat(busy.runtime)
        await idle.watch(SILENCE / 2)
        assert await claims(world) == [before], "the other one has been heard"

        await world.let_go()
        await step
    assert "claim_lost" not in caplog.text
    await world.work()
    assert len(await world.calls("append")) == 1
    [batch] = await world.batches(order_id)
    assert batch["uncertain"] is False
    await assert_agreement(world, partner, order_id)


async def test_who_was_killed_while_the_database_was_away_is_found_dead_afterwards(world: World) -> None:
    partner, order_id = await order_behind_a_tag(world)
    await world.watch(SILENCE * 2)
    async with world.another() as dead:
        await sweep.beat(dead.runtime)
        owner = await claim_and_die(dead)
    world.clock.offset += SILENCE * 2  # nobody reached the database meanwhile
    await world.watch(SILENCE - SECOND)
    [(_, lease_until)] = await claims(world)
    assert lease_until is not None
    await world.watch(2 * SECOND)
    assert await claims(world) == [(owner, None)]
    assert lease_until - world.clock.now() > 2 * SILENCE
    await world.work()
    await assert_agreement(world, partner, order_id)


async def test_a_claim_that_was_renewed_is_a_sign_of_life_as_well(world: World) -> None:
    """Heartbeats may be missing while work continues: an import renews its lease with each chunk."""
    await order_behind_a_tag(world)
    await world.watch(SILENCE * 2)
    async with world.another() as busy:
        await sweep.beat(busy.runtime)
        owner = await claim_and_die(busy)
        for _ in range(4):
            [(_, until)] = await claims(world)
            await world.watch(SILENCE / 2)
            assert await claims(world) == [(owner, until)]
            until = world.clock.now() + world.runtime.settings.lease
            await world.select(
                "UPDATE batches SET lease_until = :until WHERE owner = :owner RETURNING id",
                owner=owner,
                until=until,
            )
    await world.watch(SILENCE + SECOND)
    assert await claims(world) == [(owner, None)]


async def test_what_a_frozen_worker_has_locked_holds_up_no_sweep(world: World) -> None:
    await order_behind_a_tag(world)
    await world.watch(SILENCE * 2)
    async with world.another() as frozen:
        await sweep.beat(frozen.runtime)
        owner = await claim_and_die(frozen)
        async with frozen.runtime.system_transaction() as tx:
            await tx.session.execute(text("SELECT id FROM batches WHERE owner IS NOT NULL FOR UPDATE"))
            async with asyncio.timeout(PATIENCE):
                await world.watch(SILENCE + SECOND)
            [(_, lease_until)] = await claims(world)
            assert lease_until is not None
    await world.watch(SECOND)
    assert await claims(world) == [(owner, None)]


async def claim_and_die(world: World) -> UUID:
    """Makes a claim and does nothing with it; returns its owner."""
    async with world.runtime.system_transaction() as tx:
        claim = await stored.claim_one(
            tx,
            owner=uuid4(),
            worker_id=world.runtime.presence.worker_id,
            now=world.runtime.now(),
            lease=world.runtime.settings.lease,
            customer_window=4,
            connection_window=32,
        )
    assert claim is not None
    return claim.owner


async def test_a_worker_that_can_not_start_ends_with_its_reason(world: World, tmp_path: Path) -> None:
    """Shutting down what never started must not hide the reason, which must be the last line."""
    log = tmp_path / "worker.log"
    async with worker_process(world, log, secret_keys="hunter2") as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 1
    assert log.read_text().startswith("REGISTRAR_SECRET_KEYS: keys must be base64")

    (tmp_path / "secret.key").write_text("half a k")
    async with worker_process(world, log, secret_keys="", data_dir=tmp_path) as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 1
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("worker_cannot_start", "REGISTRAR_SECRET_KEYS must be base64")
    assert "Traceback" not in log.read_text()
