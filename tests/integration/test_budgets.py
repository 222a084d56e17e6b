"""The throttle budget: shared by all workers, separate for each connection, and never blocking forever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from anyio import to_thread

from app.db.clock import utc_now
from app.domain import budget
from app.domain.budget import TURN_TIMEOUT, Breaker, Budget, BudgetPolicy, Priority
from app.domain.order import OrderState
from app.domain.upstream import HeldBack, OutcomeUnknown, Throttled
from app.kernel import budgets as shared_budgets
from app.kernel import redis_outage
from app.kernel.budgets import Budgets, ConnectionGate
from app.local.embedded import Valkey
from app.runtime import Runtime
from app.services.connections import customer_readings
from app.services.registering import batches
from tests.support.world import Partner, World, tuples

SECOND = timedelta(seconds=1)


@dataclass
class Naps:
    """Replaces waiting: advances our clock and the simulator's at once, and keeps what was waited."""

    world: World
    taken: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await self.let_pass(timedelta(seconds=seconds))

    async def let_pass(self, time: timedelta) -> None:
        self.world.clock.offset += time
        await self.world.control("POST", "clock", {"advance_s": time / SECOND})

    async def work(self, *runtimes: Runtime, limit: int = 2000) -> None:
        """Does all due work, by all workers in turn; moves both clocks to the next due time."""
        for step in range(limit):
            runtime = runtimes[step % len(runtimes)]
            if await batches.advance_next(runtime) is not None:
                continue
            due = await self.world._next_due()
            if due is None:
                return
            await self.let_pass(max(due - self.world.clock.now(), timedelta()) + timedelta(milliseconds=1))
        raise AssertionError(f"still work after {limit} steps")


@pytest_asyncio.fixture
async def naps(world: World, monkeypatch: pytest.MonkeyPatch) -> Naps:
    found = Naps(world)
    monkeypatch.setattr(world.runtime.budgets, "sleep", found)
    return found


@asynccontextmanager
async def second_runtime(world: World, naps: Naps, **changes: Any) -> AsyncIterator[Runtime]:
    """Another worker's runtime, on the same clock."""
    runtime = await Runtime.open(world.runtime.settings.model_copy(update=changes), process="second")
    runtime.now = world.clock.now
    runtime.budgets.sleep = naps
    try:
        yield runtime
    finally:
        await runtime.close()


@pytest_asyncio.fixture
async def other(world: World, naps: Naps) -> AsyncIterator[Runtime]:
    async with second_runtime(world, naps) as runtime:
        yield runtime


@dataclass
class OwnValkey:
    """A Valkey for this test only, which can be stopped and emptied."""

    server: Valkey

    @classmethod
    async def start(cls, directory: Path) -> Self:
        own = cls(Valkey(directory, durable=False))
        await to_thread.run_sync(own.server.start)
        return own

    async def stop(self) -> None:
        await to_thread.run_sync(self.server.stop)


@pytest_asyncio.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[OwnValkey]:
    own = await OwnValkey.start(tmp_path)
    try:
        yield own
    finally:
        await own.stop()


def gate_of(runtime: Runtime, connection_id: UUID) -> ConnectionGate:
    return runtime.budgets.gate(connection_id, runtime.now)


async def known(runtime: Runtime, connection_id: UUID) -> Budget:
    return (await runtime.budgets.look([connection_id], runtime.now)).budgets[connection_id]


async def put(runtime: Runtime, connection_id: UUID, **values: Any) -> None:
    """Sets values of the shared budget."""

    def decide(held: Budget, now: datetime, policy: BudgetPolicy) -> tuple[Budget, None]:
        return replace(held, at=now, grown_at=now, **values), None

    await runtime.budgets.change(connection_id, runtime.now, decide)


async def grants(count: int, *gates: ConnectionGate) -> int:
    """The number of `count` simultaneous calls that are permitted, taken from the gates in turn."""

    async def call(number: int) -> int:
        try:
            await gates[number % len(gates)].enter(Priority.FIRST)
        except HeldBack:
            return 0
        return 1

    return sum(await asyncio.gather(*(call(number) for number in range(count))))


