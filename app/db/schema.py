"""Bringing the schema to the version this program knows, and telling whether it is there.

The migrations are read from disk, not imported: the product never depends on them.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.engine import normalise_url

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def migrate(url: str) -> str:
    """Upgrades the database to the newest revision and returns its name.

    Several processes may do so at once: they take turns. Within a process, one after another:
    Alembic keeps what it is doing in globals.
    """
    engine = create_async_engine(normalise_url(url), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))
    finally:
        await engine.dispose()
    return newest()


def newest() -> str:
    return ScriptDirectory.from_config(_config()).get_current_head() or "none"


async def current(session: AsyncConnection) -> str:
    return await session.run_sync(
        lambda sync: MigrationContext.configure(sync).get_current_revision() or "none"
    )
