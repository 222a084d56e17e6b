"""Backfill: outcomes older than the devices table get their devices, in chunks and despite crashes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import devices_backfill, schema
from app.db.connecting import make_engine
from app.db.ids import new_row_ids
from app.kernel.transactions import SystemTx
from app.services.devices import devices
from tests.integration.test_api_orders import get, tuple_of
from tests.support.servers import Servers, empty_database
from tests.support.world import Partner, World

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "0016"

WHOLE = """
SELECT partner_id, customer_id, identity, state, state_at, registration_id, first_outcome_at, last_outcome_at,
    last_registration_id, serial_number, manufacturer, model, product_key
FROM devices ORDER BY customer_id, identity
"""
FORGET = (
    # A process killed by an earlier test may keep its lock until the server notices.
    f"SELECT pg_advisory_xact_lock({devices_backfill.LOCK})",
    "DELETE FROM devices",
    "INSERT INTO device_backfill (last_id, after_id) "
    "SELECT id, '00000000-0000-0000-0000-000000000000' FROM registrations ORDER BY id DESC LIMIT 1",
)


@pytest.fixture
async def settled(world: World) -> Partner:
    """A partner with repeated orders, with every outcome, and without rows in the devices table."""
    partner = await world.partner()
    for n in range(4):
        await world.arm(
            {
                "operation": "create" if n == 0 else "append",
                "kind": "device_error",
                "serials": [f"SYN{k:04d}" for k in range(n, 20, 5)],
                "code": "802",
            }
        )
        await world.post_order(partner, [tuple_of(k) for k in range(10 + 3 * n)])
        await world.work()
    return partner


async def known(world: World) -> list[dict[str, Any]]:
    return await world.select(WHOLE)


async def forget(world: World) -> list[dict[str, Any]]:
    """Deletes all devices, as they are before the upgrade. Returns those that there were."""
    before = await known(world)
    async with world.runtime.system_transaction() as tx:
        for statement in FORGET:
            await tx.session.execute(text(statement))
    return before


async def test_the_backfill_makes_the_devices_that_settlement_has_made(
    world: World, settled: Partner
) -> None:
    for chunk in (1, 7, 1_000):
        before = await forget(world)
        assert len(before) == 19
        shown = await get(world, settled, "/v1/devices")
        assert (shown["items"], shown["complete"]) == ([], False)
        assert await devices.backfill(world.runtime, chunk=chunk) == 58
        assert await known(world) == before
        shown = await get(world, settled, "/v1/devices")
        assert (len(shown["items"]), shown["complete"]) == (19, True)
        assert await devices.backfill(world.runtime) == 0


async def test_outcomes_of_meanwhile_are_neither_missed_nor_replaced_by_older_ones(
    world: World, settled: Partner
) -> None:
    await forget(world)
    assert await devices.backfill(world.runtime, chunk=5, chunks=3) == 15
    await world.post_order(settled, [tuple_of(k) for k in range(5, 25)])
    await world.work()
    assert await devices.backfill(world.runtime, chunk=5) == 58 - 15
    expected = await known(world)
    assert len(expected) == 25
    await forget(world)
    await devices.backfill(world.runtime)
    assert await known(world) == expected


async def test_workers_that_add_devices_at_once_take_turns(world: World, settled: Partner) -> None:
    before = await forget(world)
    async with world.another() as other:
        while True:
            read = await asyncio.gather(
                devices.backfill(world.runtime, chunk=2, chunks=3),
                devices.backfill(other.runtime, chunk=2, chunks=3),
            )
            if not any(read) and (await get(world, settled, "/v1/devices"))["complete"]:
                break
    assert await known(world) == before


async def test_the_backfill_gives_way_to_a_correction_and_goes_on_later(
    world: World, settled: Partner
) -> None:
    before = await forget(world)
    async with world.runtime.transaction(settled.caller) as tx:
        correcting = f"SELECT pg_advisory_xact_lock_shared({devices_backfill.LOCK})"
        await tx.session.execute(text(correcting))
        assert await devices.backfill(world.runtime) == 0
    assert await devices.backfill(world.runtime) == 58
    assert await known(world) == before


KILLED = """
import asyncio, sys
from app.kernel.settings import Settings
from app.runtime import Runtime
from app.services.devices import devices

async def main():
    runtime = await Runtime.open(Settings())
    while await devices.backfill(runtime, chunk=1, chunks=1):
        print("chunk", flush=True)

