"""Takes a migration's table locks: all at once, at the start, and without causing callers errors.

Locks taken one after another can deadlock with running transactions, and PostgreSQL may then end the other
side: a caller gets an error. So a migration names its locks (`LOCKS`) and takes them first. While it waits,
it checks every tenth of a second whether a transaction it waits for waits for it in turn. Then it gives way,
long before PostgreSQL looks for deadlocks (`deadlock_timeout`, by default 1 s); `schema.migrate` tries again.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, text

READ: Final = "SHARE"
"""Enough to build an index. Blocks writers to the table."""
REFERENCE: Final = "SHARE ROW EXCLUSIVE"
"""Enough to create a trigger, or a foreign key to the table. Blocks writers to it."""
UPDATE: Final = "EXCLUSIVE"
"""Enough to change rows without waiting for row locks. Blocks writers and row locks."""
ALTER: Final = "ACCESS EXCLUSIVE"
"""Enough for everything. Blocks readers too."""

CALLERS_ORDER: Final = (
    "consents", "orders", "batches", "group_tags", "batch_attempts", "registrations", "device_hashes",
    "events",
)  # fmt: skip
"""The order in which callers lock these tables. Migrations use the same order, so deadlocks are rare."""
LAST: Final = ("idempotency_keys", "customers", "connections", "partners")
"""Callers lock these last, because foreign keys check them."""

# First takes and releases each lock alone, waiting longer than `deadlock_timeout`: after that, PostgreSQL
# cancels an automatic vacuum that is in the way. No other lock is held meanwhile, so there can be no
# deadlock.
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
# Connections made meanwhile cannot prepare statements on these tables before the migration has ended.
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
    """Takes the locks, by table, until the transaction ends. Call this first in a migration.

    Raises DBAPIError with SQLSTATE 55P03 if other transactions hold locks: after 5 s, or at once if waiting
    would never end.
    """
    connection.execute(text("SET LOCAL lock_timeout = '3s'"))
    if locks:
        names = sorted(locks, key=lambda name: (_place(name), name))
        statements = ", ".join(f"'LOCK TABLE {name} IN {locks[name]} MODE'" for name in names)
        connection.execute(text(_TRY_EACH.format(statements=statements)))
        connection.execute(text(_TAKE_ALL.format(statements=statements)))


def take_every_table(connection: Connection) -> None:
    """Locks all tables: for a migration that changes all of them, and for a downgrade."""
    take(connection, dict.fromkeys(connection.execute(text(_EVERY_TABLE)).scalars(), ALTER))


def end_prepared_statements(connection: Connection) -> None:
    """Ends the connections of running processes, which then open new ones. Call this last in a migration that
    adds a column to a table that the previous release reads with `*`: otherwise each of its prepared
    statements fails once, as they do if the login may not end other logins' connections.
    """
    connection.execute(text(_END_CONNECTIONS))


def _place(table: str) -> int:
    if table in LAST:
        return len(CALLERS_ORDER) + 1 + LAST.index(table)
    return CALLERS_ORDER.index(table) if table in CALLERS_ORDER else len(CALLERS_ORDER)
