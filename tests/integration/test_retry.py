"""Retrying thousands of failed rows: divided like an order, completely, and in bounded memory."""

import tracemalloc
from collections import defaultdict
from dataclasses import replace
from uuid import UUID

from app.db import registrations
from app.domain.registration import RETRYABLE
from app.services.orders import orders
from tests.support.world import Partner, World, tuples


async def failed_order(world: World, partner: Partner, count: int, tags: int = 1) -> UUID:
    """An order whose rows have all failed, stored without a call to Microsoft per thousand."""
    devices = [
        replace(device, group_tag=f"t{n % tags}") for n, device in enumerate(tuples(count, f"N{count}-"))
    ]
    order_id = UUID(str((await world.order(partner, devices)).view.record.id))
    await world.select(
        "WITH over AS (UPDATE batches SET state = 'settled', settled_at = updated_at WHERE order_id = :id) "
        "UPDATE registrations SET state = 'failed', error_code = 'device_not_found', settled_at = updated_at "
        "WHERE order_id = :id RETURNING 1 AS one",
        id=order_id,
    )
    return order_id


async def test_what_failed_is_cut_by_group_tag_and_at_the_platforms_limit_in_the_rows_order(
    world: World,
) -> None:
    partner = await world.partner()
    order_id = await failed_order(world, partner, 2503, tags=2)
    retry = await orders.retry_failed(world.runtime, partner, order_id)
    assert (retry.retried, retry.without_hash) == (2503, 0)
    rows = await world.select(
        "SELECT r.row_number, r.batch_position, r.group_tag, r.state, r.attempt, b.id, "
        "b.group_tag AS of_batch, b.device_count FROM registrations r JOIN batches b ON b.id = r.batch_id "
        "WHERE r.order_id = :id ORDER BY b.id, r.batch_position",
        id=order_id,
    )
    assert {(row["state"], row["attempt"], row["group_tag"] == row["of_batch"]) for row in rows} == {
        ("queued", 2, True)
    }
    in_batches = defaultdict(list)
    for row in rows:
        in_batches[row["of_batch"], row["id"]].append(row["row_number"])
    assert sorted(map(len, in_batches.values())) == [251, 252, 1000, 1000]
    assert all(numbers == sorted(numbers) for numbers in in_batches.values())
    assert sorted(number for numbers in in_batches.values() for number in numbers) == list(range(1, 2504))
    assert {row["device_count"] for row in rows} == {251, 252, 1000}


async def test_the_rows_come_a_chunk_at_a_time_and_may_be_moved_while_they_come(world: World) -> None:
    partner = await world.partner()
    order_id = await failed_order(world, partner, 95, tags=3)
    sizes, seen = [], []
    async with world.runtime.transaction(partner) as tx:
        (batch,) = await world.select(
            "SELECT id FROM batches WHERE order_id = :id ORDER BY id LIMIT 1", id=order_id
        )
        found = registrations.retryable_of_order(tx, order_id, RETRYABLE, chunk=10)
        async for rows in found:
            sizes.append(len(rows))
            seen += [row.id for row in rows]
            moved = await registrations.rebatch(tx, batch["id"], [row.id for row in rows], world.clock.now())
            assert moved == len(rows)
    assert sizes == [10] * 9 + [5]
    assert len(set(seen)) == 95


async def test_memory_does_not_grow_with_the_number_of_failed_rows(world: World) -> None:
    partner = await world.partner()
    peaks = []
    for count in (1500, 6000):
        order_id = await failed_order(world, partner, count)
        tracemalloc.start()
        retry = await orders.retry_failed(world.runtime, partner, order_id)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert retry.retried == count
    assert peaks[1] < 1.5 * peaks[0], peaks