async def calls_of(world: World, partner: Partner) -> int:
    """The number of calls for the partner's customers that reached Partner Center."""
    tenants = {str(partner.tenant_id), str(partner.other_tenant_id)}
    return sum(call["customer"] in tenants for call in (await world.ledger())["calls"])


async def held_back(gate: ConnectionGate) -> HeldBack:
    with pytest.raises(HeldBack) as caught:
        await gate.enter(Priority.FIRST)
    return caught.value


# --- one budget for all workers ---------------------------------------------------------------------


async def test_two_workers_together_get_no_more_than_one_connections_budget(
    world: World, other: Runtime
) -> None:
    connection_id = uuid4()
    await put(world.runtime, connection_id, rate=5.0, tokens=20.0)
    for runtime in (world.runtime, other):
        runtime.budgets.sleep = asyncio.sleep
    began = world.clock.now()
    granted = await grants(120, gate_of(world.runtime, connection_id), gate_of(other, connection_id))
    span = (world.clock.now() - began) / SECOND
    assert 20 <= granted <= 20 + 5 * (span + TURN_TIMEOUT / SECOND)
    assert granted < 60
    assert await known(world.runtime, connection_id) == await known(other, connection_id)


async def test_a_429_to_one_worker_halves_the_rate_of_both_and_stops_both(
    world: World, naps: Naps, other: Runtime
) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "throttle", "retry_after": 90})
    await world.order(partner, tuples(1))
    assert await batches.advance_next(world.runtime) is not None
    assert (await known(other, partner.connection_id)).rate == other.budgets.policy.start / 2
    for runtime in (world.runtime, other):
        failure = await held_back(gate_of(runtime, partner.connection_id))
        assert failure.code == "upstream_throttled"
        assert 85 * SECOND < failure.retry_after <= 90 * SECOND


async def test_retry_after_is_honoured_to_the_second(world: World, naps: Naps, other: Runtime) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "throttle", "retry_after": 90})
    order = await world.order(partner, tuples(2))
    await batches.advance_next(world.runtime)
    blocked_until = (await known(other, partner.connection_id)).blocked_until
    assert blocked_until is not None
    calls = await calls_of(world, partner)

    world.clock.reach(blocked_until - SECOND / 2)
    for runtime in (world.runtime, other):
        assert await batches.advance_next(runtime) is None
    await held_back_by_retry_after(other, partner.connection_id)
    assert await calls_of(world, partner) == calls

    world.clock.reach(blocked_until + SECOND / 2)
    assert await batches.advance_next(other) is not None
    assert await calls_of(world, partner) > calls
    await naps.work(world.runtime, other)
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED


async def held_back_by_retry_after(runtime: Runtime, connection_id: UUID) -> None:
    """Half a second before its end, it is waited for, and no call is made earlier."""
    gate = gate_of(runtime, connection_id)
    decided: list[Any] = []

    def decide(held: Budget, now: datetime, policy: BudgetPolicy) -> tuple[Budget, None]:
        decided.append(budget.enter(held, now, policy, timedelta())[1])
        return held, None

    await gate.budgets.change(connection_id, runtime.now, decide)
    assert decided[0].why is budget.Why.RETRY_AFTER
    assert timedelta() < decided[0].wait <= SECOND / 2


async def test_workers_whose_clocks_differ_agree_on_the_moment(world: World, other: Runtime) -> None:
    connection_id = uuid4()
    permit = await gate_of(world.runtime, connection_id).enter(Priority.FIRST)
    await gate_of(world.runtime, connection_id).leave(permit, Throttled(60 * SECOND))

    # The whole machine is ten minutes ahead, before and after it has read the database's time.
    other.clock.local = lambda: datetime.now(UTC) + timedelta(minutes=10)
    ahead = other.budgets.gate(connection_id, other.clock.now)
    assert (await held_back(ahead)).retry_after > 50 * SECOND
    async with other.system_transaction():
        assert abs(other.clock.now() - datetime.now(UTC)) < SECOND
    assert (await held_back(ahead)).retry_after > 50 * SECOND


