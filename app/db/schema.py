"""Migrates the database to the version that this program needs, and checks which version it has.

The migrations are read from disk, not imported: the product must not depend on them.
"""

import asyncio
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import serial_search
from app.db.connecting import make_engine
from app.db.sqlstate import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate_of
from app.kernel.telemetry import logger

log = logger("schema")

IN_THE_WAY = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED})
"""SQLSTATEs of a lock that was not free in time, and of a deadlock in which the migration gave way."""
PATIENCE = 60.0
PAUSE = 0.5
"""Seconds between attempts, in which transactions that hold the locks can end."""

ADVISORY_LOCK = 7_431_985_023
"""Held by the process that migrates."""

# The roles exist. A login that is a member without inheriting rights can connect by its own name only.
_CLOSED = """
DO $$
DECLARE
    login record;
    closed boolean := NOT EXISTS (
        SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS acl
        WHERE d.datname = current_database() AND acl.grantee = 0);
BEGIN
    IF NOT (SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database
        WHERE datname = current_database())
    THEN
        RETURN;
    END IF;
    FOR login IN SELECT rolname AS name FROM pg_roles
        WHERE rolname IN ('registrar_app', 'registrar_system')
        OR rolcanlogin AND NOT rolsuper AND pg_has_role(oid, 'registrar_app', 'MEMBER')
        AND (NOT closed OR NOT has_database_privilege(oid, current_database(), 'CONNECT'))
    LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login.name);
    END LOOP;
    IF NOT closed THEN
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $$
"""

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def migrate(url: str) -> str:
    """Upgrades the database to the newest revision and returns its name.

    Revokes PUBLIC's right to connect, each time: backups do not contain a database's rights. If the login
    does not own the database, an administrator must do that, and processes say so when they start. Creates
    the index for fragments of serial numbers if it is missing and the database has pg_trgm.

    Several processes may call this at once: they take turns. Within one process, calls must not overlap,
    because Alembic keeps its state in globals. A migration that cannot lock a table in time is tried again
    for about PATIENCE; then DBAPIError is raised, and none of it has been applied.
    """
    engine = make_engine(url, poolclass=pool.NullPool)
    gives_up_at = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                async with engine.connect() as connection:
                    await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))
                async with engine.begin() as connection:
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                    await connection.execute(text(_CLOSED))
                await serial_search.enable(url)
                return newest()
            except DBAPIError as error:
                if sqlstate_of(error) not in IN_THE_WAY or time.monotonic() > gives_up_at:
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
