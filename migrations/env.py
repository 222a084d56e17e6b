"""Runs migrations on a connection handed over by `app.db.schema`, or on REGISTRAR_DATABASE_URL.

One at a time: an advisory lock makes a second migrating process wait for the first. It belongs to
the session and not to a transaction, because every migration commits on its own.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.tables import metadata

ADVISORY_LOCK = 7_431_985_023


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Waits until no other session migrates this database, and keeps others waiting."""
    connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()  # after a failure; otherwise there is nothing left to roll back
        connection.execute(text(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})"))
        connection.commit()


def run(connection: Connection) -> None:
    with alone(connection):
        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


async def run_on_url(url: str) -> None:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    asyncio.run(run_on_url(os.environ["REGISTRAR_DATABASE_URL"]))
