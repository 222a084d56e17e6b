"""Search by fragments of serial numbers, which needs the PostgreSQL extension pg_trgm.

`registrar migrate` creates the index at any time, because an administrator may install pg_trgm later.
"""

from typing import Final

from sqlalchemy import pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import driver
from app.db.connecting import make_engine
from app.db.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from app.db.tables.devices import TRIGRAMS
from app.domain.devices import SerialNumberSearch
from app.kernel.telemetry import logger

log = logger("serial_search")

_IS_READY = (
    "SELECT EXISTS (SELECT FROM pg_index WHERE indisvalid "
    f"AND indexrelid = to_regclass('public.{TRIGRAMS}')) AS ready"
)
_AVAILABLE = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')"
_SCHEMA = (
    "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
    "WHERE e.extname = 'pg_trgm'"
)
# The process that makes the index holds this lock. It is one plain statement, so that the transaction keeps
# no snapshot: CREATE INDEX CONCURRENTLY would wait for that.
_ALONE = """
DO $$ BEGIN
    IF NOT pg_try_advisory_xact_lock(7431985025) THEN
        RAISE lock_not_available USING MESSAGE = 'another process makes the index';
    END IF;
END $$
"""
_REFUSED: Final = frozenset({"42501", "0A000", "58P01"})
"""SQLSTATEs: the login lacks the right, the service forbids it, or the extension's files are missing."""


async def mode(session: AsyncConnection) -> SerialNumberSearch:
    ready = (await session.execute(text(_IS_READY))).scalar_one()
    return SerialNumberSearch.FRAGMENT if ready else SerialNumberSearch.PREFIX


async def enable(url: str) -> SerialNumberSearch:
    """Creates the extension and the index if the database allows it, without blocking anybody."""
    engine = make_engine(url, poolclass=pool.NullPool)
    try:
        async with engine.connect() as guard:
            await driver.run(guard, _ALONE, {})
            async with engine.connect() as session:
                await session.execution_options(isolation_level="AUTOCOMMIT")
                await _enable(session)
            return await mode(guard)
    except DBAPIError as error:
        if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
            raise
        return SerialNumberSearch.PREFIX  # until the other process has finished
    finally:
        await engine.dispose()


async def _enable(session: AsyncConnection) -> None:
    if not (await session.execute(text(_AVAILABLE))).scalar_one():
        return
    if (await session.execute(text(_IS_READY))).scalar_one():
        return
    try:
        await session.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
        await _make_index(session)
    except DBAPIError as error:
        if sqlstate_of(error) not in _REFUSED:
            raise
        log.warning("serial_number_search_by_prefix", remedy="CREATE EXTENSION pg_trgm")


async def _make_index(session: AsyncConnection) -> None:
    schema = (await session.execute(text(_SCHEMA))).scalar_one()
    # An index that was interrupted cannot be used and blocks a new one.
    await session.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {TRIGRAMS}"))
    await session.execute(
        text(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {TRIGRAMS} ON devices "
            f"USING gin (serial_number {schema}.gin_trgm_ops)"
        )
    )
