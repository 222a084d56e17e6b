"""Runs migrations on a connection handed over by `app.db.schema`, or on REGISTRAR_DATABASE_URL.

One at a time: an advisory lock makes a second migrating process wait for the first. Every migration commits
on its own, so the lock belongs to a transaction of a second connection, which stays open meanwhile: a lock of
the session would be left behind on some connection of a pooler, and nobody could migrate again.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, pool, text

from app.db.connecting import make_engine
from app.db.schema import ADVISORY_LOCK
from app.db.tables import metadata


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Waits until no other process migrates this database, and keeps others waiting."""
    with connection.engine.connect() as guard:
        guard.execute(text("SELECT set_config('idle_in_transaction_session_timeout', '0', true)"))
        guard.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        yield
        guard.rollback()


def run(connection: Connection) -> None:
    with alone(connection):
        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
            on_version_apply=context.config.attributes.get("on_version_apply"),
        )
        with context.begin_transaction():
            context.run_migrations()


async def run_on_url(url: str) -> None:
    engine = make_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    asyncio.run(run_on_url(os.environ["REGISTRAR_DATABASE_URL"]))
