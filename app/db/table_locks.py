"""The table locks of a migration: all at once, before anything else, and never at a caller's expense.

A migration that takes one lock after another meets running transactions in deadlocks, and PostgreSQL may end
the other side: a caller gets an error. So a migration names its locks (`LOCKS`) and takes them first. While
it waits it looks every tenth of a second whether one that it waits for waits for it. Then it gives way, long
before PostgreSQL looks for deadlocks (`deadlock_timeout`, 1 s as delivered); `schema.migrate` tries again.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, text

READ: Final = "SHARE"
"""Enough to build an index. Nobody writes to the table meanwhile."""
REFERENCE: Final = "SHARE ROW EXCLUSIVE"
"""Enough to make a trigger, or a foreign key to the table. Nobody writes to it meanwhile."""
UPDATE: Final = "EXCLUSIVE"
"""Enough to change rows without waiting for one. Nobody writes to the table or locks a row meanwhile."""
ALTER: Final = "ACCESS EXCLUSIVE"
"""Enough for everything. Nobody reads the table meanwhile."""

CALLERS_ORDER: Final = (
    "consents", "orders", "batches", "group_tags", "batch_attempts", "registrations", "device_hashes",
    "events",
)  # fmt: skip
"""The order in which callers lock these tables. Taken in the same order, locks rarely cross."""
LAST: Final = ("idempotency_keys", "customers", "connections", "partners")
"""Callers lock these when they hold others: foreign keys look at them."""

# Each table alone first, and the lock given back: for longer than `deadlock_timeout`, after which PostgreSQL
# sends an automatic vacuum away. No lock is held meanwhile, so there can be no deadlock.
_TRY_EACH = """
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{statements}] LOOP
        BEGIN
            EXECUTE wanted;
            RAISE EXCEPTION USING ERRCODE = 'RG000';
        EXCEPTION WHEN SQLSTATE 'RG000' THEN NULL;
        END;
    END LOOP;
END $$
"""
_TAKE_ALL = """
DO $$
DECLARE
    wanted text;
    circle boolean;
    until timestamptz := clock_timestamp() + interval '5 s';
BEGIN
    SET LOCAL lock_timeout = '100ms';
    FOREACH wanted IN ARRAY ARRAY[{statements}] LOOP
        LOOP
            BEGIN
                EXECUTE wanted;
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                WITH RECURSIVE waiting AS MATERIALIZED (
                    SELECT pid, pg_blocking_pids(pid) AS whom FROM pg_locks WHERE NOT granted
                ), behind AS (
                    SELECT pid FROM waiting WHERE pg_backend_pid() = ANY(whom)
                    UNION SELECT w.pid FROM waiting w JOIN behind b ON b.pid = ANY(w.whom)
                )
                SELECT EXISTS (SELECT FROM pg_locks l JOIN behind USING (pid) WHERE l.granted
                    AND l.locktype = 'relation' AND l.relation = split_part(wanted, ' ', 3)::regclass)
                INTO circle;
                IF circle OR clock_timestamp() > until THEN
                    RAISE lock_not_available USING
                        MESSAGE = format('other transactions use the table %s', split_part(wanted, ' ', 3));
                END IF;
            END;
        END LOOP;
    END LOOP;
END $$
"""
_EVERY_TABLE = (
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
)
# A connection that begins meanwhile prepares nothing of these tables before the migration is done.
_END_CONNECTIONS = """
DO $$
DECLARE
    other integer;
BEGIN
    FOR other IN SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'registrar-%' AND pid <> pg_backend_pid()
    LOOP
        PERFORM pg_terminate_backend(other);
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def take(connection: Connection, locks: Mapping[str, str]) -> None:
    """Takes the locks by table, until the transaction ends. The first thing a migration does.

    Raises DBAPIError with SQLSTATE 55P03 when other transactions are in the way: after 5 s, or at once where
    waiting would never end.
    """
    connection.execute(text("SET LOCAL lock_timeout = '3s'"))
    if locks:
        names = sorted(locks, key=lambda name: (_place(name), name))
        statements = ", ".join(f"'LOCK TABLE {name} IN {locks[name]} MODE'" for name in names)
        connection.execute(text(_TRY_EACH.format(statements=statements)))
        connection.execute(text(_TAKE_ALL.format(statements=statements)))


def take_every_table(connection: Connection) -> None:
    """For what changes all tables, and for a downgrade."""
    take(connection, dict.fromkeys(connection.execute(text(_EVERY_TABLE)).scalars(), ALTER))


def end_prepared_statements(connection: Connection) -> None:
    """Ends the connections of running processes, which make new ones. The last thing that a migration does
    which adds a column to a table that the release before reads with `*`: its prepared statements would each
    fail once. Where the login may not end another login's connections, they do.
    """
    connection.execute(text(_END_CONNECTIONS))


def _place(table: str) -> int:
    if table in LAST:
        return len(CALLERS_ORDER) + 1 + LAST.index(table)
    return CALLERS_ORDER.index(table) if table in CALLERS_ORDER else len(CALLERS_ORDER)
