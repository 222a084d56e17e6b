"""Workers that die while processing an import: real processes get SIGKILLs while a lock stops them."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.engine import become_system
from app.domain.identity import IdentityKind
from app.local.synthetic import devices
from app.services.connections import customer_readings
from app.services.imports.imports import PIECE, UPLOAD_PATIENCE
from app.services.imports.reading import CHUNK
from app.services.imports.work import MAX_ATTEMPTS
from tests.support.import_scene import (
    commit,
    look,
    preview,
    sheet,
    tuple_rows,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.worker import api_process, worker_process
from tests.support.world import Partner, World

PATIENCE = 45.0
HEADER = ("Device Serial Number", "Manufacturer name", "Device model", "Hardware Hash")


def held_in_the_second_chunk() -> bytes:
    """A file whose first chunk has no hash, so that a locked row can stop the worker in its second chunk."""
    hashed = devices(5, seed=4, kind=IdentityKind.HARDWARE_HASH)
    rows = [
        *tuple_rows(CHUNK, "SYN", ""),
        *([d.serial_number, "", "", str(d.hardware_hash)] for d in hashed),
    ]
    return sheet(HEADER, rows)


@asynccontextmanager
async def open_transaction(
    world: World, statement: str, *, keep: bool = False, **parameters: Any
) -> AsyncIterator[None]:
    """A transaction that keeps the statement's locks open; its changes are kept only if asked."""
    async with world.runtime.engine.connect() as session:
        await become_system(session)
        await session.execute(text(statement), parameters)
        try:
            yield
        finally:
            await (session.commit() if keep else session.rollback())


async def until(world: World, statement: str, **parameters: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await world.select(statement, **parameters):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)


@asynccontextmanager
async def worker_in_the_middle_of_reading(
    world: World, log: Path, import_id: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    same_row = "INSERT INTO import_hashes SELECT partner_id, id, :n, 'x' FROM imports WHERE id = :id"
    async with (
        open_transaction(world, same_row, id=UUID(import_id), n=CHUNK + 1),
        worker_process(world, log) as worker,
    ):
        await until(
            world, "SELECT 1 FROM imports WHERE id = :id AND rows_read = :n", id=UUID(import_id), n=CHUNK
        )
        yield worker


@pytest.mark.parametrize("ends", ["its lease", "its silence"])
async def test_a_worker_killed_while_reading_leaves_a_file_that_is_read_again_from_the_start(
    world: World, tmp_path: Path, ends: str
) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, held_in_the_second_chunk())
    async with worker_in_the_middle_of_reading(world, tmp_path / "log", import_id) as worker:
        found = await look(world, partner, import_id)
        assert (found["state"], found["progress"]["rows_read"]) == ("reading", CHUNK)
        assert found["progress"]["bytes_read"] > 0
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    assert await work_imports(world) == 0, "the dead worker's claim still holds"

    if ends == "its lease":
        world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    else:
        await world.watch(world.runtime.settings.silence + timedelta(seconds=1))
    await work_imports(world)
    found = await look(world, partner, import_id)
    assert found["state"] == "ready"
    assert found["counts"]["valid"] == found["counts"]["total"] == CHUNK + 5
    assert await world.count("import_rows") == CHUNK + 5
    assert await world.count("import_hashes") == 5


async def test_a_worker_told_to_stop_hands_the_file_over_after_its_chunk(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    more = b"".join(b"LATER%d,Contoso,Book,\r\n" % number for number in range(3 * CHUNK))
    import_id = await upload(world, partner, held_in_the_second_chunk() + more)
    log = tmp_path / "log"
    async with AsyncExitStack() as ends:
        holding = await ends.enter_async_context(AsyncExitStack())
        same_row = "INSERT INTO import_hashes SELECT partner_id, id, :n, 'x' FROM imports WHERE id = :id"
        hold = open_transaction(world, same_row, id=UUID(import_id), n=CHUNK + 1)
        await holding.enter_async_context(hold)
        worker = await ends.enter_async_context(worker_process(world, log, heartbeat_s=0.1))
        await until(world, "SELECT 1 FROM imports WHERE rows_read = :n", n=CHUNK)
        await world.until_locked_out()
        worker.send_signal(signal.SIGTERM)
        # A heartbeat after the signal proves that the worker's loop has run since.
        sent_at = datetime.now(UTC) + timedelta(seconds=0.1)
        await until(world, "SELECT 1 FROM worker_heartbeats WHERE beat_at > :sent", sent=sent_at)
        await holding.aclose()
        async with asyncio.timeout(PATIENCE):
            await worker.wait()
    [record] = await world.select("SELECT state, owner, attempts, rows_read FROM imports")
    assert (record["state"], record["owner"], record["attempts"]) == ("reading", None, 0)
    assert record["rows_read"] == 2 * CHUNK, "the chunk under way was stored, no other one was begun"
    await work_imports(world)
    found = await look(world, partner, import_id)
    assert (found["state"], found["counts"]["valid"]) == ("ready", 4 * CHUNK + 5)


async def test_an_import_discarded_while_it_is_read_stops_its_reader(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, held_in_the_second_chunk())
    async with worker_in_the_middle_of_reading(world, tmp_path / "log", import_id):
        # The reader holds the import until its chunk is stored, which the test's lock prevents.
        await world.until_locked_out()
        asking = asyncio.create_task(
            world.client.post(f"/v1/imports/{import_id}:discard", headers=partner.headers)
        )
        await world.until_locked_out(2)
    response = await asking
    assert response.json()["state"] == "discarded", response.text
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    await work_imports(world)
    assert (await look(world, partner, import_id))["state"] == "discarded"
    assert (await world.count("import_rows"), await world.count("import_pieces")) == (0, 0)


async def test_a_file_that_ends_its_worker_each_time_is_refused(world: World) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(3))
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE imports SET state = 'reading', attempts = :n"), {"n": MAX_ATTEMPTS}
        )
    await work_imports(world)
    found = await look(world, partner, import_id)
    assert (found["state"], found["failure"]["code"]) == ("refused", "import_given_up")


