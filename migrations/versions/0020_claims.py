"""Claims name their worker, connections their mode, and a reading of a customers list is claimed.

The release before reads batches, deliveries and connections with `*`. PostgreSQL refuses what it has prepared
once the tables have other columns, so its connections are ended: it makes new ones. What was under way is rolled
back, and answered 503 or done again. Its connections always have credentials: the default is their mode. Its
claims name no worker, and the bridge takes away the name that an earlier claim has left. Only expands.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "connections": table_locks.ALTER,
    "batches": table_locks.ALTER,
    "deliveries": table_locks.ALTER,
    "imports": table_locks.ALTER,
}

# To be taken down in the next release. Its statements do not say at the connection that they name the worker.
FORGET_WORKER = """
CREATE FUNCTION forget_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I SET %I = NULL WHERE partner_id = $1 AND id = $2', TG_TABLE_NAME, TG_ARGV[0])
        USING NEW.partner_id, NEW.id;
    RETURN NULL;
END $$
"""
BRIDGED = {"batches": "", "deliveries": "", "connections": "token_"}
"""The tables whose rows the release before claims, and the prefix of the claim's columns."""


def _bridge(table: str, prefix: str) -> str:
    owner, worker = f"{prefix}owner", f"{prefix}worker_id"
    return (
        f"CREATE TRIGGER forgotten_worker AFTER UPDATE OF {owner} ON {table} FOR EACH ROW WHEN ("
        f"OLD.{worker} IS NOT NULL AND NEW.{worker} = OLD.{worker} AND NEW.{owner} IS DISTINCT FROM OLD.{owner} "
        "AND current_setting('registrar.row_states', true) IS DISTINCT FROM 'of_batch') "
        f"EXECUTE FUNCTION forget_worker('{worker}')"
    )


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.add_column(
        "batches",
        sa.Column("worker_id", sa.Text(), comment="the worker that made it; none where a person did"),
    )
    for table in ("deliveries", "imports"):
        op.add_column(table, sa.Column("worker_id", sa.Text()))
    for column in (
        sa.Column("mode", sa.Text(), nullable=False, server_default="api"),
        sa.Column("token_worker_id", sa.Text()),
        sa.Column("reading_owner", sa.Uuid()),
        sa.Column("reading_lease_until", sa.DateTime(timezone=True)),
        sa.Column("reading_worker_id", sa.Text()),
    ):
        op.add_column("connections", column)
    op.execute("UPDATE connections SET mode = 'portal' WHERE client_id IS NULL")
    op.create_check_constraint(op.f("ck_connections_mode_known"), "connections", "mode IN ('api', 'portal')")
    op.create_check_constraint(
        op.f("ck_connections_api_has_credentials"), "connections", "mode = 'portal' OR client_id IS NOT NULL"
    )
    op.drop_index("ix_connections_portal", "connections")
    op.create_index(
        "ix_connections_portal", "connections", ["id"], postgresql_where=sa.text("mode = 'portal'")
    )
    op.create_index(
        "ix_connections_read",
        "connections",
        ["reading_lease_until"],
        postgresql_where=sa.text("reading_owner IS NOT NULL"),
    )
    op.execute(FORGET_WORKER)
    op.execute("REVOKE ALL ON FUNCTION forget_worker() FROM PUBLIC")
    for table, prefix in BRIDGED.items():
        op.execute(_bridge(table, prefix))
    table_locks.end_prepared_statements(op.get_bind())


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for table in BRIDGED:
        op.execute(f"DROP TRIGGER forgotten_worker ON {table}")
    op.execute("DROP FUNCTION forget_worker()")
    op.drop_index("ix_connections_read", "connections")
    op.drop_index("ix_connections_portal", "connections")
    op.create_index(
        "ix_connections_portal", "connections", ["id"], postgresql_where=sa.text("client_id IS NULL")
    )
    for table in ("batches", "deliveries", "imports"):
        op.drop_column(table, "worker_id")
    for column in ("mode", "token_worker_id", "reading_owner", "reading_lease_until", "reading_worker_id"):
        op.drop_column("connections", column)
    table_locks.end_prepared_statements(op.get_bind())