async def test_a_worker_waits_for_a_near_turn_and_is_sent_away_from_a_far_one(
    world: World, naps: Naps
) -> None:
    near, far = uuid4(), uuid4()
    await put(world.runtime, near, rate=2.0, tokens=0.0)
    await gate_of(world.runtime, near).enter(Priority.FIRST)
    assert naps.taken == [pytest.approx(0.5, abs=0.1)]
    await put(world.runtime, far, rate=0.2, tokens=0.0)
    failure = await held_back(gate_of(world.runtime, far))
    assert failure.retry_after == pytest.approx(5 * SECOND, abs=SECOND / 2)
    assert len(naps.taken) == 1


async def test_the_next_page_of_a_listing_may_wait_longer_but_only_one_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = uuid4(), uuid4()
    for connection_id in (one, two):
        await put(world.runtime, connection_id, rate=0.2, tokens=0.0)
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def doze(seconds: float) -> None:
        asleep.set()
        await wake.wait()
        world.clock.advance(seconds=seconds)

    monkeypatch.setattr(world.runtime.budgets, "sleep", doze)
    first = asyncio.create_task(gate_of(world.runtime, one).enter(Priority.NEXT))
    await asyncio.wait_for(asleep.wait(), 45)
    with pytest.raises(HeldBack):
        await gate_of(world.runtime, two).enter(Priority.NEXT)
    wake.set()
    await asyncio.wait_for(first, 45)
    await gate_of(world.runtime, two).enter(Priority.NEXT)


# --- connections do not delay one another -----------------------------------------------------------

