"""Wake-ups: sent only after the commit, never required for progress, and never waited for."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from arq.connections import create_pool
from redis.asyncio import Redis

from app.domain.order import OrderState
from app.kernel.queue import (
    EXPIRES_AFTER,
    LANES_A_SLOT,
    LONGEST_DEFERRAL,
    QUEUE_NAME,
    SEND_PATIENCE,
    Queue,
    deserialize,
    redis_settings,
)
from app.kernel.wakeups import WakeKind, WakeUp
from app.local.embedded.valkey import Valkey
from app.services.connections import customer_readings
from app.services.operations import sweep
from app.services.registering import batches
from app.services.webhooks import deliveries
from tests.support.receiver import open_receiver, subscribe
from tests.support.world import World, tuples
from workers.main import REDIS_ATTEMPTS, deliver_webhooks


@pytest_asyncio.fixture
async def redis(world: World) -> AsyncIterator[Redis]:
    assert world.runtime.settings.redis_url is not None
    client: Redis = Redis.from_url(world.runtime.settings.redis_url)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


async def jobs(redis: Redis) -> list[dict[str, Any]]:
    """The wake-ups that a worker would find, with the times from which it may take them."""
    found = []
    for id, score in await redis.zrange(QUEUE_NAME, 0, -1, withscores=True):
        raw = await redis.get(b"arq:job:" + id)
        found.append({**orjson.loads(raw), "at": score / 1000})
    return found


async def kinds(redis: Redis) -> list[str]:
    return sorted(job["f"] for job in await jobs(redis))


@asynccontextmanager
async def hanging_redis(callers: list[object] | None = None) -> AsyncIterator[str]:
    """A server that accepts and never answers, like a stopped process or a full disk."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if callers is not None:
            callers.append(writer.get_extra_info("peername"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


# --- after the commit -----------------------------------------------------------------------------


async def test_a_wake_up_is_sent_after_the_commit(world: World, redis: Redis) -> None:
    async with world.runtime.system_transaction() as tx:
        tx.wake(WakeKind.BATCHES, lanes=2)
        tx.wake(WakeKind.BATCHES)
        tx.wake(WakeKind.CONSENT)
        assert await jobs(redis) == []
    assert await kinds(redis) == ["advance_batches", "advance_batches", "read_customers"]


async def test_a_rolled_back_transaction_wakes_nobody(world: World, redis: Redis) -> None:
    class Fault(Exception):
        pass

    async def fail() -> None:
        async with world.runtime.system_transaction() as tx:
            tx.wake(WakeKind.BATCHES)
            raise Fault

    with pytest.raises(Fault):
        await fail()
    assert await jobs(redis) == []


async def test_a_refused_order_wakes_nobody(world: World, redis: Redis) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1), reference="R-once")
    await redis.flushall()
    again = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.customer_id),
            "reference": "R-once",
            "devices": [{"serial_number": "X1", "manufacturer": "Contoso", "model": "Book"}],
        },
    )
    assert again.status_code == 409
    assert await jobs(redis) == []


async def test_a_wake_up_carries_no_data_and_is_no_code(world: World, redis: Redis) -> None:
    partner = await world.partner()
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url())
        await redis.flushall()
        await world.order(partner, tuples(3))
    found = await jobs(redis)
    assert set(await kinds(redis)) == {"advance_batches", "deliver_webhooks"}
    for job in found:
        assert (job["a"], job["k"]) == ([], {})
    for id in await redis.zrange(QUEUE_NAME, 0, -1):
        assert 0 < await redis.pttl(b"arq:job:" + id) <= EXPIRES_AFTER / timedelta(milliseconds=1)
    with pytest.raises(orjson.JSONDecodeError):
        deserialize(b"\x80\x04]\x94.")
    with pytest.raises(TypeError):
        deserialize(b"[]")


async def test_a_wake_up_for_later_waits_and_one_for_much_later_is_left_to_the_sweep(
    world: World, redis: Redis
) -> None:
    soon = datetime.now(UTC) + LONGEST_DEFERRAL / 2
    await world.runtime.queue.send(
        [
            WakeUp(WakeKind.BATCHES, at=soon),
            WakeUp(WakeKind.DELIVERIES, at=datetime.now(UTC) + LONGEST_DEFERRAL * 2),
        ],
        datetime.now(UTC),
    )
    (job,) = await jobs(redis)
    assert job["f"] == "advance_batches"
    assert abs(job["at"] - soon.timestamp()) < 1


async def test_a_wake_up_that_comes_late_is_sent_though_the_lanes_of_its_moment_have_run(
    world: World, redis: Redis
) -> None:
    """The lanes ran before the transaction had committed, and did not see its work."""
    now = datetime.now(UTC)
    await world.runtime.queue.send([WakeUp(WakeKind.BATCHES, LANES_A_SLOT, now)], now)
    await redis.flushall()  # as if a worker had taken it

    await world.runtime.queue.send([WakeUp(WakeKind.BATCHES, at=now)], now + timedelta(seconds=3))

    assert await kinds(redis) == ["advance_batches"]


