"""No process runs without row-level security: each reports the fault in one line and ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from app.cli import app as command_line
from app.db import schema, walls
from app.db.connecting import make_engine
from app.db.engine import become_partner
from app.db.walls import WallsDown
from app.domain.ids import PartnerId
from app.main import build
from app.runtime import Runtime
from tests.support import rows
from tests.support.servers import Servers, empty_database
from tests.support.worker import worker_process
from tests.support.world import World

PATIENCE = 100.0
"""Seconds that a process has to start; on an idle machine two are enough."""


async def test_the_walls_stand_after_the_migrations(owner: AsyncConnection) -> None:
    assert await walls.are_up(owner) is True


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("ALTER TABLE orders DISABLE ROW LEVEL SECURITY", "row-level security is off on orders"),
        ("ALTER TABLE orders NO FORCE ROW LEVEL SECURITY", "row-level security is not forced on orders"),
        ("DROP POLICY own_rows ON partners", "no policy binds registrar_app to a partner on partners"),
        (
            "CREATE POLICY more ON orders USING (true)",
            "a policy shows registrar_app every partner's rows of orders",
        ),
        (
            "ALTER POLICY own_rows ON orders WITH CHECK (true)",
            "a policy shows registrar_app every partner's rows of orders",
        ),
        ("DROP POLICY every_row ON device_hashes", "no policy lets registrar_system work on device_hashes"),
        (
            "CREATE TABLE later (partner_id uuid)",
            "row-level security is off on later; row-level security is not forced on later",
        ),
    ],
)
async def test_each_hole_is_named(owner: AsyncConnection, damage: str, words: str) -> None:
    await owner.execute(text(damage))
    with pytest.raises(WallsDown) as caught:
        await walls.are_up(owner)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_role_that_does_not_last_for_a_transaction_is_seen(database_url: str) -> None:
    """As behind a pooler that changes the connection after each statement."""
    engine = make_engine(database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as session:
            with pytest.raises(WallsDown, match="a transaction runs as registrar, not as registrar_app"):
                await walls.are_up(session)
    finally:
        await engine.dispose()


async def test_a_connection_that_forgot_its_role_shows_one_partner_all_the_same(
    world: World, database_url: str
) -> None:
    """As behind a pooler that ignores the parameter `role`: the login owns the tables and could read all."""
    async with world.runtime.system_transaction() as tx:
        mine, _ = await rows.fill(tx.session)
        await rows.fill(tx.session)
    engine = make_engine(database_url, poolclass=NullPool)
    try:
        async with engine.begin() as session:
            await become_partner(session, PartnerId(mine))
            seen = await session.execute(text("SELECT current_user, partner_id FROM orders"))
            assert [tuple(row) for row in seen] == [("registrar_app", mine)]
    finally:
        await engine.dispose()


async def test_every_process_says_why_it_does_not_start(
    world: World, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with empty_database(servers.database_url) as url:
        await schema.migrate(url)
        engine = make_engine(url, poolclass=NullPool)
        async with engine.begin() as session:
            await session.execute(text("ALTER TABLE orders NO FORCE ROW LEVEL SECURITY"))
        await engine.dispose()
        log = tmp_path / "worker.log"
        async with worker_process(world, log, database_url=url) as worker, asyncio.timeout(PATIENCE):
            code = await worker.wait()
        api = build(world.runtime.settings.model_copy(update={"database_url": url}))
        with pytest.raises(WallsDown):
            async with api.router.lifespan_context(api):
                pytest.fail("it must not start")
        monkeypatch.setenv("REGISTRAR_DATABASE_URL", url)
        monkeypatch.setenv("REGISTRAR_REDIS_URL", str(world.runtime.settings.redis_url))
        command = await to_thread.run_sync(lambda: CliRunner().invoke(command_line, ["partner", "list"]))
    assert (code, command.exit_code) == (1, 1), command.output
    for words in (log.read_text(), api.state.startup_failure, command.output):
        assert "Traceback" not in words
        said = " ".join(words.split())
        assert said.count("row-level security is not forced on orders") == 1, words


async def test_walls_are_looked_at_as_soon_as_there_is_a_schema(world: World, servers: Servers) -> None:
    async with empty_database(servers.database_url) as url:
        runtime = await Runtime.open(world.runtime.settings.model_copy(update={"database_url": url}))
        try:
            await schema.migrate(url)
            engine = make_engine(url, poolclass=NullPool)
            async with engine.begin() as session:
                await session.execute(text("DROP POLICY own_rows ON orders"))
            with pytest.raises(WallsDown):
                async with runtime.system_transaction():
                    pytest.fail("nothing may run")
            async with engine.begin() as session:
                await session.execute(
                    text(
                        "CREATE POLICY own_rows ON orders TO registrar_app USING (partner_id = "
                        "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid))"
                    )
                )
            await engine.dispose()
            async with runtime.system_transaction() as tx:
                assert (await tx.session.execute(text("SELECT count(*) FROM orders"))).scalar_one() == 0
        finally:
            await runtime.close()