TROUBLES: dict[str, dict[str, Any]] = {
    "throttled": {"operation": "*", "kind": "throttle", "retry_after": 600},
    "unavailable": {"operation": "*", "kind": "status", "status": 503},
    "dropped": {"operation": "*", "kind": "drop"},
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_connection_in_trouble_delays_no_other(world: World, naps: Naps, trouble: str) -> None:
    ill, well = await world.partner(), await world.partner()
    await world.arm({**TROUBLES[trouble], "customer": str(ill.tenant_id), "count": None})
    waiting = [await world.order(ill, tuples(1, f"ILL{n}", group_tag=f"Tag {n}")) for n in range(12)]
    order = await world.order(well, tuples(3))
    mine = {row["id"] for row in await world.batches(order.view.record.id)}

    steps: list[str] = []
    while (step := await batches.advance_next(world.runtime)) is not None:
        steps.append(step.batch_id)
    # What remains of the failing connection's twelve batches: as many calls as open the breaker, and the step
    # that finds it open.
    ill_steps = [step for step in steps if UUID(step) not in mine]
    assert len(ill_steps) <= world.runtime.settings.breaker_failures + 1
    await naps.let_pass(3 * SECOND)
    while await batches.advance_next(world.runtime) is not None:
        pass
    assert (await world.view(well, order.view.record.id)).state is OrderState.COMPLETED
    assert await calls_of(world, ill) <= world.runtime.settings.breaker_failures
    assert naps.taken == []

    await world.control("DELETE", "faults")
    await naps.work(world.runtime)
    for each in waiting:
        assert (await world.view(ill, each.view.record.id)).state is OrderState.COMPLETED


async def test_an_open_breaker_tries_one_call_at_a_time_with_growing_pauses(
    world: World, naps: Naps, other: Runtime
) -> None:
    partner = await world.partner()
    await world.arm({**TROUBLES["unavailable"], "customer": str(partner.tenant_id), "count": None})
    for n in range(8):
        await world.order(partner, tuples(1, f"B{n}", group_tag=f"Tag {n}"))
    while await batches.advance_next(world.runtime) is not None:
        pass
    assert budget.breaker(await known(other, partner.connection_id), world.clock.now()) is Breaker.OPEN
    for _ in range(3):
        calls = await calls_of(world, partner)
        retry_at = (await known(other, partner.connection_id)).open_until
        assert retry_at is not None
        await naps.let_pass(retry_at - world.clock.now() + timedelta(milliseconds=20))
        # Two workers at the same moment make one call between them.
        await asyncio.gather(*(batches.advance_next(each) for each in (world.runtime, other) * 3))
        assert await calls_of(world, partner) == calls + 1
    assert (await known(other, partner.connection_id)).opened == 4
    await world.control("DELETE", "faults")
    await naps.work(world.runtime, other)
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 8


async def test_being_held_back_is_no_trouble_of_the_batch_and_uses_up_no_turn(
    world: World, naps: Naps
) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    await put(world.runtime, partner.connection_id, rate=0.2, tokens=0.0)
    calls = await calls_of(world, partner)
    assert await batches.advance_next(world.runtime) is not None
    assert await batches.advance_next(world.runtime) is None
    [batch] = await world.batches(order.view.record.id)
    assert (batch["state"], batch["troubles"], batch["submissions"]) == ("queued", 0, 0)
    assert (batch["failure_code"], batch["request_id"], batch["owner"]) == (None, None, None)
    assert await world.count("batch_attempts") == 0
    assert await calls_of(world, partner) == calls
    await naps.work(world.runtime)
    assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED


async def test_two_customers_of_a_slow_connection_take_turns(world: World, naps: Naps) -> None:
    """Two lanes and one call at a time: the rejected lane must not always be the same customer's."""
    partner = await world.partner()
    await world.set_consent(partner.other_tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    for n in range(6):
        await world.order(partner, tuples(1, f"A{n}"))
        await world.order(partner, tuples(1, f"B{n}"), customer_id=partner.other_customer_id)
    await put(world.runtime, partner.connection_id, rate=0.25, tokens=0.0, step=0.001, halved_at=NOW)
    for _ in range(300):
        await asyncio.gather(batches.advance_next(world.runtime), batches.advance_next(world.runtime))
        due = await world._next_due()
        if due is None:
            break
        await naps.let_pass(max(due - world.clock.now(), timedelta()) + timedelta(milliseconds=1))
    uploads = [c for c in (await world.ledger())["calls"] if c["operation"] in ("create", "append")]
    sent = [call["customer"] for call in uploads]
    assert len(sent) == 12
    for tenant in (partner.tenant_id, partner.other_tenant_id):
        assert sent[:6].count(str(tenant)) >= 2


NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_reading_of_customers_that_is_held_back_comes_as_soon_as_it_may(
    world: World, naps: Naps
) -> None:
    partner = await world.partner()
    await put(world.runtime, partner.connection_id, rate=0.2, tokens=-1.0)
    world.clock.advance(seconds=1)
    calls = len(await world.calls("customers"))
    assert await customer_readings.read_due(world.runtime)
    assert len(await world.calls("customers")) == calls
    assert not await customer_readings.read_due(world.runtime)
    world.clock.advance(seconds=10)
    assert await customer_readings.read_due(world.runtime)
    assert len(await world.calls("customers")) == calls + 1


# --- with a Microsoft that counts -------------------------------------------------------------------


async def test_against_a_limit_everything_completes_and_refusals_stay_few(
    world: World, naps: Naps, other: Runtime
) -> None:
    partner = await world.partner()
    await world.switch(throttle_requests=15, throttle_window_s=10)
    began = world.clock.now()
    orders = [await world.order(partner, tuples(1, f"T{n}", group_tag=f"Tag {n % 4}")) for n in range(20)]
    await naps.work(world.runtime, other)
    for order in orders:
        assert (await world.view(partner, order.view.record.id)).state is OrderState.COMPLETED
    calls = (await world.ledger())["calls"]
    refused = [call for call in calls if call["status"] == 429]
    windows = (world.clock.now() - began) / timedelta(seconds=10) + 1
    assert 1 <= len(refused) <= windows
    assert len(refused) <= len(calls) / 6


async def test_without_throttling_no_call_waits(world: World, naps: Naps) -> None:
    partner = await world.partner()
    for n in range(8):
        await world.order(partner, tuples(2, f"F{n}"))
    await naps.work(world.runtime)
    assert naps.taken == []
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 16
    assert (await known(world.runtime, partner.connection_id)).throttled_at is None


# --- without Redis ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def apart(world: World, naps: Naps, valkey: OwnValkey) -> AsyncIterator[World]:
    """The same world with a worker whose Valkey can be stopped."""
    async with second_runtime(world, naps, redis_url=valkey.server.url) as runtime:
        yield replace(world, runtime=runtime)


async def test_an_emptied_redis_loses_neither_work_nor_a_retry_after(apart: World, naps: Naps) -> None:
    partner = await apart.partner()
    await apart.arm({"operation": "create", "kind": "throttle", "retry_after": 90})
    orders = [await apart.order(partner, tuples(1, f"E{n}")) for n in range(4)]
    await batches.advance_next(apart.runtime)
    before = await known(apart.runtime, partner.connection_id)
    await apart.runtime.budgets.redis.flushall()
    assert (await held_back(gate_of(apart.runtime, partner.connection_id))).retry_after > 85 * SECOND
    assert (await known(apart.runtime, partner.connection_id)).rate == before.rate

    while await apart._next_due() is not None:
        await apart.runtime.budgets.redis.flushall()
        if await batches.advance_next(apart.runtime) is None:
            due = await apart._next_due()
            assert due is not None
            await naps.let_pass(max(due - apart.clock.now(), timedelta()) + timedelta(milliseconds=1))
    for order in orders:
        assert (await apart.view(partner, order.view.record.id)).state is OrderState.COMPLETED


async def test_without_redis_work_goes_on_at_a_quarter_of_the_rate_and_a_retry_after_is_shared_again(
    apart: World, naps: Naps, valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_outage, "PAUSE", 0.0)
    partner = await apart.partner()
    first = await apart.order(partner, tuples(1, "BEFORE"))
    await naps.work(apart.runtime)
    await valkey.stop()
    second = await apart.order(partner, tuples(1, "DURING"))
    await naps.work(apart.runtime)
    for order in (first, second):
        assert (await apart.view(partner, order.view.record.id)).state is OrderState.COMPLETED

    seen = await apart.runtime.budgets.look([partner.connection_id], apart.runtime.now)
    own = apart.runtime.budgets.policy.alone()
    assert not seen.shared
    assert own.floor <= seen.budgets[partner.connection_id].rate <= own.ceiling
    connection_id, began = uuid4(), apart.clock.now()
    granted = await grants(200, gate_of(apart.runtime, connection_id))
    span = (apart.clock.now() + TURN_TIMEOUT - began) / SECOND
    assert 1 <= granted <= own.start * (own.reserve + span) / own.cost + 1

    gate = gate_of(apart.runtime, partner.connection_id)
    apart.clock.advance(seconds=10)
    await gate.leave(await gate.enter(Priority.FIRST), Throttled(300 * SECOND))
    await to_thread.run_sync(valkey.server.start)
    assert (await held_back(gate)).retry_after > 290 * SECOND
    await put(apart.runtime, partner.connection_id)  # any change stores the Retry-After
    fresh = Budgets.open(valkey.server.url, apart.runtime.budgets.policy, utc_now)
    try:
        told = await fresh.look([partner.connection_id], apart.runtime.now)
        assert told.shared
        assert (
            await held_back(fresh.gate(partner.connection_id, apart.runtime.now))
        ).retry_after > 250 * SECOND
    finally:
        await fresh.close()


async def test_a_redis_that_accepts_and_never_answers_holds_up_one_call_and_not_each(world: World) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    silent = Budgets.open(f"redis://127.0.0.1:{port}", BudgetPolicy(), utc_now)
    loop = asyncio.get_running_loop()
    try:
        began = loop.time()
        for _ in range(3):
            await silent.gate(uuid4(), world.clock.now).enter(Priority.FIRST)
        assert loop.time() - began < 2 * shared_budgets.REDIS_TIMEOUT
    finally:
        await silent.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "held", [b"garbage", b"{}", b"[]", b'{"rate": "fast"}', b'{"surprise": 1}', b"\xff", b"null"]
)
async def test_what_is_no_budget_is_taken_for_none(world: World, held: bytes) -> None:
    connection_id = uuid4()
    await world.runtime.budgets.redis.set(f"registrar:budget:{connection_id}", held)
    permit = await gate_of(world.runtime, connection_id).enter(Priority.FIRST)
    await gate_of(world.runtime, connection_id).leave(permit, OutcomeUnknown(answered=True))
    found = await known(world.runtime, connection_id)
    assert (found.rate, found.failures) == (world.runtime.budgets.policy.start, 1)


async def test_a_budget_that_nobody_uses_is_forgotten_after_a_day(world: World) -> None:
    connection_id = uuid4()
    await gate_of(world.runtime, connection_id).enter(Priority.FIRST)
    left = await world.runtime.budgets.redis.pttl(f"registrar:budget:{connection_id}")
    assert timedelta(hours=23) < timedelta(milliseconds=left) <= timedelta(days=1)
