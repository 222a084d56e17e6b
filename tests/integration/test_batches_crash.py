"""Workers that die during a call: a real process gets a real SIGKILL, and another worker continues."""

import asyncio
import signal
from pathlib import Path
from uuid import UUID

import pytest

from app.domain.order import OrderState
from app.local.embedded.valkey import Valkey
from app.services.registering import batches
from tests.support.agreement import assert_agreement
from tests.support.line import line_to_postgres
from tests.support.worker import PATIENCE, until_over, worker_process
from tests.support.world import Partner, World, tuples


async def _order_with_known_tag(world: World) -> tuple[Partner, UUID]:
    partner = await world.partner()
    await world.order(partner, tuples(1, "FIRST"))
    await world.work()
    order = await world.order(partner, tuples(3))
    return partner, order.view.record.id


async def _assert_all_registered(world: World, partner: Partner, order_id: UUID) -> None:
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    assert {row["state"] for row in await world.rows(partner, order_id)} == {"registered"}
    await assert_agreement(world, partner, order_id)


@pytest.mark.parametrize(("phase", "dedup"), [("before", True), ("after", False)])
async def test_a_worker_killed_in_the_middle_of_a_call_loses_and_doubles_nothing(
    world: World, tmp_path: Path, phase: str, dedup: bool
) -> None:
    await world.switch(request_id_dedup=dedup)
    partner, order_id = await _order_with_known_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": phase})
    log = tmp_path / "worker.log"
    async with worker_process(world, log) as process:
        await world.until_held_open(within=PATIENCE)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    [batch] = await world.batches(order_id)
    assert batch["state"] == "submitting", "the intent was on disk before the call left"
    assert batch["lease_until"] > world.clock.now()

    # The lease expires and another worker takes over; the dead worker's call arrives even later.
    await world.work()
    await world.let_go()

    first, second = await world.calls("append")
    assert first["request_id"] == second["request_id"] == str(batch["request_id"])
    kinds = await world.select(
        "SELECT outcome FROM batch_attempts WHERE batch_id = :id AND kind <> 'look_up' ORDER BY id",
        id=batch["id"],
    )
    assert [attempt["outcome"] for attempt in kinds] == ["interrupted", "accepted"]
    await _assert_all_registered(world, partner, order_id)


async def test_a_worker_killed_while_it_creates_a_tag_leaves_it_to_be_found(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(3))
    behind = await world.order(partner, tuples(2, "BEHIND"))
    await world.arm({"operation": "create", "kind": "hold", "phase": "after"})
    log = tmp_path / "worker.log"
    async with worker_process(world, log) as process:
        await world.until_held_open(within=PATIENCE)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    await world.work()
    await world.let_go()

    assert len(await world.calls("create")) == 1
    await _assert_all_registered(world, partner, order.view.record.id)
    await _assert_all_registered(world, partner, behind.view.record.id)


async def test_a_worker_told_to_stop_finishes_the_call_it_is_making(world: World, tmp_path: Path) -> None:
    partner, order_id = await _order_with_known_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    log = tmp_path / "worker.log"
    async with worker_process(world, log) as process:
        await world.until_held_open(within=PATIENCE)
        process.send_signal(signal.SIGTERM)
        await world.let_go()
        async with asyncio.timeout(PATIENCE):
            await process.wait()

    [batch] = await world.batches(order_id)
    assert batch["state"] in ("submitted", "settled")
    assert (batch["owner"], batch["uncertain"]) == (None, False)
    assert process.returncode == 0
    assert not await world.select("SELECT * FROM worker_heartbeats")
    await world.work()
    assert len(await world.calls("append")) == 1
    await _assert_all_registered(world, partner, order_id)


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_worker_told_to_stop_while_redis_is_away_stops_in_good_order(
    world: World, tmp_path: Path, at_work: bool
) -> None:
    """Within far less than the minute for which a working worker waits for Redis."""
    partner, order_id = await _order_with_known_tag(world)
    if at_work:
        await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    redis = Valkey(tmp_path / "redis", durable=False)
    await asyncio.to_thread(redis.start)
    log = tmp_path / "worker.log"
    try:
        async with worker_process(world, log, redis_url=redis.url) as process:
            if at_work:
                await world.until_held_open(within=PATIENCE)
            else:
                await until_over(world, partner, order_id)
            await asyncio.to_thread(redis.kill)
            process.send_signal(signal.SIGTERM)
            await world.let_go()
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0
    finally:
        await asyncio.to_thread(redis.stop)

    assert not await world.select("SELECT * FROM worker_heartbeats")
    [batch] = await world.batches(order_id)
    assert (batch["owner"], batch["uncertain"]) == (None, False)
    told = log.read_text()
    assert "worker_stopped" in told
    assert "redis_not_tidied" in told
    assert "Traceback" not in told
    await world.work()
    assert len(await world.calls("append")) == 1
    await _assert_all_registered(world, partner, order_id)