async def test_a_wake_up_that_did_not_arrive_counts_for_none_that_comes_after(
    world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kernel.queue.PAUSE_AFTER_FAILURE", 0.0)
    now = datetime.now(UTC)
    soon = [WakeUp(WakeKind.BATCHES, LANES_A_SLOT, now + timedelta(minutes=1))]
    queue = Queue("redis://127.0.0.1:1/0")
    await queue.send(soon, now)
    assert world.runtime.settings.redis_url is not None
    queue._settings = redis_settings(world.runtime.settings.redis_url, attempts=1)
    await queue.send(soon, now)
    await queue.close()

    assert await kinds(redis) == ["advance_batches"] * LANES_A_SLOT


async def test_a_worker_waits_for_a_redis_that_is_gone_and_is_started_again(tmp_path: Path) -> None:
    """arq ends the worker at the first failed command: the next command after Redis stops must wait."""
    server = Valkey(tmp_path, durable=False)
    await asyncio.to_thread(server.start)
    try:
        pool = await create_pool(redis_settings(server.url, attempts=REDIS_ATTEMPTS))
        await pool.ping()
        await asyncio.to_thread(server.stop)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pool.ping()
        await asyncio.to_thread(server.start)
        assert await pool.ping()
        await pool.aclose()
    finally:
        await asyncio.to_thread(server.stop)


# --- without Redis --------------------------------------------------------------------------------


async def post_order(world: World, headers: dict[str, str], customer_id: Any, reference: str) -> Any:
    return await world.client.post(
        "/v1/orders",
        headers=headers,
        json={
            "customer_id": str(customer_id),
            "reference": reference,
            "devices": [{"serial_number": f"{reference}-1", "manufacturer": "Contoso", "model": "Book"}],
        },
    )


@asynccontextmanager
async def without_redis(world: World, url: str) -> AsyncIterator[None]:
    queue = Queue(url)
    world.app.state.runtime = replace(world.runtime, queue=queue)
    try:
        yield
    finally:
        world.app.state.runtime = world.runtime
        await queue.close()


async def test_orders_are_taken_without_redis_and_none_waits_for_it(world: World) -> None:
    partner = await world.partner()
    async with without_redis(world, "redis://127.0.0.1:1/0"):
        started = time.monotonic()
        for number in range(5):
            response = await post_order(world, partner.headers, partner.customer_id, f"DOWN{number}")
            assert response.status_code == 201, response.text
        assert time.monotonic() - started < 5 * SEND_PATIENCE, "none waits until the patience ends"
        assert await world.app.state.runtime.queue.ping() is False
    assert (await sweep.sweep(world.runtime))["batches"] == 5
    await world.work()
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 5


async def test_a_redis_that_hangs_holds_up_one_request_for_two_seconds_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kernel.queue.SEND_PATIENCE", 0.3)
    monkeypatch.setattr("app.kernel.queue.PAUSE_AFTER_FAILURE", 3600.0)
    partner, callers = await world.partner(), list[object]()
    async with hanging_redis(callers) as url, without_redis(world, url):
        for number in range(5):
            response = await post_order(world, partner.headers, partner.customer_id, f"HANG{number}")
            assert response.status_code == 201, response.text
        assert len(callers) == 1, "the first one pays, the others do not"
        assert await world.app.state.runtime.queue.ping() is False


async def test_wake_ups_are_sent_again_once_redis_is_back(
    world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kernel.queue.PAUSE_AFTER_FAILURE", 0.0)
    assert world.runtime.settings.redis_url is not None
    queue = Queue(world.runtime.settings.redis_url)
    good = queue._settings
    queue._settings = replace(good, host="127.0.0.1", port=1, unix_socket_path=None)
    await queue.send([WakeUp(WakeKind.BATCHES)], datetime.now(UTC))
    queue._settings = good
    await queue.send([WakeUp(WakeKind.DELIVERIES)], datetime.now(UTC))
    assert await kinds(redis) == ["deliver_webhooks"]
    await queue.close()


async def test_a_flushed_redis_loses_nothing(world: World, redis: Redis) -> None:
    partner = await world.partner()
    while await customer_readings.read_due(world.runtime):
        pass
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url())
        order = await world.order(partner, tuples(3))
        waiting = await world.order(partner, tuples(1, "HLD"), customer_id=partner.other_customer_id)
        world.clock.advance(seconds=world.runtime.settings.consent_interval_s + 1)
        await world.set_consent(partner.other_tenant_id, given=True)
        await redis.flushall()

        # A worker that only does what it is woken for.
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "advance_batches": lambda: batches.advance_next(world.runtime),
            "deliver_webhooks": lambda: deliveries.deliver_next(world.runtime),
            "read_customers": lambda: customer_readings.read_due(world.runtime),
        }
        for _ in range(40):
            await sweep.sweep(world.runtime)
            woken = await kinds(redis)
            await redis.flushall()
            if not woken:
                break
            for kind in woken:
                while await steps[kind]():
                    pass
            world.clock.advance(seconds=3)
            await redis.flushall()

        for one in (order, waiting):
            view = await world.view(partner, one.view.record.id)
            assert view.state is OrderState.COMPLETED
        told = {m.type for m in receiver.messages}
        assert {"order.completed", "consent.granted", "registration.settled"} <= told
        assert len(await world.devices_at_microsoft()) == 4


async def test_wake_up_that_finds_all_lanes_at_work_is_left_to_another_process(
    world: World, redis: Redis
) -> None:
    ctx = {
        "runtime": world.runtime,
        "lanes": {WakeKind.DELIVERIES: 8},
        "limits": {WakeKind.DELIVERIES: 8},
        "passed_on": {},
    }
    for _ in range(5):
        await deliver_webhooks(ctx)
    (job,) = await jobs(redis)
    assert job["f"] == WakeKind.DELIVERIES
    assert ctx["lanes"] == {WakeKind.DELIVERIES: 8}
