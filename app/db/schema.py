"""Bringing the schema to the version this program knows, and telling whether it is there.

The migrations are read from disk, not imported: the product never depends on them.
"""

import asyncio
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.connecting import make_engine
from app.telemetry import logger

log = logger("schema")

IN_THE_WAY = frozenset({"55P03", "40P01"})
"""SQLSTATE of a lock that was not to be had in time, and of a deadlock in which the migration gave way."""
PATIENCE = 60.0
PAUSE = 0.5
"""Seconds; those who were in the way get to the end of their transactions."""

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def migrate(url: str) -> str:
    """Upgrades the database to the newest revision and returns its name.

    Several processes may do so at once: they take turns. Within a process, one after another:
    Alembic keeps what it is doing in globals. A migration that could not lock a table, because work is
    going on, is tried again for about PATIENCE; then DBAPIError is raised and nothing of it was done.
    """
    engine = make_engine(url, poolclass=pool.NullPool)
    gives_up_at = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                async with engine.connect() as connection:
                    await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))
                return newest()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in IN_THE_WAY or time.monotonic() > gives_up_at:
                    raise
                log.warning("migration_waits_for_tables")
            await asyncio.sleep(PAUSE)
    finally:
        await engine.dispose()


def newest() -> str:
    return ScriptDirectory.from_config(_config()).get_current_head() or "none"


async def current(session: AsyncConnection) -> str:
    return await session.run_sync(
        lambda sync: MigrationContext.configure(sync).get_current_revision() or "none"
    )