async def test_a_worker_told_to_stop_waits_no_longer_than_a_call_may_take(
    world: World, tmp_path: Path
) -> None:
    partner, order_id = await _order_with_known_tag(world)
    await world.arm({"operation": "append", "kind": "hold", "phase": "after"})
    log = tmp_path / "worker.log"
    # The step would have enough time: it is the call that times out.
    brief = {"upstream_timeout_s": 0.8, "step_timeout_s": 5}
    async with worker_process(world, log, **brief) as process:
        await world.until_held_open(within=PATIENCE)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    await world.let_go()

    [batch] = await world.batches(order_id)
    assert (batch["state"], batch["owner"], batch["uncertain"]) == ("unknown", None, True)
    await world.work()
    await _assert_all_registered(world, partner, order_id)


@pytest.mark.parametrize(
    ("operation", "phase", "found"),
    [
        ("list_batches", "before", "queued"),
        ("create", "after", "submitting"),
        ("status", "before", "submitted"),
    ],
)
async def test_a_step_that_is_cut_off_hands_its_batch_over_at_once(
    world: World, operation: str, phase: str, found: str
) -> None:
    """As arq does with steps that have not ended when a stopping worker's time is up."""
    partner = await world.partner()
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id
    if operation == "status":
        await batches.advance_next(world.runtime)
        world.clock.advance(seconds=2)
    await world.arm({"operation": operation, "kind": "hold", "phase": phase})
    step = asyncio.create_task(batches.advance_next(world.runtime))
    await world.until_held_open()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    [batch] = await world.batches(order_id)
    assert (batch["state"], batch["owner"], batch["lease_until"]) == (found, None, None)
    assert batch["due_at"] <= world.clock.now(), "nobody waits for the lease"
    await world.let_go()

    assert await batches.advance_next(world.runtime) is not None, "another worker has it already"
    await world.work()

    uploads = [*await world.calls("create"), *await world.calls("append")]
    # One id per call: an append after an interrupted create has another id.
    assert len({call["request_id"] for call in uploads}) == len({call["operation"] for call in uploads})
    await _assert_all_registered(world, partner, order_id)


async def test_two_worker_processes_with_short_leases_share_the_work_and_one_death(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "append", "kind": "hold", "phase": "after", "skip": 2})
    short = {
        "upstream_timeout_s": 1,
        "step_timeout_s": 1.5,
        "lease_s": 2,
        "webhook_timeout_s": 1,
        "heartbeat_s": 0.5,
        "sweep_interval_s": 1,
        "poll_first_s": 0.1,
    }
    made = [await world.order(partner, tuples(5, f"P{number}")) for number in range(6)]
    logs = tmp_path / "one.log", tmp_path / "two.log"
    async with worker_process(world, logs[0], **short) as first, worker_process(world, logs[1], **short):
        await world.until_held_open(within=PATIENCE)
        first.send_signal(signal.SIGKILL)
        await world.let_go()
        for order in made:
            await until_over(world, partner, order.view.record.id)

    for order in made:
        await _assert_all_registered(world, partner, order.view.record.id)


async def test_a_moment_without_the_database_costs_no_lease(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The living worker gives its batch back as soon as the database is there again."""
    partner = await world.partner()
    order = await world.order(partner, tuples(3))
    order_id = order.view.record.id
    await world.arm({"operation": "create", "kind": "hold", "phase": "after"})
    async with (
        line_to_postgres(str(world.runtime.settings.database_url)) as line,
        world.another(database_url=line.url) as other,
    ):
        step = asyncio.create_task(batches.advance_next(other.runtime))
        await world.until_held_open()
        line.cut()
        await world.let_go()
        while "claim_not_handed_over" not in caplog.text:
            assert not step.done()
            await asyncio.sleep(0.01)
        line.mend()
        await step

    [batch] = await world.batches(order_id)
    assert (batch["state"], batch["owner"], batch["lease_until"]) == ("submitting", None, None)
    await world.work()
    assert (await world.view(partner, order_id)).state is OrderState.COMPLETED
    await assert_agreement(world, partner, order_id)