async def until_forgotten(world: World) -> None:
    """Waits until PostgreSQL has noticed the dead worker's closed connections and released its locks."""
    alive = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'registrar-worker'"
    async with asyncio.timeout(PATIENCE):
        while await world.select(alive):  # noqa: ASYNC110 - PostgreSQL notices
            await asyncio.sleep(0.02)


async def two_customers(world: World, partner: Partner) -> str:
    while await customer_readings.read_due(world.runtime):
        pass  # otherwise the worker would read them, and wait for the other lock
    rows = [
        *tuple_rows(1500, "AAA", str(partner.tenant_id)),
        *tuple_rows(700, "BBB", str(partner.other_tenant_id)),
    ]
    data = sheet((*HEADER[:3], "Tenant ID"), rows)
    found = await preview(world, partner, data, customer_id=None, reference="PO-1")
    assert (await commit(world, partner, found["id"])).status_code == 202
    return str(found["id"])


async def assert_everything_once(world: World, partner: Partner, import_id: str) -> None:
    found = await look(world, partner, import_id)
    assert found["state"] == "committed"
    assert sorted(order["customer_id"] for order in found["orders"]) == sorted(
        [str(partner.customer_id), str(partner.other_customer_id)]
    )
    assert (await world.count("orders"), await world.count("registrations")) == (2, 2200)
    assert await world.count("batches") == 3
    await world.work()
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 1500
    told = await world.select("SELECT type, count(*) AS n FROM events GROUP BY type")
    assert {row["type"]: row["n"] for row in told}.items() >= {
        "order.accepted": 2,
        "import.ready": 1,
        "import.committed": 1,
    }.items()


async def test_a_worker_killed_between_two_orders_makes_none_twice_and_loses_none(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    import_id = await two_customers(world, partner)
    hold = "SELECT 1 FROM consents WHERE customer_id = :id FOR UPDATE"
    async with (
        open_transaction(world, hold, id=partner.other_customer_id),
        worker_process(world, tmp_path / "log") as worker,
    ):
        await until(world, "SELECT 1 FROM import_orders")
        await world.until_locked_out()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    await until_forgotten(world)
    assert await world.count("orders") == 1
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    await work_imports(world)
    await assert_everything_once(world, partner, import_id)


async def test_a_worker_killed_in_the_middle_of_an_order_leaves_nothing_of_it(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    import_id = await two_customers(world, partner)
    hold = "SELECT 1 FROM consents WHERE customer_id = :id FOR UPDATE"
    async with (
        open_transaction(world, hold, id=partner.customer_id),
        worker_process(world, tmp_path / "log") as worker,
    ):
        await world.until_locked_out()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    await until_forgotten(world)
    assert await world.count("orders") == 0
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    await work_imports(world)
    await assert_everything_once(world, partner, import_id)


async def test_consent_given_while_the_order_is_stored_sends_it_at_once(world: World, tmp_path: Path) -> None:
    partner = await world.partner(consented=False)
    found = await preview(world, partner, tuple_sheet(3))
    await commit(world, partner, found["id"])
    change = "UPDATE consents SET state = 'granted' WHERE customer_id = :id"
    async with open_transaction(world, change, keep=True, id=partner.customer_id):
        working = asyncio.create_task(work_imports(world))
        await world.until_locked_out()
    await working
    [batch] = await world.select("SELECT state FROM batches")
    assert batch["state"] == "queued"
    assert (await world.count("orders"), await world.count("registrations")) == (1, 3)


async def test_an_api_killed_while_a_file_arrives_leaves_an_upload_that_is_discarded(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    async with api_process(world, tmp_path / "log", port) as api:
        line = await connected(port)
        line.write(
            f"POST /v1/imports HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {partner.key}\r\n"
            f"Content-Length: {3 * PIECE}\r\n\r\n".encode()
        )
        line.write(b"x" * (PIECE + 1))
        await until(world, "SELECT 1 FROM import_pieces")
        api.send_signal(signal.SIGKILL)
        await api.wait()
        line.close()
    [record] = await world.select("SELECT id, state FROM imports")
    assert record["state"] == "uploading"
    assert await work_imports(world) == 0

    import_id = await upload(world, partner, tuple_sheet(2))
    world.clock.advance(seconds=UPLOAD_PATIENCE.total_seconds() + 1)
    await work_imports(world)
    assert (await look(world, partner, str(record["id"])))["state"] == "discarded"
    assert (await look(world, partner, import_id))["state"] == "ready"
    assert await world.count("import_pieces") == 0


async def connected(port: int) -> asyncio.StreamWriter:
    """A connection to a server that may still be starting."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return (await asyncio.open_connection("127.0.0.1", port))[1]
            except OSError:
                await asyncio.sleep(0.05)
