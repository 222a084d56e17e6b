"""Benchmark of a large backlog: a worker's claim and the sweep, with 1,000,000 and 10,000 queued devices.

The bound is the same statement on the small backlog. SQL makes the rows: 100 devices per batch and 200
customers, so the large queue has 10,000 batches.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from app.db import batch_claims, batches
from app.db.clock import utc_now
from app.kernel.settings import Settings
from app.kernel.transactions import SystemTx
from app.local.embedded import Postgres
from app.runtime import Runtime, migrate
from tests.benchmarks.world import percentile

SMALL, LARGE = 10_000, 1_000_000
DEVICES_A_BATCH = 100
CUSTOMERS = 200
REPEATS = 200

FILL = """
WITH p AS (
    INSERT INTO partners (id, name, role, created_at)
    VALUES (:partner, 'bench', 'direct_bill', now()) RETURNING id
), n AS (
    INSERT INTO connections (id, partner_id, name, platform, entra_tenant_id, client_id, default_group_tag,
        client_secret, customers_due_at, created_at, updated_at)
    SELECT :connection, id, 'bench', 'partner_center', gen_random_uuid(), 'x', 'Bench', '',
        now(), now(), now()
    FROM p RETURNING id, partner_id
), c AS (
    INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, last_turn_at, created_at,
        updated_at)
    SELECT gen_random_uuid(), partner_id, id, gen_random_uuid(), 'c' || k, now(), now(), now()
    FROM n, generate_series(1, :customers) k RETURNING id, partner_id, connection_id
), o AS (
    INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, group_tag,
        device_count, body_digest, created_at, updated_at)
    SELECT gen_random_uuid(), partner_id, id, connection_id, 'partner_center', id::text, 'Bench', 0, '',
        now(), now() FROM c RETURNING id, partner_id, customer_id, connection_id
)
INSERT INTO batches (id, partner_id, order_id, customer_id, connection_id, group_tag, device_count, state,
    due_at, correlation_id, created_at, updated_at)
SELECT gen_random_uuid(), partner_id, id, customer_id, connection_id, 'Bench', :size, 'queued', now(),
    gen_random_uuid(), now(), now() FROM o, generate_series(1, :batches_each)
"""

ROWS = """
INSERT INTO registrations (id, partner_id, order_id, customer_id, batch_id, row_number, batch_position, state,
    group_tag, identity, serial_number, manufacturer, model, created_at, updated_at)
SELECT gen_random_uuid(), b.partner_id, b.order_id, b.customer_id, b.id,
    (row_number() OVER (PARTITION BY b.order_id))::int, k, 'queued', 'Bench', 'tuple', 'S' || k, 'Contoso',
    'Book', now(), now()
FROM batches b, generate_series(1, :size) k
"""


async def _fill(runtime: Runtime, registrations: int) -> None:
    size = min(DEVICES_A_BATCH, registrations // CUSTOMERS)
    parameters = {
        "partner": uuid4(),
        "connection": uuid4(),
        "customers": CUSTOMERS,
        "size": size,
        "batches_each": registrations // (CUSTOMERS * size),
    }
    async with runtime.system_transaction() as tx:
        await tx.session.execute(text("SET LOCAL statement_timeout = 0"))
        await tx.session.execute(text(FILL), parameters)
        await tx.session.execute(text(ROWS), {"size": size})
        made = (await tx.session.execute(text("SELECT sum(n) FROM registration_counts"))).scalar()
        assert made == registrations, made


async def _time(runtime: Runtime, statement: Callable[[SystemTx], Awaitable[object]]) -> list[float]:
    """Milliseconds of each run. Each is rolled back, so that every run has the same queue."""
    took = []
    for _ in range(REPEATS):
        async with runtime.engine.connect() as session, session.begin() as transaction:
            await session.execute(text("SET LOCAL ROLE registrar_system"))
            begun = time.perf_counter()
            await statement(SystemTx(session=session, now=utc_now(), quotas={}))
            took.append((time.perf_counter() - begun) * 1000)
            await transaction.rollback()
    return took


async def _measure(registrations: int, directory: Path) -> dict[str, float]:
    server = Postgres(directory)
    server.start()
    try:
        settings = Settings(
            database_url=server.url, redis_url="redis://127.0.0.1:1", data_dir=directory, log_level="ERROR"
        )
        await migrate(settings)
        runtime = await Runtime.open(settings, process="bench")
        try:
            begun = time.perf_counter()
            await _fill(runtime, registrations)
            filled = time.perf_counter() - begun
            await _analyze(server.url)
            now = utc_now() + timedelta(seconds=1)
            claims = await _time(
                runtime,
                lambda tx: batch_claims.claim_one(
                    tx,
                    owner=uuid4(),
                    now=now,
                    lease=timedelta(seconds=60),
                    customer_window=4,
                    connection_window=32,
                ),
            )
            sweeps = await _time(runtime, lambda tx: batches.count_due(tx, now, limit=8))
        finally:
            await runtime.close()
    finally:
        server.stop()
    return {
        "fill_s": filled,
        "claim_ms": percentile(claims, 0.5),
        "claim_p95_ms": percentile(claims, 0.95),
        "sweep_ms": percentile(sweeps, 0.5),
        "sweep_p95_ms": percentile(sweeps, 0.95),
    }


async def _analyze(url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("ANALYZE")
    await connection.close()


def run(directory: Path) -> dict[str, dict[str, float]]:
    return {
        "small": asyncio.run(_measure(SMALL, directory / "small")),
        "large": asyncio.run(_measure(LARGE, directory / "large")),
    }