asyncio.run(main())
"""


async def test_a_backfill_that_is_killed_in_the_middle_goes_on_where_it_was(
    world: World, settled: Partner
) -> None:
    before = await forget(world)
    settings = world.runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        cwd=ROOT,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("REGISTRAR_")},
            "REGISTRAR_DATABASE_URL": str(settings.database_url),
            "REGISTRAR_REDIS_URL": str(settings.redis_url),
            "REGISTRAR_SECRET_KEYS": ",".join(key.get_secret_value() for key in settings.secret_keys),
        },
        stdout=-1,
    )
    assert process.stdout is not None
    async with asyncio.timeout(45):
        chunks = 0
        while chunks < 5:
            line = await process.stdout.readline()
            assert line, "it ended by itself"
            chunks += line == b"chunk\n"
    process.kill()
    await process.wait()
    # The killed process's transaction holds this lock until the server has ended it.
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text(f"SELECT pg_advisory_xact_lock({devices_backfill.LOCK})"))
    [place] = await world.select(
        "SELECT count(*) AS n FROM registrations WHERE id <= (SELECT after_id FROM device_backfill)"
    )
    assert 5 <= place["n"] < 58
    assert await devices.backfill(world.runtime) == 58 - place["n"]
    assert await known(world) == before


# --- the upgrade itself -----------------------------------------------------------------------------


def as_system(session: AsyncConnection) -> SystemTx:
    return SystemTx(session=session, now=datetime.now(UTC), quotas={})


@asynccontextmanager
async def at_revision(servers: Servers, revision: str) -> AsyncIterator[AsyncEngine]:
    async with empty_database(servers.database_url) as url:
        engine = make_engine(url, poolclass=NullPool)
        await to_revision(engine, revision)
        yield engine
        await engine.dispose()


async def to_revision(engine: AsyncEngine, revision: str) -> None:
    async with engine.connect() as session:
        await session.run_sync(lambda sync: command.upgrade(schema._config(sync), revision))


ORDER = [
    "INSERT INTO partners (id, name, role, created_at) VALUES (:id, 'One', 'direct_bill', now())",
    "INSERT INTO connections (id, partner_id, name, platform, entra_tenant_id, default_group_tag, "
    "customers_due_at, created_at, updated_at) VALUES (:id, :id, 'One', 'partner_center', :id, 'Tag', now(), "
    "now(), now())",
    "INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, last_turn_at, created_at, "
    "updated_at) VALUES (:id, :id, :id, :id, 'One', now(), now(), now())",
    "INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, group_tag, "
    "device_count, body_digest, created_at, updated_at) VALUES (:id, :id, :id, :id, 'partner_center', 'One', "
    "'Tag', 9, '', now(), now())",
]
ROW = (
    "INSERT INTO registrations (id, partner_id, order_id, customer_id, row_number, state, serial_number, "
    "created_at, updated_at) VALUES (:row, :id, :id, :id, :number, 'processing', :serial, now(), now())"
)
SETTLE = (
    "UPDATE registrations SET state = 'registered', settled_at = clock_timestamp() "
    "WHERE serial_number = ANY(:serials)"
)


async def serials(session: AsyncConnection) -> list[str]:
    found = await session.execute(text("SELECT serial_number FROM devices ORDER BY serial_number"))
    return list(found.scalars())


async def test_what_the_release_before_settles_is_kept_from_the_migration_on(servers: Servers) -> None:
    """Its statements know nothing of devices. Outcomes from before the migration are left to the backfill."""
    id = uuid4()
    names = [f"SN{n}" for n in range(9)]
    async with at_revision(servers, BEFORE) as engine:
        async with engine.begin() as session:
            for statement in ORDER:
                await session.execute(text(statement), {"id": id})
            for number, (name, row) in enumerate(zip(names, new_row_ids(9), strict=True)):
                values: dict[str, UUID | int | str] = {"id": id, "row": row, "number": number, "serial": name}
                await session.execute(text(ROW), values)
            await session.execute(text(SETTLE), {"serials": names[:3]})
        await to_revision(engine, "0017")
        async with engine.begin() as session:
            assert await serials(session) == []
            await session.execute(text(SETTLE), {"serials": names[3:6]})
            assert await serials(session) == names[3:6]
            assert not await devices_backfill.is_complete(as_system(session))
        for expected in (4, 4, 1):
            async with engine.begin() as session:
                assert await devices_backfill.add_some(as_system(session), 4) == expected
        async with engine.begin() as session:
            assert await serials(session) == names[:6]
            assert await devices_backfill.is_complete(as_system(session))
            await session.execute(text(SETTLE), {"serials": names[6:]})
            assert await serials(session) == names


async def test_a_database_without_registrations_has_nothing_to_add(servers: Servers) -> None:
    async with at_revision(servers, "0017") as engine, engine.begin() as session:
        assert await devices_backfill.is_complete(as_system(session))
        assert await devices_backfill.add_some(as_system(session), 4) is None
